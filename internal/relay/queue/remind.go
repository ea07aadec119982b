package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// remindBatch is how many deliveries are read at a time that have waited for
	// long, and maxReminders how many senders are told so in one sweep.
	remindBatch  = 100
	maxReminders = 1000
)

// What waits and of whose recipients none was told of, in the order of arrival. The
// row is looked at anew, so that the walk keeps to the index of what is queued.
const unremindedIDs = `SELECT id FROM delivery WHERE org = $1 AND state = 'queued' AND id > $2 AND EXISTS (
	SELECT 1 FROM delivery x WHERE x.org = delivery.org AND x.id = delivery.id AND x.lease = '' AND x.recipients NOT LIKE '%"warned":true%')
	ORDER BY id LIMIT $3`

// remind tells senders of mail that has waited for [Options.DelayNotice] and whose
// turn to be tried does not come: it waits behind a gate, or for a late retry.
// What is being tried tells so by itself.
func (q *Queue) remind(ctx context.Context, now time.Time) error {
	if q.opts.DelayNotice <= 0 || q.opts.Bounce == nil {
		return nil
	}
	left := maxReminders
	for _, org := range q.orgs() {
		if err := q.remindOf(ctx, org, now, &left); err != nil {
			return fmt.Errorf("telling senders of mail that waits: %w", err)
		}
	}
	return nil
}

// orgs are the organisations that have mail.
func (q *Queue) orgs() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var orgs []string
	for t := range q.dests {
		if !slices.Contains(orgs, t.org) {
			orgs = append(orgs, t.org)
		}
	}
	return orgs
}

// remindOf does so for one organisation. It goes on from sweep to sweep behind
// what it has been through, but for what was being tried then.
func (q *Queue) remindOf(ctx context.Context, org string, now time.Time, left *int) error {
	after := q.reminded[org]
	passed := true // nothing was left out so far
	for *left > 0 {
		ids, err := db.All(ctx, q.opts.DB.Read(), scanText, unremindedIDs, org, after, remindBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		jobs, err := q.readJobs(ctx, org, ids, "", now)
		if err != nil {
			return err
		}
		slices.SortFunc(jobs, func(a, b *Job) int { return cmp.Compare(a.ID, b.ID) })
		for _, j := range jobs {
			if now.Sub(j.Received) < q.opts.DelayNotice {
				return nil // all that follow are younger
			}
			done, err := q.remindOne(ctx, j, now)
			if err != nil {
				return err
			}
			passed = passed && done
			if passed {
				q.reminded[org] = j.ID
			}
			*left--
		}
		after = ids[len(ids)-1]
	}
	return nil
}

// remindOne tells the sender of one delivery. It reports whether that was done, or
// is not to be done: it is not while the delivery is in a worker's hands.
func (q *Queue) remindOne(ctx context.Context, j *Job, now time.Time) (bool, error) {
	q.mu.Lock()
	d := q.destination(target{j.Org, j.Domain})
	busy, why := d.running[j.ID] != nil || q.paused, d.gate.why
	q.mu.Unlock()
	if busy {
		return false, nil
	}
	after := j.Delivery
	after.Recipients = slices.Clone(j.Recipients)
	after.Why = cmp.Or(after.Why, why)
	n := q.news(j, &after, now)
	if len(n.Delayed) == 0 {
		return true, nil
	}
	rows := q.bounce(ctx, j, n)
	recipients, err := json.Marshal(after.Recipients)
	if err != nil {
		return false, err
	}
	var told bool
	err = q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		told = false
		done, err := tx.ExecContext(ctx, `UPDATE delivery SET recipients = $4, version = version + 1
			WHERE org = $1 AND id = $2 AND version = $3 AND state = 'queued' AND lease = ''`, j.Org, j.ID, j.version, string(recipients))
		if err != nil {
			return err
		}
		if changed, err := done.RowsAffected(); err != nil || changed == 0 {
			return err // it was tried, or changed by hand, meanwhile
		}
		told = true
		if rows == nil {
			return nil
		}
		return rows.insert(ctx, tx)
	})
	switch {
	case rows == nil:
	case err == nil && told:
		q.arrived(rows)
	default:
		q.discard(ctx, rows)
	}
	return told, err
}

// remindedOnly reports whether all that an attempt has to tell is that mail waits,
// and whether that was told meanwhile.
func (m *mark) remindedOnly(r *row) bool {
	if !m.delayOnly {
		return false
	}
	for _, rcpt := range r.Recipients {
		if rcpt.State == Pending && !rcpt.Warned {
			return false
		}
	}
	return true
}
