package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// now is the time at which the tests judge; certificates are valid a year before
// and after it, unless a test says otherwise.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const (
	day  = 24 * time.Hour
	host = "mx.example.com"
)

var serial atomic.Int64

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue has issuer sign what the changes make of a plain template; a nil issuer
// means self-signed.
func issue(t testing.TB, issuer *authority, changes ...func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		NotBefore:             now.Add(-365 * day),
		NotAfter:              now.Add(365 * day),
		BasicConstraintsValid: true,
	}
	for _, change := range changes {
		change(template)
	}
	parent, signer := template, crypto.Signer(key)
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

func ca(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA = true
		c.KeyUsage = x509.KeyUsageCertSign
	}
}

// server makes the template one of a mail server with DNS names.
func server(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "a server"}
		c.DNSNames = names
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
}

func commonName(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
}

func expired(c *x509.Certificate) { c.NotAfter = now.Add(-day) }

func notYetValid(c *x509.Certificate) { c.NotBefore = now.Add(day) }

func notForServers(c *x509.Certificate) {
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
}

// shown is a TLS session in which the host showed these certificates.
func shown(chain ...*authority) verify.Seen {
	state := &tls.ConnectionState{
		Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, HandshakeComplete: true, ServerName: host,
	}
	for _, a := range chain {
		state.PeerCertificates = append(state.PeerCertificates, a.cert)
	}
	return verify.Seen{STARTTLSOffered: true, State: state}
}

// pki is one small world of authorities and the certificates of one host.
type pki struct {
	roots                                           *x509.CertPool
	root, intermediate                              *authority
	good, expired, otherName, cnOnly                *authority
	selfSigned, unknownRoot, notYetValid, notServer *authority
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{roots: x509.NewCertPool()}
	p.root = issue(t, nil, ca("Root of Trust"))
	p.roots.AddCert(p.root.cert)
	p.intermediate = issue(t, p.root, ca("Intermediate"))
	p.good = issue(t, p.intermediate, server(host))
	p.expired = issue(t, p.intermediate, server(host), expired)
	p.notYetValid = issue(t, p.intermediate, server(host), notYetValid)
	p.otherName = issue(t, p.intermediate, server("other.example.net"))
	p.cnOnly = issue(t, p.intermediate, server(), commonName(host))
	p.notServer = issue(t, p.intermediate, server(host), notForServers)
	p.selfSigned = issue(t, nil, server(host))
	p.unknownRoot = issue(t, nil, ca("Root of Mistrust"))
	return p
}

func policyOf(mode mtasts.Mode) mtasts.Policy {
	return mtasts.Policy{Mode: mode, MX: []string{host}, MaxAge: 7 * day}
}

func sts(mode mtasts.Mode) *verify.STSDemand {
	return &verify.STSDemand{PolicyDomain: "example.com", Policy: policyOf(mode), Matched: true}
}

// tlsa is what usable records of these certificates' keys ask (usage 3).
func tlsa(t testing.TB, of ...*authority) *verify.DANEDemand {
	t.Helper()
	set := dane.Set{State: dane.Usable, Host: host, BaseDomain: host}
	for _, a := range of {
		r, err := dane.NewRecord(a.cert, dane.UsageDANEEE, dane.SelectorSPKI, dane.MatchSHA256)
		if err != nil {
			t.Fatal(err)
		}
		set.Records = append(set.Records, r)
	}
	return &verify.DANEDemand{Set: set, Reference: dane.Reference{BaseDomain: host, Names: []string{"example.com"}}}
}

// unusable is what a record asks that SMTP has no use for (usage 1).
func unusable(t testing.TB, of *authority) *verify.DANEDemand {
	t.Helper()
	d := tlsa(t, of)
	d.Set.State = dane.Unusable
	d.Set.Records[0].Usage = dane.UsagePKIXEE
	return d
}

func failedLookup() *verify.DANEDemand {
	return &verify.DANEDemand{Set: dane.Set{State: dane.Failed, Host: host}, Reference: dane.Reference{BaseDomain: host}}
}
