package db

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is the writer's health, counted since the start.
type Stats struct {
	Commits    uint64        // transactions committed
	Writes     uint64        // write functions committed in them
	Failed     uint64        // write functions that got an error
	Retried    uint64        // runs that came to nothing and were repeated
	CommitTime time.Duration // spent in COMMIT, all together
	// Batches counts commits by their number of write functions: Batches[i]
	// those with at most 1<<i and more than in the one before.
	Batches     [10]uint64
	Queued      int       // write functions that wait now
	LastError   string    // of the last transaction that failed, "" if none did
	LastErrorAt time.Time // when that was
}

// Stats gives the writer's health.
func (d *DB) Stats() Stats {
	s := d.stats.snapshot()
	s.Queued = d.queue.len()
	return s
}

type stats struct {
	now             func() time.Time
	failed, retried atomic.Uint64

	mu    sync.Mutex
	total Stats
}

func newStats(now func() time.Time) *stats {
	if now == nil {
		now = time.Now
	}
	return &stats{now: now}
}

func (s *stats) commit(n int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.Commits++
	s.total.Writes += uint64(n)
	s.total.CommitTime += took
	s.total.Batches[min(bits.Len(uint(n-1)), len(s.total.Batches)-1)]++
}

func (s *stats) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.LastError, s.total.LastErrorAt = err.Error(), s.now()
}

func (s *stats) snapshot() Stats {
	s.mu.Lock()
	t := s.total
	s.mu.Unlock()
	t.Failed, t.Retried = s.failed.Load(), s.retried.Load()
	return t
}
