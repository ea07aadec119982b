package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
)

const (
	// compareEvery is how often outcomes are compared.
	compareEvery = 5 * time.Minute
	// suspectFor is how long after its last failure a domain is looked at, and
	// maxSuspects how many are.
	suspectFor  = time.Hour
	maxSuspects = 1000
	// enough is how many sessions say that it was no accident, and steady how many
	// good ones of historyDays that a host can be relied on.
	enough      = 3
	steady      = 10
	historyDays = 3
)

// suspect is a domain with which something failed.
type suspect struct{ org, domain string }

// suspect remembers a domain whose session failed, for [Comparer]. l.mu is held.
func (l *Ledger) suspect(r *row, at time.Time) {
	if r.source == fromPolicy || !bad(r.result, r.to) {
		return
	}
	k := suspect{r.org, r.domain}
	if _, known := l.suspects[k]; known || len(l.suspects) < maxSuspects {
		l.suspects[k] = at
	}
}

// bad reports whether a session is one that a path attacker would cause.
func bad(result, transport string) bool { return result != "" || transport == string(outcome.Clear) }

// takeSuspects returns the domains of which something failed lately, and forgets
// the others.
func (l *Ledger) takeSuspects(now time.Time) (list []suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, at := range l.suspects {
		// A clock that was set back leaves failures of the future.
		if age := now.Sub(at); age > suspectFor || age < -suspectFor {
			delete(l.suspects, k)
			continue
		}
		list = append(list, k)
	}
	return list
}

// Comparer looks for destinations whose outcomes differ between nodes, or change
// from one day to the next: who sits on one node's path changes what that node
// sees and nothing else. Each node looks at what failed on itself.
type Comparer struct {
	Ledger *Ledger
	DB     *db.DB
	Events event.Sink
	Now    func() time.Time
	After  func(time.Duration) <-chan time.Time
	Log    *slog.Logger
}

// Run compares until ctx ends.
func (c *Comparer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.After(compareEvery):
		}
		if err := c.Compare(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("outcomes were not compared; look at the database", "err", err)
		}
	}
}

// Compare looks once. What it finds is an event, one for each host, kind and day.
func (c *Comparer) Compare(ctx context.Context) error {
	now := c.Now()
	for _, s := range c.Ledger.takeSuspects(now) {
		hosts, err := c.hosts(ctx, s, now)
		if err != nil {
			return fmt.Errorf("comparing the outcomes of %s: %w", s.domain, err)
		}
		for _, h := range hosts {
			e, found := h.judge(s.domain)
			if !found {
				continue
			}
			if err := c.tell(ctx, s, h.mx, dayOf(now), e); err != nil {
				return fmt.Errorf("noting a finding about %s: %w", s.domain, err)
			}
		}
	}
	return nil
}

// tally are sessions of one MX host on one node.
type tally struct {
	node      string
	good, bad int64
	lastGood  int64
	lastBad   int64
	what      string // result and reason of the failure that came last
}

// seenHost is what was seen of one MX host.
type seenHost struct {
	mx    string
	today []tally // by node
	past  tally   // of the days before, all nodes
}

// hosts reads what was seen of a domain's MX hosts, today and on the days before.
func (c *Comparer) hosts(ctx context.Context, s suspect, now time.Time) (list []*seenHost, err error) {
	type line struct {
		mx, node, result, reason, to string
		sessions, last               int64
	}
	of := func(mx string) *seenHost {
		i := slices.IndexFunc(list, func(h *seenHost) bool { return h.mx == mx })
		if i < 0 {
			list = append(list, &seenHost{mx: mx})
			i = len(list) - 1
		}
		return list[i]
	}
	for back := range historyDays + 1 {
		lines, err := db.All(ctx, c.DB.Read(), func(rows *sql.Rows) (l line, err error) {
			err = rows.Scan(&l.mx, &l.node, &l.result, &l.reason, &l.to, &l.sessions, &l.last)
			return l, err
		}, `SELECT mx, node, result, reason, transport, sessions, last FROM outcome
			WHERE org = $1 AND day = $2 AND domain = $3 AND source <> $4 AND unverified = 0 AND mx <> '' ORDER BY mx, node, digest`,
			s.org, dayOf(now.Add(-time.Duration(back)*24*time.Hour)), s.domain, fromPolicy)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			h := of(l.mx)
			t := &h.past
			if back == 0 {
				t = h.on(l.node)
			}
			t.add(l.result, l.reason, l.to, l.sessions, l.last)
		}
	}
	return list, nil
}

