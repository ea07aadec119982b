package deliver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/verify"
)

// rejected is the error of a connection that was judged not good enough. It is
// closed and reported.
type rejected struct{ verdict verify.Verdict }

func (e *rejected) Error() string { return e.verdict.Why }

// withoutTLS is the error of a connection that the TLS handshake ended, to a
// host of which nothing is demanded: mail may go over a new one, in clear
// (RFC 7435 §3). It has not been reported.
type withoutTLS struct{ session *session }

func (e *withoutTLS) Error() string { return e.session.verdict.Why }

// errOldTicket says that a resumed TLS session failed a policy. It brings the
// certificates of the first one along, which the host may have replaced since.
var errOldTicket = errors.New("the resumed TLS session is not good enough")

// errOver says that the attempt's time ended in the middle of it.
var errOver = errors.New("the attempt was over")

// connect opens a session with an address that is good enough for the host's
// demand.
func (a *attempt) connect(ctx context.Context, h verify.Host, addr netip.Addr, t *queue.Try) (*session, error) {
	s, err := a.secure(ctx, h, addr, t, a.d.sessions)
	if errors.Is(err, errOldTicket) {
		s, err = a.secure(ctx, h, addr, t, nil)
	}
	var broken *withoutTLS
	if errors.As(err, &broken) {
		return a.clear(ctx, h, addr, t, broken.session)
	}
	return s, err
}

// greet connects to an address and says EHLO.
func (a *attempt) greet(ctx context.Context, h verify.Host, addr netip.Addr, t *queue.Try) (*session, error) {
	o := &a.d.opts
	conn, err := o.Dial(o.from(ctx, addr), "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(int(cmp.Or(a.dest.Port, o.Port)))))
	if err != nil {
		return nil, &dialError{err}
	}
	s := &session{demand: h.Demand, route: a.route, addr: addr, opened: o.Now(), source: localAddr(conn), lines: transcript{full: a.full}}
	s.c = client.New(conn, client.Options{
		// There is no STARTTLS after HELO.
		Hello: o.Hostname, FallBackToHELO: h.Demand.PlaintextAllowed(), Timeouts: o.Timeouts, Trace: s.lines.add,
	})
	if err := s.c.Hello(ctx); err != nil {
		t.Lines = append(t.Lines, s.lines.take()...)
		a.d.pool.retire(s)
		return nil, err
	}
	return s, nil
}

// secure opens a session, runs the TLS handshake if one is offered, and has
// what came of it judged before anything else is said.
func (a *attempt) secure(ctx context.Context, h verify.Host, addr netip.Addr, t *queue.Try, tickets tls.ClientSessionCache) (*session, error) {
	s, err := a.greet(ctx, h, addr, t)
	if err != nil {
		return nil, err
	}
	seen := a.handshake(ctx, s, tickets)
	if over(ctx) { // what ended is ours, and nothing that the host did
		t.Lines = append(t.Lines, s.lines.take()...)
		a.d.pool.retire(s)
		return nil, errOver
	}
	s.verdict = verify.Judge(h.Demand, seen, a.d.opts.Roots, a.d.opts.Now())
	switch {
	case s.resumedInVain():
		a.d.pool.retire(s)
		return nil, errOldTicket
	case !s.verdict.Pass:
		s.describe(t)
		t.Why, t.Lines = s.verdict.Why, append(t.Lines, s.lines.take()...)
		a.tellOf(ctx, s, false)
		a.d.pool.retire(s)
		return nil, &rejected{s.verdict}
	case s.c.Err() != nil:
		t.Lines = append(t.Lines, s.lines.take()...)
		return nil, &withoutTLS{s}
	case seen.State == nil:
		return s, nil
	}
	// RFC 3207 §4.2: what was said before TLS is forgotten, so ask again.
	if err := s.c.Hello(ctx); err != nil {
		s.describe(t)
		t.Transport, t.Lines = outcome.NotSent, append(t.Lines, s.lines.take()...)
		a.tellOf(ctx, s, false)
		a.d.pool.retire(s)
		return nil, err
	}
	return s, nil
}

// handshake runs STARTTLS, if it is offered, and says what was seen.
func (a *attempt) handshake(ctx context.Context, s *session, tickets tls.ClientSessionCache) verify.Seen {
	s.helo = s.c.ServerName()
	seen := verify.Seen{STARTTLSOffered: s.c.Extensions().Has(smtp.StartTLS)}
	if !seen.STARTTLSOffered {
		return seen
	}
	err := s.c.StartTLS(ctx, s.demand.TLSConfig(tickets, a.d.opts.Now))
	var refused *client.StartTLSRefused
	var closing *client.ReplyError
	switch {
	case errors.As(err, &refused):
		seen.Reply = refused.Reply.String()
	case errors.As(err, &closing): // 421
		a.heed(closing.Reply)
		seen.Reply = closing.Reply.String()
	default:
		seen.HandshakeErr, seen.State = err, s.c.TLSState()
	}
	return seen
}

// clear opens a session without TLS in place of one that TLS ended.
func (a *attempt) clear(ctx context.Context, h verify.Host, addr netip.Addr, t *queue.Try, broken *session) (*session, error) {
	s, err := a.greet(ctx, h, addr, t)
	if err != nil {
		broken.describe(t)
		t.Transport, broken.verdict.Transport = outcome.NotSent, outcome.NotSent
		a.tellOf(ctx, broken, false)
		return nil, err
	}
	s.verdict, s.helo = broken.verdict, broken.helo
	return s, nil
}

func localAddr(c net.Conn) netip.Addr {
	if tcp, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
