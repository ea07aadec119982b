package resolve

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// CheckInterval is how often the owner of a resolver calls
// [Resolver.CheckValidation], beside once at the start.
const CheckInterval = time.Hour

// Verdict is what a check found out about one upstream.
type Verdict string

// The verdicts.
const (
	Unknown       Verdict = "unknown"             // not checked, or the check came to nothing
	Validates     Verdict = "validates"           // signed names come with AD, bogus ones not at all
	NotValidating Verdict = "does not validate"   // it was seen to hand out what is bogus, or no AD
	Forgeable     Verdict = "on a forgeable path" // it validates, but its word can be forged on the way
)

// Validation says whether the AD bit counts, and why (RFC 7672 §2.1.1). Without it
// no answer is authentic, and DANE is off.
type Validation struct {
	Trusted   bool
	Why       string // one sentence
	Do        string // what to do about it; empty: nothing
	At        time.Time
	Upstreams []UpstreamValidation
}

// UpstreamValidation is the part of a [Validation] about one upstream.
type UpstreamValidation struct {
	Upstream string
	Verdict  Verdict
	Why      string // what was seen
	Asked    bool   // lookups go to it
}

// trust is what holds of the upstreams at one time.
type trust struct {
	generation uint64 // results of another are not used
	checked    bool   // by a check, and so logged
	trusted    bool
	ask        []*upstream // whom to ask
	validation Validation
}

func (r *Resolver) initialTrust() *trust {
	t := &trust{ask: r.upstreams, trusted: r.validating && len(r.upstreams) > 0}
	t.validation = Validation{Trusted: t.trusted, At: r.now()}
	if t.trusted {
		t.validation.Why = "dns.validating says that the resolver validates DNSSEC over a safe path"
	} else {
		t.validation.Why = "it has not been checked yet whether the resolver validates DNSSEC: DANE is off"
	}
	for _, u := range r.upstreams {
		t.validation.Upstreams = append(t.validation.Upstreams, UpstreamValidation{Upstream: u.addr, Verdict: Unknown, Why: "not checked", Asked: true})
	}
	return t
}

// Validation returns what holds now. It is the caller's own.
func (r *Resolver) Validation() Validation {
	v := r.trust.Load().validation
	v.Upstreams = slices.Clone(v.Upstreams)
	return v
}

// Flush forgets all that is cached.
func (r *Resolver) Flush() {
	r.changing.Lock()
	defer r.changing.Unlock()
	t := *r.trust.Load()
	r.setTrust(&t)
}

// setTrust puts t in force. What was asked under the old trust, even if it comes
// in later, is not used under the new one. The caller holds r.changing.
func (r *Resolver) setTrust(t *trust) {
	t.generation = r.trust.Load().generation + 1
	r.trust.Store(t)
	r.cache.clear()
}

// changeTrust puts after in force, and forgets what is cached if it is another.
func (r *Resolver) changeTrust(before, after *trust) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if after.trusted != before.trusted || !slices.Equal(after.ask, before.ask) {
		r.setTrust(after)
		return
	}
	after.generation = r.trust.Load().generation
	r.trust.Store(after)
}

// CheckValidation asks every upstream for a name known to be signed and a name
// known to be bogus. One that sets AD on the first and answers the second with
// SERVFAIL validates. Its word counts if it is on loopback too: from further off
// it could be forged, and only the operator can know the path (Options.Validating;
// RFC 7672 §2.1.1 with RFC 4035 §4.9.3).
//
// While any upstream is trusted, only trusted ones are asked: else whoever
// silences those could make every answer insecure, and DANE would be off.
//
// A check that comes to nothing, because the names cannot be looked up, changes
// nothing: blocking two names must not switch DANE off. At the start that means
// untrusted.
//
// A change is logged once. The result is returned, and kept for Validation.
func (r *Resolver) CheckValidation(ctx context.Context, signed, bogus string) Validation {
	r.checking.Lock()
	defer r.checking.Unlock()
	before := r.trust.Load()
	checks := r.checkUpstreams(ctx, signed, bogus, before)
	after := &trust{checked: true, ask: r.upstreams}
	if trusted := r.trusted(checks); len(trusted) > 0 {
		after.trusted, after.ask = true, trusted
	}
	for i, u := range r.upstreams {
		checks[i].Asked = slices.Contains(after.ask, u)
	}
	after.validation = summary(r.validating, after.trusted, checks)
	after.validation.At = r.now()
	r.changeTrust(before, after)
	if !before.checked || !sameVerdicts(before.validation, after.validation) {
		r.logValidation(ctx, after.validation)
	}
	return r.Validation()
}

func sameVerdicts(a, b Validation) bool {
	return a.Trusted == b.Trusted && slices.EqualFunc(a.Upstreams, b.Upstreams, func(x, y UpstreamValidation) bool {
		return x.Verdict == y.Verdict && x.Asked == y.Asked
	})
}

// logValidation says what was found. Who relies on it warns.
func (r *Resolver) logValidation(ctx context.Context, v Validation) {
	if v.Do == "" {
		r.log.InfoContext(ctx, v.Why)
		return
	}
	r.log.InfoContext(ctx, v.Why, "do", v.Do)
}

