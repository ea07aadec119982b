package policy

import (
	"testing"

	"github.com/pawl-mail/pawl/internal/event"
)

// stsCell is what one cell of table 1 must say.
type stsCell struct {
	use    use
	report bool
	retry  bool
	event  event.Kind
}

var (
	nothing = stsCell{use: useNothing}
	keep    = stsCell{use: useCached}
	adopt   = stsCell{use: useFetched}
	wait    = stsCell{use: useHold}

	keepFailing  = stsCell{use: useCached, report: true, retry: true, event: event.PolicyRefreshFailing}
	keepBackOff  = stsCell{use: useCached, retry: true}
	keepVanished = stsCell{use: useCached, event: event.PolicyRecordVanished}
	withoutSTS   = stsCell{use: useNothing, report: true, retry: true}
	stillWithout = stsCell{use: useNothing, retry: true}
	held4h       = stsCell{use: useHold, event: event.DiscoveryHeld}
	released     = stsCell{use: useNothing, event: event.DiscoveryReleased}
)

// table1 is decision table 1, cell by cell, row by row.
var table1 = map[string]stsCell{
	// One valid record, id as cached; HTTPS not asked; live: the cached policy.
	"1/same-id/not-asked/live": keep,
	// Before the record was looked at again: answered from the cache.
	"1/not-asked/not-asked/live": keep,

	// Valid, new id; HTTPS gave a policy; any cache: the new policy. A refresh
	// asks HTTPS with the same id too.
	"1/new-id/policy/live":        adopt,
	"1/new-id/policy/no-cache":    adopt,
	"1/new-id/policy/expired":     adopt,
	"1/new-id/policy/unreadable":  adopt,
	"1/same-id/policy/live":       adopt,
	"1/same-id/policy/no-cache":   adopt,
	"1/same-id/policy/expired":    adopt,
	"1/same-id/policy/unreadable": adopt,

	// Valid, new id; any failure, or invalid policy; live: the cached policy,
	// retried after 5 minutes, event, reported.
	"1/new-id/failure/live":   keepFailing,
	"1/same-id/failure/live":  keepFailing,
	"1/new-id/back-off/live":  keepBackOff,
	"1/same-id/back-off/live": keepBackOff,
	"1/new-id/not-asked/live": keep,

	// Valid; any failure; no cache, or an expired one, which is as none: as
	// without MTA-STS, reported, retried.
	"1/new-id/failure/no-cache":   withoutSTS,
	"1/new-id/failure/expired":    withoutSTS,
	"1/same-id/failure/no-cache":  withoutSTS,
	"1/same-id/failure/expired":   withoutSTS,
	"1/new-id/back-off/no-cache":  stillWithout,
	"1/new-id/back-off/expired":   stillWithout,
	"1/same-id/back-off/no-cache": stillWithout,
	"1/same-id/back-off/expired":  stillWithout,

	// No record; live: the cached policy; event "record vanished". A refresh asks
	// HTTPS all the same.
	"1/none/not-asked/live": keepVanished,
	"1/none/back-off/live":  {use: useCached, retry: true, event: event.PolicyRecordVanished},
	"1/none/failure/live":   {use: useCached, report: true, retry: true, event: event.PolicyRecordVanished},
	"1/none/policy/live":    adopt,

	// No record; no cache: no policy. Nothing that HTTPS could say counts
	// (RFC 8461 §3.1: skip the remaining steps).
	"1/none/not-asked/no-cache": nothing,
	"1/none/not-asked/expired":  nothing,
	"1/none/failure/no-cache":   nothing,
	"1/none/failure/expired":    nothing,
	"1/none/back-off/no-cache":  nothing,
	"1/none/back-off/expired":   nothing,
	"1/none/policy/no-cache":    nothing,
	"1/none/policy/expired":     nothing,

	// Could not be looked up; live: the cached policy.
	"1/unknown/not-asked/live": keep,
	"1/unknown/back-off/live":  keepBackOff,
	"1/unknown/failure/live":   keepFailing,
	"1/unknown/policy/live":    adopt,

	// Could not be looked up; no cache: held from the first failure on for
	// discovery_hold, then as without, with an event; 0 turns it off.
	"1/unknown/not-asked/no-cache/hold":      held4h,
	"1/unknown/not-asked/no-cache/hold-over": released,
	"1/unknown/not-asked/no-cache/hold-off":  nothing,
	"1/unknown/not-asked/expired/hold":       held4h,
	"1/unknown/not-asked/expired/hold-over":  released,
	"1/unknown/not-asked/expired/hold-off":   nothing,
	"1/unknown/failure/no-cache/hold":        held4h,
	"1/unknown/failure/no-cache/hold-over":   released,
	"1/unknown/failure/no-cache/hold-off":    nothing,
	"1/unknown/failure/expired/hold":         held4h,
	"1/unknown/failure/expired/hold-over":    released,
	"1/unknown/failure/expired/hold-off":     nothing,
	"1/unknown/back-off/no-cache/hold":       held4h,
	"1/unknown/back-off/no-cache/hold-over":  released,
	"1/unknown/back-off/no-cache/hold-off":   nothing,
	"1/unknown/back-off/expired/hold":        held4h,
	"1/unknown/back-off/expired/hold-over":   released,
	"1/unknown/back-off/expired/hold-off":    nothing,
	// Nor would HTTPS be asked then; what it said would change nothing.
	"1/unknown/policy/no-cache/hold":      held4h,
	"1/unknown/policy/no-cache/hold-over": released,
	"1/unknown/policy/no-cache/hold-off":  nothing,
	"1/unknown/policy/expired/hold":       held4h,
	"1/unknown/policy/expired/hold-over":  released,
	"1/unknown/policy/expired/hold-off":   nothing,

	// The database cannot be read: there may be a live policy in it.
	"1/new-id/failure/unreadable":      wait,
	"1/new-id/back-off/unreadable":     wait,
	"1/new-id/not-asked/unreadable":    wait,
	"1/same-id/failure/unreadable":     wait,
	"1/same-id/back-off/unreadable":    wait,
	"1/same-id/not-asked/unreadable":   wait,
	"1/none/not-asked/unreadable":      wait,
	"1/none/failure/unreadable":        wait,
	"1/none/back-off/unreadable":       wait,
	"1/none/policy/unreadable":         wait,
	"1/unknown/not-asked/unreadable":   wait,
	"1/unknown/failure/unreadable":     wait,
	"1/unknown/back-off/unreadable":    wait,
	"1/unknown/policy/unreadable":      wait,
	"1/not-asked/not-asked/unreadable": wait,
	"1/not-asked/failure/unreadable":   wait,
	"1/not-asked/back-off/unreadable":  wait,
	"1/not-asked/policy/unreadable":    wait,

	// Cells that nothing leads to decide nothing: mail waits.
	"1/new-id/not-asked/no-cache":    wait,
	"1/new-id/not-asked/expired":     wait,
	"1/same-id/not-asked/no-cache":   wait,
	"1/same-id/not-asked/expired":    wait,
	"1/not-asked/not-asked/no-cache": wait,
	"1/not-asked/not-asked/expired":  wait,
	"1/not-asked/failure/no-cache":   wait,
	"1/not-asked/failure/expired":    wait,
	"1/not-asked/failure/live":       keepFailing,
	"1/not-asked/back-off/no-cache":  wait,
	"1/not-asked/back-off/expired":   wait,
	"1/not-asked/back-off/live":      keepBackOff,
	"1/not-asked/policy/no-cache":    wait,
	"1/not-asked/policy/expired":     wait,
	"1/not-asked/policy/live":        adopt,
}

func TestEachCellOfTable1(t *testing.T) {
	walked := make(map[string]bool)
	for r := range records {
		for h := range httpsStates {
			for c := range cacheStates {
				for hold := range holdStates {
					got := decideSTS(stsFacts{Record: r, HTTPS: h, Cache: c, Hold: hold})
					want, ok := table1[got.Cell]
					if !ok {
						t.Fatalf("%s is a cell that the table does not have", got.Cell)
					}
					walked[got.Cell] = true
					if (stsCell{got.Use, got.Report, got.Retry, got.Event}) != want {
						t.Errorf("%s: got %+v, want %+v", got.Cell, got, want)
					}
				}
			}
		}
	}
	for cell := range table1 {
		if !walked[cell] {
			t.Errorf("no facts lead to %s", cell)
		}
	}
}

func TestALiveCachedPolicyIsNeverAnsweredAsNone(t *testing.T) {
	for r := range records {
		for h := range httpsStates {
			for hold := range holdStates {
				d := decideSTS(stsFacts{Record: r, HTTPS: h, Cache: cacheLive, Hold: hold})
				if d.Use != useCached && d.Use != useFetched {
					t.Errorf("%s: %v", d.Cell, d.Use)
				}
			}
		}
	}
}
