// Package ledger counts outcomes: every TLS attempt of the relay, of Postfix and
// of policy discovery, by UTC day and by all that a TLS-RPT report tells apart
// (RFC 8460 §4.4). Attempts are gathered in memory and written together, so that
// counting costs a delivery next to nothing; what a crash can lose is at most
// [FlushEvery] of counts, never mail.
package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/outcome"
)

const (
	// FlushEvery is how long a count waits in memory at the most.
	FlushEvery = 2 * time.Second
	// maxPending is how many different rows wait before a flush is forced.
	maxPending = 4096
	// maxRowsPerDomain caps the different rows of one domain between two
	// flushes: a hostile server that changes its reply each time must not fill
	// the table. What is over is counted without its details.
	maxRowsPerDomain = 256
	// maxText caps texts that come from the other side.
	maxText = 512
)

// row is the identity of a count: a column each of the table outcome.
type row struct {
	org, day, domain                                string
	source, policyType, policyDomain, policy        string
	result, reason, info, mx, ip, sourceIP, transit string
}

type count struct {
	sessions int64
	last     time.Time
}

// Ledger counts. Its methods are safe for concurrent use.
type Ledger struct {
	db    *db.DB
	log   *slog.Logger
	after func(time.Duration) <-chan time.Time

	mu        sync.Mutex
	pending   map[row]count
	perDomain map[string]int
	full      chan struct{} // a flush is wanted now
}

// Options are what a Ledger needs.
type Options struct {
	DB    *db.DB
	Log   *slog.Logger
	After func(time.Duration) <-chan time.Time // time.After, or a test's clock
}

// New returns a ledger; its counts are written while [Ledger.Run] runs.
func New(o Options) *Ledger {
	return &Ledger{
		db: o.DB, log: o.Log, after: o.After,
		pending: map[row]count{}, perDomain: map[string]int{}, full: make(chan struct{}, 1),
	}
}

// Record counts an attempt: one session for each policy it was judged by.
func (l *Ledger) Record(_ context.Context, a outcome.Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range a.Policies {
		l.add(rowOf(a, p), a.At)
	}
	if len(l.pending) >= maxPending {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

func (l *Ledger) add(r row, at time.Time) {
	c, known := l.pending[r]
	if !known {
		if l.perDomain[r.domain] >= maxRowsPerDomain {
			r.reason, r.info, r.mx, r.ip, r.sourceIP = "other", "more different failures than are told apart", "", "", ""
			c = l.pending[r]
		} else {
			l.perDomain[r.domain]++
		}
	}
	c.sessions++
	c.last = at
	l.pending[r] = c
}

func rowOf(a outcome.Attempt, p outcome.Policy) row {
	r := row{
		org: a.Org, day: a.At.UTC().Format(time.DateOnly), domain: a.Domain,
		source: a.Source, policyType: string(p.Type), policyDomain: p.Domain, policy: policyText(p),
		mx: a.MX, transit: string(a.Transport),
	}
	if r.org == "" {
		r.org = db.DefaultOrg
	}
	if a.IP.IsValid() {
		r.ip = a.IP.String()
	}
	if a.SourceIP.IsValid() {
		r.sourceIP = a.SourceIP.String()
	}
	if f := p.Failure; f != nil {
		r.result, r.reason, r.info = string(f.Result), clip(f.Reason), clip(f.Info)
	}
	return r
}

func policyText(p outcome.Policy) string {
	text, err := json.Marshal(struct {
		Strings []string `json:"strings,omitempty"`
		MX      []string `json:"mx,omitempty"`
	}{p.Strings, p.MXHosts})
	if err != nil { // strings always encode
		return "{}"
	}
	return string(text)
}

func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}

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
	l.pending, l.perDomain = map[row]count{}, map[string]int{}
	l.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := l.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		for r, c := range batch {
			if err := insert(ctx, tx, r, c); err != nil {
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
		have := l.pending[r]
		have.sessions += c.sessions
		if c.last.After(have.last) {
			have.last = c.last
		}
		l.pending[r] = have
	}
	return fmt.Errorf("writing %d counts of outcomes: %w", len(batch), err)
}

func insert(ctx context.Context, tx db.Tx, r row, c count) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO outcome (org, day, domain, digest, source, policy_type, policy_domain, policy,
		     result, reason, info, mx, ip, source_ip, transport, sessions, last)
		 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		 ON CONFLICT (org, day, domain, digest) DO UPDATE
		     SET sessions = outcome.sessions + excluded.sessions, last = excluded.last`,
		r.org, r.day, r.domain, r.digest(), r.source, r.policyType, r.policyDomain, r.policy,
		r.result, r.reason, r.info, r.mx, r.ip, r.sourceIP, r.transit, c.sessions, c.last.UnixMicro())
	return err
}

// digest names the row's details in the key, so that the key stays short.
func (r row) digest() string {
	h := sha256.New()
	for _, s := range []string{r.source, r.policyType, r.policyDomain, r.policy, r.result, r.reason, r.info, r.mx, r.ip, r.sourceIP, r.transit} {
		// A length before each text: no two rows can read the same.
		h.Write([]byte(strconv.Itoa(len(s)) + ":" + s))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
