package testnet

import (
	"crypto/x509"
	"net/netip"
	"testing"
	"time"
)

func TestAHonestCertificateVerifiesNowAndNotInHalfAYear(t *testing.T) {
	c := NewClock(time.Time{})
	ca, err := NewCA("Test", c.Now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(CertOptions{Names: []string{"a.test"}, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, WithRoot: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(cert.Certificate) != 3 {
		t.Errorf("the chain has %d certificates, want 3", len(cert.Certificate))
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("the root is not PEM")
	}
	inter.AddCert(ca.Intermediate)
	verify := func(name string) error {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: name, CurrentTime: c.Now()})
		return err
	}
	for _, name := range []string{"a.test", "192.0.2.1"} {
		if err := verify(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if verify("b.test") == nil {
		t.Error("it verifies for another name")
	}
	c.Advance(180 * 24 * time.Hour)
	if verify("a.test") == nil {
		t.Error("it verifies half a year later")
	}
}

func TestANewCertificateOfANameKeepsItsKey(t *testing.T) {
	ca, err := NewCA("Test", NewClock(time.Time{}).Now)
	if err != nil {
		t.Fatal(err)
	}
	var keys [2]TLSA
	for i := range keys {
		cert, err := ca.Issue(CertOptions{Names: []string{"a.test"}})
		if err != nil {
			t.Fatal(err)
		}
		if keys[i].Data, err = digest(cert.Leaf.PublicKey); err != nil {
			t.Fatal(err)
		}
	}
	if string(keys[0].Data) != string(keys[1].Data) {
		t.Error("it does not")
	}
}
