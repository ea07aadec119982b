// Package ledger counts outcomes: every TLS attempt of the relay, of Postfix and
// of policy discovery, by UTC day and by all that a TLS-RPT report tells apart
// (RFC 8460 §4.4). Attempts are gathered in memory and written together, so that
// counting costs a delivery next to nothing; what a crash can lose is at most
// [FlushEvery] of counts, never mail. Several nodes on one database count into
// the same days.
package ledger

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/outcome"
)

const (
	// FlushEvery is how long a count waits in memory at the most.
	FlushEvery = 2 * time.Second
	// maxPending is how many different rows wait before a flush is forced.
	maxPending = 4096
	// maxHeld caps the rows in memory while the database takes none. New ones
	// beyond it are lost, and [Ledger.Lost] says how many.
	maxHeld = 1 << 16
)

type count struct {
	sessions int64
	last     time.Time
}

// dayDomain is what the rows of one report have in common.
type dayDomain struct{ org, day, domain string }

func (r row) dayDomain() dayDomain { return dayDomain{r.org, r.day, r.domain} }

// Ledger counts. Its methods are safe for concurrent use.
type Ledger struct {
	db      *db.DB
	log     *slog.Logger
	after   func(time.Duration) <-chan time.Time
	node    string
	testing func(domain string) bool

	mu        sync.Mutex
	pending   map[row]count
	suspects  map[suspect]time.Time // when something failed last
	perDomain map[dayDomain]int
	lost      int64
	full      chan struct{} // a flush is wanted now
}

// Options are what a Ledger needs.
type Options struct {
	DB    *db.DB
	Log   *slog.Logger
	After func(time.Duration) <-chan time.Time // time.After, or a test's clock
	Node  string                               // this node's name
	// Testing reports whether a domain's MTA-STS policy is known to be in mode
	// testing. It must answer at once, from memory. Nil: of none.
	Testing func(domain string) bool
}

// New returns a ledger; its counts are written while [Ledger.Run] runs.
func New(o Options) *Ledger {
	l := &Ledger{
		db: o.DB, log: o.Log, after: o.After, node: o.Node, testing: o.Testing,
		pending: map[row]count{}, perDomain: map[dayDomain]int{}, full: make(chan struct{}, 1), suspects: map[suspect]time.Time{},
	}
	if l.testing == nil {
		l.testing = func(string) bool { return false }
	}
	return l
}

// Record counts an attempt: one session for each policy it was judged by. Its
// day is the UTC day of [outcome.Attempt.At].
func (l *Ledger) Record(_ context.Context, a outcome.Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range a.Policies {
		r := l.rowOf(&a, &a.Policies[i])
		l.suspect(&r, a.At)
		l.merge(r, count{1, a.At})
	}
	if len(l.pending) >= maxPending {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// merge adds a count to what waits.
func (l *Ledger) merge(r row, c count) {
	have, known := l.pending[r]
	if !known {
		if k := r.dayDomain(); l.perDomain[k] < maxRowsPerDomain {
			l.perDomain[k]++
		} else {
			r = r.other()
			have, known = l.pending[r]
		}
	}
	if !known && len(l.pending) >= maxHeld {
		l.lost += c.sessions
		return
	}
	have.sessions += c.sessions
	if c.last.After(have.last) {
		have.last = c.last
	}
	l.pending[r] = have
}

// Lost returns how many outcomes were not counted because the database took
// none for too long.
func (l *Ledger) Lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
