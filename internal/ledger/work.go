package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// State is where a report stands.
type State string

// The states of a report. Sent, Failed and Skipped are final.
const (
	Waiting State = "waiting" // for its moment
	Sending State = "sending" // built, and tried
	Sent    State = "sent"    // one destination took it
	Failed  State = "failed"  // none did in 24 hours
	Skipped State = "skipped" // not wanted, or nothing to tell
)

// job is a claimed report.
type job struct {
	org, day, domain, id string
	state                State
	deadline             int64
	attempts             int64
	body                 []byte
}

// work claims what is due, batch by batch, and does it.
func (r *Reporter) work(ctx context.Context) error {
	var errs []error
	for ctx.Err() == nil {
		jobs, err := r.claim(ctx)
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			break
		}
		var wait sync.WaitGroup
		results := make(chan error, len(jobs))
		slots := make(chan struct{}, workers)
		for i := range jobs {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				results <- r.do(ctx, &jobs[i])
			})
		}
		wait.Wait()
		close(results)
		failed := 0
		for err := range results {
			if err != nil {
				failed++
				errs = append(errs[:min(len(errs), 3)], err) // they are alike
			}
		}
		if failed == len(jobs) {
			break // what cannot be written down must not be tried in a circle
		}
	}
	return errors.Join(errs...)
}

// claim takes reports that are due and that nobody works on. A lease ends by
// itself; one that ends too far in the future was given before the clock was set
// back.
func (r *Reporter) claim(ctx context.Context) (jobs []job, err error) {
	now := r.o.Now()
	query := `UPDATE report SET lease = $1, leased = $2 WHERE (org, day, domain) IN (
		SELECT org, day, domain FROM report WHERE state IN ('waiting', 'sending') AND next <= $3
			AND (lease = '' OR lease = $1 OR leased <= $3 OR leased > $4 OR $6 = 1) ORDER BY next LIMIT $5`
	alone := r.o.DB.Dialect() == db.SQLite // whose lease there is, is dead
	if !alone {
		query += ` FOR UPDATE SKIP LOCKED`
	}
	query += `) RETURNING org, day, domain, id, state, deadline, attempts, body`
	err = r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		jobs = nil
		rows, err := tx.QueryContext(ctx, query, r.owner, now.Add(leaseFor).UnixMicro(), now.UnixMicro(), now.Add(2*leaseFor).UnixMicro(), claimed, db.Flag(alone))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var j job
			if err := rows.Scan(&j.org, &j.day, &j.domain, &j.id, &j.state, &j.deadline, &j.attempts, &j.body); err != nil {
				return err
			}
			jobs = append(jobs, j)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("claiming reports: %w", err)
	}
	return jobs, nil
}

// do builds a report if that is to be done, tries it where it is due, and sets
// it down again.
func (r *Reporter) do(ctx context.Context, j *job) error {
	if j.state == Waiting {
		done, err := r.prepare(ctx, j)
		if err != nil || done {
			return err
		}
	}
	return r.send(ctx, j)
}

// prepare looks the domain's record up and builds its report. It is done if
// there is nothing to be sent now.
func (r *Reporter) prepare(ctx context.Context, j *job) (done bool, err error) {
	if !tlsrpt.IsDomain(j.domain) {
		return true, r.end(ctx, j, Skipped, "it is not a domain name")
	}
	out, err := r.optedOut(ctx, j.org, j.domain)
	if err != nil {
		return true, err
	}
	if out {
		return true, r.end(ctx, j, Skipped, "no reports are sent about this domain: it is on the list of pawl tlsrpt suppress")
	}
	facts, err := r.factsOf(ctx, j.org, j.day, j.domain)
	if err != nil {
		return true, err
	}
	if why, err := r.nothingToTell(ctx, j, facts); err != nil || why != "" {
		if err == nil {
			err = r.end(ctx, j, Skipped, why)
		}
		return true, err
	}
	answer, err := r.o.Resolver.TXT(ctx, tlsrpt.RecordName(j.domain))
	if err != nil && !resolve.IsNotFound(err) {
		return true, r.later(ctx, j, err)
	}
	record, err := tlsrpt.SelectRecord(answer.Records)
	if err != nil {
		return true, r.end(ctx, j, Skipped, "the domain wants no reports: "+err.Error())
	}
	return false, r.build(ctx, j, facts, record)
}

