package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// gate is closed while none of a destination's hosts can be used.
type gate struct {
	down     int // how many times in a row the destination was down; 0: it is not
	until    time.Time
	byPolicy bool
	why, do  string
}

// standing is what is known of a destination. It is kept in the database, so that
// a restart neither tries every dead destination at once nor takes a live one
// for one of which nothing is known.
type standing struct {
	gate
	reached time.Time // when a host was used last; zero: not this time
}

const (
	// reachedFor is how long a destination that was reached counts as live
	// without being reached again.
	reachedFor = time.Hour
	// reachedAgain is how often that is written down.
	reachedAgain = reachedFor / 2
)

// judge takes over what an attempt says of the destination as a whole. It
// returns what is to be stored of that, nil if nothing is new, and the
// deliveries that are to be given back. The caller holds the lock.
func (q *Queue) judge(d *dest, j *Job, r Result, now time.Time) (*standing, []*Job) {
	slow := now.Sub(j.began) >= slowAttempt
	d.judged = now
	switch {
	case r.DestinationDown:
		d.proven, d.limit = false, 1
	case r.Throttled || slow:
		d.proven, d.limit = !slow, max(1, d.limit/2)
	default:
		d.proven = true
		if r.final() {
			d.limit = min(d.limit+1, q.tuning().Destination)
		}
	}
	if !r.DestinationDown {
		if d.gate.down == 0 && now.Sub(d.written) < reachedAgain {
			return nil, nil
		}
		d.gate, d.written = gate{}, now
		return &standing{reached: now}, nil
	}
	if d.gate.until.After(now) || d.opened.After(j.began) {
		return nil, nil // an attempt beside this one has said so, or a newer one was asked for
	}
	g := gate{down: d.gate.down + 1, byPolicy: r.ByPolicy, why: clean(r.Why), do: clean(r.Do)}
	g.until = now.Add(q.backoff(g.down))
	if j.Expires.After(now) && g.until.After(j.Expires) {
		g.until = j.Expires // the last try is made at the end of the lifetime, not after it
	}
	d.gate, d.written = g, time.Time{}
	if q.shared() {
		back := d.ready
		d.ready = nil
		return &standing{gate: g}, back
	}
	q.forsake(d)
	return &standing{gate: g}, nil
}

const (
	storeStanding = `INSERT INTO destination (org, domain, reached, down, until, by_policy, why, advice)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (org, domain) DO UPDATE SET reached = $3, down = $4, until = $5, by_policy = $6, why = $7, advice = $8`
	openGate = `UPDATE destination SET until = 0 WHERE org = $1 AND domain = $2 AND until > 0`
)

func (s standing) store(ctx context.Context, tx db.Tx, t target) error {
	_, err := tx.ExecContext(ctx, storeStanding, t.org, t.domain, db.Micros(s.reached), s.down, db.Micros(s.until), db.Flag(s.byPolicy), s.why, s.do)
	return err
}

// readStandings reads the destinations that are down, and those that were
// reached since a time.
func (q *Queue) readStandings(ctx context.Context, since time.Time) (map[target]standing, error) {
	type row struct {
		target
		standing
	}
	rows, err := db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (r row, err error) {
		var reached, until, byPolicy int64
		err = rows.Scan(&r.org, &r.domain, &reached, &r.down, &until, &byPolicy, &r.why, &r.do)
		r.reached, r.until, r.byPolicy = db.Time(reached), db.Time(until), byPolicy == 1
		return r, err
	}, `SELECT org, domain, reached, down, until, by_policy, why, advice FROM destination WHERE down > 0 OR reached >= $1`, db.Micros(since))
	if err != nil {
		return nil, fmt.Errorf("reading what is known of destinations: %w", err)
	}
	all := make(map[target]standing, len(rows))
	for _, r := range rows {
		all[r.target] = r.standing
	}
	return all, nil
}

// fresh is how long what this process found out of a destination is newer than
// what the database says, while that is on its way there.
const fresh = 10 * time.Second

// adopt takes over what the database knows of destinations: at the start, and
// where nodes share the queue what another one found out. A gate that another
// node has opened opens here too. The caller holds the lock.
func (q *Queue) adopt(known map[target]standing, now time.Time) {
	for t, s := range known {
		d := q.destination(t)
		if now.Sub(d.judged) < fresh {
			continue
		}
		switch {
		case s.down > 0:
			d.gate, d.proven, d.limit = s.gate, false, 1
		case d.judged.IsZero() || d.gate.down > 0:
			d.gate, d.proven, d.written = gate{}, true, s.reached
		}
		q.replace(d)
	}
	for t, d := range q.dests {
		if _, is := known[t]; !is && d.gate.down > 0 && now.Sub(d.judged) >= fresh {
			d.gate = gate{}
			q.replace(d)
		}
	}
}

// open opens the gate of a destination in memory, and lets it be tried now. The
// caller holds the lock.
func (q *Queue) open(t target, now time.Time) {
	d := q.destination(t)
	// It stays what it is, down, until an attempt shows otherwise.
	d.gate.until, d.judged, d.opened = time.Time{}, now, now
	q.dueAt(t, now)
	q.replace(d)
}
