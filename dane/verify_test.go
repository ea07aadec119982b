package dane_test

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
)

var mx = dane.Reference{BaseDomain: "mx.example.com"}

// good and bad check one verification.
func good(t testing.TB, chain []*x509.Certificate, ref dane.Reference, rs ...dane.Record) dane.Match {
	t.Helper()
	m, err := dane.Verify(chain, rs, ref, now)
	if err != nil {
		t.Fatalf("got %v, want a match", err)
	}
	return m
}

func bad(t testing.TB, result, reason string, chain []*x509.Certificate, ref dane.Reference, rs ...dane.Record) *dane.Error {
	t.Helper()
	m, err := dane.Verify(chain, rs, ref, now)
	var de *dane.Error
	if !errors.As(err, &de) {
		t.Fatalf("got match %+v, error %v; want %s", m, err, reason)
	}
	if de.ResultType() != result || de.FailureReason() != reason {
		t.Fatalf("got %s, %s (%v); want %s, %s", de.ResultType(), de.FailureReason(), err, result, reason)
	}
	if de.Host != ref.BaseDomain || !strings.HasPrefix(err.Error(), ref.BaseDomain+": ") || de.Advice() == "" {
		t.Fatalf("error %q with advice %q does not name the host and what to do", err, de.Advice())
	}
	return de
}

func TestEveryUsableCombinationAuthenticatesItsServer(t *testing.T) {
	root := newCA(t, "root", nil)
	inter := newCA(t, "intermediate", root)
	leaf, other := newLeaf(t, inter), newLeaf(t, inter)
	stranger := newCA(t, "stranger", nil)
	certs := chain(leaf, inter, root)
	for selector := range uint8(2) {
		for matchingType := range uint8(3) {
			for _, tt := range []struct {
				usage  uint8
				target *authority
				depth  int
				result string
				reason string
			}{
				{usage: 3, target: leaf, depth: 0},
				{usage: 2, target: inter, depth: 1},
				{usage: 2, target: root, depth: 2},
				{usage: 3, target: other, result: "certificate-not-trusted", reason: dane.ReasonMismatch},
				{usage: 3, target: inter, result: "certificate-not-trusted", reason: dane.ReasonMismatch},
				{usage: 2, target: stranger, result: "certificate-not-trusted"},
				{usage: 0, target: root, result: "tlsa-invalid", reason: dane.ReasonUnusable},
				{usage: 1, target: leaf, result: "tlsa-invalid", reason: dane.ReasonUnusable},
			} {
				name := fmt.Sprintf("%d %d %d of %s", tt.usage, selector, matchingType, tt.target.cert.Subject.CommonName)
				t.Run(name, func(t *testing.T) {
					r := tlsa(t, tt.usage, selector, matchingType, tt.target)
					if tt.result == "" {
						m := good(t, certs, mx, r)
						if m.Depth != tt.depth || !m.Record.Equal(r) || len(m.Path) != tt.depth+1 || m.Path[tt.depth] != tt.target.cert {
							t.Errorf("got depth %d, record %v, path of %d; want depth %d", m.Depth, m.Record, len(m.Path), tt.depth)
						}
						return
					}
					if tt.reason == "" { // a whole certificate is a trust anchor, but leads nowhere
						tt.reason = dane.ReasonAnchorMissing
						if selector == dane.SelectorCert && matchingType == dane.MatchFull {
							tt.reason = dane.ReasonChainInvalid
						}
					}
					bad(t, tt.result, tt.reason, certs, mx, r)
				})
			}
		}
	}
}

func TestRFC7672_3_1_1_NamesAndDatesDoNotCountWithUsage3(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
	}{
		{"another name", names("other.example")},
		{"no name", names()},
		{"expired", expired},
		{"not yet valid", notYetValid},
		{"a client certificate", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }},
		{"a CA certificate", func(c *x509.Certificate) { c.IsCA = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaf := newLeaf(t, newCA(t, "unknown", nil), tt.change)
			m := good(t, chain(leaf), mx, tlsa(t, 3, 1, 1, leaf))
			if m.Depth != 0 || m.Name != "" {
				t.Errorf("got depth %d, name %q; want 0 and none", m.Depth, m.Name)
			}
		})
	}
}

