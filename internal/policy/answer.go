package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

const (
	minAnswer    = 10 * time.Second // an answer that rests on DNS alone is kept so long at the least
	maxAnswer    = time.Hour        // and so long at the most
	retryAnswer  = 30 * time.Second // where something failed
	maxHostLooks = 16               // MX hosts of one domain that are looked up at once
)

// held is an answer in memory, with what it rests on.
type held struct {
	answer *verify.Answer
	state  *state
	epoch  int64
	until  int64 // made anew from then on
	ahead  int64 // made anew behind from then on
}

// of is the same answer resting on a later look that found nothing new.
func (h *held) of(st *state) *held {
	next := *h
	next.state = st
	return &next
}

// Cached returns the answer for a domain that is in memory and holds, or nil if
// it must be asked for. It does not wait; what the answer rests on is checked
// behind when that is due.
func (e *Engine) Cached(domain string) *verify.Answer { return e.ready(domain, viaMX) }

// Postfix returns what Postfix is told about a domain (decision table 3). The
// answer is shared: it must not be changed. What cannot be decided is an answer of
// kind temp.
func (e *Engine) Postfix(ctx context.Context, domain string) *verify.Answer {
	return e.tell(ctx, domain, viaMX, e.o.Port)
}

// SmartHost returns what Postfix is told about a host that is itself the next
// hop: its own name is the policy domain (RFC 8461 §3.4), and no MX record is asked
// for.
func (e *Engine) SmartHost(ctx context.Context, host string) *verify.Answer {
	return e.tell(ctx, host, direct, e.o.Port)
}

// NextHop is [Engine.Postfix] or, for a host, [Engine.SmartHost] where the next
// hop is named with its port: the TLSA records that count are that port's. Answers
// for other ports than the usual are not kept.
func (e *Engine) NextHop(ctx context.Context, name string, port uint16, isHost bool) *verify.Answer {
	r := viaMX
	if isHost {
		r = direct
	}
	return e.tell(ctx, name, r, port)
}

// route is how a next hop is come by.
type route int

const (
	viaMX  route = iota // a domain, by its MX records
	direct              // a host, by its name
	routes
)

func (e *Engine) tell(ctx context.Context, name string, r route, port uint16) *verify.Answer {
	domain, err := domainOf(name)
	if err != nil {
		return &verify.Answer{Domain: name, At: e.now(), ValidUntil: e.now().Add(maxAnswer), Cell: "3/not-a-domain", Reason: "not a domain name: no policy can be found for it"}
	}
	var a *verify.Answer
	if port == e.o.Port {
		a = e.ready(domain, r)
	}
	if a == nil {
		h, err := e.answer(ctx, domain, r, port)
		if err != nil {
			a = e.temp(domain, "3/unfinished", "the policy of "+domain+" could not be worked out in time; it is looked for on, and will be known when the mail is tried again")
		} else {
			a = h.answer
		}
	}
	return a
}

// ready returns the answer that is in memory, if it still holds.
func (e *Engine) ready(domain string, r route) *verify.Answer {
	s, ok := e.memory.GetIfPresent(domain)
	if !ok {
		return nil
	}
	h, st := s.answers[r].Load(), s.state.Load()
	now := e.now().UnixMicro()
	if h == nil || h.state != st || now >= h.until || h.epoch != e.epoch.Load() {
		return nil
	}
	if now >= st.check {
		if !st.live(now) {
			return nil
		}
		e.behind(domain, errand{})
	} else if now >= h.ahead {
		e.renew(domain, r, s)
	}
	e.touch(domain, s, now)
	e.count.memory.Add(1)
	return h.answer
}

// renew makes an answer anew behind, before it ends.
func (e *Engine) renew(domain string, r route, s *slot) {
	if !s.renewing.CompareAndSwap(false, true) {
		return
	}
	started := e.spawn(func() {
		defer s.renewing.Store(false)
		ctx, cancel := context.WithTimeout(e.ctx, lookTimeout)
		defer cancel()
		if _, err := e.answer(ctx, domain, r, e.o.Port); err != nil && e.ctx.Err() == nil {
			e.log.Error("an answer could not be renewed", "domain", domain, "err", err)
		}
	})
	if !started {
		s.renewing.Store(false)
	}
}

