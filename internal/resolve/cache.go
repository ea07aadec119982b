package resolve

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// entryBytes is about what an entry takes beside its strings and records: the
// result, its place in the map and in the order of eviction.
const entryBytes = 450

// cache keeps results for as long as they are good, in about so many bytes. What
// is past its time is not handed out; it is overwritten, or evicted as unused.
type cache struct {
	entries *otter.Cache[question, *result]
}

func newCache(bytes uint64) *cache {
	// Must panics on contradictory options only, and these are constant.
	return &cache{otter.Must(&otter.Options[question, *result]{
		MaximumWeight: bytes,
		Weigher:       func(_ question, r *result) uint32 { return r.weight() },
		// No expiry by otter: it would need a goroutine, and another clock.
		Executor: func(fn func()) { fn() },
	})}
}

func (c *cache) get(q question, generation uint64, now time.Time) *result {
	r, ok := c.entries.GetIfPresent(q)
	if !ok || r.generation != generation || r.remaining(now) <= 0 {
		return nil
	}
	return r
}

func (c *cache) put(q question, r *result) {
	if r.ttl > 0 {
		c.entries.Set(q, r)
		return
	}
	c.entries.Invalidate(q) // what was there is no longer what the DNS says
}

// replace puts r in the place of an earlier result, if there is one.
func (c *cache) replace(q question, r *result) {
	if _, ok := c.entries.GetIfPresent(q); ok {
		c.put(q, r)
	}
}

func (c *cache) clear()        { c.entries.InvalidateAll() }
func (c *cache) size() int     { return c.entries.EstimatedSize() }
func (c *cache) bytes() uint64 { return c.entries.WeightedSize() }
