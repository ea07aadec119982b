package policy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// lease is how long a domain that one node took for refreshing is left
	// alone by the others.
	lease = 10 * time.Minute
	// maxRetry is the longest wait between two tries at a policy that cannot be
	// refreshed.
	maxRetry = time.Hour
)

// Run refreshes cached policies ahead of their expiry, keeps the domains warm
// that were asked about of late, goes on trying where something failed, and
// forgets what nobody asks about. It returns when ctx ends, after what it
// started has ended. Several nodes on one database share the work.
func (e *Engine) Run(ctx context.Context) error {
	jobs := make(chan due)
	var workers sync.WaitGroup
	for range e.o.Workers {
		workers.Go(func() {
			for job := range jobs {
				e.refresh(ctx, job)
			}
		})
	}
	defer workers.Wait()
	defer close(jobs)
	for {
		wait := e.round(ctx, jobs)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.o.After(wait):
		}
	}
}

// round hands out all that is due and returns when to look again.
func (e *Engine) round(ctx context.Context, jobs chan<- due) time.Duration {
	e.rows.kick()
	e.watch(ctx)
	limit := 4 * e.o.Workers
	for {
		batch, next, err := e.rows.claim(ctx, micro(e.now()), limit)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Error("the policies that are due for a refresh could not be read", "err", err)
			}
			return e.o.tick
		}
		for _, job := range batch {
			select {
			case jobs <- job:
			case <-ctx.Done():
				return 0
			}
		}
		if len(batch) < limit {
			return min(max(next.Sub(e.now()), time.Second), e.o.tick)
		}
	}
}

// due is a domain whose turn has come.
type due struct {
	domain string
	state  *state
}

// refresh looks at a domain in the background, or lets go of it.
func (e *Engine) refresh(ctx context.Context, job due) {
	now := micro(e.now())
	if job.state.used < now-e.o.Warm.Microseconds() {
		e.forget(ctx, job, now)
		return
	}
	if _, err := e.fly(ctx, job.domain, errand{refresh: true, quiet: true}); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
		e.log.Error("a policy could not be refreshed", "domain", job.domain, "err", err)
	}
}

// forget lets go of a domain that nobody asked about for long. A live policy
// stays until it ends by itself.
func (e *Engine) forget(ctx context.Context, job due, now int64) {
	if job.state.live(now) {
		next := *job.state
		next.refresh = next.expires
		e.rows.save(job.domain, &next)
		return
	}
	if err := e.rows.remove(ctx, job.domain, now); err != nil && ctx.Err() == nil {
		e.log.Error("a domain that nobody asks about could not be removed", "domain", job.domain, "err", err)
	}
}

// refreshAgain sets when the background looks at the domain again: daily at the
// latest, well before the policy ends, sooner where something failed, and never
// all at once.
func (l *look) refreshAgain() {
	next := l.next
	var wait time.Duration
	switch {
	case l.facts.HTTPS == httpsPolicy:
		wait = l.spread(max(min(RefreshEvery, next.policy.MaxAge/2), BackOff))
	case l.facts.HTTPS == httpsFailure:
		wait = l.spread(retryAfter(next.fail.count)) + BackOff/2
	case next.since != 0 && l.facts.Hold == holdRunning:
		wait = BackOff
	case next.since != 0:
		wait = l.spread(maxRetry)
	case next.refresh > l.now && !l.errand.refresh:
		return // it stands
	case l.facts.HTTPS == httpsBackOff:
		wait = BackOff
	default:
		wait = l.spread(RefreshEvery)
	}
	next.refresh = l.now + wait.Microseconds()
}

// retryAfter doubles from the back-off that a policy host is owed to an hour.
func retryAfter(failures int) time.Duration {
	wait := BackOff
	for i := 1; i < failures && wait < maxRetry; i++ {
		wait *= 2
	}
	return min(wait, maxRetry)
}

// spread takes up to four tenths off d.
func (l *look) spread(d time.Duration) time.Duration {
	return d - time.Duration(l.engine.o.Jitter()*0.4*float64(d))
}

// touch notes once a day that a domain is asked about.
func (e *Engine) touch(domain string, s *slot, now int64) {
	today := day(now)
	if s.day.Load() != today && s.day.Swap(today) != today {
		e.rows.touch(domain, now)
	}
}

// claim takes up to limit domains whose turn has come and says when the next
// one's will.
func (r *rows) claim(ctx context.Context, now int64, limit int) ([]due, time.Time, error) {
	first, err := r.nextRefresh(ctx, now)
	if err != nil || first > now {
		return nil, fromMicro(first), err
	}
	lock := ""
	if r.db.Dialect() == db.Postgres {
		lock = " FOR UPDATE SKIP LOCKED"
	}
	// Materialized: PostgreSQL may otherwise run the inner query, and its limit,
	// more than once.
	query := `WITH due AS MATERIALIZED (
		SELECT domain FROM policy WHERE org = $2 AND refresh_at <= $3 ORDER BY refresh_at LIMIT $4` + lock + `)
		UPDATE policy SET refresh_at = $1 WHERE org = $2 AND domain IN (SELECT domain FROM due)
		RETURNING ` + stateColumns
	var batch []due
	err = r.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		batch = nil
		rows, err := tx.QueryContext(ctx, query, now+lease.Microseconds(), r.org, now, int64(limit))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			domain, st, err := scanState(rows)
			if err != nil {
				return err
			}
			batch = append(batch, due{domain, st})
		}
		return rows.Err()
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("taking domains for a refresh: %w", err)
	}
	next, err := r.nextRefresh(ctx, now)
	return batch, fromMicro(next), err
}

// nextRefresh returns when the next turn is; far off if there is none.
func (r *rows) nextRefresh(ctx context.Context, now int64) (int64, error) {
	next := now + RefreshEvery.Microseconds()
	rows, err := r.db.Read().QueryContext(ctx,
		`SELECT refresh_at FROM policy WHERE org = $1 ORDER BY refresh_at LIMIT 1`, r.org)
	if err != nil {
		return 0, fmt.Errorf("looking for the next refresh: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&next); err != nil {
			return 0, fmt.Errorf("looking for the next refresh: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("looking for the next refresh: %w", err)
	}
	return next, nil
}

// remove deletes a domain's row, unless a policy was stored in it since.
func (r *rows) remove(ctx context.Context, domain string, now int64) error {
	err := r.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx,
			`DELETE FROM policy WHERE org = $1 AND domain = $2 AND (mode = '' OR expires_at <= $3)`, r.org, domain, now)
		return err
	})
	if err != nil {
		return fmt.Errorf("removing %s: %w", domain, err)
	}
	return nil
}

func scanDue(rows *sql.Rows) (due, error) {
	domain, st, err := scanState(rows)
	return due{domain, st}, err
}
