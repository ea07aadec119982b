package testnet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"sync"
	"time"
)

// How long what the CA issues is good for.
const (
	leafBefore  = time.Hour           // a certificate begins this long before it is issued
	leafFor     = 90 * 24 * time.Hour // and ends this long after
	issuerYears = 30                  // roots and intermediates last, either way, beyond any test
)

// CA is a certificate authority with one root and one intermediate, which
// signs the leaves. It is safe for concurrent use.
type CA struct {
	Name         string
	Root         *x509.Certificate
	Intermediate *x509.Certificate

	now      func() time.Time
	rootKey  *ecdsa.PrivateKey
	interKey *ecdsa.PrivateKey

	mu     sync.Mutex
	serial int64
	keys   map[string]*ecdsa.PrivateKey // of leaves, by name: a key outlives its certificates
}

// CertOptions says what a certificate is to look like. The zero value of each
// field is the honest choice.
type CertOptions struct {
	Names               []string // DNS-IDs in the subject alternative name
	Addrs               []netip.Addr
	CommonName          string    // default: the first of Names
	NotBefore, NotAfter time.Time // default: an hour ago, 90 days from now
	SelfSigned          bool
	NoIntermediate      bool              // the chain sent lacks the intermediate (incomplete)
	WithRoot            bool              // the chain sent includes the root
	Key                 *ecdsa.PrivateKey // default: the key this CA keeps for the first name
}

// NewCA makes a certificate authority whose certificates take their times from now.
func NewCA(name string, now func() time.Time) (*CA, error) {
	ca := &CA{Name: name, now: now, keys: make(map[string]*ecdsa.PrivateKey)}
	var err error
	if ca.rootKey, err = newKey(); err != nil {
		return nil, err
	}
	if ca.interKey, err = newKey(); err != nil {
		return nil, err
	}
	root := ca.issuer(name + " Root")
	if ca.Root, err = sign(root, root, &ca.rootKey.PublicKey, ca.rootKey); err != nil {
		return nil, fmt.Errorf("sign root of %s: %w", name, err)
	}
	inter := ca.issuer(name + " Intermediate")
	inter.MaxPathLenZero = true
	if ca.Intermediate, err = sign(inter, ca.Root, &ca.interKey.PublicKey, ca.rootKey); err != nil {
		return nil, fmt.Errorf("sign intermediate of %s: %w", name, err)
	}
	return ca, nil
}

// Issue makes a certificate. Its PrivateKey, chain and Leaf are set.
func (ca *CA) Issue(o CertOptions) (tls.Certificate, error) {
	if o.CommonName == "" && len(o.Names) > 0 {
		o.CommonName = o.Names[0]
	}
	now := ca.now()
	if o.NotBefore.IsZero() {
		o.NotBefore = now.Add(-leafBefore)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = now.Add(leafFor)
	}
	key := o.Key
	if key == nil {
		var err error
		if key, err = ca.key(o.CommonName); err != nil {
			return tls.Certificate{}, err
		}
	}
	leaf := &x509.Certificate{
		SerialNumber: ca.nextSerial(),
		Subject:      pkix.Name{CommonName: o.CommonName},
		DNSNames:     o.Names,
		NotBefore:    o.NotBefore,
		NotAfter:     o.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, a := range o.Addrs {
		leaf.IPAddresses = append(leaf.IPAddresses, a.AsSlice())
	}
	parent, signer := ca.Intermediate, ca.interKey
	if o.SelfSigned {
		parent, signer = leaf, key
	}
	signed, err := sign(leaf, parent, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate for %s: %w", o.CommonName, err)
	}
	c := tls.Certificate{Certificate: [][]byte{signed.Raw}, PrivateKey: key, Leaf: signed}
	if !o.SelfSigned && !o.NoIntermediate {
		c.Certificate = append(c.Certificate, ca.Intermediate.Raw)
	}
	if !o.SelfSigned && o.WithRoot {
		c.Certificate = append(c.Certificate, ca.Root.Raw)
	}
	return c, nil
}

// PEM returns the root as a CA file holds it.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})
}

func (ca *CA) issuer(cn string) *x509.Certificate {
	now := ca.now()
	return &x509.Certificate{
		SerialNumber:          ca.nextSerial(),
		Subject:               pkix.Name{CommonName: cn, Organization: []string{ca.Name}},
		NotBefore:             now.AddDate(-issuerYears, 0, 0),
		NotAfter:              now.AddDate(issuerYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func (ca *CA) nextSerial() *big.Int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.serial++
	return big.NewInt(ca.serial)
}

func (ca *CA) key(name string) (*ecdsa.PrivateKey, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if k := ca.keys[name]; k != nil {
		return k, nil
	}
	k, err := newKey()
	if err != nil {
		return nil, err
	}
	ca.keys[name] = k
	return k, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return k, nil
}

func sign(c, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// digest is the SHA-256 of a public key as TLSA selector 1, matching type 1
// has it (RFC 6698 §2.1).
func digest(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("marshal public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}
