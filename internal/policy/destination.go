package policy

import (
	"cmp"
	"context"
	"fmt"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// Destination returns what holds for mail to a domain before any of its MX hosts
// is looked at: the policy, the hosts in the order in which they are tried, or
// that mail must wait.
//
// The error is for good where it wraps [ErrNotDomain] or a [*resolve.NotFound]
// (there is no such domain, and no policy that says otherwise); [ErrClosed] or
// the context's error say nothing about the domain.
func (e *Engine) Destination(ctx context.Context, domain string) (verify.Destination, error) {
	return e.destination(ctx, domain, false)
}

// DestinationFresh does what Destination does and asks DNS anew first, as must be
// done before a message fails for good (RFC 8461 §5.1).
func (e *Engine) DestinationFresh(ctx context.Context, domain string) (verify.Destination, error) {
	return e.destination(resolve.Fresh(ctx), domain, true)
}

func (e *Engine) destination(ctx context.Context, name string, fresh bool) (verify.Destination, error) {
	domain, err := domainOf(name)
	if err != nil {
		return verify.Destination{}, err
	}
	found := make(chan exchangers, 1)
	go func() { found <- e.askMX(ctx, domain) }()
	d, err := e.demanded(ctx, domain, fresh)
	x := <-found
	if err != nil {
		return verify.Destination{}, err
	}
	d.MX, d.MXAuthentic, d.ImplicitMX, d.NullMX = x.hosts, x.authentic, x.implicit, x.null
	d.Expanded = x.expanded
	d.Steps = append(d.Steps, x.steps...)
	e.holdWithout(ctx, &d)
	return d, e.holdForMX(&d, x)
}

// demanded is what is demanded of a domain as a whole.
func (e *Engine) demanded(ctx context.Context, domain string, fresh bool) (verify.Destination, error) {
	d := verify.Destination{Domain: domain, Source: verify.FromNowhere, At: e.now()}
	o, err := e.overrides.of(ctx, domain)
	if err != nil {
		e.log.Error("the overrides could not be read: mail waits", "domain", domain, "err", err)
		d.STS = verify.STS{Domain: domain, Unknown: true, Cell: cellOverridesUnread}
		d.Hold = &verify.Hold{
			Why:  "the overrides could not be read from the database, and one of them may be for " + domain,
			Do:   "Look at the database: its error is in the log.",
			Cell: cellOverridesUnread,
		}
		return d, nil
	}
	d.Observe = e.observed(domain, o)
	var found Discovery
	switch {
	case o.decides(): // nobody needs to wait for what does not decide
		found = e.beside(ctx, domain)
	case fresh:
		found, err = e.STSFresh(ctx, domain)
	default:
		found, err = e.STS(ctx, domain)
	}
	if err != nil {
		return verify.Destination{}, err
	}
	d.STS, d.Hold, d.Steps = found.STS, found.Hold, found.Steps
	if d.STS.Found && d.STS.Policy.Mode != mtasts.None {
		d.Source = verify.FromSTS
	}
	if o != nil {
		e.tellOverride(ctx, o)
		d.Override = o.String()
		if weakens := e.lifted(ctx, o); weakens != "" {
			d.Override += "; it weakens: " + weakens
		}
		d.Steps = append(d.Steps, o.step())
		if o.decides() {
			d.Source = verify.FromOverride
		}
	}
	return d, nil
}

// beside is the policy that would hold if no override decided, by what is known.
func (e *Engine) beside(ctx context.Context, domain string) Discovery {
	st := e.glance(ctx, domain)
	if !st.current(micro(e.now())) {
		e.behind(domain, errand{mail: true})
	}
	if st.policy == nil && st.looked == 0 {
		return Discovery{STS: verify.STS{Domain: domain}}
	}
	return Discovery{STS: st.sts(domain, true), Steps: st.steps(domain)}
}

// cellOverridesUnread is where mail waits because the operator's word is not known.
const cellOverridesUnread = "override/unreadable"

// holdWithout lets a hold of discovery go where what is not known makes no
// difference: under observe, and where a host is held to DANE in any case.
func (e *Engine) holdWithout(ctx context.Context, d *verify.Destination) {
	if d.Hold == nil || d.Hold.Cell == cellOverridesUnread {
		return
	}
	if d.Observe {
		d.Hold, d.WouldHold = nil, d.Hold
		return
	}
	if !d.MXAuthentic || !e.trust(ctx).DANE {
		return
	}
	for _, set := range e.tlsaOf(ctx, d.MX, cmp.Or(d.Port, e.o.Port)) {
		if set.State == dane.Usable {
			d.Hold = nil // the other hosts are refused one by one (table 2)
			d.Source = verify.FromDANE
			return
		}
	}
}

// holdForMX says that mail waits if it is not known where to, or that there is no
// such domain. Under an enforced policy that word is DNS's, not the destination's:
// held.
func (e *Engine) holdForMX(d *verify.Destination, x exchangers) error {
	switch {
	case x.failure != nil:
		d.Hold = &verify.Hold{
			Why:  "the MX hosts of " + d.Domain + " could not be looked up: " + clip(x.failure.Error()),
			Do:   "Look at the name servers of " + d.Domain + " and at pawl's resolver.",
			Cell: "mx/failed",
		}
	case x.missing != nil && d.STS.Found && d.STS.Policy.Mode == mtasts.Enforce && !x.missing.Authentic:
		d.Hold = &verify.Hold{
			Why:  "DNS says that " + d.Domain + " does not exist, but it has an MTA-STS policy in mode enforce",
			Do:   "Look at the name servers of " + d.Domain + "; if it is gone for good, mail to it is given up when its time is over.",
			Cell: "mx/missing/enforce",
		}
	case x.missing != nil && d.Hold == nil:
		return fmt.Errorf("there is no domain %s: %w", d.Domain, x.missing)
	}
	return nil
}