func TestUsage3LooksAtTheFirstCertificateOnly(t *testing.T) {
	leaf, other := newLeaf(t, nil), newLeaf(t, nil)
	bad(t, "certificate-not-trusted", dane.ReasonMismatch, chain(leaf, other), mx, tlsa(t, 3, 1, 1, other))

	var junk []*authority
	for range dane.MaxChainLength {
		junk = append(junk, other)
	}
	good(t, chain(slices.Insert(junk, 0, leaf)...), mx, tlsa(t, 3, 1, 1, leaf))
}

func TestRFC7672_3_2_OneMatchingRecordAuthenticates(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf, next := newLeaf(t, root), newLeaf(t, root)
	certs := chain(leaf, root)
	unusable := parse(t, "1 1 1 "+digest256)
	stale := parse(t, "3 1 1 "+digest256)

	m := good(t, certs, mx, unusable, stale, tlsa(t, 3, 1, 1, next), tlsa(t, 3, 1, 1, leaf))
	if m.Depth != 0 {
		t.Errorf("got depth %d, want 0", m.Depth)
	}
	m = good(t, certs, mx, unusable, stale, tlsa(t, 2, 0, 1, root))
	if m.Depth != 1 || m.Name != "mx.example.com" {
		t.Errorf("got depth %d, name %q; want 1, mx.example.com", m.Depth, m.Name)
	}
	bad(t, "certificate-not-trusted", dane.ReasonMismatch, certs, mx, unusable, stale, tlsa(t, 3, 1, 1, next))
	bad(t, "certificate-not-trusted", dane.ReasonMismatch, certs, mx, stale, parse(t, "2 0 1 "+digest256))
}

func TestRFC7672_5_WeakerDigestIsNotTakenBesideAStronger(t *testing.T) {
	leaf := newLeaf(t, nil)
	weak, strongStale := tlsa(t, 3, 1, 1, leaf), parse(t, "3 1 2 "+digest512)
	bad(t, "certificate-not-trusted", dane.ReasonMismatch, chain(leaf), mx, weak, strongStale)
	good(t, chain(leaf), mx, weak, strongStale, tlsa(t, 3, 1, 0, leaf))
	good(t, chain(leaf), mx, tlsa(t, 3, 0, 1, leaf), strongStale) // another selector
	good(t, chain(leaf), mx, weak, parse(t, "3 1 2 "+digest256))  // malformed
}

func TestVerifyFailsClosedOnWhatItCannotUse(t *testing.T) {
	leaf := newLeaf(t, nil)
	record := tlsa(t, 3, 1, 1, leaf)
	bad(t, "dane-required", dane.ReasonNoRecords, chain(leaf), mx)
	bad(t, "validation-failure", dane.ReasonNoCertificate, nil, mx, record)
	bad(t, "validation-failure", dane.ReasonNoCertificate, []*x509.Certificate{nil}, mx, record)
	bad(t, "validation-failure", dane.ReasonNoCertificate, []*x509.Certificate{{}}, mx, parse(t, "3 0 1 "+digest256)) // the digest of nothing
	bad(t, "tlsa-invalid", dane.ReasonUnusable, chain(leaf), mx, tlsa(t, 1, 1, 1, leaf), parse(t, "3 1 1 00"))
	bad(t, "tlsa-invalid", dane.ReasonTooManyRecords, chain(leaf), mx, slices.Repeat([]dane.Record{record}, dane.MaxRecords+1)...)
	good(t, chain(leaf), mx, slices.Repeat([]dane.Record{record}, dane.MaxRecords)...)
}

func TestZeroTimeIsThePresent(t *testing.T) {
	root := newCA(t, "root", nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-day), time.Now().Add(day) })
	leaf := newLeaf(t, root, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-day), time.Now().Add(day) })
	if _, err := dane.Verify(chain(leaf, root), []dane.Record{tlsa(t, 2, 0, 1, root)}, mx, time.Time{}); err != nil {
		t.Error(err)
	}
	old := newLeaf(t, root, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	if _, err := dane.Verify(chain(old, root), []dane.Record{tlsa(t, 2, 0, 1, root)}, mx, time.Time{}); err == nil {
		t.Error("an expired certificate passed")
	}
}

