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
	"github.com/pawl-mail/pawl/internal/event"
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
	shownReports      = 20
	shownOverrides    = 50
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
	overrides, err := n.policy.Overrides(ctx)
	if err != nil {
		return o, err
	}
	for _, v := range overrides[:min(len(overrides), shownOverrides)] {
		o.Overrides = append(o.Overrides, overrideView(v))
	}
	var by map[string]*judged
	if o.Outcomes, by, err = s.outcomes(ctx, ""); err != nil {
		return o, err
	}
	observed := map[string]int64{}
	for i := range o.Destinations {
		d := &o.Destinations[i]
		j := by[d.Domain]
		if j == nil {
			continue
		}
		if j.dane && d.Override == "" {
			d.Source = string(verify.FromDANE)
		}
		if d.Observe {
			observed[d.Domain] = j.wouldHold(d.Mode)
		}
	}
	for i := range o.Outcomes {
		d := &o.Outcomes[i]
		d.WouldHold = observed[d.Domain]
		o.Totals.Verified += d.Verified
		o.Totals.Encrypted += d.Encrypted
		o.Totals.Clear += d.Clear
		o.Totals.Refused += d.Refused
		o.Totals.WouldHold += d.WouldHold
	}
	if o.Reports, err = s.reports(ctx); err != nil {
		return o, err
	}
	if o.Events, err = n.events.Recent(ctx, db.DefaultOrg, "", shownEvents); err != nil {
		return o, err
	}
	if slices.ContainsFunc(o.Checks, func(c web.Check) bool { return !c.OK && c.Name == checkDNSSEC }) {
		// The page says at its top that DANE is off: once.
		o.Events = slices.DeleteFunc(o.Events, func(e event.Event) bool { return e.Kind == event.ResolverUntrusted })
	}
	return o, nil
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
		d.Failing, d.Failed = strings.TrimSpace(string(k.Failing.Result)+" "+k.Failing.Info), k.Failures
	}
	d.Vanished = k.Vanished
	return d
}

// judged is by what the sessions of one domain were judged.
type judged struct {
	dane              bool  // hosts of it are under DANE
	wentDANE, wentSTS int64 // sessions that failed the policy, over which mail went nevertheless
}

// wouldHold is how many sessions enforcing would have kept from being used. One
// that failed both policies is counted by each, so that the larger of the two
// is what is certain.
func (j *judged) wouldHold(mode string) int64 {
	if mode != string(mtasts.Enforce) {
		return j.wentDANE
	}
	return max(j.wentDANE, j.wentSTS)
}

func (j *judged) add(c ledger.Count) {
	went := int64(0)
	if c.Result != "" && (c.Transport == outcome.Clear || c.Transport == outcome.Encrypted) {
		went = c.Sessions
	}
	switch c.PolicyType {
	case outcome.TLSA:
		j.dane = true
		j.wentDANE += went
	case outcome.STS:
		j.wentSTS += went
	}
}

// outcomes are the sessions of the last day, by domain, the latest first, with
// by what they were judged.
func (s source) outcomes(ctx context.Context, domain string) ([]web.Outcomes, map[string]*judged, error) {
	counts, err := s.n.ledger.Since(ctx, db.DefaultOrg, domain, s.n.w.Now().Add(-24*time.Hour))
	if err != nil {
		return nil, nil, err
	}
	by := map[string]*judged{}
	byDomain := map[string]*web.Outcomes{}
	for _, c := range counts {
		o := byDomain[c.Domain]
		if o == nil {
			o = &web.Outcomes{Domain: c.Domain}
			byDomain[c.Domain], by[c.Domain] = o, &judged{}
		}
		addCount(o, c)
		by[c.Domain].add(c)
	}
	var all []web.Outcomes
	for _, o := range byDomain {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b web.Outcomes) int {
		return cmp.Or(b.Last.Compare(a.Last), strings.Compare(a.Domain, b.Domain))
	})
	return all, by, nil
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

func overrideView(o policy.Override) web.Override {
	return web.Override{Domain: o.Domain, Text: o.String(), Weakens: o.Weakens}
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
	p := web.DestinationPage{Domain: x.Domain, Summary: x.Summary, Observed: observedWords(x), Steps: x.Destination.Steps}
	if route := s.n.deliver.Route(x.Domain); route != nil {
		p.Summary += " The relay's mail to it goes by a route: " + route.String() + "."
	}
	// Where an override decides, the summary names it.
	if x.Override != nil && (x.Destination.Source != verify.FromOverride || x.Override.Weakens != "") {
		shown := overrideView(*x.Override)
		p.Override = &shown
	}
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

// observedWords says of a destination that is only observed what enforcing
// would mean for it now.
func observedWords(x policy.Explanation) string {
	switch d := x.Destination; {
	case !d.Observe:
		return ""
	case d.WouldHold != nil:
		return "Nothing is enforced here; enforcing, mail would wait: " + d.WouldHold.Why
	default:
		return "Nothing is enforced here: what a policy forbids is recorded, and the mail goes."
	}
}

func postfixWords(a *verify.Answer) string {
	words := a.Kind.String()
	if len(a.Match) > 0 {
		words += " match=" + strings.Join(a.Match, ":")
	}
	return words + "\n" + a.Reason
}

func hostView(h policy.HostExplanation) web.Host {
	v := web.Host{
		Name: h.Name, Preference: h.Preference, Demand: demandWords(h.Level), TLSA: h.TLSA,
		Unreachable: h.Unreachable, Observed: h.Observed, Cell: h.Cell, Steps: h.Steps,
	}
	for _, a := range h.Addrs {
		v.Addrs = append(v.Addrs, a.String())
	}
	return v
}

// demandWords is a demand's level for people; a host that is not to be connected
// to has none.
func demandWords(level string) string {
	switch level {
	case "":
		return ""
	case verify.Opportunistic.String():
		return "nothing: TLS if it offers it"
	case verify.Encrypted.String():
		return "TLS"
	default:
		return "TLS with an identity that was proven"
	}
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
			a.Steps = way(s)
		}
		return []web.Attempt{a}
	}
	var views []web.Attempt
	for i, t := range s.Tries {
		a := web.Attempt{
			At: t.At, Took: t.Took, MX: t.MX, Reused: t.Reused, Transport: string(t.Transport), Demand: demandWords(t.Demand),
			TLS: t.TLS, Cert: t.Certificate, OK: t.OK, Why: t.Why, Do: t.Do, WouldHold: t.WouldHold,
			Section: t.Section, Cell: t.Cell, Steps: t.Steps, Lines: t.Lines,
		}
		if i == 0 && s.Destination != nil { // how it came to this host
			a.Steps = slices.Concat(way(s), t.Steps)
		}
		for _, p := range t.Policies {
			a.Judged = append(a.Judged, judgedView(p))
		}
		if t.Addr.IsValid() {
			a.Addr = t.Addr.String()
		}
		views = append(views, a)
	}
	return views
}

// way is how an attempt came to its hosts.
func way(s queue.Story) []verify.Step {
	if s.Route == "" {
		return s.Destination.Steps
	}
	return append([]verify.Step{{At: s.At, Asked: "the routes", Answer: s.Route}}, s.Destination.Steps...)
}

func judgedView(p outcome.Policy) web.Judged {
	j := web.Judged{Policy: p.String()}
	if p.Failure != nil {
		j.Failed = strings.TrimSpace(string(p.Failure.Result) + " " + p.Failure.Reason)
	}
	return j
}

func prefixes(networks []config.Network) []prefix {
	out := make([]prefix, 0, len(networks))
	for _, n := range networks {
		out = append(out, n.Prefix)
	}
	return out
}
