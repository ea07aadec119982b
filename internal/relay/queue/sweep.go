package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// purgeBatch is how many deliveries one commit deletes: other writes wait
	// behind it.
	purgeBatch = 200
	// maxPurges bounds the commits of one sweep.
	maxPurges = 1000
	// incomingFor is how long a body may take to be written to the database.
	incomingFor = time.Hour
	// gateKept is how long a gate is kept that nothing waits behind.
	gateKept = 24 * time.Hour
)

const (
	findIncoming = `SELECT org, id FROM message WHERE incoming = 1 AND received < $1 LIMIT $2`
	findEnded    = `SELECT org, id, message FROM delivery WHERE ended > 0 AND ended < $1 ORDER BY ended LIMIT $2`
	purgeMessage = `DELETE FROM message WHERE org = $1 AND id = $2 AND NOT EXISTS (SELECT 1 FROM delivery
		WHERE org = $1 AND message = $2 AND id >= $3 AND id <= $4)`
)

// sweep does once a minute what no arrival tells of: mail that another node took
// in, history that is over, what was left by a crash.
func (q *Queue) sweep(ctx context.Context) {
	if err := q.sweepOnce(ctx); err != nil && ctx.Err() == nil {
		q.opts.Log.Error("the queue could not be swept; it is tried again in a minute", "err", err)
	}
	q.wakeUp()
}

func (q *Queue) sweepOnce(ctx context.Context) error {
	now := q.opts.Now()
	if err := q.load(ctx); err != nil {
		return err
	}
	q.wakeUp()
	q.mu.Lock()
	q.forget(now)
	q.mu.Unlock()
	if err := q.sweepIncoming(ctx, now); err != nil {
		return err
	}
	if err := q.sweepDestinations(ctx, now); err != nil {
		return err
	}
	if err := q.remind(ctx, now); err != nil {
		return err
	}
	for range maxPurges {
		n, err := q.purge(ctx, now.Add(-q.tuning().History))
		if err != nil || n < purgeBatch {
			return err
		}
	}
	return nil
}

// sweepIncoming removes bodies that were being written by a process that died.
func (q *Queue) sweepIncoming(ctx context.Context, now time.Time) error {
	type message struct{ org, id string }
	left, err := db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (m message, err error) {
		err = rows.Scan(&m.org, &m.id)
		return m, err
	}, findIncoming, db.Micros(now.Add(-incomingFor)), purgeBatch)
	if err != nil {
		return fmt.Errorf("looking for messages that were not accepted: %w", err)
	}
	if len(left) == 0 {
		return nil
	}
	err = q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		for _, m := range left {
			if err := dropIncoming(ctx, tx, m.org, m.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("removing messages that were not accepted: %w", err)
	}
	return nil
}

// sweepDestinations forgets destinations that were not reached lately, and those
// that are down and have had no mail for a while.
func (q *Queue) sweepDestinations(ctx context.Context, now time.Time) error {
	const idle = ` FROM destination WHERE down = 0 AND reached < $1 OR down > 0 AND until < $2 AND NOT EXISTS (
		SELECT 1 FROM delivery d WHERE d.org = destination.org AND d.domain = destination.domain AND d.state = 'queued')`
	cuts := []any{db.Micros(now.Add(-2 * reachedFor)), db.Micros(now.Add(-gateKept))}
	var n int64
	if err := q.opts.DB.Read().QueryRowContext(ctx, `SELECT COUNT(*)`+idle, cuts...).Scan(&n); err != nil {
		return fmt.Errorf("looking for destinations to forget: %w", err)
	}
	if n == 0 {
		return nil
	}
	err := q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE`+idle, cuts...)
		return err
	})
	if err != nil {
		return fmt.Errorf("forgetting destinations: %w", err)
	}
	return nil
}

// purge deletes some of the deliveries that ended before a time, with their
// stories and, with the last of a message, the message. It returns how many.
func (q *Queue) purge(ctx context.Context, before time.Time) (n int, err error) {
	type ended struct{ org, id, message string }
	over, err := db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (e ended, err error) {
		err = rows.Scan(&e.org, &e.id, &e.message)
		return e, err
	}, findEnded, db.Micros(before), purgeBatch)
	if err != nil {
		return 0, fmt.Errorf("looking for history from before %s: %w", before.Format(time.DateTime), err)
	}
	if len(over) == 0 {
		return 0, nil
	}
	err = q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		for _, e := range over {
			if _, err := tx.ExecContext(ctx, `DELETE FROM attempt WHERE org = $1 AND delivery = $2`, e.org, e.id); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM delivery WHERE org = $1 AND id = $2`, e.org, e.id); err != nil {
				return err
			}
			first, last := deliveryIDs(e.message)
			if _, err := tx.ExecContext(ctx, purgeMessage, e.org, e.message, first, last); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("deleting history from before %s: %w", before.Format(time.DateTime), err)
	}
	return len(over), nil
}
