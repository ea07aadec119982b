package verify_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

func TestEachFailureHasItsResultTypeAndReason(t *testing.T) {
	p := newPKI(t)
	enforce := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
	unmatched := enforce
	unmatched.STS = &verify.STSDemand{PolicyDomain: "example.com", Policy: policyOf(mtasts.Enforce)}
	tls10, rc4 := shown(p.good, p.intermediate), shown(p.good, p.intermediate)
	tls10.State.Version = tls.VersionTLS10
	rc4.State.Version, rc4.State.CipherSuite = tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA
	died := func(err error) verify.Seen {
		return verify.Seen{STARTTLSOffered: true, HandshakeErr: fmt.Errorf("handshake with mx.example.com: %w", err)}
	}
	for name, c := range map[string]struct {
		demand  verify.Demand
		seen    verify.Seen
		result  outcome.ResultType
		reason  string
		section string
	}{
		"no STARTTLS":              {enforce, verify.Seen{}, outcome.StartTLSNotSupported, "starttls-not-offered", "RFC 8461 §4"},
		"STARTTLS refused":         {enforce, verify.Seen{STARTTLSOffered: true, Reply: "454 no"}, outcome.StartTLSNotSupported, "starttls-refused", "RFC 8461 §4"},
		"closed in the handshake":  {enforce, died(io.EOF), outcome.ValidationFailure, "handshake-closed", "RFC 8461 §4"},
		"reset in the handshake":   {enforce, died(&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}), outcome.ValidationFailure, "handshake-closed", "RFC 8461 §4"},
		"handshake too slow":       {enforce, died(os.ErrDeadlineExceeded), outcome.ValidationFailure, "handshake-timeout", "RFC 8461 §4"},
		"handshake out of time":    {enforce, died(context.DeadlineExceeded), outcome.ValidationFailure, "handshake-timeout", "RFC 8461 §4"},
		"no TLS after STARTTLS":    {enforce, died(tls.RecordHeaderError{Msg: "not TLS"}), outcome.ValidationFailure, "not-tls", "RFC 8461 §4"},
		"anything else":            {enforce, died(errors.New("tls: unheard-of")), outcome.ValidationFailure, "handshake-failed", "RFC 8461 §4"},
		"an error with its type":   {enforce, died(classified{}), outcome.ValidationFailure, "replies-injected", "RFC 8461 §4"},
		"TLS 1.0":                  {enforce, tls10, outcome.ValidationFailure, "tls-version", "RFC 8461 §7.2"},
		"a weak cipher suite":      {enforce, rc4, outcome.ValidationFailure, "tls-cipher", "RFC 9325 §4.1"},
		"no certificate":           {enforce, shown(), outcome.ValidationFailure, "no-certificate", "RFC 8461 §4.2"},
		"self-signed":              {enforce, shown(p.selfSigned), outcome.CertificateNotTrusted, "certificate-self-signed", "RFC 8461 §4.2"},
		"intermediate left out":    {enforce, shown(p.good), outcome.CertificateNotTrusted, "certificate-chain-incomplete", "RFC 8461 §4.2"},
		"unknown root":             {enforce, shown(issue(t, p.unknownRoot, server(host)), p.unknownRoot), outcome.CertificateNotTrusted, "certificate-not-trusted", "RFC 8461 §4.2"},
		"not for servers":          {enforce, shown(p.notServer, p.intermediate), outcome.CertificateNotTrusted, "certificate-invalid", "RFC 8461 §4.2"},
		"not yet valid":            {enforce, shown(p.notYetValid, p.intermediate), outcome.CertificateNotTrusted, "certificate-not-yet-valid", "RFC 8461 §4.2"},
		"expired":                  {enforce, shown(p.expired, p.intermediate), outcome.CertificateExpired, "certificate-expired", "RFC 8461 §4.2"},
		"other name":               {enforce, shown(p.otherName, p.intermediate), outcome.CertificateHostMismatch, "certificate-host-mismatch", "RFC 8461 §4.2"},
		"common name alone":        {enforce, shown(p.cnOnly, p.intermediate), outcome.CertificateHostMismatch, "certificate-cn-only", "RFC 8461 §4.2"},
		"MX not in the policy":     {unmatched, shown(p.good, p.intermediate), outcome.ValidationFailure, "mx-mismatch", "RFC 8461 §4.1"},
		"MX mismatch, no STARTTLS": {unmatched, verify.Seen{}, outcome.ValidationFailure, "mx-mismatch", "RFC 8461 §4.1"},
	} {
		v := verify.Judge(c.demand, c.seen, p.roots, now)
		f := v.Policies[0].Failure
		if v.Pass || f == nil {
			t.Errorf("%s: passed: %s", name, v.Why)
			continue
		}
		if f.Result != c.result || f.Reason != c.reason || v.Section != c.section {
			t.Errorf("%s: %s, %s, %s; want %s, %s, %s", name, f.Result, f.Reason, v.Section, c.result, c.reason, c.section)
		}
	}
}

