package policy

import "github.com/pawl-mail/pawl/internal/event"

// Decision table 1: which MTA-STS policy holds. The cell's name is
// "1/record/https/cache", with the state of the discovery hold behind it where
// that decides.

// record is what the lookup of the TXT record at _mta-sts came to.
type record uint8

const (
	recordNotAsked record = iota // answered from the cache; the check runs behind
	recordSameID                 // one valid record with the id of the cached policy
	recordNewID                  // one valid record with another id, or with nothing cached to compare
	recordNone                   // no record, or none that is valid, or several (RFC 8461 §3.1)
	recordUnknown                // could not be looked up: SERVFAIL, timeout, bogus
	records                      // how many there are
)

// https is what asking the policy host came to.
type https uint8

const (
	httpsNotAsked https = iota
	httpsPolicy         // a valid policy
	httpsFailure        // any failure, DNS of the policy host included, or an invalid policy
	httpsBackOff        // not asked: it failed for this id less than five minutes ago (RFC 8461 §3.3)
	httpsStates
)

// cached is what the cache holds.
type cached uint8

const (
	cacheNone       cached = iota // nothing
	cacheLive                     // a policy younger than its max_age
	cacheExpired                  // a policy past its max_age: as nothing
	cacheUnreadable               // the database did not answer: there may be a policy
	cacheStates
)

// holding is where the domain stands with its discovery hold.
type holding uint8

const (
	holdOff     holding = iota // discovery_hold is 0
	holdRunning                // less than discovery_hold has passed since the first failure
	holdOver
	holdStates
)

// use is which policy to go by.
type use uint8

const (
	useNothing use = iota // as without MTA-STS
	useCached             // the cached policy
	useFetched            // the policy that HTTPS just gave
	useHold               // nothing can be decided safely: mail waits
)

var (
	recordNames  = [...]string{"not-asked", "same-id", "new-id", "none", "unknown"}
	httpsNames   = [...]string{"not-asked", "policy", "failure", "back-off"}
	cacheNames   = [...]string{"no-cache", "live", "expired", "unreadable"}
	holdingNames = [...]string{"hold-off", "hold", "hold-over"}
)

// stsFacts is what table 1 is asked with.
type stsFacts struct {
	Record record
	HTTPS  https
	Cache  cached
	Hold   holding
}

// stsDecision is what table 1 says.
type stsDecision struct {
	Cell   string
	Use    use
	Report bool       // the failure goes into TLS-RPT (RFC 8461 §6)
	Retry  bool       // HTTPS is asked again, five minutes after the failure at the earliest
	Event  event.Kind // what someone should hear of when the domain comes into this cell
}

// decideSTS is decision table 1.
func decideSTS(f stsFacts) stsDecision {
	d := stsDecision{Cell: f.cell()}
	valid := f.Record == recordSameID || f.Record == recordNewID
	live := f.Cache == cacheLive
	failed := f.HTTPS == httpsFailure
	switch {
	case f.HTTPS == httpsPolicy && (valid || live):
		// The only way in for a policy, weaker ones too. What is cached is
		// refreshed whatever the record says (RFC 8461 §10.2).
		d.Use = useFetched
	case live:
		// RFC 8461 §3.3: with no live policy to be had, the cached one MUST be applied.
		d.Use = useCached
		d.Report, d.Retry = failed, failed || f.HTTPS == httpsBackOff
		switch {
		case f.Record == recordNone:
			d.Event = event.PolicyRecordVanished
		case failed:
			d.Event = event.PolicyRefreshFailing
		}
	case f.Cache == cacheUnreadable:
		// There may be a live policy in the database: it must not be passed over.
		d.Use = useHold
	case f.Record == recordNone:
		// RFC 8461 §3.1: senders MUST assume that there is no policy.
		d.Use = useNothing
	case f.Record == recordUnknown && f.Hold == holdRunning:
		d.Use, d.Event = useHold, event.DiscoveryHeld
	case f.Record == recordUnknown && f.Hold == holdOver:
		d.Use, d.Event = useNothing, event.DiscoveryReleased
	case f.Record == recordUnknown:
		d.Use = useNothing
	case valid && (failed || f.HTTPS == httpsBackOff):
		// RFC 8461 §3.3: a record, no policy, no cache: MUST continue as without MTA-STS.
		d.Use, d.Report, d.Retry = useNothing, failed, true
	default:
		// A valid record that nobody followed, or nothing asked at all: not an
		// answer. The engine never gets here.
		d.Use = useHold
	}
	return d
}

// cell names the cell.
func (f stsFacts) cell() string {
	hold := f.Hold
	if f.Record != recordUnknown || f.Cache == cacheLive || f.Cache == cacheUnreadable {
		hold = holdStates // it plays no part
	}
	return stsCells[f.Record][f.HTTPS][f.Cache][hold]
}

// stsCells are the names of all cells: a state keeps its own, and there are many
// states. Never written to.
var stsCells = nameSTSCells()

func nameSTSCells() (cells [records][httpsStates][cacheStates][holdStates + 1]string) {
	for r := range records {
		for h := range httpsStates {
			for c := range cacheStates {
				name := "1/" + recordNames[r] + "/" + httpsNames[h] + "/" + cacheNames[c]
				for hold := range holdStates {
					cells[r][h][c][hold] = name + "/" + holdingNames[hold]
				}
				cells[r][h][c][holdStates] = name
			}
		}
	}
	return cells
}
