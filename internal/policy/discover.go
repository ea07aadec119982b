package policy

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// Discovery is the MTA-STS side of a destination: the policy that holds, or
// that mail must wait, and why.
type Discovery struct {
	STS   verify.STS    `json:"sts"`
	Hold  *verify.Hold  `json:"hold,omitempty"`
	Steps []verify.Step `json:"steps"`
}

// STS returns the MTA-STS policy that holds for a domain. A cached policy is
// answered at once, and its record checked behind when it is due (RFC 8461
// §5.1); with nothing cached the caller waits for DNS and HTTPS. The error is
// [ErrNotDomain], [ErrClosed] or the context's: whatever goes wrong on the way
// to a policy is decided by table 1 and no error.
func (e *Engine) STS(ctx context.Context, domain string) (Discovery, error) {
	domain, err := domainOf(domain)
	if err != nil {
		return Discovery{}, err
	}
	st, cached, err := e.current(ctx, domain, errand{mail: true})
	if err != nil {
		return Discovery{}, err
	}
	return e.discovery(domain, st, cached), nil
}

// STSFresh does what STS does and asks DNS anew first: a message must not fail
// for good before that (RFC 8461 §5.1). HTTPS is asked if the record has a new id.
func (e *Engine) STSFresh(ctx context.Context, domain string) (Discovery, error) {
	domain, err := domainOf(domain)
	if err != nil {
		return Discovery{}, err
	}
	st, err := e.fly(ctx, domain, errand{mail: true, fresh: true})
	if err != nil {
		return Discovery{}, err
	}
	return e.discovery(domain, st, false), nil
}

// Refresh asks DNS and the policy host anew, unless HTTPS failed for the record's
// id less than [BackOff] ago.
func (e *Engine) Refresh(ctx context.Context, domain string) error {
	domain, err := domainOf(domain)
	if err != nil {
		return err
	}
	_, err = e.fly(ctx, domain, errand{mail: true, fresh: true, refresh: true})
	return err
}

func (e *Engine) discovery(domain string, st *state, cached bool) Discovery {
	d := Discovery{STS: st.sts(domain, cached), Steps: st.steps(domain)}
	if st.use == useHold {
		d.Hold = e.hold(domain, st)
	}
	return d
}

// hold says why mail to a domain of which nothing can be known now must wait.
func (e *Engine) hold(domain string, st *state) *verify.Hold {
	if st.since == 0 {
		return &verify.Hold{
			Why:  "what is cached about " + domain + " could not be read from the database",
			Do:   "Look at the database: its error is in the log.",
			Cell: st.facts.cell(),
		}
	}
	return &verify.Hold{
		Why:   "it could not be found out whether " + domain + " has an MTA-STS policy: " + st.text,
		Do:    "Look at the name servers of " + domain + " and at pawl's resolver; mail goes by itself once _mta-sts." + domain + " can be looked up.",
		Until: fromMicro(st.since).Add(e.o.DiscoveryHold),
		Cell:  st.facts.cell(),
	}
}

// current returns the state that answers for a domain now, and whether it was
// there already.
func (e *Engine) current(ctx context.Context, domain string, w errand) (*state, bool, error) {
	now := micro(e.now())
	if s, ok := e.memory.GetIfPresent(domain); ok {
		if st := s.state.Load(); st != nil {
			e.touch(domain, s, now)
			if st.current(now) {
				e.count.memory.Add(1)
				return st, true, nil
			}
			if st.live(now) {
				e.count.memory.Add(1)
				e.behind(domain, errand{})
				return st, true, nil
			}
		}
	}
	st, err := e.fly(ctx, domain, w)
	if err != nil {
		return nil, false, err
	}
	if st.live(now) && st.check <= now {
		// As it was stored: answered from the cache, checked behind.
		e.behind(domain, errand{})
		return st, true, nil
	}
	return st, false, nil
}

// keep puts a state into memory. The cache weighs a slot when it is set.
func (e *Engine) keep(domain string, st *state) {
	s, ok := e.memory.GetIfPresent(domain)
	if !ok {
		s = &slot{}
		s.day.Store(day(st.used))
	}
	prev := s.state.Swap(st)
	for r := range s.answers {
		if h := s.answers[r].Load(); h != nil && h.state == prev && prev.sameAnswer(st) {
			s.answers[r].CompareAndSwap(h, h.of(st)) // it is still the right one
		}
	}
	e.memory.Set(domain, s)
}

