package postfix

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pawl-mail/pawl/internal/outcome"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

var daneMismatch = `{"d":"dane.test","pr":"v=TLSRPTv1; rua=mailto:r@rep.test","policies":[{"policy-type":1,"policy-domain":"mx.dane.test",` +
	`"policy-string":["3 1 1 ABAB"],"failure-details":[{"c":203,"s":"192.0.2.1","n":"MX.dane.test","h":"250-mx.dane.test greets you\r\n250 STARTTLS","r":"::ffff:198.51.100.7"}],"t":1,"f":1}]}`

func TestADatagramBecomesAnOutcome(t *testing.T) {
	for _, c := range []struct {
		name, datagram string
		want           outcome.Attempt
	}{
		{
			"a TLSA record that does not match", daneMismatch,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "dane.test", MX: "mx.dane.test", IP: netip.MustParseAddr("198.51.100.7"),
				SourceIP: netip.MustParseAddr("192.0.2.1"), Helo: "mx.dane.test greets you", Transport: outcome.NotSent,
				Policies: []outcome.Policy{{
					Type: outcome.TLSA, Domain: "mx.dane.test", Strings: []string{"3 1 1 ABAB"},
					Failure: &outcome.Failure{Result: outcome.CertificateNotTrusted},
				}},
			},
		},
		{
			"success under a policy in mode enforce",
			`{"dpv":"1","d":"A.test.","policies":[{"policy-type":2,"policy-domain":"a.test","policy-string":["version: STSv1","mode: enforce"],"mx-host":["mx.a.test"],"t":0,"f":0}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.Verified,
				Policies: []outcome.Policy{{Type: outcome.STS, Domain: "a.test", Strings: []string{"version: STSv1", "mode: enforce"}, MXHosts: []string{"mx.a.test"}}},
			},
		},
		{
			"the hosts that Postfix may use are not the policy's patterns, which the report shows",
			`{"d":"a.test","policies":[{"policy-type":2,"policy-domain":"a.test","policy-string":["version: STSv1","mode: enforce","mx: *.a.test","mx:b.test"],"mx-host":["mx.a.test"],"f":0}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.Verified,
				Policies: []outcome.Policy{{
					Type: outcome.STS, Domain: "a.test", Strings: []string{"version: STSv1", "mode: enforce", "mx: *.a.test", "mx:b.test"}, MXHosts: []string{"*.a.test", "b.test"},
				}},
			},
		},
		{
			"success in mode testing is no witness: Postfix verifies nothing at level may",
			`{"d":"a.test","policies":[{"policy-type":2,"policy-domain":"a.test","policy-string":["version: STSv1","mode: testing"],"f":0}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.Encrypted,
				Policies: []outcome.Policy{{Type: outcome.STS, Domain: "a.test", Strings: []string{"version: STSv1", "mode: testing"}}},
			},
		},
		{
			"success without a policy is encrypted, not verified", `{"d":"a.test","policies":[{"policy-type":9,"policy-domain":"a.test","f":0}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.Encrypted,
				Policies: []outcome.Policy{{Type: outcome.NoPolicy, Domain: "a.test"}},
			},
		},
		{
			"self-signed has a result type of its own; the reason stays",
			`{"d":"a.test","policies":[{"policy-type":2,"policy-domain":"a.test","failure-details":[{"c":205,"f":"self-signed_certificate"}],"f":1}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.NotSent,
				Policies: []outcome.Policy{{Type: outcome.STS, Domain: "a.test", Failure: &outcome.Failure{Result: outcome.CertificateNotTrusted, Reason: "self-signed_certificate"}}},
			},
		},
		{
			"a session counts once, by its first failure",
			`{"d":"a.test","policies":[{"policy-type":2,"policy-domain":"a.test","failure-details":[{"c":302,"a":"see line 3","f":"no mode"},{"c":303,"f":"expired"}],"t":2,"f":1}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.NotSent,
				Policies: []outcome.Policy{{Type: outcome.STS, Domain: "a.test", Failure: &outcome.Failure{Result: outcome.STSPolicyInvalid, Reason: "no mode", Info: "see line 3 also: sts-webpki-invalid expired"}}},
			},
		},
		{
			"a code of a newer libtlsrpt is a failure all the same",
			`{"d":"a.test","policies":[{"policy-type":9,"policy-domain":"a.test","failure-details":[{"c":999}],"f":1}]}`,
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.NotSent,
				Policies: []outcome.Policy{{Type: outcome.NoPolicy, Domain: "a.test", Failure: &outcome.Failure{Result: outcome.ValidationFailure, Reason: "libtlsrpt-999"}}},
			},
		},
		{
			"bytes that are not UTF-8 and control characters do not get through",
			"{\"d\":\"a.test\",\"policies\":[{\"policy-type\":9,\"policy-domain\":\"a.test\",\"failure-details\":[{\"c\":201,\"n\":\"\xff\",\"r\":\"nowhere\",\"f\":\"\xff\\u001b[31m\"}],\"f\":1}]}",
			outcome.Attempt{
				At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.NotSent,
				Policies: []outcome.Policy{{Type: outcome.NoPolicy, Domain: "a.test", Failure: &outcome.Failure{Result: outcome.StartTLSNotSupported, Reason: "\ufffd [31m"}}},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseDatagram([]byte(c.datagram), noon)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// oddDatagrams are what must not end the process, by the kind they count as.
var oddDatagrams = []struct {
	name, datagram string
	kind           BadDatagram
}{
	{"nothing", "", BadEmpty},
	{"blanks", " \r\n", BadEmpty},
	{"text", "hello", BadJSON},
	{"half an object", `{"d":"a.test","policies":[{"policy-type":9`, BadJSON},
	{"two objects", `{"d":"a.test"}{"d":"b.test"}`, BadJSON},
	{"a binary", "\x00\x01\x02\xff", BadJSON},
	{"deep nesting", strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), BadJSON},
	{"a deeply nested field", `{"d":` + strings.Repeat(`{"d":`, 20_000) + `1` + strings.Repeat("}", 20_001), BadJSON},
	{"a number", "1", BadObject},
	{"null", "null", BadObject},
	{"true", "true", BadObject},
	{"a list", `[{"d":"a.test"}]`, BadObject},
	{"a number for the domain", `{"d":1,"policies":[]}`, BadType},
	{"an object for the policies", `{"d":"a.test","policies":{"policy-type":9}}`, BadType},
	{"a text for the policy type", `{"d":"a.test","policies":[{"policy-type":"sts"}]}`, BadType},
	{"a number beyond all", `{"d":"a.test","policies":[{"policy-type":1e999}]}`, BadType},
	{"another version", `{"dpv":"2","d":"a.test","policies":[{"policy-type":9}]}`, BadVersion},
	{"no domain", `{"policies":[{"policy-type":9}]}`, BadDomain},
	{"an address for the domain", `{"d":"192.0.2.1","policies":[{"policy-type":9}]}`, BadDomain},
	{"no policies", `{"d":"a.test"}`, BadPolicies},
	{"an unknown policy type", `{"d":"a.test","policies":[{"policy-type":7}]}`, BadPolicy},
	{"too many policies", `{"d":"a.test","policies":[` + strings.Repeat(`{"policy-type":9},`, 64) + `{"policy-type":9}]}`, BadTooMany},
	{"too many details", `{"d":"a.test","policies":[{"policy-type":9,"failure-details":[` + strings.Repeat(`{},`, 64) + `{}]}]}`, BadTooMany},
	{"too long", `{"d":"` + strings.Repeat("a", maxDatagram) + `"}`, BadTooLong},
}

func TestOddDatagramsAreToldApart(t *testing.T) {
	for _, c := range oddDatagrams {
		t.Run(c.name, func(t *testing.T) {
			a, err := parseDatagram([]byte(c.datagram), noon)
			var bad *DatagramError
			if !errors.As(err, &bad) {
				t.Fatalf("got %+v, %v; want a *DatagramError", a, err)
			}
			if bad.Kind != c.kind {
				t.Errorf("it counts as %s (%v), want %s", bad.Kind, bad.Err, c.kind)
			}
		})
	}
}

func FuzzDatagram(f *testing.F) {
	f.Add([]byte(daneMismatch))
	for _, c := range oddDatagrams {
		if len(c.datagram) < 1000 {
			f.Add([]byte(c.datagram))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseDatagram(b, noon)
		var bad *DatagramError
		switch {
		case err != nil && !errors.As(err, &bad):
			t.Fatalf("an error that counts as nothing: %v", err)
		case err != nil:
			return
		case a.Domain == "" || len(a.Policies) == 0:
			t.Fatalf("an outcome of nothing: %+v", a)
		}
		for _, p := range a.Policies {
			if p.Failure != nil && (a.Transport != outcome.NotSent || p.Failure.Result == "") {
				t.Fatalf("a failure that is none: %+v", a)
			}
			if p.Type == outcome.NoPolicy && a.Transport == outcome.Verified {
				t.Fatalf("verified without a policy: %+v", a)
			}
			for _, s := range append(p.Strings, p.MXHosts...) {
				if strings.ContainsAny(s, "\r\n\x00\x1b") {
					t.Fatalf("a control character got through: %q", s)
				}
			}
		}
	})
}
