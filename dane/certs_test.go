package dane_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
)

// now is the time at which the tests verify; certificates are valid a year
// before and after it, unless a test says otherwise.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var serial atomic.Int64

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign has issuer sign what change makes of a plain template; a nil issuer means
// self-signed.
func sign(t testing.TB, key crypto.Signer, issuer *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		NotBefore:             now.Add(-365 * day),
		NotAfter:              now.Add(365 * day),
		BasicConstraintsValid: true,
	}
	change(template)
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// newCA makes a CA; changes come last.
func newCA(t testing.TB, name string, issuer *authority, changes ...func(*x509.Certificate)) *authority {
	t.Helper()
	return sign(t, newKey(t), issuer, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA = true
		c.KeyUsage = x509.KeyUsageCertSign
		for _, change := range changes {
			change(c)
		}
	})
}

// newLeaf makes a server certificate for "mx.example.com"; changes come last.
func newLeaf(t testing.TB, issuer *authority, changes ...func(*x509.Certificate)) *authority {
	t.Helper()
	return sign(t, newKey(t), issuer, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "a server"}
		c.DNSNames = []string{"mx.example.com"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, change := range changes {
			change(c)
		}
	})
}

func names(dnsNames ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = dnsNames }
}

func commonName(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
}

func expired(c *x509.Certificate) { c.NotAfter = now.Add(-day) }

func notYetValid(c *x509.Certificate) { c.NotBefore = now.Add(day) }

func chain(authorities ...*authority) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, a := range authorities {
		certs = append(certs, a.cert)
	}
	return certs
}

// tlsa makes the TLSA record that names a's certificate or key.
func tlsa(t testing.TB, usage, selector, matchingType uint8, a *authority) dane.Record {
	t.Helper()
	r, err := dane.NewRecord(a.cert, usage, selector, matchingType)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
