package policy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

// answer holds what Postfix is told against what it must be.
func (w *world) wantAnswer(domain string, kind verify.AnswerKind, cell string, match ...string) *verify.Answer {
	w.Helper()
	a := w.Postfix(w.Context(), domain)
	if a.Kind != kind || a.Cell != cell || !slices.Equal(a.Match, match) {
		w.Errorf("%s: got %s %q by %s (%s), want %s %q by %s", domain, a.Kind, a.Match, a.Cell, a.Reason, kind, match, cell)
	}
	if a.Reason == "" || strings.ContainsAny(a.Reason, "\r\n") {
		w.Errorf("%s: reason %q", domain, a.Reason)
	}
	return a
}

func TestPostfixIsToldOfAnEnforcedPolicy(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com", "*.b.example.com"))
		a := w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "mx.example.com", "*.b.example.com")
		if a.Policy == nil || a.Policy.Mode != "enforce" || a.Failure != nil {
			w.Errorf("got %+v", a)
		}
		if n := w.dns.count("MX example.com"); n != 0 {
			w.Errorf("with DANE off the MX hosts were asked for %d times", n)
		}
	})
}

func TestACachedAnswerIsTheSameAndAsksNobody(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("example.com", "one", week("mx.example.com"))
		w.mail("example.com", true, "mx.example.com")
		if w.Cached("example.com") != nil {
			w.Error("an answer that nobody made")
		}
		a := w.wantAnswer("example.com", verify.AnswerSecure, "3/none/enforce", "mx.example.com")
		built := 0
		build := func(*verify.Answer) []byte { built++; return []byte("reply") }
		for range 3 {
			if got := w.Cached("example.com"); got != a || string(got.Reply(0, build)) != "reply" {
				w.Errorf("got another answer: %+v", got)
			}
		}
		if built != 1 || w.dns.count("MX example.com") != 1 || w.dns.count("TXT _mta-sts.example.com") != 1 {
			w.Errorf("%d replies built, MX asked %d times, TXT %d times", built, w.dns.count("MX example.com"), w.dns.count("TXT _mta-sts.example.com"))
		}
	})
}

func TestAnAnswerOutlivesACheckThatFindsNothingNew(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.dns.txt("example.com", 5*time.Minute, "v=STSv1; id=one;")
		a := w.Postfix(w.Context(), "example.com")
		w.pass(6 * time.Minute)
		if w.Cached("example.com") != a {
			w.Error("mail had to wait for a check")
		}
		synctest.Wait()
		if w.Cached("example.com") != a || w.dns.count("TXT _mta-sts.example.com") != 2 {
			w.Errorf("the record was asked for %d times", w.dns.count("TXT _mta-sts.example.com"))
		}
	})
}

func TestAnAnswerEndsWhenThePolicyChanges(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("old.example.com"))
		w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "old.example.com")
		w.publish("example.com", "two", week("new.example.com"))
		if _, err := w.STSFresh(w.Context(), "example.com"); err != nil {
			w.Fatal(err)
		}
		w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "new.example.com")
	})
}

func TestAnAnswerEndsWhenTheResolverIsTrustedOrNoLonger(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", usableTLSA())
		w.wantAnswer("example.com", verify.AnswerNotFound, "3/dane-off/none")
		w.dns.trust()
		w.watch(w.Context())
		w.wantAnswer("example.com", verify.AnswerDANEOnly, "3/all-usable/none")
	})
}

func TestAnAnswerOfDANEIsRenewedBehindBeforeItEnds(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", usableTLSA())
		a := w.wantAnswer("example.com", verify.AnswerDANEOnly, "3/all-usable/none")
		if got := time.Until(a.ValidUntil); got != time.Hour {
			w.Errorf("valid for %v", got)
		}
		w.pass(50 * time.Minute)
		if w.Cached("example.com") != a {
			w.Error("mail had to wait")
		}
		synctest.Wait()
		if b := w.Cached("example.com"); b == a || b == nil {
			w.Error("not renewed")
		}
	})
}

