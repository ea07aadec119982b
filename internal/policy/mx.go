package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

// exchangers is what looking up a domain's MX hosts came to.
type exchangers struct {
	domain    string
	expanded  string // the domain after all CNAMEs
	hosts     []resolve.MX
	authentic bool
	implicit  bool              // no MX record: the domain itself (RFC 5321 §5.1)
	null      bool              // a null MX (RFC 7505)
	missing   *resolve.NotFound // the domain does not exist
	failure   error             // it could not be found out
	ttl       time.Duration
	steps     []verify.Step
}

// askMX looks up the MX hosts of a domain, best preference first, MaxMX at most.
func (e *Engine) askMX(ctx context.Context, domain string) exchangers {
	x := exchangers{domain: domain}
	answer, err := e.o.Resolver.MX(ctx, domain)
	step := verify.Step{At: e.now(), Asked: "MX " + domain}
	var missing *resolve.NotFound
	switch {
	case err == nil:
		x.expanded, x.authentic, x.ttl = answer.Canonical, answer.Authentic, answer.TTL
		x.take(answer.Records)
		step.Answer, step.Authentic = x.describe(), x.authentic
		step.Note = note(answer.Notes, len(answer.Records)-len(x.hosts))
	case errors.As(err, &missing):
		x.expanded, x.authentic, x.ttl = missing.Canonical, missing.Authentic, missing.TTL
		step.Answer, step.Authentic = missing.Error(), missing.Authentic
		if missing.NXDomain {
			x.missing = missing
			break
		}
		x.implicit, x.hosts = true, []resolve.MX{{Host: domain}}
		step.Note = "the domain itself is its only MX host (RFC 5321 §5.1)"
	default:
		x.failure = err
		step.Answer = err.Error()
		step.Note = "mail waits (RFC 7672 §2.1.2)"
	}
	x.steps = append(x.steps, step)
	return x
}

// take sorts the records and leaves out what cannot be a host.
func (x *exchangers) take(records []resolve.MX) {
	for _, mx := range records {
		if mx.Host != "" {
			x.hosts = append(x.hosts, mx)
		}
	}
	x.null = len(x.hosts) == 0
	slices.SortStableFunc(x.hosts, func(a, b resolve.MX) int { return int(a.Preference) - int(b.Preference) })
	x.hosts = slices.CompactFunc(x.hosts, func(a, b resolve.MX) bool { return a.Host == b.Host })
	x.hosts = x.hosts[:min(len(x.hosts), MaxMX)]
}

func (x *exchangers) describe() string {
	if x.null {
		return "null MX: the domain takes no mail (RFC 7505)"
	}
	names := make([]string, len(x.hosts))
	for i, mx := range x.hosts {
		names[i] = fmt.Sprintf("%d %s", mx.Preference, mx.Host)
	}
	return list(names)
}

func note(notes []string, left int) string {
	if len(notes) > 0 {
		return list(notes)
	}
	if left > 0 {
		return fmt.Sprintf("%d of the records are not looked at", left)
	}
	return ""
}

// lookup is what table 3 is told.
func (x *exchangers) lookup() mxLookup {
	switch {
	case x.failure != nil:
		return mxFailed
	case x.missing != nil || x.null:
		return mxNowhere
	default:
		return mxFound
	}
}