func TestRFC7672_3_1_2_TrustAnchorMustBeInTheChain(t *testing.T) {
	root := newCA(t, "root", nil)
	inter := newCA(t, "intermediate", root)
	leaf := newLeaf(t, inter)
	for _, r := range []dane.Record{
		tlsa(t, 2, 0, 1, root), tlsa(t, 2, 0, 2, root), tlsa(t, 2, 1, 1, root), tlsa(t, 2, 1, 2, root),
	} {
		good(t, chain(leaf, inter, root), mx, r)
		bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(leaf, inter), mx, r)
	}
}

func TestRFC7671_5_2_2_TrustAnchorGivenWholeNeedNotBeInTheChain(t *testing.T) {
	root := newCA(t, "root", nil)
	inter := newCA(t, "intermediate", root)
	leaf := newLeaf(t, inter)
	m := good(t, chain(leaf, inter), mx, tlsa(t, 2, 0, 0, root))
	if m.Depth != 2 || !m.Path[2].Equal(root.cert) {
		t.Errorf("got depth %d of a path of %d, want the root at 2", m.Depth, len(m.Path))
	}
	good(t, chain(leaf), mx, tlsa(t, 2, 0, 0, inter))
	bad(t, "certificate-not-trusted", dane.ReasonChainInvalid, chain(leaf), mx, tlsa(t, 2, 0, 0, root))
	bad(t, "certificate-expired", dane.ReasonExpired, chain(newLeaf(t, root, expired)), mx, tlsa(t, 2, 0, 0, root))
	bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch, chain(newLeaf(t, root, names("other.example"))), mx, tlsa(t, 2, 0, 0, root))
}

func TestRFC7671_5_2_3_BareKeyOfTheTrustAnchorSignsTheTopmostCertificate(t *testing.T) {
	root := newCA(t, "root", nil)
	inter := newCA(t, "intermediate", root)
	leaf := newLeaf(t, inter)
	key := tlsa(t, 2, 1, 0, root)

	m := good(t, chain(leaf, inter), mx, key)
	if m.Depth != 2 || len(m.Path) != 2 || m.Name != "mx.example.com" {
		t.Errorf("got depth %d, path of %d, name %q; want the key above two certificates", m.Depth, len(m.Path), m.Name)
	}
	if m := good(t, chain(newLeaf(t, root)), mx, key); m.Depth != 1 || len(m.Path) != 1 {
		t.Errorf("leaf signed by the key: got depth %d, path of %d", m.Depth, len(m.Path))
	}
	if m := good(t, chain(leaf, inter, root), mx, key); m.Depth != 2 || len(m.Path) != 3 {
		t.Errorf("key's certificate in the chain: got depth %d, path of %d", m.Depth, len(m.Path))
	}

	stranger := newCA(t, "root", nil)
	bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(leaf, inter), mx, tlsa(t, 2, 1, 0, stranger))
	bad(t, "certificate-expired", dane.ReasonExpired, chain(newLeaf(t, root, expired)), mx, key)
	oldInter := newCA(t, "intermediate", root, expired)
	bad(t, "certificate-expired", dane.ReasonExpired, chain(newLeaf(t, oldInter), oldInter), mx, key)
	bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch, chain(newLeaf(t, root, names("other.example"))), mx, key)

	noCA := newLeaf(t, root) // a server certificate of the same CA issues another
	forged := newLeaf(t, noCA)
	bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(forged, noCA), mx, key)
	ed448 := parse(t, "2 1 0 300b3006060429050607030100")
	bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(leaf, inter), mx, ed448)
}

func TestBareRSAKeySignsTheTopmostCertificate(t *testing.T) {
	root := sign(t, rsaKey(t), nil, func(c *x509.Certificate) {
		c.Subject, c.IsCA = pkix.Name{CommonName: "root"}, true
	})
	good(t, chain(newLeaf(t, root)), mx, tlsa(t, 2, 1, 0, root))
	weak := newLeaf(t, root)
	weak.cert.SignatureAlgorithm = x509.SHA1WithRSA
	bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(weak), mx, tlsa(t, 2, 1, 0, root))
}

func TestTrustAnchorIsNeverTheServersOwnCertificate(t *testing.T) {
	leaf := newLeaf(t, nil, func(c *x509.Certificate) { c.IsCA = true })
	for _, r := range []dane.Record{tlsa(t, 2, 0, 0, leaf), tlsa(t, 2, 0, 1, leaf), tlsa(t, 2, 1, 1, leaf)} {
		bad(t, "certificate-not-trusted", dane.ReasonAnchorIsLeaf, chain(leaf), mx, r)
		bad(t, "certificate-not-trusted", dane.ReasonAnchorIsLeaf, chain(leaf, leaf), mx, r)
	}
	// The key signed the topmost certificate, which is the leaf: RFC 7671 §5.2.3.
	good(t, chain(leaf), mx, tlsa(t, 2, 1, 0, leaf))
}

