package dane_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
)

// fakeDNS is a resolver with fixed answers. What it has no answer for is proven
// not to exist; asked is what it was asked, in order.
type fakeDNS struct {
	addr  map[string]dane.AddrAnswer
	tlsa  map[string]dane.TLSAAnswer
	cname map[string]dane.CNAMEAnswer
	err   map[string]error // by "TLSA _25._tcp.mx.example.com"
	asked []string
}

func (d *fakeDNS) ask(ctx context.Context, kind, name string) error {
	d.asked = append(d.asked, kind+" "+name)
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.err[kind+" "+name]
}

var secureDenial = &dane.NotFound{Authentic: true, TTL: 5 * time.Minute}

func (d *fakeDNS) LookupAddr(ctx context.Context, host string) (dane.AddrAnswer, error) {
	if err := d.ask(ctx, "A", host); err != nil {
		return dane.AddrAnswer{}, err
	}
	if a, ok := d.addr[host]; ok {
		return a, nil
	}
	return dane.AddrAnswer{}, fmt.Errorf("asking for %s: %w", host, secureDenial)
}

func (d *fakeDNS) LookupTLSA(ctx context.Context, name string) (dane.TLSAAnswer, error) {
	if err := d.ask(ctx, "TLSA", name); err != nil {
		return dane.TLSAAnswer{}, err
	}
	if a, ok := d.tlsa[name]; ok {
		return a, nil
	}
	return dane.TLSAAnswer{}, fmt.Errorf("asking for %s: %w", name, secureDenial)
}

func (d *fakeDNS) LookupCNAME(ctx context.Context, name string) (dane.CNAMEAnswer, error) {
	if err := d.ask(ctx, "CNAME", name); err != nil {
		return dane.CNAMEAnswer{}, err
	}
	if a, ok := d.cname[name]; ok {
		return a, nil
	}
	return dane.CNAMEAnswer{}, secureDenial
}

func addrs(authentic bool, canonical string) dane.AddrAnswer {
	return dane.AddrAnswer{
		Addrs:     []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Canonical: canonical, Authentic: authentic, TTL: time.Hour,
	}
}

func records(t testing.TB, authentic bool, texts ...string) dane.TLSAAnswer {
	t.Helper()
	a := dane.TLSAAnswer{Authentic: authentic, TTL: 30 * time.Minute}
	for _, text := range texts {
		a.Records = append(a.Records, parse(t, text))
	}
	return a
}

const (
	usableText   = "3 1 1 " + digest256
	unusableText = "1 1 1 " + digest256
)

var errServFail = errors.New("SERVFAIL from 127.0.0.1:53")

