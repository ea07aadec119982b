package policy

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/mtasts"
)

// onEach runs f on an engine on each kind of database, with a clock that stands.
func onEach(t *testing.T, f func(w *world, clock *atomic.Int64)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var clock atomic.Int64
		clock.Store(time.Date(2026, time.June, 1, 0, 0, 0, 0, time.UTC).UnixNano())
		f(newWorld(t, d, Options{Now: func() time.Time { return time.Unix(0, clock.Load()) }}), &clock)
	})
}

func TestAStateIsStoredAsItIs(t *testing.T) {
	onEach(t, func(w *world, _ *atomic.Int64) {
		want := &state{
			policy: &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.com", "*.example.net"}, MaxAge: 604800 * time.Second},
			id:     "one", fetched: 10, expires: 20, use: useCached, record: recordNewID,
			facts: stsFacts{Cache: cacheLive},
			fail:  &failure{at: 11, id: "two", count: 3, outcome: outcome.Failure{Result: "sts-policy-invalid", Reason: "why", Info: "what"}},
			since: 12, tried: 13, refresh: 14, used: 15, said: saidVanished | saidHeld,
		}
		w.rows.save("example.com", want)
		if err := w.Flush(w.Context()); err != nil {
			w.Fatal(err)
		}
		got, err := w.rows.load(w.Context(), "example.com")
		if err != nil || got == want {
			w.Fatalf("got %v from memory, %v", got == want, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(state{}, failure{}), cmpopts.EquateEmpty()); diff != "" {
			w.Error(diff)
		}
		if got, err := w.rows.load(w.Context(), "example.org"); got != nil || err != nil {
			w.Errorf("a domain that is not there: %v, %v", got, err)
		}
	})
}

func TestAPolicyFetchedEarlierIsNotStoredOverALaterOne(t *testing.T) {
	onEach(t, func(w *world, _ *atomic.Int64) {
		for _, st := range []*state{{id: "later", fetched: 20}, {id: "earlier", fetched: 10}} {
			w.rows.save("example.com", st)
			if err := w.Flush(w.Context()); err != nil {
				w.Fatal(err)
			}
		}
		if got, err := w.rows.load(w.Context(), "example.com"); err != nil || got.id != "later" {
			w.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestWhatIsDueIsTakenOnceInOrder(t *testing.T) {
	onEach(t, func(w *world, clock *atomic.Int64) {
		now := micro(w.now())
		for i := range 5 {
			w.rows.save(fmt.Sprintf("d%d.example", i), &state{refresh: now + int64(i-2)*time.Hour.Microseconds()})
		}
		if err := w.Flush(w.Context()); err != nil {
			w.Fatal(err)
		}
		take := func(limit int) (domains []string, next time.Time) {
			w.Helper()
			batch, next, err := w.rows.claim(w.Context(), micro(w.now()), limit)
			if err != nil {
				w.Fatal(err)
			}
			for _, b := range batch {
				domains = append(domains, b.domain)
			}
			slices.Sort(domains)
			return domains, next
		}
		if got, _ := take(2); !slices.Equal(got, []string{"d0.example", "d1.example"}) {
			w.Errorf("got %q", got)
		}
		got, next := take(2)
		if !slices.Equal(got, []string{"d2.example"}) || next.Sub(w.now()) != lease {
			w.Errorf("got %q, next in %v", got, next.Sub(w.now()))
		}
		clock.Add(int64(lease)) // whoever took them did not come back
		if got, _ = take(9); !slices.Equal(got, []string{"d0.example", "d1.example", "d2.example"}) {
			w.Errorf("got %q", got)
		}
	})
}

func TestDomainsAreListedAndCounted(t *testing.T) {
	onEach(t, func(w *world, clock *atomic.Int64) {
		w.publish("a.example", "one", week("mx.a.example"))
		w.publish("b.example", "one", week("mx.b.example"))
		w.sts("b.example")
		clock.Add(int64(time.Minute))
		w.sts("a.example")
		w.sts("c.example")
		w.dns.fail("TXT _mta-sts.d.test")
		w.sts("d.test")
		list := func(q Query) (domains []string) {
			w.Helper()
			all, err := w.List(w.Context(), q)
			if err != nil {
				w.Fatal(err)
			}
			for _, k := range all {
				domains = append(domains, k.Domain)
			}
			return domains
		}
		for _, c := range []struct {
			q    Query
			want []string
		}{
			{Query{}, []string{"a.example", "b.example", "c.example", "d.test"}},
			{Query{Limit: 2}, []string{"a.example", "b.example"}},
			{Query{After: "b.example"}, []string{"c.example", "d.test"}},
			{Query{Prefix: "d."}, []string{"d.test"}},
			{Query{Policy: true}, []string{"a.example", "b.example"}},
		} {
			if got := list(c.q); !slices.Equal(got, c.want) {
				w.Errorf("%+v: got %q, want %q", c.q, got, c.want)
			}
		}
		if known, live, err := w.Count(w.Context()); known != 4 || live != 2 || err != nil {
			w.Errorf("known %d, live %d, %v", known, live, err)
		}
		w.watch(w.Context())
		if s := w.Stats(); !s.Oldest.Equal(w.now().Add(-time.Minute)) || s.Misses != 4 || s.Refreshes != 2 {
			w.Errorf("got %+v", s)
		}
		all, _ := w.List(w.Context(), Query{})
		if k := all[0]; k.Policy == nil || k.ID != "one" || k.Expires.Sub(k.Fetched) != 7*24*time.Hour || k.Used.IsZero() || k.Refresh.IsZero() {
			w.Errorf("got %+v", k)
		}
		if k := all[3]; k.Policy != nil || !k.HeldSince.Equal(w.now()) {
			w.Errorf("got %+v", k)
		}
	})
}

func TestOverridesAreStored(t *testing.T) {
	onEach(t, func(w *world, _ *atomic.Int64) {
		o := Override{Domain: "example.com", Kind: OverrideSecure, Match: []string{"mx.example.com"}, Reason: "r", Author: "a", Expires: w.now().Add(time.Hour)}
		if err := w.AddOverride(w.Context(), o); err != nil {
			w.Fatal(err)
		}
		w.mail("example.com", false, "mx.example.com")
		w.destination("example.com")
		w.start()
		w.destination("example.com")
		w.wantEvents(event.OverrideUsed) // not again after a restart
		all, err := w.Overrides(w.Context())
		if err != nil || len(all) != 1 || !slices.Equal(all[0].Match, o.Match) || !all[0].Expires.Equal(o.Expires) || !all[0].Created.Equal(w.now()) {
			w.Errorf("got %+v, %v", all, err)
		}
		if there, err := w.RemoveOverride(w.Context(), "example.com"); !there || err != nil {
			w.Errorf("remove: %v, %v", there, err)
		}
	})
}

func TestTextsThatADatabaseRefusesAreMadeFit(t *testing.T) {
	onEach(t, func(w *world, _ *atomic.Int64) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.fail("example.com", fmt.Errorf("status \x00 \xff %s", string(make([]byte, 5000))))
		w.sts("example.com")
		if err := w.Flush(w.Context()); err != nil {
			w.Fatal(err)
		}
		if st, err := w.rows.load(w.Context(), "example.com"); err != nil || st.fail == nil || len(st.fail.outcome.Info) > maxText+4 {
			w.Errorf("got %+v, %v", st, err)
		}
	})
}

// closable is a world on a database that the test may close.
func closable(t *testing.T) *world {
	d, err := db.Open(t.Context(), db.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, dns: newDNS(), web: newWeb(), db: d, events: &sink{}, told: &told{}}
	w.o = Options{Resolver: w.dns, Fetcher: w.web, DB: d, DiscoveryHold: time.Hour}
	w.start()
	return w
}

func TestWithoutTheDatabaseNoPolicyIsTakenForNone(t *testing.T) {
	w := closable(t)
	defer w.Close(t.Context())
	w.publish("example.com", "one", week("mx.example.com"))
	w.publish("other.example", "one", week("mx.other.example"))
	w.sts("example.com")
	w.start()
	if err := w.overrides.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.dns.txt("example.com", time.Minute)
	d := w.want("example.com", "hold", "1/none/not-asked/unreadable")
	if d.Hold.Why == "" || !d.Hold.Until.IsZero() {
		t.Errorf("held by %+v", d.Hold)
	}
	if a := w.Postfix(t.Context(), "example.com"); a.Kind.String() != "temp" {
		t.Errorf("got %+v", a)
	}
	// What DNS and HTTPS give is as good as ever.
	w.want("other.example", "enforce", "1/new-id/policy/unreadable")
	w.want("other.example", "enforce", "1/new-id/policy/unreadable")
	if w.Stats().Unsaved != 1 {
		t.Errorf("%d states wait to be written", w.Stats().Unsaved)
	}
}

func TestWithoutTheDatabaseAtTheStartOverridesAreNotPassedOver(t *testing.T) {
	w := closable(t)
	defer w.Close(t.Context())
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.publish("example.com", "one", week("mx.example.com"))
	w.mail("example.com", false, "mx.example.com")
	d := w.destination("example.com")
	if d.Hold == nil || d.Hold.Cell != "override/unreadable" {
		t.Errorf("got %+v", d.Hold)
	}
	if h := w.Host(t.Context(), d, "mx.example.com"); h.Unreachable == "" {
		t.Errorf("got %+v", h)
	}
	if a := w.Postfix(t.Context(), "example.com"); a.Kind.String() != "temp" || a.Cell != "override/unreadable" {
		t.Errorf("got %+v", a)
	}
}
