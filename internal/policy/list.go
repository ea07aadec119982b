package policy

import (
	"context"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/mtasts"
)

// MaxList is how many domains [Engine.List] returns at most.
const MaxList = 1000

// Query says which domains to list.
type Query struct {
	After  string // the last domain of the page before; "": from the start
	Prefix string // only domains that begin with it
	Limit  int    // 0, or more than MaxList: MaxList
	Policy bool   // only those with a live policy
}

// Known is one domain that was asked about, as it is stored.
type Known struct {
	Domain    string           `json:"domain"`
	Policy    *mtasts.Policy   `json:"policy,omitempty"` // the live one
	ID        string           `json:"id,omitempty"`
	Fetched   time.Time        `json:"fetched,omitzero"`
	Expires   time.Time        `json:"expires,omitzero"`
	Vanished  bool             `json:"vanished,omitempty"` // there is a policy, and no record any more
	Failing   *outcome.Failure `json:"failing,omitempty"`  // why the last refresh failed
	Failures  int              `json:"failures,omitempty"` // in a row
	FailedAt  time.Time        `json:"failed_at,omitzero"`
	HeldSince time.Time        `json:"held_since,omitzero"` // the record cannot be looked up since then
	Refresh   time.Time        `json:"refresh"`             // the background looks at it again
	Used      time.Time        `json:"used,omitzero"`       // to the day
	Override  string           `json:"override,omitempty"`
	Observe   bool             `json:"observe,omitempty"`
}

// List returns the domains that were ever asked about and not forgotten since, by
// name, a page at a time.
func (e *Engine) List(ctx context.Context, q Query) ([]Known, error) {
	limit := q.Limit
	if limit <= 0 || limit > MaxList {
		limit = MaxList
	}
	if err := e.rows.flush(ctx); err != nil {
		return nil, err
	}
	now := micro(e.now())
	all, err := db.All(ctx, e.o.DB.Read(), scanDue,
		`SELECT `+stateColumns+` FROM policy
		 WHERE org = $1 AND domain > $2 AND domain >= $3 AND domain < $4 AND ($5 = 0 OR (mode <> '' AND expires_at > $6))
		 ORDER BY domain LIMIT $7`,
		e.o.Org, q.After, q.Prefix, q.Prefix+"\x7f", db.Flag(q.Policy), now, int64(limit))
	if err != nil {
		return nil, fmt.Errorf("listing destinations: %w", err)
	}
	list := make([]Known, len(all))
	for i, found := range all {
		list[i] = e.show(ctx, found, now)
	}
	return list, nil
}

// Count returns how many domains are known, and how many of them have a policy.
// Both are counted in an index: there may be a million.
func (e *Engine) Count(ctx context.Context) (known, policies int64, err error) {
	err = e.o.DB.Read().QueryRowContext(ctx,
		`SELECT (SELECT count(*) FROM policy WHERE org = $1), (SELECT count(*) FROM policy WHERE org = $1 AND mode <> '')`,
		e.o.Org).Scan(&known, &policies)
	if err != nil {
		return 0, 0, fmt.Errorf("counting destinations: %w", err)
	}
	return known, policies, nil
}

func (e *Engine) show(ctx context.Context, found due, now int64) Known {
	st := found.state
	k := Known{
		Domain: found.domain, HeldSince: fromMicro(st.since),
		Refresh: fromMicro(st.refresh), Used: fromMicro(st.used),
	}
	if st.live(now) {
		k.Policy, k.ID = st.policy, st.id
		k.Fetched, k.Expires = fromMicro(st.fetched), fromMicro(st.expires)
		k.Vanished = st.record == recordNone
	}
	if st.fail != nil {
		k.Failing, k.Failures, k.FailedAt = &st.fail.outcome, st.fail.count, fromMicro(st.fail.at)
	}
	o, err := e.overrides.of(ctx, found.domain)
	if err == nil && o != nil {
		k.Override = o.String()
	}
	k.Observe = e.observed(found.domain, o)
	return k
}