type classified struct{}

func (classified) Error() string         { return "replies before the handshake" }
func (classified) ResultType() string    { return "validation-failure" }
func (classified) FailureReason() string { return "replies-injected" }

func TestOfSeveralFaultsTrustCountsBeforeDatesAndDatesBeforeNames(t *testing.T) {
	p := newPKI(t)
	d := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
	for name, c := range map[string]struct {
		cert   *authority
		result outcome.ResultType
		says   []string
	}{
		"expired, other name": {
			issue(t, p.intermediate, server("other.example.net"), expired), outcome.CertificateExpired,
			[]string{"expired on 2026-05-31T12:00:00Z", "is not for mx.example.com"},
		},
		"self-signed, expired, other name": {
			issue(t, nil, server("other.example.net"), expired), outcome.CertificateNotTrusted,
			[]string{"is self-signed", "is not for mx.example.com", "valid until 2026-05-31T12:00:00Z"},
		},
	} {
		v := verify.Judge(d, shown(c.cert, p.intermediate), p.roots, now)
		if got := v.Policies[0].Failure; got == nil || got.Result != c.result {
			t.Errorf("%s: %+v", name, got)
		}
		for _, part := range c.says {
			if !strings.Contains(v.Why, part) {
				t.Errorf("%s: nothing of %q in %q", name, part, v.Why)
			}
		}
	}
}

func TestAnIntermediateThatExpired(t *testing.T) {
	p := newPKI(t)
	old := issue(t, p.root, ca("Old Intermediate"), expired)
	leaf := issue(t, old, server(host))
	v := verify.Judge(verify.Demand{Host: host, EnforceSTS: true, STS: sts(mtasts.Enforce)}, shown(leaf, old), p.roots, now)
	if f := v.Policies[0].Failure; v.Pass || f.Result != outcome.CertificateExpired || !strings.Contains(v.Why, "CN=Old Intermediate") {
		t.Errorf("%+v", v)
	}
}

func TestARootThatExpired(t *testing.T) {
	root := issue(t, nil, ca("Old Root"), expired)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	v := verify.Judge(verify.Demand{Host: host, EnforceSTS: true, STS: sts(mtasts.Enforce)}, shown(issue(t, root, server(host))), roots, now)
	if f := v.Policies[0].Failure; v.Pass || f.Result != outcome.CertificateExpired {
		t.Errorf("%+v", v)
	}
}

func TestRFC8461_4_2_DNSIDs(t *testing.T) {
	p := newPKI(t)
	for name, c := range map[string]struct {
		host  string
		names []string
		match bool
	}{
		"the name itself":                           {"mx.example.com", []string{"mx.example.com"}, true},
		"in another case":                           {"mx.example.com", []string{"MX.Example.COM"}, true},
		"one of several":                            {"mx.example.com", []string{"a.test", "mx.example.com"}, true},
		"a wildcard for the left label":             {"mx.example.com", []string{"*.example.com"}, true},
		"a wildcard does not stand for two labels":  {"mx.eu.example.com", []string{"*.example.com"}, false},
		"a wildcard does not stand for none":        {"example.com", []string{"*.example.com"}, false},
		"a wildcard stands for a whole label only":  {"mx.example.com", []string{"m*.example.com"}, false},
		"a wildcard is the left-most label":         {"mx.eu.example.com", []string{"mx.*.example.com"}, false},
		"the domain is not the host":                {"mx.example.com", []string{"example.com"}, false},
		"an address is no host":                     {"192.0.2.1", []string{"192.0.2.1"}, false},
		"an A-label is compared as it stands":       {"mx.xn--bcher-kva.example", []string{"mx.xn--bcher-kva.example"}, true},
		"a name that only begins like it":           {"mx.example.com", []string{"mx.example.com.attacker.test"}, false},
		"a name with a NUL in it":                   {"mx.example.com", []string{"mx.example.com\x00.attacker.test"}, false},
		"underscores as some MX hosts are so named": {"mx_1.example.com", []string{"mx_1.example.com"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := verify.Demand{Host: c.host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
			v := verify.Judge(d, shown(issue(t, p.root, server(c.names...))), p.roots, now)
			if v.Pass != c.match {
				t.Errorf("%s", v.Why)
			}
		})
	}
}

func TestAnAddressInTheCertificateIsNoDNSID(t *testing.T) {
	p := newPKI(t)
	leaf := issue(t, p.root, server(), func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} })
	for _, name := range []string{"192.0.2.1", "[192.0.2.1]"} {
		d := verify.Demand{Host: name, EnforceSTS: true, STS: sts(mtasts.Enforce)}
		if v := verify.Judge(d, shown(leaf), p.roots, now); v.Pass {
			t.Errorf("%s: %s", name, v.Why)
		}
	}
}