func TestRFC7672_2_2_EachAnswerLeadsToItsState(t *testing.T) {
	type tlsaMap = map[string]dane.TLSAAnswer
	host := "mx.example.com"
	at := "_25._tcp.mx.example.com"
	atTarget := "_25._tcp.host.example.net"
	for _, tt := range []struct {
		name  string
		addr  dane.AddrAnswer
		cname dane.CNAMEAnswer // no target: no CNAME, securely
		tlsa  tlsaMap
		err   map[string]error
		state dane.State
		base  string
		asked []string
	}{
		// §2.2: the four actions
		{
			name: "secure records, one usable", addr: addrs(true, ""), tlsa: tlsaMap{at: records(t, true, unusableText, usableText)},
			state: dane.Usable, base: host, asked: []string{"A " + host, "TLSA " + at},
		},
		{
			name: "secure records, none usable", addr: addrs(true, ""), tlsa: tlsaMap{at: records(t, true, unusableText)},
			state: dane.Unusable, base: host, asked: []string{"A " + host, "TLSA " + at},
		},
		{
			name: "secure denial", addr: addrs(true, ""),
			state: dane.Absent, asked: []string{"A " + host, "TLSA " + at},
		},
		{
			name: "insecure denial is the same as a secure one (§2.1.1)", addr: addrs(true, ""), err: map[string]error{"TLSA " + at: &dane.NotFound{}},
			state: dane.Absent, asked: []string{"A " + host, "TLSA " + at},
		},
		{
			name: "insecure records are none", addr: addrs(true, ""), tlsa: tlsaMap{at: records(t, false, usableText)},
			state: dane.Absent, asked: []string{"A " + host, "TLSA " + at},
		},
		{
			name: "lookup error", addr: addrs(true, ""), err: map[string]error{"TLSA " + at: errServFail},
			state: dane.Failed, asked: []string{"A " + host, "TLSA " + at},
		},
		// §2.2.2: addresses first
		{
			name: "insecure addresses, no CNAME: TLSA records are not asked for", addr: addrs(false, ""), tlsa: tlsaMap{at: records(t, true, usableText)},
			state: dane.Absent, asked: []string{"A " + host},
		},
		{
			name: "the canonical name is the host's own", addr: addrs(false, "MX.example.com."),
			state: dane.Absent, asked: []string{"A " + host},
		},
		{
			name: "addresses could not be looked up", err: map[string]error{"A " + host: errServFail}, tlsa: tlsaMap{at: records(t, true, usableText)},
			state: dane.Failed, asked: []string{"A " + host},
		},
		{
			name: "no addresses, proven", err: map[string]error{"A " + host: secureDenial}, tlsa: tlsaMap{at: records(t, true, usableText)},
			state: dane.Failed, asked: []string{"A " + host},
		},
		// §2.2.2, secure CNAME, and §2.2.3, the order of candidates
		{
			name: "secure CNAME, records at the expanded name", addr: addrs(true, "Host.example.net."),
			tlsa:  tlsaMap{atTarget: records(t, true, usableText), at: records(t, true, usableText)},
			state: dane.Usable, base: "host.example.net", asked: []string{"A " + host, "TLSA " + atTarget},
		},
		{
			name: "secure CNAME, records at the original name only", addr: addrs(true, "host.example.net"), tlsa: tlsaMap{at: records(t, true, usableText)},
			state: dane.Usable, base: host, asked: []string{"A " + host, "TLSA " + atTarget, "TLSA " + at},
		},
		{
			name: "secure CNAME, insecure records at the expanded name", addr: addrs(true, "host.example.net"),
			tlsa:  tlsaMap{atTarget: records(t, false, usableText), at: records(t, true, usableText)},
			state: dane.Usable, base: host, asked: []string{"A " + host, "TLSA " + atTarget, "TLSA " + at},
		},
		{
			name: "secure CNAME, unusable records at the expanded name settle it", addr: addrs(true, "host.example.net"),
			tlsa:  tlsaMap{atTarget: records(t, true, unusableText), at: records(t, true, usableText)},
			state: dane.Unusable, base: "host.example.net", asked: []string{"A " + host, "TLSA " + atTarget},
		},
		{
			name: "secure CNAME, lookup error at the expanded name", addr: addrs(true, "host.example.net"),
			tlsa: tlsaMap{at: records(t, true, usableText)}, err: map[string]error{"TLSA " + atTarget: errServFail},
			state: dane.Failed, asked: []string{"A " + host, "TLSA " + atTarget},
		},
		{
			name: "secure CNAME, lookup error at the original name", addr: addrs(true, "host.example.net"), err: map[string]error{"TLSA " + at: errServFail},
			state: dane.Failed, asked: []string{"A " + host, "TLSA " + atTarget, "TLSA " + at},
		},
		{
			name: "secure CNAME, no records at either", addr: addrs(true, "host.example.net"),
			state: dane.Absent, asked: []string{"A " + host, "TLSA " + atTarget, "TLSA " + at},
		},
		// §2.2.2, insecure CNAME, and §2.1.3
		{
			name: "insecure addresses by a secure CNAME: the original name only", addr: addrs(false, "host.example.net"),
			cname: dane.CNAMEAnswer{Target: "host.example.net", Authentic: true, TTL: time.Hour},
			tlsa:  tlsaMap{atTarget: records(t, true, usableText), at: records(t, true, usableText)},
			state: dane.Usable, base: host, asked: []string{"A " + host, "CNAME " + host, "TLSA " + at},
		},
		{
			name: "insecure addresses by an insecure CNAME: DANE does not apply", addr: addrs(false, "host.example.net"),
			cname: dane.CNAMEAnswer{Target: "host.example.net", TTL: time.Hour}, tlsa: tlsaMap{at: records(t, true, usableText)},
			state: dane.Absent, asked: []string{"A " + host, "CNAME " + host},
		},
		{
			name: "insecure addresses, the CNAME could not be looked up", addr: addrs(false, "host.example.net"), err: map[string]error{"CNAME " + host: errServFail},
			state: dane.Failed, asked: []string{"A " + host, "CNAME " + host},
		},
		{
			name: "insecure addresses, the CNAME has gone from a signed zone", addr: addrs(false, "host.example.net"), tlsa: tlsaMap{at: records(t, true, usableText)},
			state: dane.Usable, base: host, asked: []string{"A " + host, "CNAME " + host, "TLSA " + at},
		},
		{
			name: "insecure addresses, the CNAME has gone from an unsigned zone", addr: addrs(false, "host.example.net"), err: map[string]error{"CNAME " + host: &dane.NotFound{}},
			state: dane.Absent, asked: []string{"A " + host, "CNAME " + host},
		},
		{
			name: "insecure addresses by a secure CNAME, lookup error", addr: addrs(false, "host.example.net"),
			cname: dane.CNAMEAnswer{Target: "host.example.net", Authentic: true}, err: map[string]error{"TLSA " + at: errServFail},
			state: dane.Failed, asked: []string{"A " + host, "CNAME " + host, "TLSA " + at},
		},
		// not of the RFC: a resolver that answers nonsense
		{
			name: "an answer without addresses", addr: dane.AddrAnswer{Authentic: true},
			state: dane.Failed, asked: []string{"A " + host},
		},
		{
			name: "an answer without records", addr: addrs(true, ""), tlsa: tlsaMap{at: records(t, true)},
			state: dane.Failed, asked: []string{"A " + host, "TLSA " + at},
		},
		{
			name: "more records than MaxRecords", addr: addrs(true, ""), tlsa: tlsaMap{at: records(t, true, slices.Repeat([]string{usableText}, dane.MaxRecords+1)...)},
			state: dane.Failed, base: host, asked: []string{"A " + host, "TLSA " + at},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dns := &fakeDNS{addr: map[string]dane.AddrAnswer{host: tt.addr}, tlsa: tt.tlsa, err: tt.err}
			if tt.cname.Target != "" {
				dns.cname = map[string]dane.CNAMEAnswer{host: tt.cname}
			}
			set, err := dane.Find(t.Context(), dns, host, 25)
			if set.State != tt.state || set.BaseDomain != tt.base || set.Host != host {
				t.Errorf("got %v, base domain %q of %q; want %v, %q", set.State, set.BaseDomain, set.Host, tt.state, tt.base)
			}
			if !slices.Equal(dns.asked, tt.asked) {
				t.Errorf("asked\n%q, want\n%q", dns.asked, tt.asked)
			}
			if len(set.Steps) != len(tt.asked) {
				t.Errorf("got %d steps for %d questions", len(set.Steps), len(tt.asked))
			}
			failed := tt.state == dane.Failed
			if (err != nil) != failed || (set.Err != nil) != failed || (set.Require() == nil) != (tt.state == dane.Usable) {
				t.Errorf("got error %v, set.Err %v, Require %v", err, set.Err, set.Require())
			}
			if (len(set.Records) > 0) != (tt.state == dane.Usable || tt.state == dane.Unusable) {
				t.Errorf("got records %v in state %v", set.Records, set.State)
			}
		})
	}
}

