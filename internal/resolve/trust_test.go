package resolve

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	signed = "signed.test"
	bogus  = "bogus.test"
)

// validating is the zone of a resolver that validates.
func validating() map[string]reply {
	return map[string]reply{
		"signed.test. A":  {ad: true, answer: []string{"signed.test. 300 IN A 192.0.2.1"}},
		"bogus.test. A":   {rcode: dns.RcodeServerFailure},
		"example.com. MX": {ad: true, answer: []string{"example.com. 300 IN MX 10 mx.example.com."}},
	}
}

// oblivious is the zone of one that does not, and passes AD through or not.
func oblivious(ad bool) map[string]reply {
	z := validating()
	z["signed.test. A"] = reply{ad: ad, answer: []string{"signed.test. 300 IN A 192.0.2.1"}}
	z["bogus.test. A"] = reply{ad: ad, answer: []string{"bogus.test. 300 IN A 192.0.2.1"}}
	return z
}

func authentic(t *testing.T, r *Resolver) bool {
	t.Helper()
	mx, err := r.MX(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	return mx.Authentic
}

func TestRFC7672_2_1_1_ADCountsOnlyOfATrustedResolver(t *testing.T) {
	for name, tt := range map[string]struct {
		zone    map[string]reply
		byWord  bool // the configuration says so
		check   bool
		trusted bool
		why, do string
	}{
		"not checked yet":            {validating(), false, false, false, "has not been checked yet", ""},
		"the configuration says so":  {validating(), true, false, true, "dns.validating says", ""},
		"the check shows it":         {validating(), false, true, true, "validates DNSSEC", ""},
		"no AD on a signed name":     {oblivious(false), false, true, false, "which is signed, without AD", "unbound"},
		"a bogus name is answered":   {oblivious(true), false, true, false, "whose signature is bogus", "unbound"},
		"the names cannot be asked":  {map[string]reply{"example.com. MX": validating()["example.com. MX"]}, false, true, false, "signed.test does not exist", "unbound"},
		"the word against the check": {oblivious(true), true, true, true, "was seen not to", "take dns.validating out"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := ask(t, Options{Validating: tt.byWord}, serve(t, tt.zone))
			v := r.Validation()
			if tt.check {
				v = r.CheckValidation(t.Context(), signed, bogus)
			}
			if v.Trusted != tt.trusted || !strings.Contains(v.Why, tt.why) || !strings.Contains(v.Do, tt.do) || v.At.IsZero() {
				t.Errorf("got %+v, want trusted %v because %q, do %q", v, tt.trusted, tt.why, tt.do)
			}
			if got := authentic(t, r); got != tt.trusted {
				t.Errorf("the answer is authentic: %v, want %v", got, tt.trusted)
			}
		})
	}
}

func TestWithoutTrustNothingIsAuthentic(t *testing.T) {
	s := serve(t, map[string]reply{
		"a.test. A":     {ad: true, answer: []string{"a.test. 300 IN A 192.0.2.1"}},
		"a.test. AAAA":  {ad: true, answer: []string{"a.test. 300 IN AAAA 2001:db8::1"}},
		"a.test. TLSA":  {ad: true, answer: []string{"a.test. 300 IN TLSA 3 1 1 00"}},
		"a.test. CNAME": {ad: true, answer: []string{"a.test. 300 IN CNAME b.test."}},
		"a.test. TXT":   {ad: true, rcode: dns.RcodeNameError},
	})
	for _, trusted := range []bool{false, true} {
		r := ask(t, Options{Validating: trusted}, s)
		addrs, err1 := r.Addrs(t.Context(), "a.test")
		tlsa, err2 := r.TLSA(t.Context(), "a.test")
		cname, err3 := r.CNAME(t.Context(), "a.test")
		_, err4 := r.TXT(t.Context(), "a.test")
		var missing *NotFound
		if err1 != nil || err2 != nil || err3 != nil || !errors.As(err4, &missing) {
			t.Fatal(err1, err2, err3, err4)
		}
		for what, got := range map[string]bool{"addresses": addrs.Authentic, "TLSA": tlsa.Authentic, "CNAME": cname.Authentic, "absence": missing.Authentic} {
			if got != trusted {
				t.Errorf("trusted %v: %s authentic %v", trusted, what, got)
			}
		}
	}
}

func TestRFC7672_2_1_1_AWordFromFurtherOffCanBeForged(t *testing.T) {
	s := serve(t, validating())
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addr)
	}
	r := ask(t, Options{Upstreams: []string{"192.0.2.53:53"}, Dial: dial})
	v := r.CheckValidation(t.Context(), signed, bogus)
	if v.Trusted || v.Upstreams[0].Verdict != Forgeable || !strings.Contains(v.Do, "dns.validating: true") {
		t.Errorf("got %+v, want no trust, and how to get it", v)
	}
	if authentic(t, r) {
		t.Error("the answer is authentic")
	}
}

