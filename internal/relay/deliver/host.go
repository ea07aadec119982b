package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/verify"
)

// host tries one MX host, address by address. It reports whether the host
// decided about the message, so that no other is asked.
func (a *attempt) host(ctx context.Context, mx string) bool {
	lookup := ctx
	if a.fresh {
		lookup = resolve.Fresh(ctx)
	}
	h := a.d.opts.Policies.Host(lookup, a.dest, mx)
	h.Demand.RequireTLS = a.bound()
	h.Demand.Waived = a.waived()
	a.route.demand(&h.Demand)
	if over(ctx) {
		a.soft = true
		return true
	}
	if h.Unreachable == "" && len(h.Addrs) == 0 {
		h.Unreachable = mx + " has no address"
	}
	// RFC 8689 §4.2.2: a policy does not stop a message with TLS-Required: No.
	if h.Unreachable != "" && !(h.ByPolicy && h.Demand.Waived && len(h.Addrs) > 0) {
		a.pass(ctx, h)
		return false
	}
	if found, decided := a.reuse(ctx, h); found {
		return decided
	}
	for i, addr := range addresses(h.Addrs) {
		if over(ctx) || i > 0 && a.late(ctx) {
			a.soft = true
			return true
		}
		if a.address(ctx, h, addr) || len(a.open) == 0 {
			return true
		}
	}
	return false
}

// try begins the record of one host.
func (a *attempt) try(h verify.Host) *queue.Try {
	return &queue.Try{
		At: a.d.opts.Now(), MX: h.Name, Cell: h.Demand.Cell, Demand: h.Demand.Level.String(), Transport: outcome.NotSent,
		WouldHold: h.Observed, Steps: h.Steps,
	}
}

// pass notes a host that must not, or cannot, be connected to.
func (a *attempt) pass(ctx context.Context, h verify.Host) {
	t := a.try(h)
	t.Why, t.Policies = h.Unreachable, h.Policies
	if !h.ByPolicy {
		a.soft = true
		t.Do = "It is tried again by itself; `pawl explain " + a.Domain + "` shows how the lookups go."
		a.note(t, ofTheNet)
		return
	}
	t.Section, t.Do = passedOver(h)
	if t.Do == "" {
		t.Do = "`pawl explain " + a.Domain + "` shows the policy and what was found."
	}
	a.refused(t, verify.BounceNoTLS)
	if len(h.Policies) > 0 {
		a.tell(ctx, outcome.Attempt{MX: h.Name, Policies: h.Policies, Transport: outcome.NotSent})
	}
}

// passedOver says by which section a host is not connected to, and what to do.
func passedOver(h verify.Host) (section, do string) {
	for _, p := range h.Policies {
		switch {
		case p.Failure == nil:
		case p.Type == outcome.TLSA:
			return "RFC 7672 §2.1.2", "Ask the operator of " + h.Name + " to repair the DNSSEC or the name servers of its zone; somebody on the way may also be keeping the answers back."
		case p.Failure.Reason == verify.ReasonMXMismatch:
			return "RFC 8461 §4.1", "Ask the domain's owner to list the host in the policy and to give the policy a new id, unless the MX record is forged."
		}
	}
	return "", ""
}

// refused notes a host that a policy keeps from being used. With REQUIRETLS the
// message goes back by the status if the other hosts are no better (RFC 8689
// §4.2.1); else it waits.
func (a *attempt) refused(t *queue.Try, status string) {
	a.byPolicy = true
	if a.bound() && status != "" {
		a.lacking(status)
	} else {
		a.held = true
	}
	a.note(t, ofTheHost)
}

// lacking says that a host does not meet REQUIRETLS.
func (a *attempt) lacking(status string) {
	a.alone = true
	if a.word == nil {
		a.word = &word{status: status, before: "no host of " + a.Domain + " meets REQUIRETLS: ", do: "Send the message again without REQUIRETLS, or ask the operator of " + a.Domain + " to support it (RFC 8689)."}
	}
}

// reuse sends over a connection that an earlier message left open. One that has
// died meanwhile is no failure of the host: the next is taken, and if there is
// none, found is false and a new one is to be made.
func (a *attempt) reuse(ctx context.Context, h verify.Host) (found, decided bool) {
	for {
		s := a.d.pool.take(h, a.route)
		if s == nil {
			return false, false
		}
		t := a.try(h)
		t.Reused = true
		s.describe(t)
		switch a.send(ctx, s, t) {
		case decisive:
			return true, true
		case indecisive:
			return true, len(a.open) == 0
		case stale:
		}
	}
}