func TestAVerdictExplainsItself(t *testing.T) {
	p := newPKI(t)
	enforce := verify.Demand{Host: host, Domain: "example.com", Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
	observed := enforce
	observed.Observe = true
	testing1 := verify.Demand{Host: host, STS: sts(mtasts.Testing)}
	withDANE := verify.Demand{Host: host, MXSecure: true, Level: verify.Authenticated, EnforceDANE: true, DANE: tlsa(t, p.good)}
	withDANE.DANE.Set.Records[0].Data = make([]byte, 32)
	for name, c := range map[string]struct {
		demand verify.Demand
		seen   verify.Seen
		why    string
		source verify.Source
	}{
		"a policy that is not met": {
			enforce, shown(p.selfSigned),
			"mx.example.com showed a certificate that is self-signed (subject CN=a server, names mx.example.com, issuer CN=a server, " +
				"valid until 2027-06-01T12:00:00Z), which the MTA-STS policy of example.com (mode enforce) does not allow",
			verify.FromSTS,
		},
		"a policy that is met": {
			enforce, shown(p.good, p.intermediate),
			"mx.example.com matches the MTA-STS policy of example.com (mode enforce) and showed a trusted certificate for its name " +
				"(TLS 1.3, certificate subject CN=a server, names mx.example.com, issuer CN=Intermediate, valid until 2027-06-01T12:00:00Z)",
			verify.FromSTS,
		},
		"observe": {
			observed,
			verify.Seen{},
			"mx.example.com offered no STARTTLS, which the MTA-STS policy of example.com (mode enforce) does not allow; " +
				"the mail goes because the destination is only observed",
			verify.FromSTS,
		},
		"testing": {
			testing1,
			verify.Seen{},
			"mx.example.com offered no STARTTLS, and nothing demands TLS of it: the mail goes in clear; " +
				"the MTA-STS policy of example.com (mode testing) is not enforced on it, and would not be met: the host offered no STARTTLS",
			verify.FromNowhere,
		},
		"nothing demanded": {
			verify.Demand{Host: host}, shown(p.selfSigned), "mx.example.com speaks TLS 1.3, and nothing demands that it prove who it is", verify.FromNowhere,
		},
		"a refusal of STARTTLS with a control character in it": {
			verify.Demand{Host: host, Level: verify.Encrypted},
			verify.Seen{STARTTLSOffered: true, Reply: "454 \x1b[2Jno\r\n"},
			`mx.example.com offered STARTTLS and answered it with "454 ?[2Jno??", which the level "encrypted" that is set for it does not allow`,
			verify.FromOverride,
		},
	} {
		v := verify.Judge(c.demand, c.seen, p.roots, now)
		if diff := cmp.Diff(c.why, v.Why); diff != "" || v.Source != c.source {
			t.Errorf("%s: source %s (-want +got):\n%s", name, v.Source, diff)
		}
	}
	v := verify.Judge(withDANE, shown(p.good, p.intermediate), p.roots, now)
	for _, part := range []string{
		host + " was not authenticated by its TLSA records: ", "matches none of 1 TLSA records",
		"(subject CN=a server, names mx.example.com, issuer CN=Intermediate", "which its TLSA records do not allow",
	} {
		if !strings.Contains(v.Why, part) {
			t.Errorf("nothing of %q in %q", part, v.Why)
		}
	}
	if v.Section != "RFC 7672 §3.2" || v.Do != "Publish a TLSA record for the key in use, or install the key that the record names." {
		t.Errorf("section %q, do %q", v.Section, v.Do)
	}
}

func TestEvidenceOfTheSession(t *testing.T) {
	p := newPKI(t)
	v := verify.Judge(verify.Demand{Host: host, Domain: "example.com"}, shown(p.good, p.intermediate), p.roots, now)
	want := &verify.Session{
		Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: host, Chain: 2,
		Certificate: &verify.Certificate{
			Subject: "CN=a server", Names: []string{host}, Issuer: "CN=Intermediate",
			NotBefore: now.Add(-365 * day), NotAfter: now.Add(365 * day),
			SHA256: v.Session.Certificate.SHA256, SPKI: v.Session.Certificate.SPKI,
		},
	}
	if diff := cmp.Diff(want, v.Session); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	record, err := dane.NewRecord(p.good.cert, dane.UsageDANEEE, dane.SelectorSPKI, dane.MatchSHA256)
	if err != nil {
		t.Fatal(err)
	}
	if got := "3 1 1 " + v.Session.Certificate.SPKI; got != record.String() {
		t.Errorf("the key's fingerprint is %q, and the TLSA record %q", got, record)
	}
	if diff := cmp.Diff([]outcome.Policy{{Type: outcome.NoPolicy, Domain: "example.com"}}, v.Policies); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPoliciesAreReportedWithTheirText(t *testing.T) {
	p := newPKI(t)
	d := verify.Demand{
		Host: host, Level: verify.Authenticated, MXSecure: true, EnforceDANE: true, DANE: tlsa(t, p.good), STS: sts(mtasts.Testing),
	}
	v := verify.Judge(d, shown(p.good, p.intermediate), p.roots, now)
	want := []outcome.Policy{
		{Type: outcome.TLSA, Domain: host, Strings: []string{"3 1 1 " + v.Session.Certificate.SPKI}},
		{
			Type: outcome.STS, Domain: "example.com", MXHosts: []string{host},
			Strings: []string{"version: STSv1", "mode: testing", "mx: mx.example.com", "max_age: 604800"},
		},
	}
	if diff := cmp.Diff(want, v.Policies); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHostileCertificatesMakeBearableEvidence(t *testing.T) {
	p := newPKI(t)
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprintf("%d.%s.test", i, strings.Repeat("a", 60)))
	}
	leaf := issue(t, nil, server(names...), commonName(strings.Repeat("\x1b]0;evil\a", 500)))
	v := verify.Judge(verify.Demand{Host: host, EnforceSTS: true, STS: sts(mtasts.Enforce)}, shown(leaf), p.roots, now)
	if len(v.Why) > 2000 || strings.ContainsAny(v.Why, "\x1b\a\r\n") || len(v.Session.Certificate.Names) != 20 {
		t.Errorf("%d bytes, %d names: %q", len(v.Why), len(v.Session.Certificate.Names), v.Why)
	}
	if want := "and 16 more"; !strings.Contains(v.Why, want) {
		t.Errorf("nothing of %q in %q", want, v.Why)
	}
}

// demands draws any demand whatever, sensible or not.
func demands(t *rapid.T, p *pki) verify.Demand {
	d := verify.Demand{
		Host: host, Domain: "example.com", Level: verify.Level(rapid.IntRange(0, 2).Draw(t, "level")),
		EnforceSTS: rapid.Bool().Draw(t, "enforce STS"), EnforceDANE: rapid.Bool().Draw(t, "enforce DANE"),
		RequireTLS: rapid.Bool().Draw(t, "REQUIRETLS"), MXSecure: rapid.Bool().Draw(t, "MX secure"),
		Waived: rapid.Bool().Draw(t, "waived"), Observe: rapid.Bool().Draw(t, "observe"),
	}
	if mode := rapid.SampledFrom([]mtasts.Mode{"", mtasts.Testing, mtasts.Enforce}).Draw(t, "mode"); mode != "" {
		d.STS = sts(mode)
		d.STS.Matched, d.STS.Local = rapid.Bool().Draw(t, "matched"), rapid.Bool().Draw(t, "local")
	}
	if state := rapid.IntRange(-1, 3).Draw(t, "DANE"); state >= 0 {
		record, _ := dane.NewRecord(p.good.cert, dane.UsageDANEEE, dane.SelectorSPKI, dane.MatchSHA256)
		d.DANE = &verify.DANEDemand{
			Set:       dane.Set{State: dane.State(state), Host: host, BaseDomain: host, Records: []dane.Record{record}},
			Reference: dane.Reference{BaseDomain: host},
		}
	}
	return d
}

func seens(t *rapid.T, p *pki) verify.Seen {
	offered := rapid.Bool().Draw(t, "offered")
	switch rapid.IntRange(0, 3).Draw(t, "seen") {
	case 0:
		return verify.Seen{STARTTLSOffered: offered, Reply: "454 no"}
	case 1:
		return verify.Seen{STARTTLSOffered: true, HandshakeErr: io.EOF}
	}
	certs := []*authority{p.good, p.expired, p.otherName, p.cnOnly, p.selfSigned, p.notYetValid, p.notServer}
	s := shown(rapid.SampledFrom(certs).Draw(t, "certificate"), p.intermediate)
	s.State.Version = rapid.SampledFrom([]uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13}).Draw(t, "version")
	return s
}

