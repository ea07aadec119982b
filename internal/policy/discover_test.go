package policy

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/mtasts"
)

func TestAPolicyIsFoundByRecordAndHTTPS(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		d := w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		if d.STS.ID != "one" || !d.STS.Policy.Match("mx.example.com") || time.Until(d.STS.Expires) != 7*24*time.Hour {
			w.Errorf("got %+v", d.STS)
		}
		w.wantEvents() // at first contact a policy is no news
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		if n := w.dns.count("TXT _mta-sts.example.com"); n != 1 {
			w.Errorf("the record was asked for %d times within its TTL", n)
		}
	})
}

func TestRFC8461_5_1_TheRecordIsAskedForOncePerTTLWithoutDelayingMail(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.pass(time.Hour)
		w.dns.mu.Lock()
		w.dns.gate = make(chan struct{}) // DNS is slow now: who asks must not feel it
		w.dns.mu.Unlock()
		for range 3 {
			w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		}
		close(w.dns.gate)
		synctest.Wait()
		w.want("example.com", "enforce", "1/same-id/not-asked/live")
		if n := w.dns.count("TXT _mta-sts.example.com"); n != 2 {
			w.Errorf("the record was asked for %d times in two TTLs", n)
		}
		if n := w.web.count("example.com"); n != 1 {
			w.Errorf("HTTPS was asked %d times though the id is the same", n)
		}
	})
}

func TestANewIDBringsTheNewPolicy(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("testing", "604800", "mx.example.com"))
		w.sts("example.com")
		w.publish("example.com", "two", week("mx.example.com"))
		w.pass(time.Hour)
		w.want("example.com", "testing", "1/new-id/policy/no-cache") // from the cache; checked behind
		synctest.Wait()
		w.want("example.com", "enforce", "1/new-id/policy/live")
		w.wantEvents(event.PolicyChanged)
	})
}

func TestAWeakerPolicyIsAdoptedFromHTTPSAndShownAsAnEvent(t *testing.T) {
	for name, text := range map[string]string{
		"testing":         policyText("testing", "604800", "mx.example.com"),
		"none":            policyText("none", "604800"),
		"shorter max_age": policyText("enforce", "86400", "mx.example.com"),
		"other MX names":  week("mx.example.com", "mx.example.net"),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.publish("example.com", "one", week("mx.example.com"))
				w.sts("example.com")
				w.publish("example.com", "two", text)
				w.pass(time.Hour)
				w.sts("example.com")
				synctest.Wait()
				d := w.sts("example.com")
				if got := d.STS.Policy.Text(); d.STS.ID != "two" || !slices.Contains([]string{"1/new-id/policy/live"}, d.STS.Cell) {
					w.Errorf("got id %s by %s: %s", d.STS.ID, d.STS.Cell, got)
				}
				w.wantEvents(event.PolicyWeakened)
			})
		})
	}
}

func TestRFC8461_3_3_WithoutAPolicyToFetchMailGoesAsWithoutMTASTS(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.block("example.com")
		w.want("example.com", "", "1/new-id/failure/no-cache")
		w.wantEvents()
		attempts := w.told.take()
		if len(attempts) != 1 || attempts[0].Domain != "example.com" || attempts[0].Source != "policy" || attempts[0].Transport != outcome.NotSent ||
			attempts[0].Policies[0].Failure.Result != outcome.STSPolicyFetchError || attempts[0].Policies[0].Type != outcome.STS {
			w.Errorf("reported %+v", attempts)
		}
	})
}

func TestRFC8461_3_3_AfterAFailureHTTPSIsLeftAloneForFiveMinutesPerID(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.block("example.com")
		w.want("example.com", "", "1/new-id/failure/no-cache")
		w.pass(BackOff - time.Second)
		w.want("example.com", "", "1/new-id/failure/no-cache") // the same word still
		if n := w.web.count("example.com"); n != 1 {
			w.Fatalf("HTTPS was asked %d times within five minutes", n)
		}
		w.web.serve("example.com", week("mx.example.com"))
		w.pass(time.Second)
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
	})
}

func TestRFC8461_3_3_TheBackOffIsPerID(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.web.serve("example.com", week("mx.example.com"))
		w.dns.txt("example.com", 20*time.Second, "v=STSv1; id=one;")
		w.web.block("example.com")
		w.want("example.com", "", "1/new-id/failure/no-cache")
		w.pass(30 * time.Second)
		w.want("example.com", "", "1/new-id/back-off/no-cache")
		w.web.serve("example.com", week("mx.example.com"))
		w.dns.txt("example.com", 20*time.Second, "v=STSv1; id=two;")
		w.pass(30 * time.Second)
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
	})
}

