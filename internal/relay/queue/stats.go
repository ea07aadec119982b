package queue

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// Stats are the queue's figures.
type Stats struct {
	Queued   int64     `json:"queued"`
	Held     int64     `json:"held"`            // by hand
	ByPolicy int64     `json:"by_policy"`       // of the queued, those that a policy makes wait, or that wait behind them
	Oldest   time.Time `json:"oldest,omitzero"` // when the oldest waiting delivery's message came in
	Active   int       `json:"active"`          // attempts under way on this node
	Down     int       `json:"down"`            // destinations of which no host could be used
}

// costFactor is how much longer than the counting took its result is used:
// counting a million rows takes a moment, and everybody asks for it.
const costFactor = 50

// counts keeps the figures that are counted in the database.
type counts struct {
	mu    sync.Mutex
	stats Stats
	until time.Time
}

// Stats counts what waits. With much of it the figures may be some seconds old.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	s, err := q.counted(ctx)
	if err != nil {
		return s, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.dests {
		s.Active += d.active
		if d.gate.down > 0 {
			s.Down++
		}
	}
	return s, nil
}

func (q *Queue) counted(ctx context.Context) (Stats, error) {
	c := &q.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	began := q.opts.Now()
	if began.Before(c.until) {
		return c.stats, nil
	}
	s, err := q.count(ctx)
	if err != nil {
		return s, fmt.Errorf("counting the queue: %w", err)
	}
	now := q.opts.Now()
	c.stats, c.until = s, now.Add(costFactor*now.Sub(began))
	return s, nil
}

// The statements say the state in words, so that each reads a partial index
// that holds nothing else. CROSS JOIN keeps SQLite to the order of the tables,
// which goes from few rows to many.
const (
	countAll = `SELECT (SELECT COUNT(*) FROM delivery WHERE state = 'queued'), (SELECT COUNT(*) FROM delivery WHERE state = 'held'),
		(SELECT COUNT(*) FROM destination g CROSS JOIN delivery d
			WHERE g.by_policy = 1 AND d.org = g.org AND d.domain = g.domain AND d.state = 'queued'),
		(SELECT COUNT(*) FROM delivery d WHERE d.state = 'queued' AND d.by_policy = 1
			AND NOT EXISTS (SELECT 1 FROM destination g WHERE g.org = d.org AND g.domain = d.domain AND g.by_policy = 1))`
	oldest = `SELECT MIN(received) FROM (
		SELECT m.received FROM organisation o CROSS JOIN delivery d CROSS JOIN message m
			WHERE d.org = o.id AND d.id = (SELECT MIN(w.id) FROM delivery w WHERE w.org = o.id AND w.state = 'queued')
			AND m.org = d.org AND m.id = d.message UNION ALL
		SELECT m.received FROM organisation o CROSS JOIN delivery d CROSS JOIN message m
			WHERE d.org = o.id AND d.id = (SELECT MIN(w.id) FROM delivery w WHERE w.org = o.id AND w.state = 'held')
			AND m.org = d.org AND m.id = d.message) AS firsts`
)

func (q *Queue) count(ctx context.Context) (s Stats, err error) {
	var behind, own int64
	if err := q.opts.DB.Read().QueryRowContext(ctx, countAll).Scan(&s.Queued, &s.Held, &behind, &own); err != nil {
		return s, err
	}
	s.ByPolicy = behind + own
	var received sql.NullInt64
	err = q.opts.DB.Read().QueryRowContext(ctx, oldest).Scan(&received)
	s.Oldest = db.Time(received.Int64)
	return s, err
}
