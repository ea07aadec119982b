package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/pawl-mail/pawl/dane"
)

func TestEachTypeOfRecordIsReadAsItIs(t *testing.T) {
	s := serve(t, map[string]reply{
		"example.com. MX": {answer: []string{
			"example.com. 300 IN MX 20 b.example.com.",
			"example.com. 300 IN MX 10 z.example.com.",
			"example.com. 200 IN MX 10 a.example.com.",
			"example.com. 200 IN MX 10 a.example.com.",
		}},
		"example.com. TXT": {answer: []string{
			`example.com. 300 IN TXT "one \"quoted\" \\ \195\188;" " two"`,
			`example.com. 300 IN TXT ""`,
		}},
		"_25._tcp.mx.example.com. TLSA": {answer: []string{
			"_25._tcp.mx.example.com. 300 IN TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
			"_25._tcp.mx.example.com. 300 IN TLSA 2 0 0 0a",
		}},
		"www.example.com. CNAME": {answer: []string{"www.example.com. 300 IN CNAME host.example.com."}},
		"mx.example.com. A":      {answer: []string{"mx.example.com. 300 IN A 192.0.2.2", "mx.example.com. 300 IN A 192.0.2.1"}},
		"mx.example.com. AAAA":   {answer: []string{"mx.example.com. 300 IN AAAA 2001:db8::1"}},
	})
	c := newClock()
	r := ask(t, Options{Now: c.now}, s)

	mx, err := r.MX(t.Context(), "Example.COM.")
	want := Answer[MX]{
		Name: "example.com", Canonical: "example.com", TTL: 200 * time.Second, At: c.now(), Upstream: s.addr,
		Records: []MX{{10, "a.example.com"}, {10, "z.example.com"}, {20, "b.example.com"}},
	}
	same(t, "MX", mx, want, err)

	txt, err := r.TXT(t.Context(), "example.com")
	same(t, "TXT", txt.Records, []string{`one "quoted" \ ü; two`, ""}, err)

	tlsa, err := r.TLSA(t.Context(), "_25._tcp.mx.example.com")
	digest := []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
	same(t, "TLSA", tlsa.Records, []dane.Record{
		{Usage: 3, Selector: 1, MatchingType: 1, Data: slices.Concat(digest, digest)},
		{Usage: 2, Data: []byte{10}},
	}, err)

	cname, err := r.CNAME(t.Context(), "www.example.com")
	same(t, "CNAME", cname.Records, []string{"host.example.com"}, err)

	addrs, err := r.Addrs(t.Context(), "mx.example.com")
	if err != nil {
		t.Fatal(err)
	}
	got := addrs.Records
	want4 := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	if !slices.Equal(got, want4) {
		t.Errorf("addresses are %v, want %v", got, want4)
	}
}

