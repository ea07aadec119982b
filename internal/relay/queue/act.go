package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// Act is what is done to deliveries by hand.
type Act string

// The acts.
const (
	Retry   Act = "retry"   // try now; the destination's wait ends too
	Hold    Act = "hold"    // do not try until released
	Release Act = "release" // try again what was held
	Drop    Act = "drop"    // end without delivering and without a bounce
)

// ErrAct is returned for an act that there is not.
var ErrAct = errors.New("there is no such act; there are retry, hold, release and drop")

// actBatch is how many deliveries one commit changes: other writes wait behind it.
const actBatch = 200

// Do does an act to the waiting deliveries that the filter chooses, all of them
// if it names no limit, and returns how many it was done to. Who and why are kept
// with each. An attempt under way is not cut short: a recipient that it delivers
// to is delivered, and the rest is as the act has it.
func (q *Queue) Do(ctx context.Context, act Act, f Filter, who, why string) (int, error) {
	left := f.Limit
	total := 0
	for {
		f.Limit = actBatch
		if left > 0 {
			f.Limit = min(actBatch, left-total)
		}
		query, args, err := f.query()
		if err != nil {
			return total, err
		}
		ids, err := db.All(ctx, q.opts.DB.Read(), scanText, query, args...)
		if err != nil {
			return total, fmt.Errorf("looking for what to %s: %w", act, err)
		}
		if len(ids) == 0 {
			return total, nil
		}
		a := action{act: act, org: orDefault(f.Org), ids: ids, who: who, why: why, now: q.opts.Now()}
		n, err := q.do(ctx, &a)
		if total += n; err != nil || left > 0 && total >= left {
			return total, err
		}
		f.After = ids[len(ids)-1] // whatever becomes of a delivery, its id stays behind us
	}
}

// action is an act on a page of deliveries.
type action struct {
	act      Act
	org      string
	ids      []string
	who, why string
	now      time.Time

	// What write, which may run more than once, came to.
	changed []changed
	opened  map[string]bool // domains whose gate it opened
	freed   []string        // messages whose spool file may go
}

type changed struct{ id, message, domain string }

// change is what an act makes of a delivery.
type change struct {
	from, to State
	why, do  string
}

func (a *action) changes(id string) ([]change, error) {
	said := a.who
	if a.why != "" {
		said += ": " + a.why
	}
	switch a.act {
	case Hold:
		return []change{{Queued, Held, "held by " + said, "Release it with `pawl queue release " + id + "`."}}, nil
	case Release:
		return []change{{Held, Queued, "released by " + said, ""}}, nil
	case Retry:
		return []change{{Queued, Queued, "to be tried at once, as asked by " + said, ""}}, nil
	case Drop:
		return []change{{Queued, Dropped, "dropped by " + said, ""}, {Held, Dropped, "dropped by " + said, ""}}, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrAct, string(a.act))
}

const changeDelivery = `UPDATE delivery SET state = $4, version = version + 1, next = $5, by_policy = by_policy * $10, why = $6, advice = $7,
	updated = $8, ended = $9 WHERE org = $1 AND id = $2 AND state = $3 RETURNING message, domain`

// write is the write function.
func (a *action) write(ctx context.Context, tx db.Tx) error {
	a.changed, a.freed, a.opened = nil, nil, map[string]bool{}
	for _, id := range a.ids {
		changes, err := a.changes(id)
		if err != nil {
			return err
		}
		for _, c := range changes {
			done, err := a.one(ctx, tx, id, c)
			if err != nil {
				return err
			}
			if done {
				break
			}
		}
	}
	return nil
}

// one changes one delivery, if it is in the state that the change starts from.
func (a *action) one(ctx context.Context, tx db.Tx, id string, c change) (bool, error) {
	got := changed{id: id}
	var ended time.Time
	if c.to == Dropped {
		ended = a.now
	}
	err := tx.QueryRowContext(ctx, changeDelivery, a.org, id, c.from, c.to, db.Micros(a.now), clean(c.why), clean(c.do),
		db.Micros(a.now), db.Micros(ended), db.Flag(a.act == Retry)).Scan(&got.message, &got.domain)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	story, err := storyText(Story{At: a.now, Why: clean(c.why), Do: clean(c.do)})
	if err != nil {
		return false, err
	}
	if err := insertStory(ctx, tx, a.org, id, db.NewID(), story); err != nil {
		return false, err
	}
	a.changed = append(a.changed, got)
	switch c.to {
	case Dropped:
		return true, a.free(ctx, tx, got.message)
	case Queued:
		if a.opened[got.domain] {
			return true, nil
		}
		a.opened[got.domain] = true
		_, err := tx.ExecContext(ctx, openGate, a.org, got.domain)
		return true, err
	}
	return true, nil
}

// free frees the body of a message of which a delivery was dropped.
func (a *action) free(ctx context.Context, tx db.Tx, message string) error {
	if err := freeStored(ctx, tx, a.org, message); err != nil {
		return err
	}
	spooled, err := freeSpooled(ctx, tx, a.org, message)
	if spooled {
		a.freed = append(a.freed, message)
	}
	return err
}

// do changes a page of deliveries in one commit and tells the schedule.
func (q *Queue) do(ctx context.Context, a *action) (int, error) {
	if err := q.opts.DB.Write(ctx, a.write); err != nil {
		return 0, fmt.Errorf("changing the queue: %w", err)
	}
	for _, m := range a.freed {
		q.removeSpooled(m)
	}
	q.mu.Lock()
	for _, c := range a.changed {
		if d := q.dests[target{a.org, c.domain}]; d != nil && d.running[c.id] != nil {
			d.running[c.id].doubt = true
		}
	}
	for domain := range a.opened {
		q.open(target{a.org, domain}, a.now)
	}
	q.mu.Unlock()
	q.wakeUp()
	return len(a.changed), nil
}

// kickDeliveries brings forward what waits because of a policy by itself, while
// its destination's other mail goes. There is little of that.
const kickDeliveries = `UPDATE delivery SET next = $3 WHERE org = $1 AND next > $3 AND id IN (
	SELECT id FROM delivery WHERE org = $1 AND state = 'queued' AND by_policy = 1 AND domain = $2)`

// Kick lets mail for a destination be tried at once: what it waited for has
// changed. It costs the same however much mail waits, since that waits behind
// the gate of the destination; mail that waits for a reason of its own, such as
// a full mailbox, keeps its time.
func (q *Queue) Kick(ctx context.Context, domain string) error {
	now := q.opts.Now()
	t := target{db.DefaultOrg, domain}
	err := q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		if _, err := tx.ExecContext(ctx, openGate, t.org, t.domain); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, kickDeliveries, t.org, t.domain, db.Micros(now))
		return err
	})
	if err != nil {
		return fmt.Errorf("letting mail for %s go: %w", domain, err)
	}
	q.mu.Lock()
	q.open(t, now)
	q.mu.Unlock()
	q.wakeUp()
	return nil
}