// known returns what is known of a domain: from memory, from what waits to be
// written, or from the database, whichever was fetched last. stored says that it is
// not the one in memory, unreadable that the database did not answer, so that there
// may be more.
func (e *Engine) known(ctx context.Context, domain string) (st *state, stored, unreadable bool) {
	if s, ok := e.memory.GetIfPresent(domain); ok {
		st = s.state.Load()
	}
	if st != nil && st.unread {
		st = nil
	}
	now := micro(e.now())
	row, err := e.rows.load(ctx, domain)
	switch {
	case err != nil && st != nil && st.live(now):
		return st, false, false
	case err != nil:
		e.count.unreadable.Add(1)
		e.log.Error("a cached policy could not be read: mail to the domain waits", "domain", domain, "err", err)
		return &state{}, false, true
	case st == nil && row == nil:
		e.count.misses.Add(1)
		return &state{}, false, false
	case st == nil:
		e.count.stored.Add(1)
		return row, true, false
	case row != nil && row.fetched > st.fetched: // another node was faster
		newer := *row
		newer.used = max(row.used, st.used)
		return &newer, true, false
	default:
		return st, false, false
	}
}

// discover looks at a domain: what is known, then DNS, then HTTPS where table 1
// asks for it, and keeps what came of it.
func (e *Engine) discover(ctx context.Context, domain string, w errand) (*state, error) {
	prev, stored, unreadable := e.known(ctx, domain)
	now := micro(e.now())
	if stored && w.mail && !w.fresh && prev.live(now) {
		e.keep(domain, prev)
		return prev, nil
	}
	l := look{engine: e, domain: domain, errand: w, prev: prev, next: prev.successor(), now: now}
	l.facts.Cache = prev.cache(now)
	if unreadable {
		l.facts.Cache = cacheUnreadable
	}
	l.askRecord(ctx)
	l.askHTTPS(ctx)
	if e.ctx.Err() != nil {
		return nil, ErrClosed // nothing was learnt: what failed, failed because we stop
	}
	l.decide(ctx)
	return l.next, nil
}

// look is one look at a domain.
type look struct {
	engine *Engine
	domain string
	errand errand
	prev   *state
	next   *state
	now    int64

	facts   stsFacts
	id      string // of the record, if there is a valid one
	ttl     time.Duration
	fetched *mtasts.Fetched
}

// askRecord looks up the TXT record (RFC 8461 §3.1).
func (l *look) askRecord(ctx context.Context) {
	name := mtasts.RecordName(l.domain)
	l.next.looked, l.next.secure, l.next.text = l.now, false, ""
	if len(name) > maxName {
		l.facts.Record, l.ttl, l.next.text = recordNone, maxNegative, "no name that long can exist"
		return
	}
	answer, err := l.engine.o.Resolver.TXT(ctx, name)
	var notFound *resolve.NotFound
	switch {
	case err == nil:
		l.ttl, l.next.secure = answer.TTL, answer.Authentic
		record, err := mtasts.SelectRecord(answer.Records)
		switch {
		case err != nil:
			l.facts.Record, l.next.text = recordNone, clip(err.Error())
		case l.facts.Cache == cacheLive && record.ID == l.prev.id:
			l.facts.Record, l.id = recordSameID, record.ID
		default:
			l.facts.Record, l.id = recordNewID, record.ID
		}
	case errors.As(err, &notFound):
		l.facts.Record, l.ttl, l.next.secure = recordNone, notFound.TTL, notFound.Authentic
		l.next.text = "there is no such record"
	default:
		l.facts.Record, l.next.text = recordUnknown, clip(err.Error())
	}
}

// askHTTPS gets the policy if there is a new one to be had, or if a cached one is
// to be refreshed: then whatever the record says (RFC 8461 §10.2).
func (l *look) askHTTPS(ctx context.Context) {
	refresh := l.errand.refresh || !l.errand.mail && l.prev.refresh <= l.now
	if l.facts.Record != recordNewID && !(refresh && l.facts.Cache == cacheLive) {
		return
	}
	id := l.id
	if id == "" {
		id = l.prev.id
	}
	if l.prev.backedOff(id, l.now, BackOff) {
		l.facts.HTTPS = httpsBackOff
		return
	}
	fetched, err := l.engine.o.Fetcher.Fetch(ctx, l.domain)
	if err != nil {
		l.facts.HTTPS = httpsFailure
		l.next.fail = l.prev.failed(id, l.now, failureOf(err))
		return
	}
	l.facts.HTTPS, l.fetched = httpsPolicy, &fetched
}

