package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// unplanned walks from one domain with outcomes of a day to the next, which
// costs as much as there are domains, however many rows each has, and leaves out
// those that have their report.
const unplanned = `WITH RECURSIVE walk (domain) AS (
	SELECT MIN(domain) FROM outcome WHERE org = $1 AND day = $2
	UNION ALL
	SELECT (SELECT MIN(o.domain) FROM outcome o WHERE o.org = $1 AND o.day = $2 AND o.domain > walk.domain)
	FROM walk WHERE walk.domain IS NOT NULL)
	SELECT walk.domain FROM walk WHERE walk.domain IS NOT NULL
		AND NOT EXISTS (SELECT 1 FROM report r WHERE r.org = $1 AND r.day = $2 AND r.domain = walk.domain)`

// planBatch is how many reports are planned in one transaction.
const planBatch = 1000

// plan gives each domain with outcomes of a day that is over its report, at a
// moment of its own. A domain without any gets none: nothing is sent for days
// without mail.
func (r *Reporter) plan(ctx context.Context, again bool) error {
	r.planning.Lock()
	defer r.planning.Unlock()
	now := r.o.Now()
	last := now.Add(-settle).UTC().Truncate(24 * time.Hour) // the day that began then is not over
	// A clock that was set back starts anew.
	if !again && !r.planned.IsZero() && !r.planned.Before(last.Add(settle)) && !r.planned.After(now) && now.Sub(r.planned) < planEvery {
		return nil
	}
	orgs, err := db.All(ctx, r.o.DB.Read(), scanText, `SELECT id FROM organisation`)
	if err != nil {
		return fmt.Errorf("planning reports: %w", err)
	}
	for _, org := range orgs {
		for start := last.Add(-maxAge); start.Before(last); start = start.Add(24 * time.Hour) {
			if err := r.planDay(ctx, org, start); err != nil {
				return fmt.Errorf("planning the reports of %s: %w", dayOf(start), err)
			}
		}
	}
	r.planned = now
	return nil
}

func scanText(rows *sql.Rows) (s string, err error) {
	err = rows.Scan(&s)
	return s, err
}

func (r *Reporter) planDay(ctx context.Context, org string, start time.Time) error {
	day, now := dayOf(start), r.o.Now()
	domains, err := db.All(ctx, r.o.DB.Read(), scanText, unplanned, org, day)
	if err != nil {
		return err
	}
	for len(domains) > 0 {
		n := min(len(domains), planBatch)
		err := r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
			for _, domain := range domains[:n] {
				// RFC 8460 §4.1: after a random delay. Several nodes plan alike; who
				// comes second finds the row there.
				due := now.Add(time.Second + time.Duration(r.o.Random()*float64(r.o.Window)))
				_, err := tx.ExecContext(ctx,
					`INSERT INTO report (org, day, domain, id, state, why, next, deadline, attempts, successes, failures, body, lease, leased, updated)
					 VALUES ($1, $2, $3, $4, 'waiting', '', $5, 0, 0, 0, 0, $6, '', 0, $7) ON CONFLICT (org, day, domain) DO NOTHING`,
					org, day, domain, db.NewID(), due.UnixMicro(), []byte{}, now.UnixMicro())
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		domains = domains[n:]
	}
	return nil
}

// SendNow makes reports that wait due at once: all, or those of a domain or a
// day. One that is done stays done. It returns how many there are.
func (r *Reporter) SendNow(ctx context.Context, org, day, domain string) (int64, error) {
	if err := r.Ready(); err != nil {
		return 0, err
	}
	if err := r.plan(ctx, true); err != nil {
		return 0, err
	}
	var n int64
	now := r.o.Now().UnixMicro()
	err := r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		for _, table := range []string{"report_delivery", "report"} {
			res, err := tx.ExecContext(ctx, `UPDATE `+table+` SET next = $4
				WHERE org = $1 AND ($2 = '' OR day = $2) AND ($3 = '' OR domain = $3) AND state IN ('waiting', 'sending', 'handed') AND next > 0`, org, day, domain, now)
			if err != nil {
				return err
			}
			if n, err = res.RowsAffected(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("making reports due: %w", err)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return n, nil
}
