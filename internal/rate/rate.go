// Package rate counts what each of many parties does, in token buckets: each has
// a burst, which fills up again evenly. The table of buckets is bounded, and an
// attacker who comes under many names cannot push others' buckets out of it.
package rate

import (
	"net/netip"
	"sync"
	"time"
)

// maxBuckets caps a table. Only parties of which something is missing from the
// full bucket are in it.
const maxBuckets = 50_000

// sweepEvery is how often a table that is full is looked through for buckets
// that have filled up.
const sweepEvery = time.Second

// Limit is how much one party may do: Burst at once, and Burst in each Per. The
// zero Limit does not limit.
type Limit struct {
	Burst int
	Per   time.Duration
}

// Table holds the buckets of all parties under one limit. It is safe for
// concurrent use.
type Table struct {
	limit Limit
	now   func() time.Time
	most  int

	mu      sync.Mutex
	buckets map[string]bucket
	others  bucket // of all those for whom the table had no room
	swept   time.Time
}

// bucket is how much of the burst is used up, as of when.
type bucket struct {
	used float64
	at   time.Time
}

// New returns a table of full buckets.
func New(l Limit, now func() time.Time) *Table {
	return &Table{limit: l, now: now, most: maxBuckets, buckets: map[string]bucket{}}
}

// Take takes n from a party's bucket if that much is there. If not, it takes
// nothing and returns how long until it is, which for more than a whole burst
// is never: the wait is then that for a full bucket.
func (t *Table) Take(party string, n int) (wait time.Duration, ok bool) {
	if t.limit.Burst <= 0 {
		return 0, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	b, listed := t.find(party, now)
	if over := b.used + float64(n) - float64(t.limit.Burst); over > 0 {
		t.store(party, listed, b)
		return t.fillTime(min(over, b.used)), false
	}
	b.used += float64(n)
	t.store(party, listed, b)
	return 0, true
}

// GiveBack puts back n that were taken for what then did not count.
func (t *Table) GiveBack(party string, n int) {
	if t.limit.Burst <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b, listed := t.find(party, t.now())
	b.used = max(0, b.used-float64(n))
	t.store(party, listed, b)
}

// find returns a party's bucket as it is now, and whether it has or can have one
// of its own.
func (t *Table) find(party string, now time.Time) (b bucket, listed bool) {
	b, listed = t.buckets[party]
	if !listed {
		if len(t.buckets) >= t.most {
			t.sweep(now)
		}
		listed = len(t.buckets) < t.most
		if !listed {
			b = t.others
		}
	}
	return t.filled(b, now), listed
}

func (t *Table) store(party string, listed bool, b bucket) {
	switch {
	case !listed:
		t.others = b
	case b.used == 0:
		delete(t.buckets, party)
	default:
		t.buckets[party] = b
	}
}

// filled is the bucket after the time that has passed.
func (t *Table) filled(b bucket, now time.Time) bucket {
	if passed := now.Sub(b.at); passed > 0 { // a clock that was set back fills nothing
		b.used = max(0, b.used-float64(t.limit.Burst)*passed.Seconds()/t.limit.Per.Seconds())
	}
	b.at = now
	return b
}

// fillTime is how long it takes to fill up by so much.
func (t *Table) fillTime(n float64) time.Duration {
	return time.Duration(n / float64(t.limit.Burst) * float64(t.limit.Per))
}

// sweep forgets buckets that have filled up.
func (t *Table) sweep(now time.Time) {
	if passed := now.Sub(t.swept); passed >= 0 && passed < sweepEvery {
		return
	}
	t.swept = now
	for party, b := range t.buckets {
		if t.filled(b, now).used == 0 {
			delete(t.buckets, party)
		}
	}
}

// Client names the party that an address stands for: the address in IPv4, the
// /64 in IPv6, which is one customer's network.
func Client(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a.String()
	}
	const customer = 64
	p, _ := a.Prefix(customer) // no error: 64 is a length of IPv6
	return p.String()
}