// address tries one address of a host. It reports whether the host decided.
func (a *attempt) address(ctx context.Context, h verify.Host, addr netip.Addr) bool {
	t := a.try(h)
	t.Addr = addr
	s, err := a.connect(ctx, h, addr, t)
	if err != nil {
		a.noConnection(ctx, h, t, err)
		return false
	}
	s.describe(t)
	if h.Demand.RequireTLS && !s.c.Extensions().Has(smtp.RequireTLS) {
		// RFC 8689 §4.2.1: QUIT, and the next host.
		t.Why = fmt.Sprintf("%s [%s] does not offer REQUIRETLS, which the message demands", h.Name, addr)
		t.Section, t.Do = "RFC 8689 §4.2.1", "Ask the host's operator to support REQUIRETLS, or send the message without it."
		t.Transport, t.Lines = outcome.NotSent, append(t.Lines, s.lines.take()...)
		a.refused(t, verify.BounceNoRequireTLS)
		a.tellOf(ctx, s, false)
		a.d.pool.retire(s)
		return false
	}
	if a.route != nil && a.route.User != "" && !a.login(ctx, s, t) {
		return false
	}
	return a.send(ctx, s, t) == decisive
}

// noConnection notes a connection over which no mail can go.
func (a *attempt) noConnection(ctx context.Context, h verify.Host, t *queue.Try, err error) {
	who := fmt.Sprintf("%s [%s]", h.Name, t.Addr)
	var bad *rejected
	var refusal *client.ReplyError
	var dial *dialError
	switch {
	case over(ctx):
		a.soft = true
		t.Why = who + " had not been spoken to when the attempt ended"
	case errors.As(err, &bad):
		a.refused(t, bad.verdict.Bounce)
		return
	case errors.As(err, &refusal):
		a.atTheDoor(h, t, refusal)
		return
	case errors.As(err, &dial):
		a.soft = true
		t.Why = who + " cannot be reached: " + dial.Error()
		t.Do = "It is tried again by itself; if all destinations are like this, see whether the network lets connections to port 25 out."
	default:
		a.soft = true
		t.Why = who + ": " + oneLine(err.Error())
		t.Do = "It is tried again by itself; if it goes on, ask the host's operator what ends the connections."
	}
	a.note(t, ofTheNet)
}

// atTheDoor notes a host that refuses to speak.
func (a *attempt) atTheDoor(h verify.Host, t *queue.Try, refusal *client.ReplyError) {
	a.heed(refusal.Reply)
	t.Why = fmt.Sprintf("%s [%s] answered %s with %q", h.Name, t.Addr, refusal.Phase, refusal.Reply)
	switch {
	case refusal.Temporary():
		a.soft = true
		t.Do = "It is tried again by itself; the host asks to come back later."
		a.note(t, ofTheNet)
	case refusal.BeforeTLS && !h.Demand.PlaintextAllowed():
		// Anybody on the path may have said it (attack 24): where TLS is
		// demanded it is no word of the destination's.
		t.Why += ", which is no word of the host's, as it came before TLS and the host must be reached over TLS"
		t.Section = "RFC 8461 §5"
		t.Do = "If it goes on, ask the destination by another way whether its host refuses mail from here; the path may be under attack."
		a.refused(t, verify.BounceNoTLS)
	default:
		// Final if every host says so (RFC 5321 §4.2.1).
		t.Do = "Ask the destination's postmaster why its hosts refuse mail from here."
		if a.word == nil {
			a.word = wordOf(refusal.Reply, t.Do)
		}
		a.note(t, ofTheHost) // it tells more than that another host is down
	}
}

// wordOf is a reply that refuses all that is left.
func wordOf(r smtp.Reply, do string) *word {
	status := r.Enhanced.String()
	if status == "" {
		status = "5.0.0"
	}
	return &word{status: status, reply: r.String(), do: do}
}

// dialError is a connection that did not come about.
type dialError struct{ err error }

// Error leaves out what is said beside it: the address.
func (e *dialError) Error() string {
	var op *net.OpError
	if errors.As(e.err, &op) && op.Err != nil {
		return oneLine(op.Err.Error())
	}
	return oneLine(e.err.Error())
}

func (e *dialError) Unwrap() error { return e.err }