func TestOneDeadMXIsOneDeadMX(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("sts.example", "one", week("*.sts.example"))
		w.mail("sts.example", false, "a.sts.example", "b.sts.example")
		w.dns.set("A/AAAA b.sts.example", &resolve.NotFound{Name: "b.sts.example", NXDomain: true})
		w.wantAnswer("sts.example", verify.AnswerSecure, "3/none/enforce", "a.sts.example")

		w.mail("dane.example", true, "a.dane.example", "b.dane.example")
		w.dns.tlsa("a.dane.example", usableTLSA())
		w.dns.set("A/AAAA b.dane.example", &resolve.NotFound{Name: "b.dane.example", NXDomain: true})
		w.wantAnswer("dane.example", verify.AnswerDANEOnly, "3/all-usable/none")

		w.mail("none.example", false, "a.none.example", "b.none.example")
		w.dns.set("A/AAAA b.none.example", &resolve.NotFound{Name: "b.none.example"})
		w.wantAnswer("none.example", verify.AnswerNotFound, "3/none/none")
	})
}

func TestAHostThatFailsIsLeftOutOfTheMatchList(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("example.com", "one", week("*.example.com"))
		w.mail("example.com", true, "a.example.com", "b.example.com", "c.example.com")
		w.dns.fail("TLSA _25._tcp.b.example.com")
		w.dns.fail("A/AAAA c.example.com")
		w.wantAnswer("example.com", verify.AnswerSecure, "3/none+failed/enforce", "a.example.com")
	})
}

func TestTempCarriesAReasonThatHelpsInTheMailLog(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("dane.example", true, "mx.dane.example")
		w.dns.fail("TLSA _25._tcp.mx.dane.example")
		w.dns.fail("MX mx.example")
		w.dns.fail("TXT _mta-sts.held.example")
		w.mail("held.example", false, "mx.held.example")
		for _, c := range []struct{ domain, cell, reason string }{
			{"dane.example", "3/all-failed/none", "the TLSA records of mx.dane.example could not be looked up (mx.dane.example: TLSA _25._tcp.mx.dane.example could not be looked up: TLSA _25._tcp.mx.dane.example could not be looked up: SERVFAIL), and no other MX host of dane.example may be used"},
			{"mx.example", "3/mx-failed", "the MX hosts of mx.example could not be looked up: MX mx.example could not be looked up: SERVFAIL"},
			{"held.example", "3/none/unknown", "it could not be found out whether held.example has an MTA-STS policy: TXT _mta-sts.held.example could not be looked up: SERVFAIL; mail waits until 2000-01-01T04:00:00Z at the latest"},
		} {
			a := w.wantAnswer(c.domain, verify.AnswerTemp, c.cell)
			if a.Reason != c.reason {
				w.Errorf("%s:\n got %s\nwant %s", c.domain, a.Reason, c.reason)
			}
		}
	})
}

func TestTempEndsWithTheTrouble(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.dns.fail("MX example.com")
		w.wantAnswer("example.com", verify.AnswerTemp, "3/mx-failed")
		w.mail("example.com", false, "mx.example.com")
		w.pass(retryAnswer)
		w.wantAnswer("example.com", verify.AnswerNotFound, "3/none/none")
	})
}

func TestPostfixIsToldToWaitWhileDiscoveryIsHeldAndThenNot(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.wantAnswer("example.com", verify.AnswerTemp, "3/dane-off/unknown")
		w.pass(4*time.Hour - time.Second)
		w.wantAnswer("example.com", verify.AnswerTemp, "3/dane-off/unknown")
		w.pass(time.Second)
		w.wantAnswer("example.com", verify.AnswerNotFound, "3/dane-off/none")
		w.wantEvents(event.DiscoveryHeld, event.DiscoveryReleased)
	})
}

func TestAPolicyThatCannotBeRefreshedIsShownAsPolicyFailure(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.Postfix(w.Context(), "example.com")
		w.dns.txt("example.com", time.Hour, "v=STSv1; id=two;")
		w.web.block("example.com")
		w.pass(time.Hour)
		w.Postfix(w.Context(), "example.com")
		synctest.Wait()
		a := w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "mx.example.com")
		if a.Failure == nil || a.Failure.Result != outcome.STSPolicyFetchError {
			w.Errorf("got %+v", a.Failure)
		}
	})
}

