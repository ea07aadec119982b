package policy

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/mtasts"
)

// tick is the background's in these tests: days go by in them.
const tick = 30 * time.Minute

// node is one more engine on the same database.
func (w *world) node() *Engine {
	e, err := New(w.o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			w.Error("close:", err)
		}
	})
	return e
}

// run runs the background until the function that it returns is called.
func (w *world) run(e *Engine) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.Errorf("run: %v", err)
		}
	}
}

func TestRFC8461_3_3_APolicyIsRefreshedDailyWithNobodyAsking(t *testing.T) {
	inWorld(t, Options{tick: tick}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		first := w.sts("example.com").STS
		stop := w.run(w.Engine)
		w.pass(24*time.Hour + tick)
		if n := w.web.count("example.com"); n != 2 {
			w.Errorf("fetched %d times in a day", n)
		}
		stop()
		if d := w.want("example.com", "enforce", "1/same-id/policy/live"); !d.STS.Expires.After(first.Expires.Add(23 * time.Hour)) {
			w.Errorf("max_age does not count from the refresh: %v", d.STS.Expires)
		}
	})
}

func TestRefreshesAreSpread(t *testing.T) {
	inWorld(t, Options{tick: tick, Jitter: func() float64 { return 0.999 }}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		stop := w.run(w.Engine)
		defer stop()
		w.pass(14 * time.Hour)
		if n := w.web.count("example.com"); n != 1 {
			w.Errorf("fetched %d times", n)
		}
		w.pass(time.Hour)
		if n := w.web.count("example.com"); n != 2 {
			w.Errorf("fetched %d times", n)
		}
	})
}

func TestAShortPolicyIsRefreshedWellBeforeItEnds(t *testing.T) {
	inWorld(t, Options{tick: tick}, func(w *world) {
		w.publish("example.com", "one", policyText("enforce", "7200", "mx.example.com"))
		w.sts("example.com")
		stop := w.run(w.Engine)
		defer stop()
		w.dns.fail("TXT _mta-sts.example.com") // whatever the record says
		for range 20 {
			w.pass(time.Hour)
			if d := w.sts("example.com"); d.STS.Policy.Mode != mtasts.Enforce {
				w.Fatalf("got %+v", d.STS)
			}
		}
	})
}

func TestRFC8461_10_2_RefreshDoesNotDependOnTheRecord(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"it vanished":            func(w *world) { w.dns.txt("example.com", time.Hour) },
		"it cannot be looked up": func(w *world) { w.dns.fail("TXT _mta-sts.example.com") },
		"an old one is replayed": func(w *world) {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{tick: tick}, func(w *world) {
				w.publish("example.com", "one", week("mx.example.com"))
				w.sts("example.com")
				lose(w)
				w.web.serve("example.com", week("mx.example.com", "mx2.example.com"))
				stop := w.run(w.Engine)
				defer stop()
				w.pass(25 * time.Hour)
				if d := w.sts("example.com"); !d.STS.Policy.Match("mx2.example.com") || d.STS.ID != "one" {
					w.Errorf("got %+v", d.STS)
				}
			})
		})
	}
}

func TestRFC8461_9_And_10_2_RepeatedRefreshFailuresAreToldLongBeforeThePolicyEnds(t *testing.T) {
	inWorld(t, Options{tick: tick}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.events.take()
		w.web.block("example.com")
		stop := w.run(w.Engine)
		defer stop()
		w.pass(24*time.Hour + time.Hour)
		w.wantEvents(event.PolicyRefreshFailing, event.PolicyRefreshFailing) // the first, and the third in a row
		w.pass(24 * time.Hour)
		w.wantEvents(event.PolicyRefreshFailing) // about once a day
		if s := w.Stats(); s.Failures["sts-policy-fetch-error"] < 20 {
			w.Errorf("counted %v", s.Failures)
		}
		if attempts := w.told.take(); len(attempts) < 20 || len(attempts[0].Policies[0].Strings) == 0 {
			w.Errorf("%d failures reported", len(attempts))
		}
		w.pass(6 * 24 * time.Hour)
		w.sts("example.com")
		kinds := w.events.take()
		if kinds[len(kinds)-1] != event.PolicyExpired {
			w.Errorf("got %q", kinds)
		}
	})
}

func TestAfterAFailureTheRefreshBacksOffFromFiveMinutesToAnHour(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.web.block("example.com")
		stop := w.run(w.Engine)
		defer stop()
		w.pass(24*time.Hour + time.Minute)
		before := w.web.count("example.com")
		w.pass(BackOff - 2*time.Minute)
		if n := w.web.count("example.com") - before; n != 0 {
			w.Errorf("asked %d times within five minutes", n)
		}
		w.pass(3 * time.Hour)
		if n := w.web.count("example.com") - before; n < 4 || n > 6 {
			w.Errorf("asked %d times in three hours", n)
		}
	})
}