func TestTrustAnchorMayBeAnIntermediateOrCrossSigned(t *testing.T) {
	oldRoot, newRoot := newCA(t, "old root", nil), newCA(t, "new root", nil)
	inter := newCA(t, "intermediate", newRoot)
	// The same name and key, signed by the old root.
	cross := sign(t, inter.key, oldRoot, func(c *x509.Certificate) {
		c.Subject, c.IsCA = inter.cert.Subject, true
	})
	leaf := newLeaf(t, inter)

	good(t, chain(leaf, inter), mx, tlsa(t, 2, 0, 1, inter))                  // its issuer is nowhere
	good(t, chain(leaf, cross, oldRoot), mx, tlsa(t, 2, 0, 1, oldRoot))       // by way of the cross certificate
	good(t, chain(leaf, inter, cross, oldRoot), mx, tlsa(t, 2, 0, 1, cross))  // not the one that comes first
	good(t, chain(leaf, oldRoot, cross), mx, tlsa(t, 2, 0, 1, oldRoot))       // out of order
	good(t, chain(leaf, cross), mx, tlsa(t, 2, 1, 1, inter))                  // by the key they share
	good(t, chain(leaf, newRoot, inter, leaf), mx, tlsa(t, 2, 0, 2, newRoot)) // with the leaf again
	bad(t, "certificate-not-trusted", dane.ReasonChainInvalid, chain(leaf, inter, oldRoot), mx, tlsa(t, 2, 0, 1, oldRoot))
}

func TestDatesOfAUsage2ChainCountAtTheGivenTime(t *testing.T) {
	root := newCA(t, "root", nil)
	for _, tt := range []struct {
		name           string
		result, reason string
		root, inter    func(*x509.Certificate)
		leaf           func(*x509.Certificate)
	}{
		{name: "server expired", leaf: expired, result: "certificate-expired", reason: dane.ReasonExpired},
		{name: "intermediate expired", inter: expired, result: "certificate-expired", reason: dane.ReasonExpired},
		{name: "trust anchor expired", root: expired, result: "certificate-expired", reason: dane.ReasonExpired},
		{name: "server not yet valid", leaf: notYetValid, result: "certificate-not-trusted", reason: dane.ReasonNotYetValid},
		{name: "intermediate not yet valid", inter: notYetValid, result: "certificate-not-trusted", reason: dane.ReasonNotYetValid},
		{
			name: "server expired, issued after the intermediate expired", inter: func(c *x509.Certificate) { c.NotAfter = now.Add(-100 * day) },
			leaf: func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-50*day), now.Add(-day) }, result: "certificate-expired", reason: dane.ReasonExpired,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			same := func(*x509.Certificate) {}
			or := func(f func(*x509.Certificate)) func(*x509.Certificate) {
				if f == nil {
					return same
				}
				return f
			}
			root := newCA(t, "root", nil, or(tt.root))
			inter := newCA(t, "intermediate", root, or(tt.inter))
			leaf := newLeaf(t, inter, or(tt.leaf))
			bad(t, tt.result, tt.reason, chain(leaf, inter, root), mx, tlsa(t, 2, 0, 1, root))
		})
	}
	t.Run("expired is not what is wrong if the chain is broken too", func(t *testing.T) {
		leaf := newLeaf(t, newCA(t, "root", nil), expired)
		bad(t, "certificate-not-trusted", dane.ReasonChainInvalid, chain(leaf, root), mx, tlsa(t, 2, 0, 1, root))
	})
}