// answer makes a domain's answer and, for the usual port, keeps it.
func (e *Engine) answer(ctx context.Context, domain string, r route, port uint16) (*held, error) {
	// What the first look at trust and overrides finds begins an epoch: the one
	// that counts is that of the second.
	trusted := e.trust(ctx).DANE
	_, err := e.overrides.of(ctx, domain)
	epoch := e.epoch.Load()
	var o *Override
	if err == nil {
		o, err = e.overrides.of(ctx, domain)
	}
	if err != nil {
		e.log.Error("the overrides could not be read: mail waits", "domain", domain, "err", err)
		return &held{answer: e.temp(domain, cellOverridesUnread, "pawl cannot read its database; look at pawl's log")}, nil
	}
	if o.decides() {
		return e.overridingAnswer(ctx, domain, o), nil
	}
	g := gathered{domain: domain, route: r, port: port, override: o, now: e.now()}
	g.facts.MX = mxNotAsked
	var wait sync.WaitGroup
	if trusted {
		wait.Go(func() { e.gatherMX(ctx, &g) })
	}
	g.state, _, err = e.current(ctx, domain, errand{mail: true})
	wait.Wait()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err() // what failed, failed because nobody waits
	}
	a := e.compose(&g)
	until := g.until()
	a.ValidUntil = fromMicro(until)
	h := &held{answer: a, state: g.state, epoch: epoch, until: until, ahead: until - (until-micro(g.now))/5}
	if s, ok := e.memory.GetIfPresent(domain); ok && port == e.o.Port && s.state.Load() == g.state {
		s.answers[r].Store(h)
	}
	return h, nil
}

// gathered is all that an answer is made of.
type gathered struct {
	domain   string
	route    route
	port     uint16
	now      time.Time
	override *Override // one that only observes, or nil
	state    *state
	mx       exchangers
	sets     []dane.Set // of mx.hosts
	facts    postfixFacts
}

// gatherMX looks up the MX hosts and the DANE state of each.
func (e *Engine) gatherMX(ctx context.Context, g *gathered) {
	if g.route == direct {
		g.mx = exchangers{domain: g.domain, hosts: []resolve.MX{{Host: g.domain}}, authentic: true, ttl: maxAnswer}
	} else {
		g.mx = e.askMX(ctx, g.domain)
	}
	g.facts.MX, g.facts.MXAuthentic = g.mx.lookup(), g.mx.authentic
	g.sets = e.tlsaOf(ctx, g.mx.hosts, g.port)
	for i, mx := range g.mx.hosts {
		g.facts.Hosts = append(g.facts.Hosts, mxFacts{Host: mx.Host, DANE: g.sets[i].State, Dead: dead(g.sets[i])})
	}
}

// tlsaOf looks up all MX hosts of a domain, a few at a time.
func (e *Engine) tlsaOf(ctx context.Context, hosts []resolve.MX, port uint16) []dane.Set {
	sets := make([]dane.Set, len(hosts))
	if len(hosts) == 1 {
		sets[0], _ = e.tlsaAt(ctx, hosts[0].Host, port)
		return sets
	}
	places := make(chan struct{}, maxHostLooks)
	var wait sync.WaitGroup
	for i, mx := range hosts {
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			sets[i], _ = e.tlsaAt(ctx, mx.Host, port)
		})
	}
	wait.Wait()
	return sets
}

// until is when what was gathered has to be looked at again, whatever the
// policy's record says: that is checked by itself.
func (g *gathered) until() int64 {
	wait := maxAnswer
	if g.facts.MX != mxNotAsked {
		wait = min(wait, g.mx.ttl)
		for _, set := range g.sets {
			wait = min(wait, set.TTL)
			if set.State == dane.Failed {
				wait = min(wait, retryAnswer)
			}
		}
		if g.facts.MX == mxFailed {
			wait = retryAnswer
		}
	}
	until := micro(g.now.Add(max(wait, minAnswer)))
	switch {
	case g.state.policy != nil:
		until = min(until, g.state.expires)
	default:
		until = min(until, g.state.check)
	}
	if g.override != nil {
		until = min(until, g.override.expires)
	}
	return until
}

// compose puts what was gathered to table 3.
func (e *Engine) compose(g *gathered) *verify.Answer {
	st := g.state
	a := &verify.Answer{Domain: g.domain, At: g.now}
	g.facts.STS = st.mode()
	if st.policy != nil && g.facts.STS != modeUnknown && g.facts.STS != modeNone {
		a.Policy = st.policy
		g.facts.Patterns = st.policy.MX
		for i := range g.facts.Hosts {
			g.facts.Hosts[i].Matched = st.policy.Match(g.facts.Hosts[i].Host)
		}
	}
	if st.fail != nil {
		a.Failure = &st.fail.outcome
	}
	d := decidePostfix(g.facts)
	a.Kind, a.Match, a.Cell = d.Kind, d.Match, d.Cell
	a.Reason = e.reason(g, d)
	if e.observed(g.domain, g.override) {
		a.Observe = true
		if a.Kind != verify.AnswerNotFound {
			a.Would, a.Kind, a.Match = a.Kind, verify.AnswerNotFound, nil
			a.Reason = "only observed: it would have been " + a.Would.String() + ", because " + a.Reason
		}
	}
	if g.override != nil {
		a.Override = g.override.String()
	}
	return a
}

