package ledger_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/outcome"
)

// heard keeps events.
type heard struct {
	mu   sync.Mutex
	list []event.Event
}

func (h *heard) Record(_ context.Context, e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, e)
}

// pair is two nodes on one database, on one clock.
type pair struct {
	*testing.T
	a, b   *ledger.Ledger
	events heard
	db     *db.DB
	now    time.Time
}

func pairs(t *testing.T, f func(p *pair)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		node := func(name string) *ledger.Ledger {
			return ledger.New(ledger.Options{DB: d, Log: slog.New(slog.DiscardHandler), After: time.After, Node: name})
		}
		f(&pair{T: t, a: node("a.pawl.test"), b: node("b.pawl.test"), db: d, now: noon})
	})
}

func (p *pair) saw(l *ledger.Ledger, domain, failure string, times int) {
	p.Helper()
	var f *outcome.Failure
	if failure != "" {
		f = &outcome.Failure{Result: outcome.ResultType(failure)}
	}
	for range times {
		l.Record(p.Context(), attempt(p.now, domain, f))
	}
	p.flush(l)
}

func (p *pair) flush(l *ledger.Ledger) {
	p.Helper()
	if err := l.Flush(p.Context()); err != nil {
		p.Fatal(err)
	}
}

// told compares on both nodes, and returns what was told of by then.
func (p *pair) told() (list []string) {
	p.Helper()
	for _, l := range []*ledger.Ledger{p.a, p.b} {
		c := ledger.Comparer{Ledger: l, DB: p.db, Events: &p.events, Now: func() time.Time { return p.now }, After: time.After, Log: slog.New(slog.DiscardHandler)}
		if err := c.Compare(p.Context()); err != nil {
			p.Fatal(err)
		}
	}
	for _, e := range p.events.list {
		list = append(list, string(e.Kind)+" "+e.Domain)
	}
	return list
}

func (p *pair) want(list ...string) {
	p.Helper()
	if diff := cmp.Diff(list, p.told()); diff != "" {
		p.Error(diff)
	}
}

func TestWhatIsStrippedOnOneNodeOnlyIsAFinding(t *testing.T) {
	pairs(t, func(p *pair) {
		p.saw(p.a, "a.test", "starttls-not-supported", 3)
		p.want() // nobody knows better yet
		p.saw(p.b, "a.test", "", 3)
		p.want("nodes-disagree a.test")
		e := p.events.list[0]
		if e.Severity != event.Error || !strings.Contains(e.Text, "mx.a.test, an MX host of a.test, fail on a.pawl.test (3 today, the last with: starttls-not-supported) and are as they should be on b.pawl.test (3)") || e.Do == "" {
			p.Errorf("%+v", e)
		}
		p.saw(p.a, "a.test", "starttls-not-supported", 3)
		p.want("nodes-disagree a.test") // once a day
		p.now = p.now.Add(24 * time.Hour)
		p.saw(p.b, "a.test", "", 3)
		p.saw(p.a, "a.test", "starttls-not-supported", 3)
		p.want("nodes-disagree a.test", "nodes-disagree a.test")
	})
}

func TestClearTextOnOneNodeOnlyIsAFindingWithoutAPolicy(t *testing.T) {
	pairs(t, func(p *pair) {
		for l, to := range map[*ledger.Ledger]outcome.Transport{p.a: outcome.Clear, p.b: outcome.Encrypted} {
			for range 3 {
				l.Record(p.Context(), outcome.Attempt{
					At: p.now, Source: "relay", Domain: "a.test", MX: "mx.a.test", Transport: to,
					Policies: []outcome.Policy{{Type: outcome.NoPolicy, Domain: "a.test"}},
				})
			}
			p.flush(l)
		}
		p.want("nodes-disagree a.test")
	})
}

func TestWhatFailsOnEveryNodeOrOnceIsNoDifference(t *testing.T) {
	pairs(t, func(p *pair) {
		p.saw(p.a, "a.test", "certificate-expired", 5)
		p.saw(p.b, "a.test", "certificate-expired", 5)
		p.saw(p.a, "b.test", "certificate-expired", 2)
		p.saw(p.b, "b.test", "", 50)
		p.saw(p.a, "c.test", "certificate-expired", 5) // works now and then
		p.saw(p.a, "c.test", "", 5)
		p.saw(p.b, "c.test", "", 5)
		p.want()
	})
}

func TestAHostThatFailsAfterDaysWithoutAFailureIsAFinding(t *testing.T) {
	pairs(t, func(p *pair) {
		for range 2 {
			p.saw(p.a, "a.test", "", 3)
			p.saw(p.b, "a.test", "", 3)
			p.saw(p.a, "b.test", "", 3)
			p.saw(p.a, "b.test", "certificate-expired", 4) // it always was so
			p.now = p.now.Add(24 * time.Hour)
		}
		p.saw(p.a, "a.test", "", 1)
		p.now = p.now.Add(time.Minute)
		p.saw(p.a, "a.test", "certificate-not-trusted", 2)
		p.saw(p.a, "b.test", "certificate-expired", 4)
		p.want()
		p.saw(p.a, "a.test", "certificate-not-trusted", 1)
		p.want("outcome-changed a.test")
		if e := p.events.list[0]; !strings.Contains(e.Text, "fail today (3, the last with: certificate-not-trusted), and none of 12 failed in the 3 days before") {
			p.Errorf("%+v", e)
		}
	})
}

func TestAFailureOfLongAgoIsNotLookedAt(t *testing.T) {
	pairs(t, func(p *pair) {
		p.saw(p.a, "a.test", "starttls-not-supported", 3)
		p.now = p.now.Add(2 * time.Hour)
		p.saw(p.b, "a.test", "", 3)
		p.want()
	})
}