// What holds of each verdict, whatever is demanded and seen.
func TestNoVerdictIsWeakerThanItsDemand(t *testing.T) {
	p := newPKI(t)
	rapid.Check(t, func(t *rapid.T) {
		d, s := demands(t, p), seens(t, p)
		v := verify.Judge(d, s, p.roots, now)
		lifted := d.Observe || d.Waived
		failed := map[outcome.PolicyType]bool{}
		for _, policy := range v.Policies {
			failed[policy.Type] = policy.Failure != nil
		}
		switch {
		case d.PlaintextAllowed() && (d.RequireTLS || (d.EnforceSTS || d.EnforceDANE) && !lifted):
			t.Fatal("plaintext is allowed under a demand")
		case v.Transport == outcome.Clear && !d.PlaintextAllowed():
			t.Fatalf("clear text: %s", v.Why)
		case v.Pass && !lifted && d.EnforceSTS && (d.STS == nil || failed[outcome.STS] || !d.STS.Matched):
			t.Fatalf("an enforced MTA-STS policy is not met: %s", v.Why)
		case v.Pass && !lifted && d.EnforceDANE && (d.DANE == nil || failed[outcome.TLSA] && d.DANE.Set.State != dane.Unusable):
			t.Fatalf("enforced TLSA records are not met: %s", v.Why)
		case v.Pass && d.RequireTLS && v.Transport != outcome.Verified:
			t.Fatalf("REQUIRETLS over %q: %s", v.Transport, v.Why)
		case v.Transport == outcome.Verified && s.State == nil:
			t.Fatalf("verified without a session: %s", v.Why)
		case v.Transport == outcome.Verified && s.State.PeerCertificates[0].Equal(p.selfSigned.cert):
			t.Fatalf("a certificate that nobody vouches for is called verified: %s", v.Why)
		case v.Pass != (v.Transport != outcome.NotSent), v.WouldHold && !v.Pass, v.Bounce != "" && (v.Pass || !d.RequireTLS):
			t.Fatalf("contradicts itself: %+v", v)
		case v.Why == "" || len(v.Policies) == 0 || !v.Pass && (v.Do == "" || v.Section == "" && v.Source != verify.FromOverride):
			t.Fatalf("does not explain itself: %+v", v)
		}
	})
}