// decide puts the facts to table 1 and does what it says.
func (l *look) decide(ctx context.Context) {
	e, next := l.engine, l.next
	l.holdFacts()
	d := decideSTS(l.facts)
	next.facts, next.use, next.record = l.facts, d.Use, l.facts.Record
	if d.Use == useFetched {
		next.adopt(*l.fetched, l.id, l.now)
		e.count.refreshed.Add(1)
		e.oldest.CompareAndSwap(0, l.now)
	} else if l.facts.Cache == cacheExpired {
		next.policy = nil
	}
	if l.facts.HTTPS == httpsFailure {
		e.count.failed(next.fail.outcome.Result)
	}
	l.checkAgain(d)
	if l.facts.Cache == cacheUnreadable && d.Use != useFetched {
		next.unread, next.check = true, l.now+retryUnreadable.Microseconds()
		e.keep(l.domain, next)
		return
	}
	if l.errand.mail {
		next.used = l.now
	}
	l.refreshAgain()
	l.announce(ctx, d)
	if d.Report {
		l.report()
	}
	e.keep(l.domain, next)
	if !l.prev.sameRow(next) {
		e.rows.save(l.domain, next)
	}
}

// holdFacts keeps the account of a record that cannot be looked up while nothing
// is cached: the hold runs from the first failure.
func (l *look) holdFacts() {
	next := l.next
	if l.facts.Record != recordUnknown || l.facts.Cache == cacheLive || l.facts.HTTPS == httpsPolicy {
		next.since, next.tried = 0, 0
		return
	}
	if next.since == 0 || l.now-next.tried > staleFailures.Microseconds() {
		next.since = l.now
		next.said &^= saidHeld | saidReleased
	}
	next.tried = l.now
	switch {
	case l.engine.o.DiscoveryHold <= 0:
		l.facts.Hold = holdOff
	case l.now < next.since+l.engine.o.DiscoveryHold.Microseconds():
		l.facts.Hold = holdRunning
	default:
		l.facts.Hold = holdOver
	}
}

// checkAgain sets when the record is asked for again: once per TTL, sooner where
// something failed.
func (l *look) checkAgain(d stsDecision) {
	wait := min(max(l.ttl, minCheck), maxCheck)
	switch l.facts.Record {
	case recordNone:
		wait = min(wait, maxNegative)
	case recordUnknown:
		wait = retryLookup
	}
	if d.Retry {
		again := time.Duration(l.next.fail.at+BackOff.Microseconds()-l.now) * time.Microsecond
		wait = min(wait, max(again, minCheck))
	}
	l.next.check = l.now + wait.Microseconds()
	if l.facts.Hold == holdRunning && l.next.since != 0 {
		l.next.check = min(l.next.check, l.next.since+l.engine.o.DiscoveryHold.Microseconds())
	}
}

// report gives a failure to fetch to TLS-RPT (RFC 8461 §6), except under mode none.
func (l *look) report() {
	if l.prev.policy != nil && l.prev.policy.Mode == mtasts.None {
		return
	}
	l.engine.o.Outcomes(outcome.Attempt{
		At: fromMicro(l.now), Org: l.engine.o.Org, Source: "policy", Domain: l.domain,
		Transport: outcome.NotSent, Policies: []outcome.Policy{*l.next.reported(l.domain)},
	})
}

// failureOf is an error of the policy host in the words of TLS-RPT.
func failureOf(err error) outcome.Failure {
	f := outcome.Failure{Result: outcome.STSPolicyFetchError, Info: clip(err.Error())}
	var typed interface{ ResultType() string }
	if errors.As(err, &typed) {
		f.Result = outcome.ResultType(typed.ResultType())
	}
	var coded interface{ FailureReason() string }
	if errors.As(err, &coded) {
		f.Reason = coded.FailureReason()
	}
	return f
}

const (
	maxName = 253 // of a domain name, without its last dot
	maxText = 300 // of an error's text that is kept
)

// clip makes a text that others wrote fit to be kept: short, and without what a
// database refuses.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}