// trusted returns the upstreams whose AD bit counts.
func (r *Resolver) trusted(checks []UpstreamValidation) []*upstream {
	if r.validating {
		return r.upstreams
	}
	var trusted []*upstream
	for i, u := range r.upstreams {
		if checks[i].Verdict == Validates {
			trusted = append(trusted, u)
		}
	}
	return trusted
}

// checkUpstreams checks all upstreams at once.
func (r *Resolver) checkUpstreams(ctx context.Context, signed, bogus string, before *trust) []UpstreamValidation {
	checks := make([]UpstreamValidation, len(r.upstreams))
	var wg sync.WaitGroup
	for i, u := range r.upstreams {
		wg.Go(func() {
			verdict, why := r.checkUpstream(ctx, u, signed, bogus)
			if verdict == Validates && !u.loopback && !r.validating {
				verdict, why = Forgeable, "it validates, but what it says can be forged on the way here"
			}
			if last := before.validation.Upstreams[i]; verdict == Unknown && last.Verdict != Unknown {
				// The earlier verdict stands; its reason is not piled up.
				verdict = last.Verdict
				why = fmt.Sprintf("it was seen before: %s; the last check came to nothing: %s", verdict, why)
			}
			checks[i] = UpstreamValidation{Upstream: u.addr, Verdict: verdict, Why: why}
		})
	}
	wg.Wait()
	return checks
}

// checkUpstream asks one upstream for both names, past the cache.
func (r *Resolver) checkUpstream(ctx context.Context, u *upstream, signed, bogus string) (Verdict, string) {
	signed, err := Name(signed)
	if err != nil {
		return Unknown, fmt.Sprintf("there is no signed name to ask for: %v", err)
	}
	bogus, err = Name(bogus)
	if err != nil {
		return Unknown, fmt.Sprintf("there is no bogus name to ask for: %v", err)
	}
	resp, f := r.askOne(ctx, u, signed)
	switch {
	case f != nil:
		return Unknown, f.Error()
	case resp.rcode != dns.RcodeSuccess:
		return Unknown, signed + " does not exist"
	case !resp.ad:
		return NotValidating, "it answers for " + signed + ", which is signed, without AD"
	}
	resp, f = r.askOne(ctx, u, bogus)
	switch {
	case f != nil && f.Kind == ServFail:
		return Validates, "it answers for " + signed + " with AD, and for " + bogus + " with SERVFAIL"
	case f != nil:
		return Unknown, f.Error()
	case resp.rcode != dns.RcodeSuccess:
		return Unknown, bogus + " does not exist"
	}
	return NotValidating, "it answers for " + bogus + ", whose signature is bogus"
}

// askOne asks one upstream for the address of a name, past the cache.
func (r *Resolver) askOne(ctx context.Context, u *upstream, name string) (response, *Failure) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, errSilent)
	defer cancel()
	resp, _, f := r.exchange(ctx, []*upstream{u}, question{name, dns.TypeA})
	return resp, f
}

// summary says what the checks amount to.
func summary(byConfig, trusted bool, checks []UpstreamValidation) Validation {
	v := Validation{Trusted: trusted, Upstreams: checks}
	var asked, left, worst []string
	forgeable := false
	for _, c := range checks {
		forgeable = forgeable || c.Verdict == Forgeable
		if c.Asked {
			asked = append(asked, c.Upstream)
		} else {
			left = append(left, c.Upstream)
		}
		if c.Verdict != Validates {
			worst = append(worst, c.Upstream+": "+c.Why)
		}
	}
	seen := strings.Join(worst, "; ")
	switch {
	case byConfig && slices.ContainsFunc(checks, func(c UpstreamValidation) bool { return c.Verdict == NotValidating }):
		v.Why = "dns.validating says that the resolver validates DNSSEC, and it was seen not to: " + seen
		v.Do = "take dns.validating out of the configuration, or ask a resolver that validates, such as unbound on this machine"
	case byConfig:
		v.Why = "dns.validating says that the resolver validates DNSSEC over a safe path"
	case trusted && len(left) > 0:
		v.Why = fmt.Sprintf("%s validates DNSSEC; %s is not asked, for it is not known to be trustworthy", strings.Join(asked, ", "), strings.Join(left, ", "))
	case trusted:
		v.Why = strings.Join(asked, ", ") + " validates DNSSEC"
	case len(checks) == 0:
		v.Why = "there is no resolver to ask: DANE is off"
		v.Do = "set dns.upstreams"
	case forgeable:
		v.Why = "no resolver on this machine validates DNSSEC, and the word of one elsewhere can be forged: DANE is off: " + seen
		v.Do = "run a validating resolver such as unbound on this machine, or set dns.validating: true if the path to it is safe"
	default:
		v.Why = "the resolver is not known to validate DNSSEC: DANE is off: " + seen
		v.Do = "ask a resolver that validates, such as unbound on this machine"
	}
	return v
}
