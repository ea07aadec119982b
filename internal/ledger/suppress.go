package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/tlsrpt"
)

const (
	// deadAfter is how many reports in a row a destination must have refused to be
	// left alone.
	deadAfter = 3
	// deadFor is how long it is left alone then.
	deadFor = 30 * 24 * time.Hour
	// forever is the end of what has none.
	forever = 1 << 62
)

// The kinds of what is suppressed.
const (
	kindRUA    = "rua"
	kindDomain = "domain"
)

// Suppression is a destination that gets no reports, or a domain about which
// none are sent.
type Suppression struct {
	Subject string    `json:"subject"` // a rua, or a recipient domain
	Kind    string    `json:"kind"`    // "rua" or "domain"
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero: until it is taken back
	Why     string    `json:"why"`
	Who     string    `json:"who,omitempty"` // empty: pawl itself, after repeated failures
}

// ErrSubject is wrapped by errors about what can neither be a destination nor a
// domain.
var ErrSubject = errors.New("neither a destination (mailto: or https:) nor a domain name")

func subject(s string) (kind, name string, err error) {
	if strings.Contains(s, ":") {
		d, err := tlsrpt.ParseDestination(s)
		if err != nil {
			return "", "", fmt.Errorf("%q: %w: %w", s, ErrSubject, err)
		}
		return kindRUA, d.URI, nil
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if !tlsrpt.IsDomain(s) {
		return "", "", fmt.Errorf("%q: %w", s, ErrSubject)
	}
	return kindDomain, s, nil
}

// Suppress keeps reports from a destination, or about a domain. The zero time
// of s.Until means until it is taken back.
func (r *Reporter) Suppress(ctx context.Context, org string, s Suppression) error {
	kind, name, err := subject(s.Subject)
	if err != nil {
		return err
	}
	until := int64(forever)
	if !s.Until.IsZero() {
		until = s.Until.UnixMicro()
	}
	err = r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx,
			`INSERT INTO report_suppression (org, kind, subject, failures, since, until, why, who) VALUES ($1, $2, $3, 0, $4, $5, $6, $7)
			 ON CONFLICT (org, kind, subject) DO UPDATE SET since = excluded.since, until = excluded.until, why = excluded.why, who = excluded.who`,
			org, kind, name, r.o.Now().UnixMicro(), until, clip(s.Why), clip(s.Who))
		return err
	})
	if err != nil {
		return fmt.Errorf("suppressing %s: %w", name, err)
	}
	return nil
}

// Resume takes a suppression back. It reports whether there was one.
func (r *Reporter) Resume(ctx context.Context, org, of string) (had bool, err error) {
	kind, name, err := subject(of)
	if err != nil {
		return false, err
	}
	err = r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM report_suppression WHERE org = $1 AND kind = $2 AND subject = $3`, org, kind, name)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		had = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("resuming %s: %w", name, err)
	}
	return had, nil
}

// Suppressions lists what is suppressed now, at most [maxCounts].
func (r *Reporter) Suppressions(ctx context.Context, org string) ([]Suppression, error) {
	list, err := db.All(ctx, r.o.DB.Read(), func(rows *sql.Rows) (s Suppression, err error) {
		var since, until int64
		err = rows.Scan(&s.Kind, &s.Subject, &since, &until, &s.Why, &s.Who)
		if s.Since = db.Time(since); until != forever {
			s.Until = db.Time(until)
		}
		return s, err
	}, `SELECT kind, subject, since, until, why, who FROM report_suppression WHERE org = $1 AND until > $2 ORDER BY kind, subject LIMIT $3`,
		org, r.o.Now().UnixMicro(), maxCounts)
	if err != nil {
		return nil, fmt.Errorf("reading what is suppressed: %w", err)
	}
	return list, nil
}

// optedOut reports whether no reports are sent about a domain.
func (r *Reporter) optedOut(ctx context.Context, org, domain string) (bool, error) {
	until, _, err := suppressedUntil(ctx, r.o.DB.Read(), org, kindDomain, domain)
	return until > r.o.Now().UnixMicro(), err
}

func suppressedUntil(ctx context.Context, from db.Reader, org, kind, name string) (until int64, why string, err error) {
	err = from.QueryRowContext(ctx, `SELECT until, why FROM report_suppression WHERE org = $1 AND kind = $2 AND subject = $3`, org, kind, name).Scan(&until, &why)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return until, why, err
}

// blame notes that a destination refused a report for good, or for 24 hours.
// After some in a row it is suppressed.
func blame(ctx context.Context, tx db.Tx, org, rua, answer string, now time.Time) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO report_suppression (org, kind, subject, failures, since, until, why, who) VALUES ($1, $2, $3, 1, $4, 0, $5, '')
		 ON CONFLICT (org, kind, subject) DO UPDATE SET failures = report_suppression.failures + 1`,
		org, kindRUA, rua, now.UnixMicro(), answer)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`UPDATE report_suppression SET failures = 0, since = $4, until = $5, why = $6
		 WHERE org = $1 AND kind = $2 AND subject = $3 AND failures >= $7 AND until < $4`,
		org, kindRUA, rua, now.UnixMicro(), now.Add(deadFor).UnixMicro(),
		clip(fmt.Sprintf("it refused %d reports in a row, the last with: %s", deadAfter, answer)), deadAfter)
	return err
}

// forgive forgets the failures of a destination that took a report.
func forgive(ctx context.Context, tx db.Tx, org, rua string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM report_suppression WHERE org = $1 AND kind = $2 AND subject = $3 AND who = ''`, org, kindRUA, rua)
	return err
}
