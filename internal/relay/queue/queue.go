// Package queue is the relay's mail at rest. A message is accepted with
// [Queue.Enqueue], which returns once it is durable; [Queue.Run] hands each
// delivery to the deliverer when it is due, and writes what came of it; the rest
// looks at what waits and changes it by hand.
//
// # Destinations
//
// The database holds the deliveries; memory holds one entry for each
// destination that has any, and the bodies of mail that has just come in, up to
// a limit. A destination is tried as a whole: while none of its hosts can be
// used its gate is closed, and when the gate opens one delivery is tried, a
// different one each time, with the others waiting behind it. What is down, or
// not known, may take part of the slots only, so that mail for a destination
// that works always finds one.
//
// # What a crash leaves
//
// An attempt is written down within 20 ms of its end. A crash in that time, or
// while the other side says its last word, makes a delivery that went come
// again: RFC 5321 §6.1 prefers a duplicate to a loss. Nothing else is repeated,
// and nothing that was accepted is lost.
//
// # Several nodes
//
// On PostgreSQL several nodes share the queue. A node leases what it tries; a
// lease lives as long as its owner says every half minute that it is alive, and
// the deliveries of one that has died come back after three. Clocks may differ
// by less than that.
package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// ErrNotFound is returned for a delivery that the queue does not have.
var ErrNotFound = errors.New("there is no such delivery in the queue")

// Options are what a Queue needs; all of it but Grace, DelayNotice, Bounce and OnHeld.
type Options struct {
	DB    *db.DB
	Spool string // folder for large bodies, of this process alone; made if it is not there
	Node  string // this node's name, for people
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	Log   *slog.Logger

	Lifetime    time.Duration // how long a message is tried
	RetryFirst  time.Duration // wait after the first failure; doubles
	RetryMax    time.Duration // up to this
	Concurrency int           // deliveries at once
	Destination int           // deliveries at once to one destination
	History     time.Duration // how long ended deliveries and their stories are kept
	Grace       time.Duration // how long attempts under way may go on when Run is told to end

	// DelayNotice is how old a message is when its sender is told that it waits; 0: never.
	DelayNotice time.Duration

	// Bounce makes the delivery status notification of what an attempt came to
	// (RFC 3464), or nil if none is due. It goes into the queue in the same commit
	// as the attempt. Nil: what happens is only recorded.
	Bounce func(ctx context.Context, n News) (*Submission, error)
	// OnHeld is told of each delivery that a policy makes wait for the first time.
	OnHeld func(ctx context.Context, d Delivery)
}

// News is what a notification is made of: the recipients with whom something
// happened that their sender may want to hear of.
type News struct {
	Delivery Delivery
	Failed   []Recipient // for good
	Delayed  []Recipient // still wait after [Options.DelayNotice]; each is told of once
	Relayed  []Recipient // taken by a server that sends no notifications (RFC 3461 §5.2.2)
	Why      string
	// Open returns the original's body in wire form.
	Open func() ([]byte, error)
}

// Queue is the relay's queue. Its methods are safe for concurrent use.
type Queue struct {
	opts   Options
	wake   chan struct{} // something became due
	tuned  atomic.Pointer[Tuning]
	jobs   sync.WaitGroup
	counts counts
	weight weight

	// The lock is never held while the database is asked for anything: the
	// writer takes it to tell what is durable.
	mu        sync.Mutex
	running   bool      // Run has begun and not been told to end
	paused    bool      // nothing is begun until it is resumed
	calm      sync.Cond // a delivery has left, or the pause is over
	dests     map[target]*dest
	lines     [classes]line
	newcomers []*dest   // destinations in the order in which they came, the latest last
	latest    bool      // the latest comes next
	lively    time.Time // when a delivery to a destination that works was begun last
	pace      time.Time // when the next destination may be begun with that is down or not known
	pins      int       // while there are any, no spool file is removed
	pinned    []string  // messages whose files go afterwards
	held      int       // bytes of bodies in memory
	tenure    tenure
	unstored  []*mark // results that the database did not take
	offered   int     // of them, those that are offered to it again

	reminded map[string]string // by organisation, up to which delivery senders were told; the sweep's own
}

// New returns a queue over the deliveries that the database holds, and sweeps
// from the spool what a crash left there.
func New(ctx context.Context, o Options) (*Queue, error) {
	q := &Queue{opts: o, dests: map[target]*dest{}, wake: make(chan struct{}, 1), reminded: map[string]string{}}
	q.tuned.Store(o.tuning())
	q.calm.L = &q.mu
	if err := q.openSpool(ctx); err != nil {
		return nil, err
	}
	if err := q.load(ctx); err != nil {
		return nil, err
	}
	return q, nil
}

// shared reports whether other nodes may work on the same queue.
func (q *Queue) shared() bool { return q.opts.DB.Dialect() == db.Postgres }

// queuedDomains walks from one destination with queued mail to the next, which
// costs as much as there are destinations, however much mail there is.
const queuedDomains = `WITH RECURSIVE walk (domain) AS (
	SELECT MIN(domain) FROM delivery WHERE org = $1 AND state = 'queued'
	UNION ALL
	SELECT (SELECT MIN(d.domain) FROM delivery d WHERE d.org = $1 AND d.state = 'queued' AND d.domain > walk.domain)
	FROM walk WHERE walk.domain IS NOT NULL)
	SELECT walk.domain, (SELECT MIN(next) FROM (
		SELECT MIN(d.next) AS next FROM delivery d WHERE d.org = $1 AND d.state = 'queued' AND d.domain = walk.domain AND d.bulk = 0 AND d.lease = '' UNION ALL
		SELECT MIN(d.next) AS next FROM delivery d WHERE d.org = $1 AND d.state = 'queued' AND d.domain = walk.domain AND d.bulk = 1 AND d.lease = '') AS lanes)
	FROM walk WHERE walk.domain IS NOT NULL`

// load learns which destinations have mail waiting, since when, and which of
// them were down. It repeats it for what other nodes did.
func (q *Queue) load(ctx context.Context) error {
	now := q.opts.Now()
	known, err := q.readStandings(ctx, now.Add(-reachedFor))
	if err != nil {
		return err
	}
	orgs, err := db.All(ctx, q.opts.DB.Read(), scanText, `SELECT id FROM organisation`)
	if err != nil {
		return fmt.Errorf("reading the queue: %w", err)
	}
	type waiting struct {
		target
		next time.Time
	}
	var all []waiting
	for _, org := range orgs {
		found, err := db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (waiting, error) {
			w := waiting{target: target{org: org}}
			var next sql.NullInt64 // none: all of them are under a lease
			err := rows.Scan(&w.domain, &next)
			w.next = db.Time(next.Int64)
			return w, err
		}, queuedDomains, org)
		if err != nil {
			return fmt.Errorf("reading the queue: %w", err)
		}
		all = append(all, found...)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.adopt(known, now)
	for _, w := range all {
		if !w.next.IsZero() {
			q.dueAt(w.target, w.next)
		}
	}
	return nil
}

func scanText(rows *sql.Rows) (s string, err error) {
	err = rows.Scan(&s)
	return s, err
}