func TestTestingIsNotPassedOnAsSuccess(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("testing", "604800", "mx.example.com"))
		a := w.wantAnswer("example.com", verify.AnswerNotFound, "3/dane-off/testing")
		if a.Policy == nil || a.Policy.Mode != "testing" {
			w.Errorf("the ledger must see the policy: %+v", a)
		}
	})
}

func TestRFC8461_3_4_ASmartHostIsItsOwnPolicyDomain(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("relay.example.com", "one", week("relay.example.com"))
		w.dns.addr("relay.example.com", false, "192.0.2.1")
		w.dns.fail("MX relay.example.com")
		a := w.SmartHost(w.Context(), "relay.example.com")
		if a.Kind != verify.AnswerSecure || a.Cell != "3/none/enforce" {
			w.Errorf("got %s by %s: %s", a.Kind, a.Cell, a.Reason)
		}
		if w.SmartHost(w.Context(), "relay.example.com") != a || w.Cached("relay.example.com") != nil {
			w.Error("the answers for a host and for a domain of that name are mixed up")
		}
		w.wantAnswer("relay.example.com", verify.AnswerTemp, "3/mx-failed")
	})
}

func TestANextHopWithAPortIsHeldToTheTLSARecordsOfThatPort(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.dns.addr("relay.example.com", true, "192.0.2.1")
		w.dns.tlsa("relay.example.com", usableTLSA()) // of port 25
		for port, want := range map[uint16]verify.AnswerKind{25: verify.AnswerDANEOnly, 587: verify.AnswerNotFound} {
			if a := w.NextHop(w.Context(), "relay.example.com", port, true); a.Kind != want {
				w.Errorf("port %d: got %s by %s, want %s", port, a.Kind, a.Cell, want)
			}
		}
		w.dns.mx("example.com", true, "relay.example.com")
		for port, want := range map[uint16]verify.AnswerKind{25: verify.AnswerDANEOnly, 587: verify.AnswerNotFound} {
			if a := w.NextHop(w.Context(), "example.com", port, false); a.Kind != want {
				w.Errorf("by MX, port %d: got %s by %s, want %s", port, a.Kind, a.Cell, want)
			}
		}
		if a := w.SmartHost(w.Context(), "relay.example.com"); a.Kind != verify.AnswerDANEOnly {
			w.Errorf("the answer for the usual port is %s now", a.Kind)
		}
	})
}

func TestADestinationThatIsObservedIsNotFound(t *testing.T) {
	inWorld(t, Options{ObserveOnly: []string{"example.com", "held.example"}}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		a := w.wantAnswer("example.com", verify.AnswerNotFound, "3/dane-off/enforce")
		if !a.Observe || a.Would != verify.AnswerSecure {
			w.Errorf("got %+v", a)
		}
		w.dns.fail("TXT _mta-sts.held.example")
		if a := w.wantAnswer("held.example", verify.AnswerNotFound, "3/dane-off/unknown"); a.Would != verify.AnswerTemp {
			w.Errorf("got %+v", a)
		}
	})
}

func TestWhatIsNoDomainIsNotFound(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.wantAnswer("[192.0.2.1]", verify.AnswerNotFound, "3/not-a-domain")
	})
}

func TestAnAnswerThatIsNotThereInTimeIsTemp(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.web.gate = make(chan struct{})
		ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
		defer cancel()
		a := w.Postfix(ctx, "example.com")
		if a.Kind != verify.AnswerTemp || a.Reason == "" {
			w.Errorf("got %+v", a)
		}
		close(w.web.gate)
		synctest.Wait() // the look went on without the caller
		w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "mx.example.com")
	})
}

func TestHostsWhoseRecordsAreUnusableStillGetTLS(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", dane.Record{Usage: 0, Data: []byte{1}})
		w.wantAnswer("example.com", verify.AnswerDANE, "3/none-usable/none")
	})
}