func same(t *testing.T, what string, got, want any, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

func TestRFC8461_3_1_TheStringsOfOneTXTRecordAreJoinedWithoutSpace(t *testing.T) {
	s := serve(t, map[string]reply{"_mta-sts.example.com. TXT": {answer: []string{`_mta-sts.example.com. 300 IN TXT "v=STS" "v1; id=2026" "0301;"`}}})
	txt, err := ask(t, Options{}, s).TXT(t.Context(), "_mta-sts.example.com")
	same(t, "TXT", txt.Records, []string{"v=STSv1; id=20260301;"}, err)
}

func TestRFC7505_3_TheNullMXIsAnAnswerWithoutHost(t *testing.T) {
	s := serve(t, map[string]reply{
		"example.com. MX": {answer: []string{"example.com. 300 IN MX 0 ."}},
		"mixed.test. MX":  {answer: []string{"mixed.test. 300 IN MX 0 .", "mixed.test. 300 IN MX 10 mx.mixed.test."}},
	})
	r := ask(t, Options{}, s)
	mx, err := r.MX(t.Context(), "example.com")
	same(t, "null MX", mx.Records, []MX{{}}, err)
	mx, err = r.MX(t.Context(), "mixed.test")
	same(t, "null MX beside another", mx.Records, []MX{{10, "mx.mixed.test"}}, err)
	if mx.Dropped != 1 || len(mx.Notes) != 1 {
		t.Errorf("dropped %d with notes %q, want 1 with a note", mx.Dropped, mx.Notes)
	}
}

// outcome is how a lookup ended: "found", "NXDOMAIN", "NODATA", or the kind of failure.
func outcome(err error) string {
	var missing *NotFound
	var failure *Failure
	switch {
	case err == nil:
		return "found"
	case errors.As(err, &missing) && missing.NXDomain:
		return "NXDOMAIN"
	case errors.As(err, &missing):
		return "NODATA"
	case errors.As(err, &failure):
		return string(failure.Kind)
	}
	return "neither: " + err.Error()
}

func TestNoSuchRecordAndCouldNotFindOutAreKeptApart(t *testing.T) {
	garbage := func(w dns.ResponseWriter, _ *dns.Msg) { _, _ = w.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }
	broken := func(w dns.ResponseWriter, query *dns.Msg) {
		raw, _ := reply{answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}.message(query).Pack()
		_, _ = w.Write(raw[:len(raw)-3])
	}
	for name, tt := range map[string]struct {
		reply reply
		want  string
		says  string // within the error
	}{
		"a name without the type":              {reply{ns: []string{soa}}, "NODATA", "example.com has no MX record"},
		"a name without the type, without SOA": {reply{}, "NODATA", "example.com has no MX record"},
		"a name that does not exist":           {reply{rcode: dns.RcodeNameError, ns: []string{soa}}, "NXDOMAIN", "example.com does not exist"},
		"SERVFAIL":                             {reply{rcode: dns.RcodeServerFailure}, "servfail", "it answers SERVFAIL"},
		"REFUSED":                              {reply{rcode: dns.RcodeRefused}, "refused", "it answers REFUSED"},
		"NOTIMP":                               {reply{rcode: dns.RcodeNotImplemented}, "refused", "it answers NOTIMP"},
		"silence":                              {reply{raw: func(dns.ResponseWriter, *dns.Msg) {}}, "timeout", "no answer in time"},
		"garbage":                              {reply{raw: garbage}, "malformed", "does not answer the question"},
		"a message cut off":                    {reply{raw: broken}, "malformed", "cannot be read"},
		"a referral":                           {reply{ns: []string{"com. 300 IN NS ns.example.net."}}, "malformed", "not a recursive resolver"},
		"NXDOMAIN with records of the name":    {reply{rcode: dns.RcodeNameError, answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}, "malformed", "has records of it"},
		"records of another name":              {reply{answer: []string{"example.net. 300 IN MX 10 mx.example.com."}}, "NODATA", ""},
		"records of another class":             {reply{answer: []string{"example.com. 300 CH MX 10 mx.example.com."}}, "NODATA", ""},
		"no MX that is a host name":            {reply{answer: []string{`example.com. 300 IN MX 10 mx\032\010.example.com.`}}, "malformed", "none of its 1 records is any good"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, map[string]reply{"example.com. MX": tt.reply})
			_, err := ask(t, Options{Timeout: 300 * time.Millisecond, Retries: -1}, s).MX(t.Context(), "example.com")
			if got := outcome(err); got != tt.want {
				t.Errorf("ended as %s, want %s (%v)", got, tt.want, err)
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the error is %q, want it to say %q", err, tt.says)
			}
			if IsNotFound(err) != strings.HasPrefix(tt.want, "N") {
				t.Errorf("IsNotFound is %v", IsNotFound(err))
			}
		})
	}
}

func TestAnUnreachableUpstreamIsAFailureOfTheNetwork(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc.Close() // nobody listens there now
	_, err = ask(t, Options{Upstreams: []string{pc.LocalAddr().String()}, Timeout: 2 * time.Second}).TXT(t.Context(), "example.com")
	if got := outcome(err); got != "network" {
		t.Errorf("ended as %s, want network (%v)", got, err)
	}
	_, err = ask(t, Options{}).TXT(t.Context(), "example.com")
	if got := outcome(err); got != "network" {
		t.Errorf("without upstreams it ended as %s, want network (%v)", got, err)
	}
}

func TestAnUpstreamsExplanationIsShownAndBogusIsTold(t *testing.T) {
	ede := func(code uint16, text string) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
		}
	}
	s := serve(t, map[string]reply{
		"bogus.test. TLSA": {rcode: dns.RcodeServerFailure, edit: ede(dns.ExtendedErrorCodeSignatureExpired, "expired\n\x1b[31m2026"+strings.Repeat("x", 1000))},
		"dead.test. TLSA":  {rcode: dns.RcodeServerFailure, edit: ede(dns.ExtendedErrorCodeNoReachableAuthority, "")},
	})
	r := ask(t, Options{}, s)
	var bogus, dead *Failure
	if _, err := r.TLSA(t.Context(), "bogus.test"); !errors.As(err, &bogus) || !bogus.Bogus {
		t.Fatalf("got %v, want a failure that is bogus", err)
	}
	want := "it answers SERVFAIL (Signature Expired: expired[31m2026" + strings.Repeat("x", 120-len("expired[31m2026")) + ")"
	if bogus.Err.Error() != want {
		t.Errorf("it says %q,\nwant %q", bogus.Err, want)
	}
	if _, err := r.TLSA(t.Context(), "dead.test"); !errors.As(err, &dead) || dead.Bogus {
		t.Errorf("got %v, want a failure that is not bogus", err)
	}
}

