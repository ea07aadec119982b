package resolve

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestAnswersAreKeptAsLongAsTheyAreGood asks, waits, and asks again.
func TestAnswersAreKeptAsLongAsTheyAreGood(t *testing.T) {
	long := func(ttl uint32, minimum uint32) reply {
		return reply{rcode: dns.RcodeNameError, ns: []string{fmt.Sprintf("test. %d IN SOA ns.test. h.test. 1 1 1 1 %d", ttl, minimum)}}
	}
	found := func(ttl uint32) reply {
		return reply{answer: []string{fmt.Sprintf("a.test. %d IN MX 10 mx.test.", ttl)}}
	}
	for name, tt := range map[string]struct {
		reply reply
		keeps time.Duration
	}{
		"records, by their TTL":                                 {found(300), 300 * time.Second},
		"records, for a day at most":                            {found(1 << 30), 24 * time.Hour},
		"records with a TTL of zero, not at all":                {found(0), 0},
		"records with a negative TTL, not at all (RFC 2181 §8)": {found(1<<31 + 300), 0},
		"NXDOMAIN, by the SOA's minimum (RFC 2308 §5)":          {long(600, 60), 60 * time.Second},
		"NXDOMAIN, by the SOA's TTL if that is less":            {long(50, 600), 50 * time.Second},
		"NXDOMAIN, for an hour at most":                         {long(1<<30, 1<<30), time.Hour},
		"NXDOMAIN without SOA, not at all (RFC 2308 §5)":        {reply{rcode: dns.RcodeNameError}, 0},
		"NXDOMAIN with the SOA of another zone, not at all":     {reply{rcode: dns.RcodeNameError, ns: []string{soa}}, 0},
		"no data, by the SOA's minimum":                         {reply{ns: []string{"a.test. 600 IN SOA ns.test. h.test. 1 1 1 1 90"}}, 90 * time.Second},
		"no data behind an alias, by the alias if that is less": {reply{answer: []string{"a.test. 20 IN CNAME b.test."}, ns: []string{"test. 600 IN SOA ns.test. h.test. 1 1 1 1 90"}}, 20 * time.Second},
		"SERVFAIL, for a few seconds (RFC 2308 §7.1)":           {reply{rcode: dns.RcodeServerFailure}, 3 * time.Second},
		"a loop, for a few seconds (RFC 9520 §3.2)":             {reply{answer: []string{"a.test. 300 IN CNAME a.test."}}, 3 * time.Second},
		"what cannot be read, for a few seconds":                {reply{edit: func(m *dns.Msg) { m.Truncated = true }}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, map[string]reply{"a.test. MX": tt.reply})
			c := newClock()
			r := ask(t, Options{Now: c.now}, s)
			first := lookupMX(t, r)
			start := s.times("a.test. MX") // one by UDP, or one more by TCP

			if tt.keeps > 0 {
				c.advance(tt.keeps - time.Second)
				if again := lookupMX(t, r); again != first {
					t.Errorf("from the cache it is %q, at first it was %q", again, first)
				}
				if n := s.times("a.test. MX"); n != start {
					t.Errorf("asked %d times before its end, want %d", n, start)
				}
				c.advance(time.Second)
			}
			lookupMX(t, r)
			if n := s.times("a.test. MX"); n != 2*start {
				t.Errorf("asked %d times after its end, want %d", n, 2*start)
			}
		})
	}
}

func lookupMX(t *testing.T, r *Resolver) string {
	t.Helper()
	mx, err := r.MX(t.Context(), "a.test")
	return fmt.Sprint(mx.Records, err)
}

func TestWhatIsLeftOfTheTTLIsTold(t *testing.T) {
	s := serve(t, map[string]reply{
		"a.test. MX":  {answer: []string{"a.test. 300 IN MX 10 mx.test."}},
		"a.test. TXT": {ns: []string{"test. 600 IN SOA ns.test. h.test. 1 1 1 1 90"}},
	})
	c := newClock()
	start := c.now()
	r := ask(t, Options{Now: c.now}, s)
	for _, age := range []time.Duration{0, 30 * time.Second} {
		c.advance(age)
		mx, err := r.MX(t.Context(), "a.test")
		if err != nil || mx.TTL != 300*time.Second-age || !mx.At.Equal(start) {
			t.Errorf("after %v the MX has %v left since %v (%v)", age, mx.TTL, mx.At, err)
		}
		var missing *NotFound
		if _, err = r.TXT(t.Context(), "a.test"); !errors.As(err, &missing) || missing.TTL != 90*time.Second-age || !missing.At.Equal(start) {
			t.Errorf("after %v the absence is %+v", age, missing)
		}
	}
	if h := r.Stats().CacheHits; h != 2 {
		t.Errorf("%d hits are counted, want 2", h)
	}
}