// reason says in one line why an answer is what it is.
func (e *Engine) reason(g *gathered, d postfixDecision) string {
	switch d.Kind {
	case verify.AnswerTemp:
		return e.tempReason(g)
	case verify.AnswerDANEOnly:
		if g.facts.STS == modeEnforce && strings.Contains(d.Cell, "some") {
			return "MTA-STS is in mode enforce and some MX hosts have DANE: only those are used"
		}
		return "the MX hosts have usable TLSA records"
	case verify.AnswerDANE:
		return "DANE holds for the MX hosts that have it; one whose TLSA records cannot be looked up is not used"
	case verify.AnswerSecure:
		if strings.Contains(d.Cell, "+failed") {
			return "the MTA-STS policy is in mode enforce; of its hosts those are left out whose TLSA records cannot be looked up"
		}
		return "the MTA-STS policy is in mode enforce"
	default:
		switch {
		case g.facts.STS == modeTesting:
			return "the MTA-STS policy is in mode testing: it stops nothing"
		case g.state.use == useNothing && g.state.record == recordUnknown:
			return "it could not be found out whether there is an MTA-STS policy, and the time to wait is over"
		case g.state.use == useNothing && g.state.fail != nil:
			return "there is an MTA-STS record, but no policy could be fetched (RFC 8461 §3.3)"
		default:
			return "neither DANE nor an MTA-STS policy asks for anything"
		}
	}
}

// tempReason is what stands in Postfix's log while mail waits.
func (e *Engine) tempReason(g *gathered) string {
	switch {
	case g.facts.MX == mxFailed:
		return line("the MX hosts of " + g.domain + " could not be looked up: " + g.mx.failure.Error())
	case g.facts.STS == modeUnknown:
		hold := e.hold(g.domain, g.state)
		text := hold.Why
		if !hold.Until.IsZero() {
			text += "; mail waits until " + hold.Until.Format(time.RFC3339) + " at the latest"
		}
		return line(text)
	default:
		var hosts []string
		var why string
		for i, set := range g.sets {
			if set.State == dane.Failed && !g.facts.Hosts[i].Dead {
				hosts = append(hosts, set.Host)
				if why == "" && set.Err != nil {
					why = set.Err.Error()
				}
			}
		}
		if len(hosts) == 0 {
			return line("no MX host of " + g.domain + " may be used under its MTA-STS policy")
		}
		return line(fmt.Sprintf("the TLSA records of %s could not be looked up (%s), and no other MX host of %s may be used", list(hosts), why, g.domain))
	}
}

// line makes a text fit for a reply: one line of printable ASCII.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 0x20 && r < 0x7f:
			return r
		case r == '§':
			return -1
		case r == '…':
			return '.'
		default:
			return '?'
		}
	}, clip(s))
}

// overridingAnswer is what an override has Postfix told. It is not kept: an
// override is for few domains.
func (e *Engine) overridingAnswer(ctx context.Context, domain string, o *Override) *held {
	e.tellOverride(ctx, o)
	e.count.overridden.Add(1)
	now := e.now()
	a := &verify.Answer{
		Domain: domain, At: now, ValidUntil: now.Add(minAnswer), Cell: "override/" + string(o.Kind),
		Override: o.String(), Reason: line("an override decides: " + o.String()), Observe: e.observed(domain, o),
	}
	switch o.Kind {
	case OverrideNone:
		a.Kind = verify.AnswerMay
	case OverrideEncrypt:
		a.Kind = verify.AnswerEncrypt
	case OverrideSecure:
		a.Kind, a.Match = verify.AnswerSecure, o.Match
	}
	if a.Observe {
		a.Would, a.Kind, a.Match = a.Kind, verify.AnswerNotFound, nil
	}
	return &held{answer: a}
}

// temp is an answer that is not kept: mail waits, and it is asked for again.
func (e *Engine) temp(domain, cell, why string) *verify.Answer {
	now := e.now()
	return &verify.Answer{Domain: domain, Kind: verify.AnswerTemp, At: now, ValidUntil: now, Cell: cell, Reason: line(why)}
}
