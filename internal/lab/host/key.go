package host

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	keyName = "key.pem" // in the data folder
	// selfSignedFor is how long a self-signed certificate holds, from the start of
	// the host on and for some time before.
	selfSignedFor = 10 * 365 * 24 * time.Hour
)

// Key is the key of the certificates that no CA signed. It is kept: the zone's
// TLSA records have its digest.
type Key struct{ private *ecdsa.PrivateKey }

// OpenKey reads the key of a data folder, and makes it where there is none.
func OpenKey(folder string) (Key, error) {
	name := filepath.Join(folder, keyName)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(name)
	}
	if err != nil {
		return Key{}, fmt.Errorf("the key of the lab's hosts: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return Key{}, fmt.Errorf("the key of the lab's hosts: %s has no PEM in it", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("the key of the lab's hosts: %s: %w", name, err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("the key of the lab's hosts: %s has a %T, not an ECDSA key", name, parsed)
	}
	return Key{private}, nil
}

func newKey(name string) (Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, err
	}
	if err := write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return Key{}, fmt.Errorf("the key of the lab's hosts: %w", err)
	}
	return Key{private}, nil
}

// digest is the association data of selector 1 and matching type 1 (RFC 6698
// §2.1); salted, it is that of a key that nobody has.
func (k Key) digest(salt string) string {
	spki, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		return "" // it is an ECDSA key, which can be written
	}
	sum := sha256.Sum256(append(spki, salt...))
	return hex.EncodeToString(sum[:])
}

// certificate makes a self-signed certificate for a name, or for none, that holds
// between two times.
func (k Key) certificate(name string, from, to time.Time) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "self-signed for a test"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name != "" {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		return nil, fmt.Errorf("a self-signed certificate for %q: %w", name, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.private}, nil
}

// write writes a file whole and durably, or not at all.
func write(name string, text []byte) error {
	folder := filepath.Dir(name)
	f, err := os.CreateTemp(folder, "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
