package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// Run writes the counts until ctx ends, then once more.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return l.Flush(context.WithoutCancel(ctx))
		case <-l.after(FlushEvery):
		case <-l.full:
		}
		if err := l.Flush(ctx); err != nil {
			l.log.Warn("counts of outcomes could not be written and stay in memory; look at the database", "err", err)
		}
	}
}

// Flush writes what is counted so far. After an error the counts are still there.
func (l *Ledger) Flush(ctx context.Context) error {
	l.mu.Lock()
	batch := l.pending
	l.pending, l.perDomain = map[row]count{}, map[dayDomain]int{}
	l.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := l.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		w := writing{tx: tx, rows: map[dayDomain]int{}} // anew: this may run more than once
		for r, c := range batch {
			if err := w.add(ctx, r, c); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for r, c := range batch {
		l.merge(r, c)
	}
	return fmt.Errorf("writing %d counts of outcomes: %w", len(batch), err)
}

// writing is one flush in its transaction.
type writing struct {
	tx   db.Tx
	rows map[dayDomain]int // how many the table has; asked for when a new one comes
}

// add adds a count to its row. A new row of a domain and day that have as many
// as are told apart is counted as another; on several nodes that write at once
// there may be a few more.
func (w *writing) add(ctx context.Context, r row, c count) error {
	done, err := w.update(ctx, r, c)
	if err != nil || done {
		return err
	}
	k := r.dayDomain()
	n, known := w.rows[k]
	if !known {
		err := w.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM outcome WHERE org = $1 AND day = $2 AND domain = $3`, r.org, r.day, r.domain).Scan(&n)
		if err != nil {
			return err
		}
	}
	if n >= maxRowsPerDomain {
		r = r.other()
	}
	w.rows[k] = n + 1
	return w.insert(ctx, r, c)
}

func (w *writing) update(ctx context.Context, r row, c count) (done bool, err error) {
	res, err := w.tx.ExecContext(ctx,
		`UPDATE outcome SET sessions = sessions + $5, last = CASE WHEN last > $6 THEN last ELSE $6 END
		 WHERE org = $1 AND day = $2 AND domain = $3 AND digest = $4`,
		r.org, r.day, r.domain, r.digest(), c.sessions, c.last.UnixMicro())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func (w *writing) insert(ctx context.Context, r row, c count) error {
	_, err := w.tx.ExecContext(ctx,
		`INSERT INTO outcome (org, day, domain, digest, source, node, policy_type, policy_domain, policy,
		     result, reason, info, mx, helo, ip, source_ip, transport, unverified, sessions, last)
		 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
		 ON CONFLICT (org, day, domain, digest) DO UPDATE SET sessions = outcome.sessions + excluded.sessions,
		     last = CASE WHEN outcome.last > excluded.last THEN outcome.last ELSE excluded.last END`,
		r.org, r.day, r.domain, r.digest(), r.source, r.node, r.policyType, r.policyDomain, r.policy,
		r.result, r.reason, r.info, r.mx, r.helo, r.ip, r.sourceIP, r.to, db.Flag(r.unverified), c.sessions, c.last.UnixMicro())
	return err
}

// Prune forgets the outcomes of the days before one.
func (l *Ledger) Prune(ctx context.Context, before time.Time) error {
	err := l.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM outcome WHERE day < $1`, dayOf(before))
		return err
	})
	if err != nil {
		return fmt.Errorf("forgetting old outcomes: %w", err)
	}
	return nil
}