func TestConstraintsOfTheTrustAnchorHold(t *testing.T) {
	pathLen := func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }
	elsewhere := func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.net"}
	}
	clientOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	noCA := func(c *x509.Certificate) { c.IsCA = false }
	none := func(*x509.Certificate) {}
	for _, tt := range []struct {
		name              string
		root, inter, leaf func(*x509.Certificate)
		reason            string
	}{
		{"path length", pathLen, none, none, dane.ReasonChainInvalid},
		{"name constraint", elsewhere, none, none, dane.ReasonNameConstraint},
		{"certificate for clients", none, none, clientOnly, dane.ReasonNotServerUse},
		{"intermediate is no CA", none, noCA, none, dane.ReasonChainInvalid},
		{"trust anchor is no CA", noCA, none, none, dane.ReasonChainInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := newCA(t, "root", nil, tt.root)
			inter := newCA(t, "intermediate", root, tt.inter)
			leaf := newLeaf(t, inter, tt.leaf)
			bad(t, "certificate-not-trusted", tt.reason, chain(leaf, inter, root), mx, tlsa(t, 2, 0, 1, root))
			bad(t, "certificate-not-trusted", tt.reason, chain(leaf, inter), mx, tlsa(t, 2, 0, 0, root))
		})
	}
}

func TestLongChainsAreRefusedForUsage2(t *testing.T) {
	authorities := []*authority{newCA(t, "0", nil)}
	for i := range dane.MaxChainLength - 1 {
		authorities = append(authorities, newCA(t, fmt.Sprint(i+1), authorities[i]))
	}
	leaf := newLeaf(t, authorities[len(authorities)-1])
	shorter := newLeaf(t, authorities[len(authorities)-2])
	slices.Reverse(authorities)
	root := authorities[len(authorities)-1]
	good(t, chain(slices.Insert(slices.Clone(authorities[1:]), 0, shorter)...), mx, tlsa(t, 2, 0, 1, root))
	bad(t, "certificate-not-trusted", dane.ReasonChainTooLong, chain(slices.Insert(authorities, 0, leaf)...), mx, tlsa(t, 2, 0, 1, root))
}

func TestRFC7672_3_2_2_NamesAreCheckedWithUsage2(t *testing.T) {
	ref := dane.Reference{BaseDomain: "MX.example.com.", Names: []string{"example.org", "mail.example.net"}}
	for _, tt := range []struct {
		name      string
		presented []string
		want      string // empty: mismatch
	}{
		{"the TLSA base domain", []string{"mx.example.com"}, "MX.example.com."},
		{"the base domain first", []string{"example.org", "mx.example.com"}, "MX.example.com."},
		{"the next-hop domain", []string{"example.org"}, "example.org"},
		{"the expanded next-hop domain", []string{"a.test", "mail.example.net"}, "mail.example.net"},
		{"upper case", []string{"Mx.Example.COM"}, "MX.example.com."},
		{"a wildcard of the base domain", []string{"*.example.com"}, "MX.example.com."},
		{"another name", []string{"mx2.example.com"}, ""},
		{"a parent domain", []string{"example.com"}, ""},
		{"a wildcard of another domain", []string{"*.example.net", "*.test"}, "mail.example.net"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := newCA(t, "root", nil)
			certs := chain(newLeaf(t, root, names(tt.presented...)), root)
			if tt.want == "" {
				bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch, certs, ref, tlsa(t, 2, 0, 1, root))
			} else if m := good(t, certs, ref, tlsa(t, 2, 0, 1, root)); m.Name != tt.want {
				t.Errorf("got %q, want %q", m.Name, tt.want)
			}
		})
	}
	t.Run("no reference at all", func(t *testing.T) {
		root := newCA(t, "root", nil)
		bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch, chain(newLeaf(t, root), root), dane.Reference{}, tlsa(t, 2, 0, 1, root))
	})
}

func TestRFC7672_3_2_3_WildcardIsTheWholeFirstLabelAndStandsForOne(t *testing.T) {
	root := newCA(t, "root", nil)
	for _, tt := range []struct {
		presented, name string
		match           bool
	}{
		{"*.example.com", "mx1.example.com", true},
		{"*.example.com", "a.mx1.example.com", false},
		{"*.example.com", "example.com", false},
		{"smtp*.example.com", "smtp1.example.com", false},
		{"*smtp.example.com", "asmtp.example.com", false},
		{"mx.*.com", "mx.example.com", false},
		{"*.*.com", "mx.example.com", false},
		{"*", "localhost", false},
		{"*.com", "example.com", true},
	} {
		t.Run(tt.presented+" for "+tt.name, func(t *testing.T) {
			_, err := dane.Verify(chain(newLeaf(t, root, names(tt.presented)), root),
				[]dane.Record{tlsa(t, 2, 0, 1, root)}, dane.Reference{BaseDomain: tt.name}, now)
			if (err == nil) != tt.match {
				t.Errorf("got %v, want match %v", err, tt.match)
			}
		})
	}
}

