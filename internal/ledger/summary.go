package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
)

// Count is how often one result was seen at one MX host of a domain.
type Count struct {
	Domain     string             `json:"domain"`
	Source     string             `json:"source"`
	PolicyType outcome.PolicyType `json:"policy_type"`
	Result     outcome.ResultType `json:"result,omitempty"` // empty: success
	Reason     string             `json:"reason,omitempty"`
	MX         string             `json:"mx,omitempty"`
	Transport  outcome.Transport  `json:"transport"`
	Unverified bool               `json:"unverified,omitempty"` // called a success by a witness that looked at no certificate
	Sessions   int64              `json:"sessions"`
	Last       time.Time          `json:"last"`
}

// maxCounts caps the rows of one summary.
const maxCounts = 1000

// Since returns the counts of an organisation from the UTC day of from on, the
// latest first. An empty domain means all domains.
func (l *Ledger) Since(ctx context.Context, org, domain string, from time.Time) ([]Count, error) {
	rows, err := l.db.Read().QueryContext(ctx,
		`SELECT domain, source, policy_type, result, reason, mx, transport, unverified, CAST(SUM(sessions) AS BIGINT), MAX(last) FROM outcome
		 WHERE org = $1 AND day >= $2 AND ($3 = '' OR domain = $3)
		 GROUP BY domain, source, policy_type, result, reason, mx, transport, unverified
		 ORDER BY MAX(last) DESC, domain LIMIT $4`,
		org, from.UTC().Format(time.DateOnly), domain, maxCounts)
	if err != nil {
		return nil, fmt.Errorf("reading the counts of outcomes: %w", err)
	}
	defer rows.Close()
	var counts []Count
	for rows.Next() {
		var c Count
		var last, unverified int64
		if err := rows.Scan(&c.Domain, &c.Source, &c.PolicyType, &c.Result, &c.Reason, &c.MX, &c.Transport, &unverified, &c.Sessions, &last); err != nil {
			return nil, fmt.Errorf("reading the counts of outcomes: %w", err)
		}
		c.Unverified = unverified == 1
		c.Last = time.UnixMicro(last).UTC()
		counts = append(counts, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the counts of outcomes: %w", err)
	}
	return counts, nil
}
