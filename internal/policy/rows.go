package policy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/mtasts"
)

// rows is the table of states. Nobody waits for a write of a single state: it
// rides on the next commit, with all that came up meanwhile, and until then it
// is read from here. So a policy that was adopted is never forgotten, and filling
// an empty cache costs one fsync for many domains.
type rows struct {
	db  *db.DB
	org string
	log *slog.Logger

	mu      sync.Mutex
	unsaved map[string]*state // the latest of each, until it is durable
	touched map[string]int64  // last use, for domains with no other change
	dirty   map[string]bool   // not yet taken by a write
	waiting bool              // a write will take what is dirty
}

// save hands over a state to be written. A later one of the same domain takes
// its place.
func (r *rows) save(domain string, st *state) {
	r.mu.Lock()
	r.unsaved[domain] = st
	r.dirty[domain] = true
	r.mu.Unlock()
	r.kick()
}

// touch notes that a domain was asked about.
func (r *rows) touch(domain string, used int64) {
	r.mu.Lock()
	r.touched[domain] = used
	r.dirty[domain] = true
	r.mu.Unlock()
	r.kick()
}

// kick sees to it that what is dirty is written soon.
func (r *rows) kick() {
	r.mu.Lock()
	if r.waiting || len(r.dirty) == 0 {
		r.mu.Unlock()
		return
	}
	r.waiting = true
	r.mu.Unlock()
	b := batch{rows: r}
	// Not of any caller's context: what was learnt is stored whoever leaves.
	r.db.WriteSoon(context.Background(), b.write, b.done)
}

// flush writes what is dirty, and returns when it is durable.
func (r *rows) flush(ctx context.Context) error {
	b := batch{rows: r}
	err := r.db.Write(ctx, b.write)
	b.done(err)
	if err != nil {
		return fmt.Errorf("storing policies: %w", err)
	}
	return nil
}

// backlog is how many states wait to be written.
func (r *rows) backlog() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.unsaved)
}

// batch is one write of all that is dirty. It may run more than once, and always
// writes the latest that there is.
type batch struct {
	rows    *rows
	domains map[string]bool // nil: not yet taken
	states  map[string]*state
	used    map[string]int64
}

func (b *batch) take() {
	r := b.rows
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.domains == nil {
		b.domains, r.dirty = r.dirty, make(map[string]bool)
		r.waiting = false
	}
	b.states, b.used = make(map[string]*state, len(b.domains)), make(map[string]int64)
	for domain := range b.domains {
		if st := r.unsaved[domain]; st != nil {
			b.states[domain] = st
		}
		if used, ok := r.touched[domain]; ok {
			b.used[domain] = used
		}
	}
}

func (b *batch) write(ctx context.Context, tx db.Tx) error {
	b.take()
	for domain, st := range b.states {
		if _, err := tx.ExecContext(ctx, upsertState, b.rows.args(domain, st)...); err != nil {
			return fmt.Errorf("storing the policy of %s: %w", domain, err)
		}
	}
	for domain, used := range b.used {
		if _, err := tx.ExecContext(ctx, touchState, b.rows.org, domain, used); err != nil {
			return fmt.Errorf("storing the use of %s: %w", domain, err)
		}
	}
	return nil
}

func (b *batch) done(err error) {
	r := b.rows
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		// Kept here and tried again: with the next save, or by the background.
		if b.domains == nil {
			r.waiting = false
		}
		for domain := range b.domains {
			r.dirty[domain] = true
		}
		r.log.Error("policies could not be stored; they are in memory and will be written again", "domains", len(r.dirty), "err", err)
		return
	}
	for domain, st := range b.states {
		if r.unsaved[domain] == st {
			delete(r.unsaved, domain)
		}
	}
	for domain, used := range b.used {
		if r.touched[domain] == used {
			delete(r.touched, domain)
		}
	}
}

const stateColumns = `domain, id, mode, policy, fetched_at, expires_at, record,
	failed_at, failed_id, failures, failure_result, failure_reason, failure_text,
	held_since, held_tried, said, refresh_at, used_at`

// A policy that was fetched earlier never takes the place of a later one: two
// nodes may be at the same domain.
const upsertState = `INSERT INTO policy (org, ` + stateColumns + `)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
	ON CONFLICT (org, domain) DO UPDATE SET
		id = excluded.id, mode = excluded.mode, policy = excluded.policy,
		fetched_at = excluded.fetched_at, expires_at = excluded.expires_at, record = excluded.record,
		failed_at = excluded.failed_at, failed_id = excluded.failed_id, failures = excluded.failures,
		failure_result = excluded.failure_result, failure_reason = excluded.failure_reason,
		failure_text = excluded.failure_text, held_since = excluded.held_since, held_tried = excluded.held_tried,
		said = excluded.said, refresh_at = excluded.refresh_at,
		used_at = CASE WHEN excluded.used_at > policy.used_at THEN excluded.used_at ELSE policy.used_at END
	WHERE excluded.fetched_at >= policy.fetched_at`

const touchState = `UPDATE policy SET used_at = $3 WHERE org = $1 AND domain = $2 AND used_at < $3`

func (r *rows) args(domain string, st *state) []any {
	mode, text := "", ""
	if st.policy != nil {
		mode, text = string(st.policy.Mode), string(st.policy.Text())
	}
	var f failure
	if st.fail != nil {
		f = *st.fail
	}
	return []any{
		r.org, domain, st.id, mode, text, st.fetched, st.expires, int64(st.recordKind()),
		f.at, f.id, int64(f.count), string(f.outcome.Result), f.outcome.Reason, f.outcome.Info,
		st.since, st.tried, int64(st.said), st.refresh, st.used,
	}
}

// load returns what is stored of a domain, or nil. What waits to be written
// counts as stored.
func (r *rows) load(ctx context.Context, domain string) (*state, error) {
	r.mu.Lock()
	st := r.unsaved[domain]
	r.mu.Unlock()
	if st != nil {
		return st, nil
	}
	row := r.db.Read().QueryRowContext(ctx,
		`SELECT `+stateColumns+` FROM policy WHERE org = $1 AND domain = $2`, r.org, domain)
	_, st, err := scanState(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the policy of %s: %w", domain, err)
	}
	return st, nil
}

// scanState reads a row of stateColumns.
func scanState(row interface{ Scan(...any) error }) (string, *state, error) {
	var (
		domain, mode, text string
		f                  failure
		record, said       int64
		count              int64
		st                 state
	)
	err := row.Scan(&domain, &st.id, &mode, &text, &st.fetched, &st.expires, &record,
		&f.at, &f.id, &count, &f.outcome.Result, &f.outcome.Reason, &f.outcome.Info,
		&st.since, &st.tried, &said, &st.refresh, &st.used)
	if err != nil {
		return "", nil, err
	}
	if mode != "" {
		p, err := mtasts.ParsePolicy([]byte(text))
		if err != nil {
			return "", nil, fmt.Errorf("the stored policy of %s: %w", domain, err)
		}
		st.policy, st.use = compact(p), useCached
	}
	if f.at != 0 {
		f.count = int(count)
		st.fail = &f
	}
	st.record, st.said = storedRecord(record), saidOf(said)
	st.facts.Cache = cacheLive // what a live one is answered by
	return domain, &st, nil
}

func storedRecord(n int64) record {
	if n < 0 || n >= int64(records) {
		return recordNotAsked
	}
	return record(n)
}

func saidOf(n int64) said { return said(n & 0xff) }