func (h *seenHost) on(node string) *tally {
	i := slices.IndexFunc(h.today, func(t tally) bool { return t.node == node })
	if i < 0 {
		h.today = append(h.today, tally{node: node})
		i = len(h.today) - 1
	}
	return &h.today[i]
}

func (t *tally) add(result, reason, transport string, sessions, last int64) {
	switch {
	case bad(result, transport):
		t.bad += sessions
		if last >= t.lastBad {
			t.lastBad, t.what = last, strings.TrimSpace(result+" "+reason)
			if result == "" {
				t.what = "no TLS"
			}
		}
	case transport != string(outcome.NotSent): // it came as far as TLS
		t.good += sessions
		t.lastGood = max(t.lastGood, last)
	}
}

// judge says what is to be told of a host.
func (h *seenHost) judge(domain string) (e event.Event, found bool) {
	var all, failing, fine tally
	for _, t := range h.today {
		if t.bad >= enough && t.good == 0 && t.bad > failing.bad {
			failing = t
		}
		if t.good >= enough && t.bad == 0 && t.good > fine.good {
			fine = t
		}
		all.bad += t.bad
		all.lastGood = max(all.lastGood, t.lastGood)
		if t.lastBad > all.lastBad {
			all.lastBad, all.what = t.lastBad, t.what
		}
	}
	switch {
	case failing.bad > 0 && fine.good > 0:
		return event.Event{
			Kind: event.NodesDisagree, Severity: event.Error, Domain: domain,
			Text:     fmt.Sprintf("Sessions with %s, an MX host of %s, fail on %s (%d today, the last with: %s) and are as they should be on %s (%d).", h.mx, domain, failing.node, failing.bad, failing.what, fine.node, fine.good),
			Do:       fmt.Sprintf("Somebody may sit on the path of %s. Compare what both nodes are shown: openssl s_client -starttls smtp -connect %s:25", failing.node, h.mx),
			Evidence: map[string]string{"mx": h.mx, "failing": failing.node, "fine": fine.node, "failure": failing.what},
		}, true
	case all.bad >= enough && all.lastBad > all.lastGood && h.past.bad == 0 && h.past.good >= steady:
		return event.Event{
			Kind: event.OutcomeChanged, Severity: event.Warning, Domain: domain,
			Text:     fmt.Sprintf("Sessions with %s, an MX host of %s, fail today (%d, the last with: %s), and none of %d failed in the %d days before.", h.mx, domain, all.bad, all.what, h.past.good, historyDays),
			Do:       fmt.Sprintf("Ask the operator of %s by another way whether the host was changed; if not, somebody may sit on the path.", domain),
			Evidence: map[string]string{"mx": h.mx, "failure": all.what},
		}, true
	}
	return e, false
}

// tell raises the event, unless this or another node has done so today.
func (c *Comparer) tell(ctx context.Context, s suspect, mx, day string, e event.Event) error {
	var first bool
	err := c.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		res, err := tx.ExecContext(ctx,
			`INSERT INTO outcome_finding (org, day, domain, mx, kind) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (org, day, domain, mx, kind) DO NOTHING`,
			s.org, day, s.domain, mx, string(e.Kind))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		first = n > 0
		return err
	})
	if err == nil && first {
		e.Org = s.org
		c.Events.Record(ctx, e)
	}
	return err
}
