package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/pawl-mail/pawl/internal/resolve"
)

// Algorithm is how a key signs.
type Algorithm string

// The algorithms of RFC 8301 and RFC 8463.
const (
	RSA     Algorithm = "rsa"     // rsa-sha256
	Ed25519 Algorithm = "ed25519" // ed25519-sha256
)

// Service is what mail a key signs (the s= tag of its record, RFC 6376 §3.6.1).
type Service string

// The services.
const (
	Email  Service = "email"  // all mail; its record has no s= tag
	TLSRPT Service = "tlsrpt" // the reports of RFC 8460 §3 and nothing else
)

const (
	// minRSA is what signers have at least (RFC 8301 §3.2), and newRSA what a new
	// key has: its record still fits into one UDP answer.
	minRSA = 2048
	newRSA = 2048
	// maxRSA is what verifiers must be able to take (RFC 8301 §3.2).
	maxRSA = 4096
)

// The errors for which a key is refused.
var (
	ErrName = errors.New("not a usable name for a DKIM key")
	ErrKey  = errors.New("not a usable DKIM key")
)

// Key is a private key with where its public half is published.
type Key struct {
	Domain     string // d=, in A-labels
	Selector   string // s=, in lower case
	Service    Service
	Subdomains bool // it signs for the domain's subdomains as well
	signer     crypto.Signer
}

// New makes a key.
func New(domain, selector string, service Service, a Algorithm) (Key, error) {
	k := Key{Domain: domain, Selector: selector, Service: service}
	if err := k.names(); err != nil {
		return Key{}, err
	}
	var err error
	switch a {
	case Ed25519:
		_, k.signer, err = ed25519.GenerateKey(rand.Reader)
	case RSA:
		k.signer, err = rsa.GenerateKey(rand.Reader, newRSA)
	default:
		return Key{}, fmt.Errorf("%w: the algorithm %q is neither rsa nor ed25519", ErrKey, string(a))
	}
	if err != nil {
		return Key{}, fmt.Errorf("making a key for %s: %w", domain, err)
	}
	return k, nil
}

// names puts domain and selector into their one form. They become a file's
// path as well, so nothing but letters, digits, hyphens and single dots is let in.
func (k *Key) names() error {
	domain, err := resolve.Name(k.Domain)
	if err != nil || !hostname(domain) {
		return fmt.Errorf("%w: %q is not a domain", ErrName, k.Domain)
	}
	// RFC 6376 §3.1: a selector is a sub-domain, of one label or more.
	selector := strings.ToLower(k.Selector)
	if !hostname(selector) || len(selector)+len(keyLabel)+len(domain) > maxName {
		return fmt.Errorf("%w: %q is not a selector; use letters, digits and hyphens", ErrName, k.Selector)
	}
	k.Domain, k.Selector = domain, selector
	return nil
}

const (
	keyLabel = "._domainkey."
	maxName  = 253 // octets of a domain name as text
	maxLabel = 63
)

// hostname reports whether s is labels of letters, digits and inner hyphens.
func hostname(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// Algorithm is how the key signs.
func (k Key) Algorithm() Algorithm {
	if _, ok := k.signer.(ed25519.PrivateKey); ok {
		return Ed25519
	}
	return RSA
}

// Name is where the key's record is published (RFC 6376 §3.6.2.1).
func (k Key) Name() string { return k.Selector + keyLabel + k.Domain }

// public is the p= tag: RFC 6376 §3.6.1 for RSA, RFC 8463 §4.2 for Ed25519.
func (k Key) public() (string, error) {
	if p, ok := k.signer.Public().(ed25519.PublicKey); ok {
		return base64.StdEncoding.EncodeToString(p), nil
	}
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		return "", fmt.Errorf("writing the public key of %s: %w", k.Name(), err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// pemType is the PEM label of a private key (RFC 5958), and pemRSA that of
// older tools.
const (
	pemType = "PRIVATE KEY"
	pemRSA  = "RSA PRIVATE KEY"
)

// marshal writes the private key.
func (k Key) marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("writing the private key of %s: %w", k.Name(), err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// unmarshal reads what [Key.marshal] or openssl wrote.
func unmarshal(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: the file holds no key in PEM form", ErrKey)
	}
	var found any
	var err error
	switch block.Type {
	case pemType:
		found, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case pemRSA:
		found, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%w: the file holds a %q where a private key belongs", ErrKey, block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	switch key := found.(type) {
	case ed25519.PrivateKey:
		return key, nil
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("%w: an RSA key has %d to %d bits (RFC 8301 §3.2), this one %d", ErrKey, minRSA, maxRSA, bits)
		}
		return key, nil
	}
	return nil, fmt.Errorf("%w: it is neither RSA nor Ed25519", ErrKey)
}
