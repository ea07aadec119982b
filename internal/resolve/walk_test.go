package resolve

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// chainOf returns a chain of so many aliases from n0.test to records at the end.
func chainOf(n int) []string {
	var rrs []string
	for i := range n {
		rrs = append(rrs, fmt.Sprintf("n%d.test. 300 IN CNAME n%d.test.", i, i+1))
	}
	return append(rrs, fmt.Sprintf("n%d.test. 300 IN MX 10 mx.example.com.", n))
}

func TestAliasesAreWalkedByNameWhateverTheirOrder(t *testing.T) {
	s := serve(t, map[string]reply{"a.test. MX": {answer: []string{
		"c.test. 50 IN MX 10 mx.example.com.",
		"x.test. 1 IN CNAME y.test.", // of no concern
		"b.test. 40 IN CNAME c.test.",
		"a.test. 60 IN CNAME b.test.",
		"a.test. 60 IN RRSIG CNAME 8 2 60 20300101000000 20200101000000 1 test. AAAA",
	}}})
	mx, err := ask(t, Options{Now: newClock().now}, s).MX(t.Context(), "a.test")
	same(t, "records", mx.Records, []MX{{10, "mx.example.com"}}, err)
	same(t, "chain", mx.Chain, []string{"b.test", "c.test"}, nil)
	same(t, "canonical name", mx.Canonical, "c.test", nil)
	same(t, "TTL, the least of all", mx.TTL, 40*time.Second, nil)
}

func TestRFC7672_2_1_3_AChainThatGoesOnIsAskedFor(t *testing.T) {
	s := serve(t, map[string]reply{
		"a.test. TLSA": {ad: true, answer: []string{"a.test. 300 IN CNAME b.test."}},
		"b.test. TLSA": {ad: true, answer: []string{"b.test. 300 IN CNAME c.test."}},
		"c.test. TLSA": {ad: true, answer: []string{"c.test. 300 IN TLSA 3 1 1 00"}},

		"e.test. TLSA": {ad: true, answer: []string{"e.test. 300 IN CNAME f.test."}},
		"f.test. TLSA": {ad: false, answer: []string{"f.test. 300 IN CNAME c.test."}}, // insecure in the middle

		"g.test. TLSA": {ad: true, answer: []string{"g.test. 300 IN CNAME h.test."}},
		"h.test. TLSA": {rcode: dns.RcodeServerFailure},

		"i.test. TLSA": {ad: true, answer: []string{"i.test. 300 IN CNAME gone.test."}},
		"j.test. TLSA": {ad: true, answer: []string{"j.test. 300 IN CNAME k.test."}, ns: []string{"test. 300 IN SOA ns.test. h.test. 1 1 1 1 30"}},
	})
	r := ask(t, Options{Validating: true}, s)
	for name, tt := range map[string]struct {
		outcome   string
		authentic bool
		canonical string
	}{
		"a.test": {"found", true, "c.test"},
		"e.test": {"found", false, "c.test"},
		"g.test": {"servfail", false, ""},
		"i.test": {"NXDOMAIN", false, "gone.test"},
		"j.test": {"NODATA", true, "k.test"},
	} {
		a, err := r.TLSA(t.Context(), name)
		authentic, canonical := a.Authentic, a.Canonical
		var missing *NotFound
		if errors.As(err, &missing) {
			authentic, canonical = missing.Authentic, missing.Canonical
		}
		if got := outcome(err); got != tt.outcome || authentic != tt.authentic || canonical != tt.canonical {
			t.Errorf("%s ended as %s, authentic %v, at %s (%v); want %+v", name, got, authentic, canonical, err, tt)
		}
	}
	if n := s.times("k.test. TLSA"); n != 0 {
		t.Errorf("k.test was asked for %d times; the SOA had said that there is nothing", n)
	}
}