func TestRFC7672_2_1_2_LookupFailureSaysWhichAndWhy(t *testing.T) {
	host := "mx.example.com"
	insecureAlias := map[string]dane.AddrAnswer{host: addrs(false, "host.example.net")}
	secure := map[string]dane.AddrAnswer{host: addrs(true, "")}
	for _, tt := range []struct {
		name, result, reason string
		dns                  *fakeDNS
	}{
		{"addresses", "dnssec-invalid", dane.ReasonAddressLookup, &fakeDNS{err: map[string]error{"A " + host: errServFail}}},
		{"CNAME", "dnssec-invalid", dane.ReasonCNAMELookup, &fakeDNS{addr: insecureAlias, err: map[string]error{"CNAME " + host: errServFail}}},
		{"TLSA", "dnssec-invalid", dane.ReasonTLSALookup, &fakeDNS{addr: secure, err: map[string]error{"TLSA _25._tcp." + host: errServFail}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := dane.Find(t.Context(), tt.dns, host, 25)
			var de *dane.Error
			if !errors.As(err, &de) || !errors.Is(err, errServFail) || de.ResultType() != tt.result || de.FailureReason() != tt.reason {
				t.Fatalf("got %v, want %s, %s around SERVFAIL", err, tt.result, tt.reason)
			}
			if last := set.Steps[len(set.Steps)-1]; last.Answer != errServFail.Error() || last.Authentic {
				t.Errorf("last step is %+v, want the error", last)
			}
		})
	}
	_, err := dane.Find(t.Context(), &fakeDNS{}, host, 25)
	if !errors.Is(err, dane.ErrNoAddress) {
		t.Errorf("host without addresses: got %v, want ErrNoAddress", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if set, err := dane.Find(ctx, &fakeDNS{addr: secure}, host, 25); !errors.Is(err, context.Canceled) || set.State != dane.Failed {
		t.Errorf("cancelled: got %v, %v; want failed, context.Canceled", set.State, err)
	}
}

func TestRFC7672_2_2_3_PortIsInTheQueryName(t *testing.T) {
	dns := &fakeDNS{addr: map[string]dane.AddrAnswer{"relay.example.com": addrs(true, "")}}
	if _, err := dane.Find(t.Context(), dns, "Relay.Example.com.", 587); err != nil {
		t.Fatal(err)
	}
	if want := []string{"A relay.example.com", "TLSA _587._tcp.relay.example.com"}; !slices.Equal(dns.asked, want) {
		t.Errorf("asked %q, want %q", dns.asked, want)
	}
}

func TestRFC7672_2_2_DANEDoesNotApplyToAddresses(t *testing.T) {
	for _, host := range []string{"192.0.2.1", "[192.0.2.1]", "2001:db8::1", "[IPv6:2001:db8::1]"} {
		dns := &fakeDNS{}
		set, err := dane.Find(t.Context(), dns, host, 25)
		if err != nil || set.State != dane.Absent || len(dns.asked) != 0 {
			t.Errorf("%s: got %v, %v, asked %q; want absent, nothing asked", host, set.State, err, dns.asked)
		}
	}
}

func TestFindRefusesWhatIsNoHostName(t *testing.T) {
	for _, host := range []string{"", ".", "a..example.com", strings.Repeat("a", 64) + ".example.com", strings.Repeat("a.", 130) + "com"} {
		dns := &fakeDNS{}
		set, err := dane.Find(t.Context(), dns, host, 25)
		var de *dane.Error
		if !errors.As(err, &de) || de.Reason != dane.ReasonBadHost || set.State != dane.Failed || len(dns.asked) != 0 {
			t.Errorf("%.20q: got %v, %v, asked %q; want failed, nothing asked", host, set.State, err, dns.asked)
		}
	}
}

func TestHostTooLongForATLSANameHasNoRecords(t *testing.T) {
	host := strings.Repeat("a.", 123) + "test" // 250 octets
	dns := &fakeDNS{addr: map[string]dane.AddrAnswer{host: addrs(true, "")}}
	set, err := dane.Find(t.Context(), dns, host, 25)
	if err != nil || set.State != dane.Absent || len(dns.asked) != 1 {
		t.Errorf("got %v, %v, asked %d questions; want absent, 1", set.State, err, len(dns.asked))
	}
}

func TestTTLIsTheLeastOfAllAnswers(t *testing.T) {
	host := "mx.example.com"
	dns := &fakeDNS{
		addr: map[string]dane.AddrAnswer{host: addrs(true, "host.example.net")},
		tlsa: map[string]dane.TLSAAnswer{"_25._tcp." + host: records(t, true, usableText)},
	}
	if set, _ := dane.Find(t.Context(), dns, host, 25); set.TTL != 5*time.Minute {
		t.Errorf("got %v, want the 5 minutes of the denial", set.TTL)
	}
	dns.addr[host] = addrs(true, "")
	if set, _ := dane.Find(t.Context(), dns, host, 25); set.TTL != 30*time.Minute {
		t.Errorf("got %v, want the 30 minutes of the TLSA records", set.TTL)
	}
}

func TestRFC7672_6_MandatoryDANEHoldsWithoutUsableRecords(t *testing.T) {
	for _, tt := range []struct {
		set    dane.Set
		result string
	}{
		{dane.Set{State: dane.Usable}, ""},
		{dane.Set{State: dane.Unusable}, "tlsa-invalid"},
		{dane.Set{State: dane.Absent}, "dane-required"},
		{dane.Set{State: dane.Failed, Err: &dane.Error{Result: "dnssec-invalid", Err: errServFail}}, "dnssec-invalid"},
		{dane.Set{}, "dnssec-invalid"},
	} {
		err := tt.set.Require()
		var de *dane.Error
		if tt.result == "" && err != nil || tt.result != "" && (!errors.As(err, &de) || de.ResultType() != tt.result) {
			t.Errorf("%v: got %v, want %q", tt.set.State, err, tt.result)
		}
	}
}

func TestRFC7672_3_2_2_ReferenceNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  dane.Set
		hop  dane.NextHop
		base string
		want []string
	}{
		{
			"secure MX",
			dane.Set{Host: "mx.example.com", BaseDomain: "mx.example.com"},
			dane.NextHop{Domain: "example.com", MX: true, Secure: true},
			"mx.example.com",
			[]string{"example.com"},
		},
		{
			"secure MX of an expanded next hop",
			dane.Set{Host: "mx10.example.com", BaseDomain: "mx10.example.com"},
			dane.NextHop{Domain: "exchange.example.org", Expanded: "Example.com.", MX: true, Secure: true},
			"mx10.example.com",
			[]string{"exchange.example.org", "example.com"},
		},
		{
			"secure MX that is an alias",
			dane.Set{Host: "mx20.example.com", BaseDomain: "mxbackup.example.net"},
			dane.NextHop{Domain: "example.com", MX: true, Secure: true},
			"mxbackup.example.net",
			[]string{"example.com"},
		},
		{
			"insecure MX",
			dane.Set{Host: "mx.example.com", BaseDomain: "mx.example.com"},
			dane.NextHop{Domain: "example.org", Expanded: "example.net", MX: true},
			"mx.example.com", nil,
		},
		{
			"no MX",
			dane.Set{Host: "example.com", BaseDomain: "example.com"},
			dane.NextHop{Domain: "example.com"},
			"example.com", nil,
		},
		{
			"no MX, and the next hop is an alias",
			dane.Set{Host: "example.com", BaseDomain: "host.example.net"},
			dane.NextHop{Domain: "example.com"},
			"host.example.net",
			[]string{"example.com"},
		},
		{
			"MX is the domain itself",
			dane.Set{Host: "example.com", BaseDomain: "example.com"},
			dane.NextHop{Domain: "example.com", Expanded: "example.com", MX: true, Secure: true},
			"example.com", nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.set.Reference(tt.hop)
			if got.BaseDomain != tt.base || !slices.Equal(got.Names, tt.want) || got.AllowCommonName {
				t.Errorf("got %+v, want %s and %q", got, tt.base, tt.want)
			}
		})
	}
}

func TestStateFailsClosedAndIsTextInJSON(t *testing.T) {
	var zero dane.State
	if zero != dane.Failed {
		t.Errorf("the zero state is %v, want failed", zero)
	}
	for _, s := range []dane.State{dane.Failed, dane.Absent, dane.Unusable, dane.Usable} {
		out, err := json.Marshal(s)
		var back dane.State
		if err != nil || json.Unmarshal(out, &back) != nil || back != s {
			t.Errorf("%v went through JSON as %s and came back as %v", s, out, back)
		}
	}
	if err := json.Unmarshal([]byte(`"secure"`), &zero); err == nil {
		t.Error("an unknown state was read")
	}
	if got := dane.State(9).String(); got != "state(9)" {
		t.Errorf("got %q, want state(9)", got)
	}
}