func TestRFC7672_3_2_3_CommonNameCountsOnlyWithoutDNSNamesAndIfAskedFor(t *testing.T) {
	root := newCA(t, "root", nil)
	record := tlsa(t, 2, 0, 1, root)
	lenient := dane.Reference{BaseDomain: "mx.example.com", AllowCommonName: true}
	alone := chain(newLeaf(t, root, names(), commonName("mx.example.com")), root)
	bad(t, "certificate-host-mismatch", dane.ReasonCommonNameAlone, alone, mx, record)
	if m := good(t, alone, lenient, record); m.Name != "mx.example.com" {
		t.Errorf("got %q, want mx.example.com", m.Name)
	}
	good(t, chain(newLeaf(t, root, names(), commonName("*.example.com")), root), lenient, record)
	bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch,
		chain(newLeaf(t, root, names(), commonName("other.example")), root), lenient, record)
	bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch,
		chain(newLeaf(t, root, names("other.example"), commonName("mx.example.com")), root), lenient, record)
}

func TestNamesAreComparedAsASCII(t *testing.T) {
	root := newCA(t, "root", nil)
	kelvin := newLeaf(t, root, names(), commonName("\u212a.example.com")) // the Kelvin sign, which is a k in lower case
	bad(t, "certificate-host-mismatch", dane.ReasonNameMismatch, chain(kelvin, root),
		dane.Reference{BaseDomain: "k.example.com", AllowCommonName: true}, tlsa(t, 2, 0, 1, root))
}

func TestBareKeysCostNoMoreThanTheyMay(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf := newLeaf(t, root)
	spki := func(key any) dane.Record {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return dane.Record{Usage: 2, Selector: 1, MatchingType: 0, Data: der}
	}
	var strangers []dane.Record
	for range 50 {
		strangers = append(strangers, spki(newKey(t).Public()))
	}
	good(t, chain(leaf), mx, append(strangers[:49:49], tlsa(t, 2, 1, 0, root))...)
	bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(leaf), mx, append(strangers, tlsa(t, 2, 1, 0, root))...)

	modulus := new(big.Int).Lsh(big.NewInt(1), 8200)
	huge := spki(&rsa.PublicKey{N: modulus.Add(modulus, big.NewInt(1)), E: 65537})
	bad(t, "certificate-not-trusted", dane.ReasonAnchorMissing, chain(leaf), mx, huge)
}

// A server with a certificate for each of its names shows the one that the client
// asks for, which must be that of the TLSA base domain.
func TestRFC7672_8_1_SNIIsTheTLSABaseDomain(t *testing.T) {
	root := newCA(t, "root", nil)
	server := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		leaf := newLeaf(t, root, names(hello.ServerName))
		return &tls.Certificate{Certificate: [][]byte{leaf.cert.Raw, root.cert.Raw}, PrivateKey: leaf.key}, nil
	}}
	set := dane.Set{State: dane.Usable, Host: "mx.example.com", BaseDomain: "host.example.net", Records: []dane.Record{tlsa(t, 2, 0, 1, root)}}
	ref := set.Reference(dane.NextHop{Domain: "example.com", MX: true, Secure: true})
	handshake := func(sni string) (m dane.Match, err error) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer far.Close()
			_ = tls.Server(far, server).HandshakeContext(t.Context()) // the client's word counts
		}()
		client := tls.Client(near, &tls.Config{
			ServerName:         sni,
			InsecureSkipVerify: true,
			VerifyConnection: func(state tls.ConnectionState) (err error) {
				m, err = dane.Verify(state.PeerCertificates, set.Records, ref, now)
				return err
			},
		})
		err = client.HandshakeContext(t.Context())
		near.Close()
		<-done
		return m, err
	}
	if m, err := handshake(ref.BaseDomain); err != nil || m.Name != "host.example.net" {
		t.Errorf("SNI of the base domain: got %q, %v; want host.example.net", m.Name, err)
	}
	var de *dane.Error
	if _, err := handshake("mx.example.com"); !errors.As(err, &de) || de.ResultType() != "certificate-host-mismatch" {
		t.Errorf("SNI of the MX host: got %v, want certificate-host-mismatch", err)
	}
}