func TestADomainThatIsHeldIsLookedAtWithNobodyAsking(t *testing.T) {
	inWorld(t, Options{tick: tick}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.sts("example.com")
		stop := w.run(w.Engine)
		defer stop()
		w.publish("example.com", "one", week("mx.example.com"))
		w.pass(BackOff + tick)
		if w.web.count("example.com") != 1 {
			w.Error("nobody looked again")
		}
	})
}

func TestDomainsSeenOfLateAreKeptWarm(t *testing.T) {
	inWorld(t, Options{tick: tick, Warm: 3 * 24 * time.Hour}, func(w *world) {
		w.dns.txt("example.com", time.Hour)
		w.sts("example.com")
		w.publish("example.com", "one", week("mx.example.com"))
		stop := w.run(w.Engine)
		defer stop()
		w.pass(25 * time.Hour)
		asked := w.dns.count("TXT _mta-sts.example.com")
		if w.web.count("example.com") != 1 {
			w.Error("a policy that came up was not found before mail needed it")
		}
		if d := w.sts("example.com"); d.STS.Policy.Mode != mtasts.Enforce || asked != 2 {
			w.Errorf("got %+v after %d questions", d.STS, asked)
		}
	})
}

func TestADomainThatNobodyAsksAboutIsForgottenAndItsPolicyLeftToEnd(t *testing.T) {
	inWorld(t, Options{tick: tick, Warm: 3 * 24 * time.Hour}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.dns.txt("example.org", time.Hour)
		w.sts("example.com")
		w.sts("example.org")
		stop := w.run(w.Engine)
		defer stop()
		w.pass(5 * 24 * time.Hour)
		fetched := w.web.count("example.com")
		w.pass(24 * time.Hour)
		if n := w.web.count("example.com"); n != fetched || n < 3 {
			w.Errorf("fetched %d times in five days, %d in six", fetched, n)
		}
		if known, live, err := w.Count(w.Context()); known != 1 || live != 1 || err != nil {
			w.Errorf("known %d, live %d, %v", known, live, err)
		}
		w.pass(10 * 24 * time.Hour)
		if known, _, err := w.Count(w.Context()); known != 0 || err != nil {
			w.Errorf("known %d, %v", known, err)
		}
	})
}

func TestTwoNodesShareTheWork(t *testing.T) {
	inWorld(t, Options{tick: tick}, func(w *world) {
		for i := range 20 {
			w.publish(fmt.Sprintf("d%d.example", i), "one", week("mx.example.com"))
			w.sts(fmt.Sprintf("d%d.example", i))
		}
		if err := w.Flush(w.Context()); err != nil {
			w.Fatal(err)
		}
		other := w.node()
		stop, stopOther := w.run(w.Engine), w.run(other)
		w.pass(24*time.Hour + tick)
		stop()
		stopOther()
		for i := range 20 {
			domain := fmt.Sprintf("d%d.example", i)
			if n := w.web.count(domain); n != 2 {
				w.Errorf("%s was fetched %d times by both", domain, n)
			}
		}
	})
}

func TestANodeTakesOverWhatAnotherFetched(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		other := w.node()
		w.publish("example.com", "one", week("old.example.com"))
		w.sts("example.com")
		w.pass(time.Second)
		w.publish("example.com", "two", week("new.example.com"))
		if _, err := other.STSFresh(w.Context(), "example.com"); err != nil {
			w.Fatal(err)
		}
		if err := other.Flush(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.pass(time.Hour)
		w.sts("example.com")
		synctest.Wait()
		if d := w.want("example.com", "enforce", "1/same-id/not-asked/live"); d.STS.ID != "two" || w.web.count("example.com") != 2 {
			w.Errorf("got id %s after %d fetches", d.STS.ID, w.web.count("example.com"))
		}
	})
}

func TestAPolicyThatAnotherNodeHasCachedHoldsHereToo(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		other := w.node()
		w.dns.txt("example.com", time.Hour)
		w.want("example.com", "", "1/none/not-asked/no-cache")
		w.publish("example.com", "one", week("mx.example.com"))
		if _, err := other.STSFresh(w.Context(), "example.com"); err != nil {
			w.Fatal(err)
		}
		if err := other.Flush(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.dns.txt("example.com", time.Hour) // hidden again
		w.pass(time.Hour)
		w.want("example.com", "enforce", "1/not-asked/not-asked/live")
		synctest.Wait()
		w.want("example.com", "enforce", "1/none/not-asked/live")
	})
}

func TestWhatIsStoredIsAnsweredFromTheDatabaseAtOnce(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.start()
		w.dns.mu.Lock()
		w.dns.gate = make(chan struct{})
		w.dns.mu.Unlock()
		d := w.want("example.com", "enforce", "1/not-asked/not-asked/live")
		if d.STS.ID != "one" || !d.STS.Cached || !d.STS.Policy.Match("mx.example.com") {
			w.Errorf("got %+v", d.STS)
		}
		close(w.dns.gate)
		synctest.Wait()
		w.want("example.com", "enforce", "1/same-id/not-asked/live")
	})
}
