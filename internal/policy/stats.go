package policy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
)

// Stats are the engine's counts since it was made, and what it holds now.
type Stats struct {
	FromMemory   uint64 `json:"from_memory"`   // answered from memory
	FromDatabase uint64 `json:"from_database"` // found in the database
	Misses       uint64 `json:"misses"`        // known to neither
	Unreadable   uint64 `json:"unreadable"`    // the database did not answer
	Behind       uint64 `json:"behind"`        // checks that nobody waited for

	Refreshes uint64                        `json:"refreshes"` // policies that HTTPS gave
	Failures  map[outcome.ResultType]uint64 `json:"failures"`  // of policy hosts, by result type

	InMemory   int       `json:"in_memory"`  // domains
	Memory     uint64    `json:"memory"`     // bytes, about
	Unsaved    int       `json:"unsaved"`    // states that wait to be written
	Looking    int       `json:"looking"`    // domains that are being looked at
	Overrides  int       `json:"overrides"`  // in force
	Overridden uint64    `json:"overridden"` // answers for Postfix that one of them decided
	DANE       bool      `json:"dane"`
	Oldest     time.Time `json:"oldest,omitzero"` // when the oldest cached policy was fetched
}

// counters are what Stats is made of.
type counters struct {
	memory, stored, misses, unreadable, behind, refreshed atomic.Uint64
	overridden                                            atomic.Uint64

	mu       sync.Mutex
	failures map[outcome.ResultType]uint64
}

func (c *counters) failed(result outcome.ResultType) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures == nil {
		c.failures = make(map[outcome.ResultType]uint64)
	}
	c.failures[result]++
}

// Stats returns a snapshot. It is cheap: what needs the database was read by
// [Engine.Run] within the last minute.
func (e *Engine) Stats() Stats {
	c := &e.count
	s := Stats{
		FromMemory: c.memory.Load(), FromDatabase: c.stored.Load(), Misses: c.misses.Load(), Unreadable: c.unreadable.Load(),
		Overridden: c.overridden.Load(), Behind: c.behind.Load(), Refreshes: c.refreshed.Load(), Failures: make(map[outcome.ResultType]uint64),
		InMemory: e.memory.EstimatedSize(), Memory: e.memory.WeightedSize(), Unsaved: e.rows.backlog(),
		Looking: len(e.looks), DANE: e.dane.Load(), Oldest: fromMicro(e.oldest.Load()),
	}
	c.mu.Lock()
	for result, n := range c.failures {
		s.Failures[result] = n
	}
	c.mu.Unlock()
	s.Overrides = e.overrides.inForce()
	return s
}

// oldest returns when the oldest live policy was fetched; 0: there is none.
func (r *rows) oldest(ctx context.Context, now int64) (int64, error) {
	var oldest *int64
	err := r.db.Read().QueryRowContext(ctx,
		`SELECT min(fetched_at) FROM policy WHERE org = $1 AND mode <> ''`, r.org).Scan(&oldest)
	if err != nil {
		return 0, fmt.Errorf("looking for the oldest policy: %w", err)
	}
	if oldest == nil {
		return 0, nil
	}
	return min(*oldest, now), nil
}
