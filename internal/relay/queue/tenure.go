package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// leaseTime is how long a process that is not heard of keeps its deliveries.
	leaseTime = 3 * time.Minute
	// heartbeat is how often it is heard of.
	heartbeat = 30 * time.Second
	// leaseKept is how long the row of an owner that ended is kept: until then
	// what it was still writing when it ended is found.
	leaseKept = time.Hour
)

// tenure is the time for which this process may try what it has leased. An
// owner that let it run out does not come back: it takes a new name, and what it
// had leased goes to whoever comes first.
type tenure struct {
	owner string
	until time.Time
}

// renew says that this process lives, and frees what those had leased that do
// not. What it cannot say it says again in half a minute; when the tenure is
// over, nothing more is tried.
func (q *Queue) renew(ctx context.Context) {
	now := q.opts.Now()
	q.mu.Lock()
	if !now.Before(q.tenure.until) {
		q.tenure = tenure{owner: db.NewID()}
		for _, d := range q.dests {
			q.forsake(d)
		}
	}
	owner := q.tenure.owner
	q.mu.Unlock()
	until := now.Add(leaseTime)
	err := q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO lease (owner, node, until) VALUES ($1, $2, $3)
			ON CONFLICT (owner) DO UPDATE SET until = $3`, owner, q.opts.Node, db.Micros(until))
		return err
	})
	if err == nil {
		q.mu.Lock()
		if q.tenure.owner == owner {
			q.tenure.until = until
		}
		q.mu.Unlock()
		err = q.reclaim(ctx, now)
	}
	if err != nil && ctx.Err() == nil {
		q.opts.Log.Error("the leases of this node could not be renewed; it is tried again in half a minute", "err", err)
	}
	q.wakeUp()
}

// reclaim frees the deliveries of owners that have died.
func (q *Queue) reclaim(ctx context.Context, now time.Time) error {
	dead, err := db.All(ctx, q.opts.DB.Read(), scanText, `SELECT owner FROM lease WHERE until <= $1`, db.Micros(now))
	if err != nil {
		return fmt.Errorf("looking for leases that ran out: %w", err)
	}
	if len(dead) == 0 {
		return nil
	}
	var freed int64
	err = q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		freed = 0
		for _, owner := range dead {
			// It may have come back to life since it was looked at.
			done, err := tx.ExecContext(ctx, `UPDATE delivery SET lease = '' WHERE state = 'queued' AND lease = $1
				AND lease <> '' AND EXISTS (SELECT 1 FROM lease WHERE owner = $1 AND until <= $2)`, owner, db.Micros(now))
			if err != nil {
				return err
			}
			n, err := done.RowsAffected()
			if err != nil {
				return err
			}
			freed += n
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM lease WHERE until <= $1`, db.Micros(now.Add(-leaseKept)))
		return err
	})
	if err != nil {
		return fmt.Errorf("freeing what leases that ran out held: %w", err)
	}
	if freed > 0 {
		q.opts.Log.Info("deliveries of a node that is gone came back", "deliveries", freed)
		return q.load(ctx)
	}
	return nil
}

// resign gives everything back that this process has leased.
func (q *Queue) resign(ctx context.Context) {
	q.mu.Lock()
	owner := q.tenure.owner
	q.tenure = tenure{}
	q.mu.Unlock()
	if owner == "" {
		return
	}
	err := q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE delivery SET lease = '' WHERE state = 'queued' AND lease = $1 AND lease <> ''`, owner); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE lease SET until = 0 WHERE owner = $1`, owner)
		return err
	})
	if err != nil {
		q.opts.Log.Warn("leases could not be given back; they end by themselves in three minutes", "err", err)
	}
}
