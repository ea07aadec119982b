package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// ReportQuery chooses reports. Empty fields choose all.
type ReportQuery struct {
	Day    string `json:"day,omitempty"`    // 2026-01-31
	Domain string `json:"domain,omitempty"` // recipient domain
	State  State  `json:"state,omitempty"`
	Limit  int    `json:"limit,omitempty"` // 0: 100; at most 1000
}

// ReportStatus is what became of one report: what went out, to whom, and with
// what answer.
type ReportStatus struct {
	Day        string           `json:"day"`
	Domain     string           `json:"domain"`
	ID         string           `json:"id"`
	State      State            `json:"state"`
	Why        string           `json:"why,omitempty"`
	Next       time.Time        `json:"next,omitzero"` // when something is done; zero: it is done
	Successes  int64            `json:"successes"`
	Failures   int64            `json:"failures"`
	Updated    time.Time        `json:"updated"`
	Deliveries []DeliveryStatus `json:"deliveries,omitempty"`
}

// DeliveryStatus is a report at one destination.
type DeliveryStatus struct {
	RUA      string        `json:"rua"`
	State    DeliveryState `json:"state"`
	Attempts int64         `json:"attempts"`
	Tried    time.Time     `json:"tried,omitzero"`
	Next     time.Time     `json:"next,omitzero"`
	Answer   string        `json:"answer,omitempty"`
}

// fewReports is how many are listed if nothing is said.
const fewReports = 100

// Reports returns reports with their deliveries, the latest day first.
func (r *Reporter) Reports(ctx context.Context, org string, q ReportQuery) ([]ReportStatus, error) {
	if q.Limit <= 0 {
		q.Limit = fewReports
	}
	list, err := db.All(ctx, r.o.DB.Read(), func(rows *sql.Rows) (s ReportStatus, err error) {
		var next, updated int64
		err = rows.Scan(&s.Day, &s.Domain, &s.ID, &s.State, &s.Why, &next, &s.Successes, &s.Failures, &updated)
		if s.Updated = db.Time(updated); s.State == Waiting || s.State == Sending {
			s.Next = db.Time(next)
		}
		return s, err
	}, `SELECT day, domain, id, state, why, next, successes, failures, updated FROM report
		WHERE org = $1 AND ($2 = '' OR day = $2) AND ($3 = '' OR domain = $3) AND ($4 = '' OR state = $4)
		ORDER BY day DESC, domain LIMIT $5`, org, q.Day, q.Domain, string(q.State), min(q.Limit, maxCounts))
	if err != nil {
		return nil, fmt.Errorf("reading the reports: %w", err)
	}
	for i := range list {
		s := &list[i]
		s.Deliveries, err = db.All(ctx, r.o.DB.Read(), func(rows *sql.Rows) (d DeliveryStatus, err error) {
			var tried, next int64
			err = rows.Scan(&d.RUA, &d.State, &d.Attempts, &tried, &next, &d.Answer)
			d.Tried, d.Next = db.Time(tried), db.Time(next)
			return d, err
		}, `SELECT rua, state, attempts, tried, next, answer FROM report_delivery WHERE org = $1 AND day = $2 AND domain = $3 ORDER BY rua`, org, s.Day, s.Domain)
		if err != nil {
			return nil, fmt.Errorf("reading where the reports went: %w", err)
		}
	}
	return list, nil
}

// DaySummary is how many reports of a day stand where.
type DaySummary struct {
	Day     string          `json:"day"`
	Reports map[State]int64 `json:"reports"`
}

// Days sums the reports up by day, the latest first, for as many days as a
// report is tried and two more.
func (r *Reporter) Days(ctx context.Context, org string) ([]DaySummary, error) {
	type line struct {
		day   string
		state State
		n     int64
	}
	lines, err := db.All(ctx, r.o.DB.Read(), func(rows *sql.Rows) (l line, err error) {
		err = rows.Scan(&l.day, &l.state, &l.n)
		return l, err
	}, `SELECT day, state, COUNT(*) FROM report WHERE org = $1 AND day >= $2 GROUP BY day, state ORDER BY day DESC, state`, org, dayOf(r.o.Now().Add(-maxAge)))
	if err != nil {
		return nil, fmt.Errorf("counting the reports: %w", err)
	}
	var days []DaySummary
	for _, l := range lines {
		if len(days) == 0 || days[len(days)-1].Day != l.day {
			days = append(days, DaySummary{Day: l.day, Reports: map[State]int64{}})
		}
		days[len(days)-1].Reports[l.state] = l.n
	}
	return days, nil
}

// Trouble says why nothing is sent now, "" if it is.
func (r *Reporter) Trouble() string {
	if err := r.Ready(); err != nil {
		return err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble
}

// Preview is a report as it would be built now, and where it would go.
type Preview struct {
	Day          string               `json:"day"`
	Domain       string               `json:"domain"`
	Report       []byte               `json:"report,omitempty"` // JSON; empty: there is nothing to tell
	Destinations []tlsrpt.Destination `json:"destinations,omitempty"`
	Unverified   int64                `json:"unverified,omitempty"` // sessions that are left out
	Why          string               `json:"why,omitempty"`        // why nothing would be sent
}

// previewID stands for the id that a report gets when it is planned.
const previewID = "preview"

// Preview builds a domain's report of a day without sending it. The identity may
// be missing; what is missing is said.
func (r *Reporter) Preview(ctx context.Context, org, day, domain string) (Preview, error) {
	p := Preview{Day: day, Domain: domain}
	facts, err := r.factsOf(ctx, org, day, domain)
	if err != nil {
		return p, err
	}
	p.Unverified = facts.left
	if p.Why, err = r.nothingToTell(ctx, &job{org: org, day: day, domain: domain}, facts); err != nil || p.Why != "" {
		return p, err
	}
	report, err := r.report(day, previewID, facts)
	if err != nil {
		return p, err
	}
	if p.Report, err = report.JSON(); err != nil {
		p.Why = err.Error()
	}
	answer, err := r.o.Resolver.TXT(ctx, tlsrpt.RecordName(domain))
	if err != nil && !resolve.IsNotFound(err) {
		p.Why = err.Error()
		return p, nil
	}
	record, err := tlsrpt.SelectRecord(answer.Records)
	if err != nil {
		p.Why = "the domain wants no reports: " + err.Error()
	}
	p.Destinations = record.RUA
	return p, nil
}