func TestAFreshLookupAsksAgainAndFillsTheCache(t *testing.T) {
	s := serve(t, map[string]reply{"a.test. MX": {answer: []string{"a.test. 300 IN MX 10 old.test."}}})
	r := ask(t, Options{}, s)
	if got := lookupMX(t, r); got != "[{10 old.test}] <nil>" {
		t.Fatalf("got %s", got)
	}
	s.set("a.test. MX", reply{answer: []string{"a.test. 300 IN MX 10 new.test."}})
	if got := lookupMX(t, r); got != "[{10 old.test}] <nil>" {
		t.Errorf("from the cache it is %s, want the old one", got)
	}
	mx, err := r.MX(Fresh(t.Context()), "a.test")
	same(t, "fresh", mx.Records, []MX{{10, "new.test"}}, err)
	if got := lookupMX(t, r); got != "[{10 new.test}] <nil>" {
		t.Errorf("from the cache it is now %s, want the new one", got)
	}
	if n := s.times("a.test. MX"); n != 2 {
		t.Errorf("it was asked %d times, want 2", n)
	}
}

func TestAFlushForgetsEverything(t *testing.T) {
	s := serve(t, map[string]reply{"a.test. MX": {answer: []string{"a.test. 300 IN MX 10 mx.test."}}})
	r := ask(t, Options{}, s)
	lookupMX(t, r)
	r.Flush()
	if n := r.Stats().CacheEntries; n != 0 {
		t.Errorf("%d entries are left, want none", n)
	}
	lookupMX(t, r)
	if n := s.times("a.test. MX"); n != 2 {
		t.Errorf("it was asked %d times, want 2", n)
	}
}

func TestACallerMayChangeItsRecords(t *testing.T) {
	s := serve(t, map[string]reply{"a.test. MX": {answer: []string{"a.test. 300 IN MX 10 mx.test."}}})
	r := ask(t, Options{}, s)
	for range 2 {
		mx, err := r.MX(t.Context(), "a.test")
		if err != nil || mx.Records[0].Host != "mx.test" {
			t.Fatalf("got %v, %v", mx.Records, err)
		}
		mx.Records[0].Host = "attacker.test"
	}
}

func TestTheCacheStaysWithinItsBytes(t *testing.T) {
	c := newCache(1 << 20)
	now := time.Unix(0, 0)
	for i := range 10000 {
		q := question{fmt.Sprintf("d%d.test", i), dns.TypeTXT}
		c.put(q, &result{question: q, records: []string{strings.Repeat("x", 1000)}, ttl: time.Hour})
	}
	if got := c.bytes(); got > 1<<20 || got < 1<<19 {
		t.Errorf("10,000 records of 1,000 bytes take %d bytes, want at most 1 MiB, and well used", got)
	}
	if n := c.size(); n > 800 || n < 300 {
		t.Errorf("%d entries are kept, want some hundreds", n)
	}
	found := 0
	for i := range 10000 {
		if c.get(question{fmt.Sprintf("d%d.test", i), dns.TypeTXT}, 0, now) != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("nothing is found again")
	}
}

func BenchmarkCachedMX(b *testing.B) {
	r := New(Options{})
	defer r.Close()
	q := question{"example.com", dns.TypeMX}
	r.cache.put(q, &result{question: q, canonical: q.name, records: []MX{{10, "mx1.example.com"}, {20, "mx2.example.com"}}, at: time.Now().UnixNano(), ttl: time.Hour})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.MX(b.Context(), q.name); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func TestAnAnswerThatIsWantedOnceTakesNoRoom(t *testing.T) {
	s := serve(t, map[string]reply{"a.test. MX": {answer: []string{"a.test. 300 IN MX 10 old.test."}}})
	r := ask(t, Options{}, s)
	mx, err := r.MX(Once(t.Context()), "a.test")
	same(t, "once", mx.Records, []MX{{10, "old.test"}}, err)
	if n := r.Stats().CacheEntries; n != 0 {
		t.Errorf("%d entries are kept, want none", n)
	}
	lookupMX(t, r) // this one is kept
	s.set("a.test. MX", reply{answer: []string{"a.test. 300 IN MX 10 new.test."}})
	if mx, err = r.MX(Once(Fresh(t.Context())), "a.test"); err != nil {
		t.Error(err)
	}
	if got := lookupMX(t, r); got != "[{10 new.test}] <nil>" {
		t.Errorf("from the cache it is %s, want what the DNS says now", got)
	}
}