func TestRFC8461_3_3_ACachedPolicyMustBeAppliedWhenNoLiveOneCanBeHad(t *testing.T) {
	lose := map[string]struct {
		do     func(w *world)
		cell   string
		events []event.Kind
	}{
		"the record vanished": {
			func(w *world) { w.dns.txt("example.com", time.Hour) },
			"1/none/not-asked/live",
			[]event.Kind{event.PolicyRecordVanished},
		},
		"the record became invalid": {
			func(w *world) { w.dns.txt("example.com", time.Hour, "v=STSv1; id=") },
			"1/none/not-asked/live",
			[]event.Kind{event.PolicyRecordVanished},
		},
		"there are two records": {
			func(w *world) { w.dns.txt("example.com", time.Hour, "v=STSv1; id=1;", "v=STSv1; id=2;") },
			"1/none/not-asked/live",
			[]event.Kind{event.PolicyRecordVanished},
		},
		"the record cannot be looked up": {
			func(w *world) { w.dns.fail("TXT _mta-sts.example.com") },
			"1/unknown/not-asked/live", nil,
		},
		"the policy host is down": {func(w *world) {
			w.dns.txt("example.com", time.Hour, "v=STSv1; id=two;")
			w.web.block("example.com")
		}, "1/new-id/failure/live", []event.Kind{event.PolicyRefreshFailing}},
		"the policy became invalid": {func(w *world) {
			w.dns.txt("example.com", time.Hour, "v=STSv1; id=two;")
			w.web.serve("example.com", "version: STSv1\nmode: Enforce\n")
		}, "1/new-id/failure/live", []event.Kind{event.PolicyRefreshFailing}},
	}
	for name, c := range lose {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.publish("example.com", "one", week("mx.example.com"))
				w.sts("example.com")
				w.events.take()
				c.do(w)
				w.pass(time.Hour)
				w.sts("example.com")
				synctest.Wait()
				w.want("example.com", "enforce", c.cell)
				w.wantEvents(c.events...)
				for range 3 { // the same trouble again is no news
					w.pass(2 * time.Hour)
					w.sts("example.com")
					synctest.Wait()
				}
				if d := w.sts("example.com"); d.STS.Policy.Mode != mtasts.Enforce {
					w.Errorf("got %+v", d.STS)
				}
			})
		})
	}
}

func TestAVanishedRecordIsToldOnceUntilItIsBack(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		look := func() {
			w.pass(time.Hour)
			w.sts("example.com")
			synctest.Wait()
		}
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.events.take()
		w.dns.txt("example.com", time.Hour)
		look()
		look()
		w.wantEvents(event.PolicyRecordVanished)
		w.start() // a restart does not say it again
		w.sts("example.com")
		look()
		w.wantEvents()
		w.dns.txt("example.com", time.Hour, "v=STSv1; id=one;")
		look()
		w.dns.txt("example.com", time.Hour)
		look()
		w.wantEvents(event.PolicyRecordVanished)
	})
}

func TestRFC8461_10_2_NoAlertWhereTheCachedPolicyIsOfModeNone(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("none", "604800"))
		w.want("example.com", "none", "1/new-id/policy/no-cache")
		w.dns.txt("example.com", time.Hour)
		w.web.block("example.com")
		w.pass(25 * time.Hour)
		w.sts("example.com")
		synctest.Wait()
		w.pass(7 * 24 * time.Hour)
		w.want("example.com", "", "1/none/not-asked/expired")
		w.wantEvents()
		if attempts := w.told.take(); len(attempts) != 0 {
			w.Errorf("reported %+v", attempts)
		}
	})
}

func TestRFC8461_5_ModeNoneMeansNoPolicyAndNoHold(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("none", "604800"))
		w.sts("example.com")
		w.dns.fail("TXT _mta-sts.example.com")
		w.pass(time.Hour)
		w.sts("example.com")
		synctest.Wait()
		d := w.want("example.com", "none", "1/unknown/not-asked/live")
		if modeOf(d.STS) != modeNone {
			w.Errorf("mode none is taken for %v", modeOf(d.STS))
		}
	})
}

func TestThatThereIsNoRecordIsRememberedByItsTTL(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.txt("example.com", 10*time.Minute)
		w.want("example.com", "", "1/none/not-asked/no-cache")
		w.pass(10*time.Minute - time.Second)
		w.want("example.com", "", "1/none/not-asked/no-cache")
		if n := w.dns.count("TXT _mta-sts.example.com"); n != 1 {
			w.Errorf("asked %d times", n)
		}
		w.publish("example.com", "one", week("mx.example.com"))
		w.pass(time.Second)
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		w.wantEvents(event.PolicyNew) // a destination that took up MTA-STS
	})
}

func TestAnExpiredPolicyIsAsNone(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.events.take()
		w.dns.txt("example.com", time.Hour)
		w.pass(7 * 24 * time.Hour)
		w.want("example.com", "", "1/none/not-asked/expired")
		w.wantEvents(event.PolicyExpired)
		w.pass(2 * time.Hour)
		w.want("example.com", "", "1/none/not-asked/no-cache")
		w.wantEvents()
	})
}

