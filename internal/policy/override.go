package policy

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// OverrideKind says what an override puts in the place of what a destination
// asks for by DANE and MTA-STS.
type OverrideKind string

// The kinds of overrides.
const (
	OverrideNone    OverrideKind = "none"    // nothing is demanded: opportunistic TLS
	OverrideEncrypt OverrideKind = "encrypt" // TLS, without authentication
	OverrideSecure  OverrideKind = "secure"  // TLS with a trusted certificate, of MX hosts that Match allows
	OverrideObserve OverrideKind = "observe" // what holds is decided and recorded, and stops nothing
)

const (
	// MaxOverrides is how many overrides there may be: each node has them in memory.
	MaxOverrides  = 10000
	maxOverrideMX = 100
)

// ErrOverride is wrapped by the error for an override that cannot be taken.
var ErrOverride = errors.New("not a usable override")

// Override is an operator's decision about one destination. It says why, by whom
// and until when, so that none is forgotten.
type Override struct {
	Domain  string       `json:"domain"`
	Kind    OverrideKind `json:"kind"`
	Match   []string     `json:"match,omitempty"` // of a secure one: patterns as a policy has them
	Reason  string       `json:"reason"`
	Author  string       `json:"author"`
	Created time.Time    `json:"created"`
	Expires time.Time    `json:"expires"`
	// Weakens says what the destination asks for that the override lifts; empty
	// if nothing. It is worked out when it is asked for.
	Weakens string `json:"weakens,omitempty"`

	told    int64 // its use was raised as an event
	expires int64
}

// String says what holds, until when, why and by whom.
func (o *Override) String() string {
	what := string(o.Kind)
	if len(o.Match) > 0 {
		what += " " + list(o.Match)
	}
	return fmt.Sprintf("%s until %s: %s (%s)", what, o.Expires.UTC().Format(time.RFC3339), o.Reason, o.Author)
}

// decides reports whether the override takes the place of DANE and MTA-STS.
func (o *Override) decides() bool { return o != nil && o.Kind != OverrideObserve }

// policy is a secure override in the form of the policy that it stands for.
func (o *Override) policy() mtasts.Policy {
	return mtasts.Policy{Mode: mtasts.Enforce, MX: o.Match, MaxAge: mtasts.MaxMaxAge}
}

func (o *Override) check(now time.Time) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w for %s: %s", ErrOverride, o.Domain, fmt.Sprintf(format, args...))
	}
	switch o.Kind {
	case OverrideNone, OverrideEncrypt, OverrideObserve:
		if len(o.Match) > 0 {
			return bad("only a secure override has names to match")
		}
	case OverrideSecure:
		if len(o.Match) == 0 || len(o.Match) > maxOverrideMX {
			return bad("a secure override needs 1 to %d MX names to match, such as mx.example.com or *.example.com", maxOverrideMX)
		}
		if err := o.policy().Validate(); err != nil {
			return bad("%v", err)
		}
	default:
		return bad("the kind %q is not none, encrypt, secure or observe", string(o.Kind))
	}
	for _, text := range []string{o.Reason, o.Author} {
		if strings.TrimSpace(text) == "" || clip(text) != text {
			return bad("it needs a reason and an author, of at most %d bytes each", maxText)
		}
	}
	if !o.Expires.After(now) {
		return bad("it needs an expiry in the future")
	}
	return nil
}

// overrides holds all overrides in memory, as they were last read.
type overrides struct {
	engine  *Engine
	current atomic.Pointer[map[string]*Override]
	mu      sync.Mutex // one reads at a time
}

// of returns the override that holds for a domain, nil if there is none. The
// error says that it is not known.
func (s *overrides) of(ctx context.Context, domain string) (*Override, error) {
	all := s.current.Load()
	if all == nil {
		if err := s.reload(ctx); err != nil {
			return nil, err
		}
		all = s.current.Load()
	}
	o := (*all)[domain]
	if o == nil || micro(s.engine.now()) >= o.expires {
		return nil, nil
	}
	return o, nil
}

// inForce is how many overrides hold, by what was last read.
func (s *overrides) inForce() int {
	all := s.current.Load()
	if all == nil {
		return 0
	}
	n, now := 0, micro(s.engine.now())
	for _, o := range *all {
		if now < o.expires {
			n++
		}
	}
	return n
}

// reload reads the overrides. If any changed, every answer for Postfix is made anew.
func (s *overrides) reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.engine
	found, err := db.All(ctx, e.o.DB.Read(), scanOverride,
		`SELECT domain, kind, patterns, reason, author, created_at, expires_at, told_at
		 FROM policy_override WHERE org = $1 ORDER BY domain LIMIT $2`, e.o.Org, int64(MaxOverrides))
	if err != nil {
		return fmt.Errorf("reading the overrides: %w", err)
	}
	before := s.current.Load()
	all := make(map[string]*Override, len(found))
	same := before != nil && len(*before) == len(found)
	for _, o := range found {
		all[o.Domain] = o
		same = same && sameOverride((*before)[o.Domain], o)
	}
	if same {
		return nil
	}
	s.current.Store(&all)
	e.epoch.Add(1)
	return nil
}

func sameOverride(a, b *Override) bool {
	return a != nil && a.Kind == b.Kind && slices.Equal(a.Match, b.Match) && a.Reason == b.Reason &&
		a.Author == b.Author && a.expires == b.expires && a.told == b.told
}