func TestAnAnswerInOtherLetterCaseIsTheSame(t *testing.T) {
	s := serve(t, map[string]reply{"example.com. MX": {
		answer: []string{"eXample.COM. 300 IN CNAME Mail.EXAMPLE.net.", "mAIL.example.NET. 300 IN MX 10 MX.Example.Com."},
		edit:   func(m *dns.Msg) { m.Question[0].Name = "EXAMPLE.com." },
	}})
	mx, err := ask(t, Options{}, s).MX(t.Context(), "example.com")
	same(t, "records", mx.Records, []MX{{10, "mx.example.com"}}, err)
	same(t, "chain", mx.Chain, []string{"mail.example.net"}, nil)
}

func TestAddressesOfOneFamilyAloneSayWhatIsMissing(t *testing.T) {
	fail := reply{rcode: dns.RcodeServerFailure}
	s := serve(t, map[string]reply{
		"v4.test. A":       {ad: true, answer: []string{"v4.test. 300 IN A 192.0.2.1"}},
		"v4.test. AAAA":    {ad: true, ns: []string{"v4.test. 100 IN SOA ns.v4.test. h.v4.test. 1 1 1 1 100"}},
		"v6.test. A":       {ns: []string{"v6.test. 100 IN SOA ns.v6.test. h.v6.test. 1 1 1 1 100"}},
		"v6.test. AAAA":    {ad: true, answer: []string{"v6.test. 300 IN AAAA 2001:db8::1"}},
		"half.test. A":     {ad: true, answer: []string{"half.test. 300 IN A 192.0.2.1"}},
		"half.test. AAAA":  fail,
		"other.test. A":    fail,
		"other.test. AAAA": {answer: []string{"other.test. 300 IN AAAA 2001:db8::1"}},
		"empty.test. A":    {ad: true},
		"empty.test. AAAA": fail,
		"dead.test. A":     fail,
		"dead.test. AAAA":  {rcode: dns.RcodeRefused},
		"none.test. A":     {ad: true},
		"none.test. AAAA":  {ad: true},
	})
	r := ask(t, Options{Validating: true}, s)
	for name, tt := range map[string]struct {
		outcome            string
		addrs              int
		authentic, partial bool
		ttl                time.Duration
	}{
		"v4.test":      {"found", 1, true, false, 100 * time.Second},
		"v6.test":      {"found", 1, false, false, 100 * time.Second},
		"half.test":    {"found", 1, true, true, failureTTL}, // dropping AAAA must not make the host insecure
		"other.test":   {"found", 1, false, true, failureTTL},
		"empty.test":   {outcome: "servfail"}, // there may be addresses
		"dead.test":    {outcome: "servfail"},
		"none.test":    {outcome: "NODATA"},
		"missing.test": {outcome: "NXDOMAIN"},
	} {
		a, err := r.Addrs(t.Context(), name)
		if got := outcome(err); got != tt.outcome {
			t.Errorf("%s ended as %s, want %s (%v)", name, got, tt.outcome, err)
		}
		if len(a.Records) != tt.addrs || a.Authentic != tt.authentic || (a.Partial != nil) != tt.partial || a.TTL.Round(time.Second) != tt.ttl {
			t.Errorf("%s has %v, authentic %v, partial %v, ttl %v; want %+v", name, a.Records, a.Authentic, a.Partial, a.TTL, tt)
		}
	}
	var missing *NotFound
	if _, err := r.Addrs(t.Context(), "none.test"); !errors.As(err, &missing) || !missing.Authentic {
		t.Errorf("got %v, want an authentic absence", err)
	}
}

func TestAnEndedContextEndsTheLookup(t *testing.T) {
	s := serve(t, map[string]reply{})
	r := ask(t, Options{}, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.TXT(ctx, "example.com")
	if outcome(err) != "canceled" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to be cancelled", err)
	}
	if n := s.times("example.com. TXT"); n != 0 {
		t.Errorf("%d questions were asked, want none", n)
	}
}

func TestAClosedResolverSaysSo(t *testing.T) {
	r := New(Options{Upstreams: []string{"192.0.2.1:53"}})
	r.Close()
	if _, err := r.TXT(t.Context(), "example.com"); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestTheSystemsUpstreamsAreReadFromResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# comment\nnameserver 127.0.0.53\nsearch example.com\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\nnameserver dns.example\noptions edns0\n")
	got, err := SystemUpstreams(file)
	same(t, "upstreams", got, []string{"127.0.0.53:53", "[2001:db8::53]:53", "[fe80::1%eth0]:53"}, err)

	write("search example.com\n")
	if _, err := SystemUpstreams(file); err == nil || !strings.Contains(err.Error(), "names no resolver") {
		t.Errorf("got %v, want it to say that there is none", err)
	}
	if _, err := SystemUpstreams(file + ".missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want it to say that there is no file", err)
	}
}