func FuzzPlaintextIsNeverAllowedUnderADemand(f *testing.F) {
	f.Add(byte(0))
	f.Add(byte(0xff))
	f.Fuzz(func(t *testing.T, bits byte) {
		bit := func(n int) bool { return bits>>n&1 == 1 }
		d := verify.Demand{
			EnforceSTS: bit(0), EnforceDANE: bit(1), RequireTLS: bit(2), Waived: bit(3), Observe: bit(4),
			Level: verify.Level(bits >> 5 & 3),
		}
		enforced := (d.EnforceSTS || d.EnforceDANE || d.Level > verify.Opportunistic) && !d.Waived && !d.Observe
		if want := !d.RequireTLS && !enforced; d.PlaintextAllowed() != want {
			t.Errorf("%+v: plaintext allowed: %v", d, !want)
		}
	})
}

// Each of the 128 demands once, without the fuzzer.
func TestPlaintextAllowedForEachDemand(t *testing.T) {
	allowed := 0
	for bits := range 128 {
		d := verify.Demand{
			EnforceSTS: bits&1 != 0, EnforceDANE: bits&2 != 0, RequireTLS: bits&4 != 0, Waived: bits&8 != 0, Observe: bits&16 != 0,
			Level: verify.Level(bits >> 5 & 3),
		}
		if d.PlaintextAllowed() {
			allowed++
		}
	}
	// Of the 64 without REQUIRETLS: the 48 with observe or waiver, and of the
	// rest the one without any enforcement and level.
	if want := 48 + 1; allowed != want {
		t.Errorf("plaintext is allowed by %d demands of 128, want %d", allowed, want)
	}
}