func TestTheAliasItselfIsNotFollowed(t *testing.T) {
	s := serve(t, map[string]reply{
		"a.test. CNAME":  {ad: true, answer: []string{"a.test. 300 IN CNAME b.test.", "b.test. 300 IN CNAME c.test."}},
		"mx.test. CNAME": {ad: true, ns: []string{"test. 300 IN SOA ns.test. h.test. 1 1 1 1 30"}},
	})
	r := ask(t, Options{Validating: true}, s)
	a, err := r.CNAME(t.Context(), "a.test")
	same(t, "alias", a.Records, []string{"b.test"}, err)
	if !a.Authentic || a.Canonical != "a.test" {
		t.Errorf("authentic %v, canonical %s; want true, a.test", a.Authentic, a.Canonical)
	}
	if _, err := r.CNAME(t.Context(), "mx.test"); outcome(err) != "NODATA" {
		t.Errorf("got %v, want NODATA", err)
	}
}

func TestAliasesThatLeadNowhereAreAFailure(t *testing.T) {
	s := serve(t, map[string]reply{
		"self.test. MX": {answer: []string{"self.test. 300 IN CNAME SELF.test."}},
		"a.test. MX":    {answer: []string{"a.test. 300 IN CNAME b.test.", "b.test. 300 IN CNAME c.test.", "c.test. 300 IN CNAME b.test."}},
		"x.test. MX":    {answer: []string{"x.test. 300 IN CNAME y.test."}}, // the loop goes over several answers
		"y.test. MX":    {answer: []string{"y.test. 300 IN CNAME x.test."}},
		"n0.test. MX":   {answer: chainOf(maxChain + 1)},
		"two.test. MX":  {answer: []string{"two.test. 300 IN CNAME b.test.", "two.test. 300 IN CNAME c.test."}},
		"odd.test. MX":  {answer: []string{`odd.test. 300 IN CNAME a\ b.test.`}},
	})
	r := ask(t, Options{}, s)
	for name, tt := range map[string]struct{ outcome, says string }{
		"self.test": {"loop", "its aliases go round: self.test → self.test"},
		"a.test":    {"loop", "its aliases go round: a.test → b.test → c.test → b.test"},
		"x.test":    {"loop", "its aliases go round: x.test → y.test → x.test"},
		"n0.test":   {"loop", "more than 12 aliases in a row"},
		"two.test":  {"malformed", "two.test is an alias of both b.test and c.test"},
		"odd.test":  {"malformed", "is not a host name"},
	} {
		_, err := r.MX(t.Context(), name)
		if got := outcome(err); got != tt.outcome || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s ended as %s with %q; want %s with %q", name, got, err, tt.outcome, tt.says)
		}
	}
}

func TestTheLongestChainAllowedIsWalked(t *testing.T) {
	s := serve(t, map[string]reply{"n0.test. MX": {answer: chainOf(maxChain)}})
	mx, err := ask(t, Options{}, s).MX(t.Context(), "n0.test")
	if err != nil || len(mx.Chain) != maxChain || mx.Canonical != "n12.test" {
		t.Errorf("got %d aliases to %s, %v; want %d to n12.test", len(mx.Chain), mx.Canonical, err, maxChain)
	}
}

func TestAnEndlessChainOverManyAnswersEnds(t *testing.T) {
	n := 0
	endless := reply{raw: func(w dns.ResponseWriter, query *dns.Msg) {
		n++
		name := query.Question[0].Name
		_ = w.WriteMsg(reply{answer: []string{fmt.Sprintf("%s 300 IN CNAME n%d.test.", name, n)}}.message(query))
	}}
	zone := map[string]reply{"start.test. MX": endless}
	for i := range 100 {
		zone[fmt.Sprintf("n%d.test. MX", i)] = endless
	}
	s := serve(t, zone)
	r := ask(t, Options{}, s)
	if _, err := r.MX(t.Context(), "start.test"); outcome(err) != "loop" {
		t.Errorf("got %v, want a loop", err)
	}
	if q := r.Stats().Queries; q != maxChain+1 {
		t.Errorf("%d questions were asked, want %d", q, maxChain+1)
	}
}
