package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/internal/web"
	"github.com/pawl-mail/pawl/mtasts"
)

// Caps of what one page shows.
const (
	shownHeld         = 50
	shownDestinations = 100
	shownEvents       = 20
)

// source shows the node on the page.
type source struct{ n *Node }

func (n *Node) source() source { return source{n} }

// Overview gathers the front page.
func (s source) Overview(ctx context.Context) (web.Overview, error) {
	n := s.n
	now := n.w.Now()
	o := web.Overview{Hostname: n.config.Hostname, Version: Version, Mode: n.inForce().Policy.Mode, Started: n.started, Now: now, Checks: n.Checks()}

	var err error
	if o.Held, err = s.held(ctx, ""); err != nil {
		return o, err
	}
	stats, err := n.queue.Stats(ctx)
	if err != nil {
		return o, err
	}
	o.Totals.Queued, o.Totals.Held = stats.Queued, stats.ByPolicy
	known, err := n.policy.List(ctx, policy.Query{Limit: shownDestinations})
	if err != nil {
		return o, err
	}
	for _, k := range known {
		o.Destinations = append(o.Destinations, destinationView(k))
	}
	if o.Totals.Destinations, _, err = n.policy.Count(ctx); err != nil {
		return o, err
	}
	var underDANE map[string]bool
	if o.Outcomes, underDANE, err = s.outcomes(ctx, ""); err != nil {
		return o, err
	}
	for i := range o.Destinations {
		if d := &o.Destinations[i]; underDANE[d.Domain] && d.Override == "" {
			d.Source = string(verify.FromDANE)
		}
	}
	for _, d := range o.Outcomes {
		o.Totals.Verified += d.Verified
		o.Totals.Encrypted += d.Encrypted
		o.Totals.Clear += d.Clear
		o.Totals.Refused += d.Refused
	}
	o.Events, err = n.events.Recent(ctx, db.DefaultOrg, "", shownEvents)
	return o, err
}

func (s source) held(ctx context.Context, domain string) ([]web.Held, error) {
	waiting, err := s.n.queue.List(ctx, queue.Filter{Domain: domain, Limit: shownHeld})
	if err != nil {
		return nil, err
	}
	var held []web.Held
	for _, d := range waiting {
		if d.State == queue.Queued && d.Attempts == 0 && d.Why == "" {
			continue // on its way, not held
		}
		held = append(held, heldView(d))
	}
	return held, nil
}

func heldView(d queue.Delivery) web.Held {
	return web.Held{
		ID: d.ID, From: d.From, Domain: d.Domain, Recipients: len(d.Recipients), Since: d.Received, Next: d.Next,
		Attempts: d.Attempts, Why: d.Why, Do: d.Do, ByPolicy: d.ByPolicy, ByHand: d.State == queue.Held,
	}
}

func destinationView(k policy.Known) web.Destination {
	d := web.Destination{Domain: k.Domain, Source: "none", Override: k.Override, Observe: k.Observe}
	if k.Override != "" {
		d.Source = string(verify.FromOverride)
	}
	if p := k.Policy; p != nil {
		d.Mode, d.ID, d.MX, d.Fetched, d.Expires = string(p.Mode), k.ID, p.MX, k.Fetched, k.Expires
		if d.Source == "none" && p.Mode != mtasts.None {
			d.Source = string(verify.FromSTS)
		}
	}
	if k.Failing != nil {
		d.Failing = strings.TrimSpace(string(k.Failing.Result) + " " + k.Failing.Info)
	}
	return d
}

// outcomes are the sessions of the last day, by domain, the latest first, and
// the domains among them that have hosts under DANE.
func (s source) outcomes(ctx context.Context, domain string) ([]web.Outcomes, map[string]bool, error) {
	counts, err := s.n.ledger.Since(ctx, db.DefaultOrg, domain, s.n.w.Now().Add(-24*time.Hour))
	if err != nil {
		return nil, nil, err
	}
	underDANE := map[string]bool{}
	byDomain := map[string]*web.Outcomes{}
	for _, c := range counts {
		o := byDomain[c.Domain]
		if o == nil {
			o = &web.Outcomes{Domain: c.Domain}
			byDomain[c.Domain] = o
		}
		addCount(o, c)
		if c.PolicyType == outcome.TLSA {
			underDANE[c.Domain] = true
		}
	}
	var all []web.Outcomes
	for _, o := range byDomain {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b web.Outcomes) int {
		return cmp.Or(b.Last.Compare(a.Last), strings.Compare(a.Domain, b.Domain))
	})
	return all, underDANE, nil
}