func TestWhileOneUpstreamIsTrustedTheOthersAreNotAsked(t *testing.T) {
	bad, good := serve(t, oblivious(true)), serve(t, validating())
	r := ask(t, Options{}, bad, good)
	v := r.CheckValidation(t.Context(), signed, bogus)
	if !v.Trusted || v.Upstreams[0].Asked || !v.Upstreams[1].Asked {
		t.Errorf("got %+v, want the second alone", v)
	}
	if want := good.addr + " validates DNSSEC; " + bad.addr + " is not asked, for it is not known to be trustworthy"; v.Why != want {
		t.Errorf("it says %q, want %q", v.Why, want)
	}
	good.set("example.com. MX", reply{rcode: dns.RcodeServerFailure})
	if _, err := r.MX(t.Context(), "example.com"); outcome(err) != "servfail" {
		t.Errorf("got %v, want SERVFAIL: the other would have answered anything", err)
	}
	if n := bad.times("example.com. MX"); n != 0 {
		t.Errorf("the other was asked %d times", n)
	}
}

func TestAChangeOfTrustForgetsWhatIsCached(t *testing.T) {
	s := serve(t, oblivious(true))
	r := ask(t, Options{}, s)
	r.CheckValidation(t.Context(), signed, bogus)
	if authentic(t, r) {
		t.Error("authentic before the resolver validates")
	}
	s.set("bogus.test. A", reply{rcode: dns.RcodeServerFailure})
	if v := r.CheckValidation(t.Context(), signed, bogus); !v.Trusted {
		t.Errorf("got %+v, want trust", v)
	}
	if !authentic(t, r) {
		t.Error("not authentic though the resolver validates now")
	}
	r.CheckValidation(t.Context(), signed, bogus)
	authentic(t, r)
	if n := s.times("example.com. MX"); n != 2 {
		t.Errorf("asked %d times, want 2: a check that changes nothing keeps the cache", n)
	}
	s.set("bogus.test. A", reply{answer: []string{"bogus.test. 300 IN A 192.0.2.1"}})
	r.CheckValidation(t.Context(), signed, bogus)
	if authentic(t, r) {
		t.Error("authentic though the resolver no longer validates")
	}
}

func TestACheckThatComesToNothingChangesNothing(t *testing.T) {
	for name, lost := range map[string]reply{
		"SERVFAIL for the signed name":   {rcode: dns.RcodeServerFailure},
		"the signed name does not exist": {rcode: dns.RcodeNameError},
		"silence":                        {raw: func(dns.ResponseWriter, *dns.Msg) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, validating())
			r := ask(t, Options{Timeout: 300 * time.Millisecond, Retries: -1}, s)
			r.CheckValidation(t.Context(), signed, bogus)
			s.set("signed.test. A", lost)
			for range 2 {
				v := r.CheckValidation(t.Context(), signed, bogus)
				if !v.Trusted || strings.Count(v.Upstreams[0].Why, "came to nothing") != 1 {
					t.Errorf("got %+v, want trust as before, and what happened said once", v)
				}
			}
		})
	}
}

func TestTrustIsLoggedWhenItChangesAndNotEachHour(t *testing.T) {
	var log bytes.Buffer
	s := serve(t, oblivious(false))
	r := ask(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, s)
	for range 3 {
		r.CheckValidation(t.Context(), signed, bogus)
	}
	if n := strings.Count(log.String(), "level="); n != 1 || !strings.Contains(log.String(), "DANE is off") {
		t.Errorf("logged %d times, want once:\n%s", n, &log)
	}
	for key, rep := range validating() {
		s.set(key, rep)
	}
	log.Reset()
	for range 3 {
		r.CheckValidation(t.Context(), signed, bogus)
	}
	if n := strings.Count(log.String(), "level="); n != 1 {
		t.Errorf("the change is logged %d times, want once:\n%s", n, &log)
	}
}

func TestAnAnswerFromBeforeAChangeOfTrustIsNotKept(t *testing.T) {
	s := serve(t, validating())
	asked, release := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	s.set("example.com. MX", reply{raw: func(w dns.ResponseWriter, query *dns.Msg) {
		if held.CompareAndSwap(false, true) {
			close(asked)
			<-release
		}
		_ = w.WriteMsg(validating()["example.com. MX"].message(query))
	}})
	r := ask(t, Options{}, s)
	early := make(chan bool)
	go func() { early <- authentic(t, r) }()
	<-asked
	r.CheckValidation(t.Context(), signed, bogus)
	close(release)
	if <-early {
		t.Error("the answer asked for before the check is authentic")
	}
	if !authentic(t, r) {
		t.Error("the answer asked for after the check is not authentic")
	}
}

func TestWithoutUpstreamsOrNamesThereIsNoTrust(t *testing.T) {
	if v := ask(t, Options{Validating: true}).Validation(); v.Trusted {
		t.Errorf("got %+v, want no trust without anybody to trust", v)
	}
	if v := ask(t, Options{}).CheckValidation(t.Context(), signed, bogus); v.Trusted || v.Do != "set dns.upstreams" {
		t.Errorf("got %+v, want it to say what to do", v)
	}
	r := ask(t, Options{}, serve(t, validating()))
	for _, names := range [][2]string{{"", bogus}, {signed, ""}} {
		if v := r.CheckValidation(t.Context(), names[0], names[1]); v.Trusted || !strings.Contains(v.Why, "there is no ") {
			t.Errorf("got %+v, want no trust without names", v)
		}
	}
}