func scanOverride(rows *sql.Rows) (*Override, error) {
	var o Override
	var patterns string
	var created int64
	if err := rows.Scan(&o.Domain, &o.Kind, &patterns, &o.Reason, &o.Author, &created, &o.expires, &o.told); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(patterns), &o.Match); err != nil {
		return nil, fmt.Errorf("the override for %s: %w", o.Domain, err)
	}
	o.Created, o.Expires = fromMicro(created), fromMicro(o.expires)
	return &o, nil
}

// Overrides returns all overrides that hold, by domain.
func (e *Engine) Overrides(ctx context.Context) ([]Override, error) {
	if err := e.overrides.reload(ctx); err != nil {
		return nil, err
	}
	now := micro(e.now())
	var all []Override
	for _, o := range *e.overrides.current.Load() {
		if now < o.expires {
			shown := *o
			shown.Weakens = e.lifted(ctx, o)
			all = append(all, shown)
		}
	}
	slices.SortFunc(all, func(a, b Override) int { return strings.Compare(a.Domain, b.Domain) })
	return all, nil
}

// AddOverride puts an override in force, in the place of any other for the
// domain. The error wraps [ErrOverride] if something about it is wrong.
func (e *Engine) AddOverride(ctx context.Context, o Override) error {
	domain, err := domainOf(o.Domain)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOverride, err)
	}
	o.Domain, o.Created = domain, e.now()
	for i, mx := range o.Match {
		o.Match[i] = strings.ToLower(strings.TrimSuffix(mx, "."))
	}
	if err := o.check(e.now()); err != nil {
		return err
	}
	patterns, err := json.Marshal(o.Match)
	if err != nil {
		return fmt.Errorf("the patterns of the override for %s: %w", domain, err)
	}
	err = e.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM policy_override WHERE org = $1 AND expires_at <= $2`, e.o.Org, micro(o.Created)); err != nil {
			return err
		}
		var n int64
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM policy_override WHERE org = $1 AND domain <> $2`, e.o.Org, domain).Scan(&n); err != nil {
			return err
		}
		if n >= MaxOverrides {
			return fmt.Errorf("%w for %s: there are %d already", ErrOverride, domain, n)
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO policy_override (org, domain, kind, patterns, reason, author, created_at, expires_at, told_at)
			 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
			 ON CONFLICT (org, domain) DO UPDATE SET kind = excluded.kind, patterns = excluded.patterns, reason = excluded.reason,
			 author = excluded.author, created_at = excluded.created_at, expires_at = excluded.expires_at, told_at = 0`,
			e.o.Org, domain, string(o.Kind), string(patterns), o.Reason, o.Author, micro(o.Created), micro(o.Expires))
		return err
	})
	if err != nil {
		return fmt.Errorf("storing the override for %s: %w", domain, err)
	}
	return e.overrides.reload(ctx)
}

// RemoveOverride ends the override for a domain and reports whether there was one.
func (e *Engine) RemoveOverride(ctx context.Context, domain string) (bool, error) {
	domain, err := domainOf(domain)
	if err != nil {
		return false, err
	}
	var n int64
	err = e.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM policy_override WHERE org = $1 AND domain = $2`, e.o.Org, domain)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("removing the override for %s: %w", domain, err)
	}
	return n > 0, e.overrides.reload(ctx)
}

// lifted says what a destination asks for, by what is cached, that an override
// does not ask for.
func (e *Engine) lifted(ctx context.Context, o *Override) string {
	st := e.glance(ctx, o.Domain)
	if st.mode() != modeEnforce {
		return ""
	}
	switch o.Kind {
	case OverrideSecure:
		if other := otherMX(*st.policy, o.policy()); len(other) > 0 {
			return "its MTA-STS policy does not allow " + list(other)
		}
		return ""
	case OverrideObserve:
		return "its MTA-STS policy (mode enforce) stops nothing"
	default:
		return "its MTA-STS policy demands an authenticated host (mode enforce)"
	}
}

// glance returns what is known of a domain without asking anyone but the database.
func (e *Engine) glance(ctx context.Context, domain string) *state {
	st, _, unreadable := e.known(ctx, domain)
	if unreadable || !st.live(micro(e.now())) {
		return &state{}
	}
	return st
}

// tellOverride raises, once for each override, that it decided.
func (e *Engine) tellOverride(ctx context.Context, o *Override) {
	if o.told != 0 {
		return
	}
	now := micro(e.now())
	var first bool
	err := e.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		result, err := tx.ExecContext(ctx,
			`UPDATE policy_override SET told_at = $3 WHERE org = $1 AND domain = $2 AND told_at = 0`, e.o.Org, o.Domain, now)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		first = n > 0
		return err
	})
	if err != nil {
		e.log.Error("the first use of an override could not be noted", "domain", o.Domain, "err", err)
		return
	}
	if err := e.overrides.reload(ctx); err != nil {
		e.log.Error("the overrides could not be read; those known hold", "err", err)
	}
	if !first {
		return
	}
	evidence := map[string]string{"override": o.String(), "author": o.Author, "reason": o.Reason}
	severity := event.Info
	text := "Mail to " + o.Domain + " goes by an override: " + o.String() + "."
	if weakens := e.lifted(ctx, o); weakens != "" {
		severity, evidence["weakens"] = event.Warning, weakens
		text += " It weakens what the destination asks for: " + weakens + "."
	}
	e.raise(ctx, event.Event{
		Kind: event.OverrideUsed, Severity: severity, Domain: o.Domain, Text: text,
		Do: "Remove the override as soon as its reason is gone.", Evidence: evidence,
	})
}

// step shows an override in the reasoning.
func (o *Override) step() verify.Step {
	return verify.Step{At: o.Created, Asked: "override", Answer: o.String(), Cell: "override/" + string(o.Kind), Note: o.Weakens}
}