func TestAPolicyLivesUntilItsMaxAgeToTheSecond(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.dns.fail("TXT _mta-sts.example.com")
		w.web.block("example.com")
		w.pass(7*24*time.Hour - time.Second)
		if d := w.sts("example.com"); !d.STS.Found {
			w.Errorf("a second before its end: %+v", d.STS)
		}
		synctest.Wait()
		w.pass(time.Second)
		w.want("example.com", "hold", "1/unknown/not-asked/expired/hold")
	})
}

func TestRFC8461_3_2_MaxAgeIsTakenToItsMaximum(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("enforce", "31557600", "mx.example.com"))
		d := w.sts("example.com")
		if got := time.Until(d.STS.Expires); got != mtasts.MaxMaxAge {
			w.Errorf("lives for %v", got)
		}
	})
}

func TestMaxAgeZeroHoldsForTheMailThatAsked(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("enforce", "0", "mx.example.com"))
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		w.want("example.com", "enforce", "1/new-id/policy/expired")
		if n := w.web.count("example.com"); n != 2 {
			w.Errorf("HTTPS was asked %d times", n)
		}
	})
}

func TestRFC8461_3_4_AParentsPolicyIsNotASubdomains(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.want("mail.example.com", "", "1/none/not-asked/no-cache")
		if w.dns.count("TXT _mta-sts.example.com") != 0 || w.web.count("example.com") != 0 {
			w.Error("the parent was asked")
		}
	})
}

func TestRFC8461_5_1_FreshAsksDNSBeforeAnythingFailsForGood(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("old.example.com"))
		w.sts("example.com")
		w.publish("example.com", "two", week("new.example.com"))
		d, err := w.STSFresh(w.Context(), "example.com")
		if err != nil || d.STS.ID != "two" || !d.STS.Policy.Match("new.example.com") {
			w.Errorf("got %+v, %v", d.STS, err)
		}
		if n := w.dns.count("fresh TXT _mta-sts.example.com"); n != 1 {
			w.Errorf("DNS was asked anew %d times", n)
		}
	})
}

func TestRFC8461_8_1_APolicyThatChangedWithItsIDIsFoundByTheDailyRefresh(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("testing", "604800", "mx.example.com"))
		w.sts("example.com")
		w.web.serve("example.com", week("mx.example.com")) // the id stays
		w.pass(24 * time.Hour)
		w.sts("example.com")
		synctest.Wait()
		w.want("example.com", "enforce", "1/same-id/policy/live")
	})
}

func TestRFC8461_8_3_AModeNonePolicyEndsEnforcement(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.publish("example.com", "two", policyText("none", "86400"))
		w.pass(time.Hour)
		w.sts("example.com")
		synctest.Wait()
		w.want("example.com", "none", "1/new-id/policy/live")
		w.dns.txt("example.com", time.Hour)
		w.pass(24 * time.Hour)
		w.want("example.com", "", "1/none/not-asked/expired")
	})
}

func TestOneLookServesAllWhoAsk(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.gate = make(chan struct{})
		got := make(chan Discovery)
		for range 50 {
			go w.ask("example.com", got)
		}
		synctest.Wait()
		close(w.web.gate)
		for range 50 {
			if d := <-got; d.STS.Policy.Mode != mtasts.Enforce {
				w.Errorf("got %+v", d.STS)
			}
		}
		if w.web.count("example.com") != 1 || w.dns.count("TXT _mta-sts.example.com") != 1 {
			w.Errorf("HTTPS was asked %d times, DNS %d times", w.web.count("example.com"), w.dns.count("TXT _mta-sts.example.com"))
		}
	})
}

func TestACallerWhoLeavesDoesNotEndTheLookForTheOthers(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.gate = make(chan struct{})
		ctx, cancel := contextWithCancel(w.T)
		left := make(chan error)
		go func() {
			_, err := w.STS(ctx, "example.com")
			left <- err
		}()
		synctest.Wait()
		stayed := make(chan Discovery)
		go w.ask("example.com", stayed)
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, ctx.Err()) {
			w.Errorf("who left got %v", err)
		}
		close(w.web.gate)
		if d := <-stayed; d.STS.Policy.Mode != mtasts.Enforce {
			w.Errorf("who stayed got %+v", d.STS)
		}
	})
}

func TestWhatIsNoDomainHasNoPolicy(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		for _, name := range []string{"", ".", "192.0.2.1", "[192.0.2.1]", "[IPv6:2001:db8::1]", "a..b", "exa mple.com"} {
			if _, err := w.STS(w.Context(), name); !errors.Is(err, ErrNotDomain) {
				w.Errorf("%q: %v", name, err)
			}
		}
	})
}

func TestALookThatEndsWithTheEngineTeachesNothing(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.gate = make(chan struct{})
		asked := make(chan error)
		go func() {
			_, err := w.STS(w.Context(), "example.com")
			asked <- err
		}()
		synctest.Wait()
		go w.end()
		if err := <-asked; !errors.Is(err, ErrClosed) {
			w.Errorf("who asked got %v", err)
		}
		synctest.Wait()
		w.start()
		w.web.gate = nil
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		if attempts := w.told.take(); len(attempts) != 0 {
			w.Errorf("reported %+v", attempts)
		}
	})
}
