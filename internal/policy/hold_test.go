package policy

import (
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
)

func TestDiscoveryThatCannotBeDoneHoldsMailForFourHoursFromTheFirstFailure(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		start := time.Now()
		d := w.want("example.com", "hold", "1/unknown/not-asked/no-cache/hold")
		if !d.Hold.Until.Equal(start.Add(4*time.Hour)) || d.Hold.Why == "" || d.Hold.Do == "" {
			w.Errorf("held by %+v", d.Hold)
		}
		w.pass(2 * time.Hour)
		w.start() // the first failure is remembered over a restart
		d = w.want("example.com", "hold", "1/unknown/not-asked/no-cache/hold")
		if !d.Hold.Until.Equal(start.Add(4 * time.Hour)) {
			w.Errorf("after a restart held until %v", d.Hold.Until)
		}
		w.wantEvents(event.DiscoveryHeld)
		w.pass(2*time.Hour - time.Second)
		w.want("example.com", "hold", "1/unknown/not-asked/no-cache/hold")
		w.pass(time.Second)
		w.want("example.com", "", "1/unknown/not-asked/no-cache/hold-over")
		w.wantEvents(event.DiscoveryReleased)
		w.pass(time.Hour)
		w.want("example.com", "", "1/unknown/not-asked/no-cache/hold-over")
		w.wantEvents()
	})
}

func TestAHoldEndsAsSoonAsTheRecordCanBeLookedUp(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.want("example.com", "hold", "1/unknown/not-asked/no-cache/hold")
		w.publish("example.com", "one", week("mx.example.com"))
		w.pass(retryLookup)
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
		// Trouble that comes later is trouble of its own.
		w.dns.txt("example.org", time.Minute)
		w.want("example.org", "", "1/none/not-asked/no-cache")
	})
}

func TestARunOfFailuresEndsWithASuccess(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.sts("example.com")
		w.pass(3 * time.Hour)
		w.dns.txt("example.com", time.Minute)
		w.want("example.com", "", "1/none/not-asked/no-cache")
		w.dns.fail("TXT _mta-sts.example.com")
		w.pass(2 * time.Hour)
		w.want("example.com", "hold", "1/unknown/not-asked/no-cache/hold")
	})
}

func TestFailuresADayApartAreNotOneRun(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.sts("example.com")
		w.pass(staleFailures + time.Hour)
		w.want("example.com", "hold", "1/unknown/not-asked/no-cache/hold")
	})
}

func TestDiscoveryHoldZeroTurnsItOff(t *testing.T) {
	inWorld(t, Options{DiscoveryHold: -1}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.want("example.com", "", "1/unknown/not-asked/no-cache/hold-off")
	})
}