func addCount(o *web.Outcomes, c ledger.Count) {
	if c.Last.After(o.Last) {
		o.Last = c.Last
	}
	switch c.Transport {
	case outcome.Verified:
		o.Verified += c.Sessions
	case outcome.Encrypted:
		o.Encrypted += c.Sessions
	case outcome.Clear:
		o.Clear += c.Sessions
	default:
		o.Refused += c.Sessions
	}
	if c.Result != "" {
		o.Failures = append(o.Failures, web.Failure{Result: string(c.Result), Reason: c.Reason, MX: c.MX, Sessions: c.Sessions})
	}
}

// Destination explains one destination.
func (s source) Destination(ctx context.Context, domain string) (web.DestinationPage, error) {
	x, err := s.n.policy.Explain(ctx, domain)
	if errors.Is(err, policy.ErrNotDomain) {
		return web.DestinationPage{}, fmt.Errorf("%w: %w", web.ErrNotFound, err)
	}
	if err != nil {
		return web.DestinationPage{}, err
	}
	p := web.DestinationPage{Domain: x.Domain, Summary: x.Summary, Steps: x.Destination.Steps}
	if x.Postfix != nil {
		p.Postfix = postfixWords(x.Postfix)
	}
	if sts := x.Destination.STS; sts.Found {
		p.Policy = sts.Policy.Strings()
	}
	for _, h := range x.Hosts {
		p.Hosts = append(p.Hosts, hostView(h))
	}
	all, _, err := s.outcomes(ctx, x.Domain)
	if err != nil {
		return p, err
	}
	if len(all) > 0 {
		p.Outcomes = all[0]
	}
	if p.Held, err = s.held(ctx, x.Domain); err != nil {
		return p, err
	}
	p.Events, err = s.n.events.Recent(ctx, db.DefaultOrg, x.Domain, shownEvents)
	return p, err
}

func postfixWords(a *verify.Answer) string {
	words := a.Kind.String()
	if len(a.Match) > 0 {
		words += " match=" + strings.Join(a.Match, ":")
	}
	return words + "\n" + a.Reason
}

func hostView(h policy.HostExplanation) web.Host {
	v := web.Host{Name: h.Name, Preference: h.Preference, Unreachable: h.Unreachable, Cell: h.Cell, Steps: h.Steps}
	switch h.Level {
	case verify.Opportunistic.String():
		v.Demand = "nothing: TLS if it offers it"
	case verify.Encrypted.String():
		v.Demand = "TLS"
	default:
		v.Demand = "TLS with an identity that was proven"
	}
	for _, a := range h.Addrs {
		v.Addrs = append(v.Addrs, a.String())
	}
	return v
}

// Message shows one delivery with its stories.
func (s source) Message(ctx context.Context, id string) (web.MessagePage, error) {
	d, err := s.n.queue.Show(ctx, db.DefaultOrg, id)
	if errors.Is(err, queue.ErrNotFound) {
		return web.MessagePage{}, fmt.Errorf("%w: %w", web.ErrNotFound, err)
	}
	if err != nil {
		return web.MessagePage{}, err
	}
	m := web.MessagePage{Held: heldView(d), State: string(d.State), Size: d.Size, Received: d.Received, Expires: d.Expires}
	for _, r := range d.Recipients {
		m.Recipients = append(m.Recipients, web.Recipient{Addr: r.Addr, State: string(r.State), Reply: r.Reply})
	}
	stories, err := s.n.queue.History(ctx, db.DefaultOrg, id)
	if err != nil {
		return m, err
	}
	for _, st := range stories {
		m.Attempts = append(m.Attempts, attemptViews(st)...)
	}
	return m, nil
}

// attemptViews shows a story: a line for each host that was tried, or one for
// an attempt that came to no host.
func attemptViews(s queue.Story) []web.Attempt {
	if len(s.Tries) == 0 {
		a := web.Attempt{At: s.At, Took: s.Took, OK: s.OK, Why: s.Why, Do: s.Do, Transport: string(outcome.NotSent)}
		if s.Destination != nil {
			a.Steps = s.Destination.Steps
		}
		return []web.Attempt{a}
	}
	var views []web.Attempt
	for _, t := range s.Tries {
		a := web.Attempt{
			At: t.At, Took: t.Took, MX: t.MX, Transport: string(t.Transport), OK: t.OK, Why: t.Why, Do: t.Do,
			Section: t.Section, Cell: t.Cell, Steps: t.Steps, Lines: t.Lines,
		}
		if t.Addr.IsValid() {
			a.Addr = t.Addr.String()
		}
		if t.Certificate != "" {
			a.Lines = append([]string{"certificate: " + t.Certificate}, a.Lines...)
		}
		if t.WouldHold != "" {
			a.Why += "; enforcing, it would have been held: " + t.WouldHold
		}
		views = append(views, a)
	}
	return views
}

func prefixes(networks []config.Network) []prefix {
	out := make([]prefix, 0, len(networks))
	for _, n := range networks {
		out = append(out, n.Prefix)
	}
	return out
}