// nothingToTell says why no report is due, "" if one is.
func (r *Reporter) nothingToTell(ctx context.Context, j *job, f *dayFacts) (string, error) {
	switch {
	case f.sessions() == 0 && f.left > 0:
		return "every session was one of Postfix to a domain in testing, of which Postfix verified none", nil
	case f.sessions() == 0:
		return "there was no session with mail", nil
	case len(f.policies) == 0:
		return "no session came as far as TLS", nil
	}
	if !r.o.OwnMTA || f.relay > 0 {
		return "", nil
	}
	// Reports never cause reports (RFC 8460 §3: SHOULD NOT include this SMTP
	// session). The relay tells its own apart; Postfix cannot.
	mailed, err := r.mailedTo(ctx, j.org, j.day, j.domain)
	if err != nil || f.postfix > perReport*mailed {
		return "", err
	}
	return fmt.Sprintf("its %d sessions were ours: %d reports were mailed there", f.postfix, mailed), nil
}

// perReport is how many sessions of Postfix one report of ours may account for.
const perReport = 4

// mailedTo counts the reports that went to a domain's mailboxes in a day.
func (r *Reporter) mailedTo(ctx context.Context, org, day, domain string) (n int64, err error) {
	start, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return 0, err
	}
	err = r.o.DB.Read().QueryRowContext(ctx,
		`SELECT COUNT(*) FROM report_delivery WHERE org = $1 AND host = $2 AND tried >= $3 AND tried < $4 AND rua LIKE 'mailto:%'`,
		org, domain, start.UnixMicro(), start.Add(24*time.Hour).UnixMicro()).Scan(&n)
	return n, err
}

// build makes the report and stores it with where it goes, so that whatever
// happens from now on the same report is sent.
func (r *Reporter) build(ctx context.Context, j *job, f *dayFacts, record tlsrpt.Record) error {
	report, err := r.report(j.day, j.id, f)
	if err != nil {
		return err
	}
	text, err := report.JSON()
	if err != nil {
		return r.end(ctx, j, Failed, "it could not be built: "+clip(err.Error()))
	}
	if j.body, err = tlsrpt.Compress(text); err != nil {
		return err
	}
	now := r.o.Now()
	j.state, j.deadline = Sending, now.Add(tryFor).UnixMicro()
	err = r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx,
			`UPDATE report SET state = $4, deadline = $5, successes = $6, failures = $7, body = $8, updated = $9
			 WHERE org = $1 AND day = $2 AND domain = $3`,
			j.org, j.day, j.domain, j.state, j.deadline, f.successes, f.failures, j.body, now.UnixMicro())
		if err != nil {
			return err
		}
		for _, to := range record.RUA {
			_, err := tx.ExecContext(ctx,
				`INSERT INTO report_delivery (org, day, domain, rua, host, state, attempts, next, tried, answer)
				 VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 0, '') ON CONFLICT (org, day, domain, rua) DO NOTHING`,
				j.org, j.day, j.domain, to.URI, to.Host, toWait, now.UnixMicro())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing the report about %s: %w", j.domain, err)
	}
	return nil
}

// later puts a report back whose record could not be looked up.
func (r *Reporter) later(ctx context.Context, j *job, cause error) error {
	now := r.o.Now()
	if j.deadline == 0 {
		j.deadline = now.Add(tryFor).UnixMicro()
	}
	next := now.Add(backoff(j.attempts)).UnixMicro()
	if next > j.deadline {
		return r.end(ctx, j, Failed, "its TLSRPT record could not be looked up for 24 hours: "+clip(cause.Error()))
	}
	return r.set(ctx, j, `deadline = $4, attempts = attempts + 1, next = $5, why = $6, lease = ''`, j.deadline, next, clip(cause.Error()))
}

// end makes a report final. Its body is not needed any more.
func (r *Reporter) end(ctx context.Context, j *job, state State, why string) error {
	return r.set(ctx, j, `state = $4, why = $5, body = $6, lease = ''`, string(state), why, []byte{})
}

// set changes a report; the values are for $4 and on.
func (r *Reporter) set(ctx context.Context, j *job, what string, values ...any) error {
	now := r.o.Now().UnixMicro()
	err := r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		args := append([]any{j.org, j.day, j.domain}, values...)
		_, err := tx.ExecContext(ctx, `UPDATE report SET `+what+fmt.Sprintf(`, updated = $%d`, len(args)+1)+` WHERE org = $1 AND day = $2 AND domain = $3`, append(args, now)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("noting what became of the report about %s: %w", j.domain, err)
	}
	return nil
}

// backoff is the wait after a number of failures and one more (RFC 8460 §5.5).
func backoff(failures int64) time.Duration {
	return min(retryFirst<<min(failures, 10), retryMax)
}
