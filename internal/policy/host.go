package policy

import (
	"cmp"
	"context"
	"errors"
	"net/netip"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// Host returns the addresses of one MX host of a destination and what it must
// show (decision table 2). A ctx made by [resolve.Fresh] asks DNS anew.
func (e *Engine) Host(ctx context.Context, d verify.Destination, mx string) verify.Host {
	h := verify.Host{Name: mx}
	o, err := e.overrides.of(ctx, d.Domain)
	if err != nil {
		h.Unreachable = "the overrides could not be read from the database, and one of them may be for " + d.Domain
		return h
	}
	if o.decides() {
		return e.overridden(ctx, d, o, h)
	}
	set, failed := e.tlsaAt(ctx, mx, cmp.Or(d.Port, e.o.Port))
	h.Addrs, h.Steps = set.Addrs[:min(len(set.Addrs), MaxAddrs)], e.daneSteps(set)
	if failed != "" {
		h.Unreachable = failed
		return h
	}
	facts := hostFacts{DANE: set.State, STS: modeOf(d.STS), MXAuthentic: d.MXAuthentic, Both: e.o.Both}
	facts.Matched = d.STS.Found && d.STS.Policy.Match(mx)
	decision := decideHost(facts)
	h.Demand = demand(d, mx, set, facts, decision)
	h.Steps = append(h.Steps, verify.Step{
		At: e.now(), Asked: "what " + mx + " must show", Answer: demanded(decision), Cell: decision.Cell,
	})
	if decision.Refuse != usable {
		e.refuse(&h, d, set, decision.Refuse)
	}
	return h
}

// demand is table 2's decision as verify takes it.
func demand(d verify.Destination, mx string, set dane.Set, f hostFacts, decision hostDecision) verify.Demand {
	demand := verify.Demand{
		Host: mx, Domain: d.Domain, Level: decision.Level, Observe: d.Observe, Cell: decision.Cell,
		EnforceSTS: decision.EnforceSTS, EnforceDANE: decision.EnforceDANE,
		// RFC 8689 §4.2.1: by DNSSEC, or a name that the policy vouches for; a
		// domain without MX is its own host.
		MXSecure: d.MXAuthentic || d.ImplicitMX || f.Matched && f.STS != modeNone,
	}
	if decision.CheckSTS {
		demand.STS = &verify.STSDemand{PolicyDomain: d.STS.Domain, Policy: d.STS.Policy, Matched: f.Matched}
	}
	if set.State != dane.Absent { // a failed lookup passes for nothing, and is shown under observe
		demand.DANE = &verify.DANEDemand{Set: set, Reference: set.Reference(dane.NextHop{
			Domain: d.Domain, Expanded: d.Expanded, MX: !d.ImplicitMX, Secure: d.MXAuthentic,
		})}
	}
	return demand
}

// demanded says in words what table 2 asks of a host.
func demanded(d hostDecision) string {
	var text string
	switch {
	case d.Refuse == refusedDANE:
		return "not to be used: its TLSA records could not be looked up (RFC 7672 §2.1.2)"
	case d.Refuse == refusedMX:
		return "not to be used: no pattern of the MTA-STS policy matches it (RFC 8461 §5)"
	case d.Refuse == refusedDiscovery:
		return "not to be used yet: it is not known whether there is an MTA-STS policy"
	case d.EnforceSTS && d.EnforceDANE && d.Level == verify.Authenticated:
		text = "TLS that both DANE and MTA-STS authenticate"
	case d.EnforceSTS:
		text = "TLS 1.2 or newer with a trusted certificate for its name (RFC 8461 §4)"
	case d.EnforceDANE && d.Level == verify.Authenticated:
		text = "TLS that its TLSA records authenticate (RFC 7672 §2.2)"
	case d.EnforceDANE:
		text = "TLS, without authentication: none of its TLSA records is usable (RFC 7672 §2.2)"
	default:
		text = "nothing: TLS where it is offered"
	}
	if d.CheckSTS && !d.EnforceSTS {
		text += "; MTA-STS is checked and reported"
	}
	return text
}

// refuse marks a host that a policy keeps from being used, or under observe would.
func (e *Engine) refuse(h *verify.Host, d verify.Destination, set dane.Set, why refusal) {
	var text string
	var failure *outcome.Policy
	switch why {
	case refusedDANE:
		text = "the TLSA records of " + h.Name + " could not be looked up, so it must not be used: " + clip(set.Err.Error())
		failure = daneFailure(set)
	case refusedMX:
		text = h.Name + " is not among the MX hosts that the MTA-STS policy of " + d.Domain + " allows: " + list(d.STS.Policy.MX)
		// RFC 8460 has no result type for it.
		failure = &outcome.Policy{
			Type: outcome.STS, Domain: d.STS.Domain, Strings: d.STS.Policy.Strings(), MXHosts: d.STS.Policy.MX,
			Failure: &outcome.Failure{Result: outcome.ValidationFailure, Reason: verify.ReasonMXMismatch, Info: clip(text)},
		}
	case refusedDiscovery:
		text = "it could not be found out whether " + d.Domain + " has an MTA-STS policy, and DANE does not vouch for " + h.Name
	}
	if d.Observe {
		h.Observed = text // the failure is reported by whoever judges the connection
		return
	}
	h.Unreachable, h.ByPolicy = text, true
	if failure != nil {
		h.Policies = append(h.Policies, *failure)
	}
}

// daneFailure is a failed TLSA lookup as TLS-RPT knows it (RFC 8460 §4.3.2.1).
func daneFailure(set dane.Set) *outcome.Policy {
	failure := failureOf(set.Err)
	return &outcome.Policy{Type: outcome.TLSA, Domain: set.Host, Failure: &failure}
}

// overridden is a host of a destination whose demand an operator set.
func (e *Engine) overridden(ctx context.Context, d verify.Destination, o *Override, h verify.Host) verify.Host {
	step := verify.Step{At: e.now(), Asked: "A/AAAA " + h.Name}
	answer, err := e.o.Resolver.Addrs(ctx, h.Name)
	if err != nil {
		step.Answer = err.Error()
		h.Steps, h.Unreachable = append(h.Steps, step), clip(err.Error())
		return h
	}
	h.Addrs = answer.Records[:min(len(answer.Records), MaxAddrs)]
	step.Answer, step.Authentic = addresses(h.Addrs), answer.Authentic
	h.Steps = append(h.Steps, step, o.step())
	h.Demand = verify.Demand{Host: h.Name, Domain: d.Domain, Observe: d.Observe, Cell: "override/" + string(o.Kind), MXSecure: d.MXAuthentic || d.ImplicitMX}
	switch o.Kind {
	case OverrideEncrypt:
		h.Demand.Level = verify.Encrypted
	case OverrideSecure:
		p := o.policy()
		h.Demand.Level, h.Demand.EnforceSTS = verify.Authenticated, true
		h.Demand.STS = &verify.STSDemand{PolicyDomain: d.Domain, Policy: p, Matched: p.Match(h.Name), Local: true}
		if !h.Demand.STS.Matched {
			h.Unreachable, h.ByPolicy = h.Name+" is not among the MX hosts that the override for "+d.Domain+" allows: "+list(o.Match), true
		}
	}
	return h
}

// modeOf is what MTA-STS asks of a destination.
func modeOf(sts verify.STS) mode {
	switch {
	case sts.Unknown:
		return modeUnknown
	case !sts.Found:
		return modeNone
	case sts.Policy.Mode == mtasts.Enforce:
		return modeEnforce
	case sts.Policy.Mode == mtasts.Testing:
		return modeTesting
	default:
		return modeNone
	}
}

// tlsaAt looks up a host's addresses and, where the resolver is trusted, its TLSA
// records. failed says in words that the host has no address to connect to, or
// that its addresses could not be looked up: no policy is needed to pass it over.
func (e *Engine) tlsaAt(ctx context.Context, host string, port uint16) (set dane.Set, failed string) {
	if !e.trust(ctx).DANE {
		return e.addresses(ctx, host)
	}
	set, err := dane.Find(ctx, daneResolver{e.o.Resolver}, host, port)
	var failure *dane.Error
	if errors.As(err, &failure) {
		switch failure.Reason {
		case dane.ReasonNoAddress, dane.ReasonBadHost, dane.ReasonAddressLookup:
			return set, clip(failure.Error())
		}
	}
	return set, ""
}

// addresses is tlsaAt with DANE off.
func (e *Engine) addresses(ctx context.Context, host string) (dane.Set, string) {
	set := dane.Set{Host: host, State: dane.Absent}
	step := dane.Step{Type: "A/AAAA", Name: host}
	answer, err := e.o.Resolver.Addrs(ctx, host)
	if err != nil {
		step.Answer = err.Error()
		set.State, set.Steps = dane.Failed, []dane.Step{step}
		set.Err = err
		return set, clip(err.Error())
	}
	step.Answer = addresses(answer.Records)
	step.Note = "DANE is off"
	set.Addrs, set.TTL, set.Steps = answer.Records, answer.TTL, []dane.Step{step}
	return set, ""
}

// dead reports whether DNS said that a host has no address, as opposed to not
// saying.
func dead(set dane.Set) bool {
	var failure *dane.Error
	if errors.As(set.Err, &failure) {
		return failure.Reason == dane.ReasonNoAddress || failure.Reason == dane.ReasonBadHost
	}
	return resolve.IsNotFound(set.Err)
}

func addresses(addrs []netip.Addr) string {
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	return list(names)
}

func (e *Engine) daneSteps(set dane.Set) []verify.Step {
	steps := make([]verify.Step, len(set.Steps), len(set.Steps)+1)
	for i, s := range set.Steps {
		steps[i] = verify.Step{At: e.now(), Asked: s.Type + " " + s.Name, Answer: clip(s.Answer), Authentic: s.Authentic, Note: s.Note}
	}
	return steps
}

// daneResolver shows the resolver to package dane.
type daneResolver struct{ Resolver }

func (r daneResolver) LookupAddr(ctx context.Context, host string) (dane.AddrAnswer, error) {
	a, err := r.Addrs(ctx, host)
	return dane.AddrAnswer{Addrs: a.Records, Canonical: a.Canonical, Authentic: a.Authentic, TTL: a.TTL}, daneError(err)
}

func (r daneResolver) LookupTLSA(ctx context.Context, name string) (dane.TLSAAnswer, error) {
	a, err := r.TLSA(ctx, name)
	return dane.TLSAAnswer{Records: a.Records, Authentic: a.Authentic, TTL: a.TTL}, daneError(err)
}

func (r daneResolver) LookupCNAME(ctx context.Context, name string) (dane.CNAMEAnswer, error) {
	a, err := r.CNAME(ctx, name)
	answer := dane.CNAMEAnswer{Authentic: a.Authentic, TTL: a.TTL}
	if len(a.Records) > 0 {
		answer.Target = a.Records[0]
	}
	return answer, daneError(err)
}

// daneError tells that there is no record from that it could not be found out.
func daneError(err error) error {
	var missing *resolve.NotFound
	if errors.As(err, &missing) {
		return &dane.NotFound{Authentic: missing.Authentic, TTL: missing.TTL}
	}
	return err
}
