package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is the largest answer asked for by UDP: it is never fragmented,
	// and fragments can be forged (DNS flag day 2020). On loopback nothing is
	// fragmented or forged, and a larger one saves the change to TCP.
	udpSize         = 1232
	udpSizeLoopback = 4096

	// maxStray is how many messages that do not answer the question are passed
	// over. More is an attempt to guess the id: the question goes to TCP, where
	// there is nothing to guess (RFC 5452 §9).
	maxStray = 32
)

// exchange asks the upstreams in turn until one answers, some rounds if need be,
// and shares out the time that ctx leaves. An upstream that gave an answer which
// does not help, SERVFAIL for one, is not asked again.
func (r *Resolver) exchange(ctx context.Context, upstreams []*upstream, q question) (response, *upstream, *Failure) {
	if len(upstreams) == 0 {
		return response{}, nil, q.failed(Network, "", errNoUpstream)
	}
	order := inOrder(upstreams, r.now())
	settled := make([]bool, len(order))
	left := len(order) * (r.retries + 1)
	var worst *Failure
	for round := range r.retries + 1 {
		for i, u := range order {
			tries := left
			left--
			if settled[i] {
				continue
			}
			if round > 0 || i > 0 {
				r.stats.retries.Add(1)
			}
			resp, f := r.try(ctx, u, q, tries)
			if f == nil {
				return resp, u, nil
			}
			if worst == nil || f.Kind.rank() < worst.Kind.rank() {
				worst = f
			}
			if outOfTime(ctx) {
				return response{}, nil, worst
			}
			if ctx.Err() != nil {
				return response{}, nil, q.canceled(ctx)
			}
			settled[i] = f.Kind != Timeout && f.Kind != Network
		}
	}
	return response{}, nil, worst
}

// outOfTime reports whether a lookup used up its time; if ctx ended otherwise,
// nobody wants the answer.
func outOfTime(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errSilent) }

// try asks one upstream once. It may use up one of so many tries of the time left.
func (r *Resolver) try(ctx context.Context, u *upstream, q question, tries int) (response, *Failure) {
	deadline := time.Now().Add(r.timeout) // the wire runs by the real clock, whatever r.now says
	if end, ok := ctx.Deadline(); ok {
		deadline = time.Now().Add(time.Until(end) / time.Duration(tries))
	}
	r.stats.queries.Add(1)
	resp, err := r.ask(ctx, u, q, deadline)
	if err != nil {
		if ctx.Err() == nil || outOfTime(ctx) {
			u.unheard(r.now())
		}
		return response{}, q.wireFailure(u.addr, err)
	}
	u.heard()
	if f := resp.failure(q, u.addr); f != nil {
		return response{}, f
	}
	return resp, nil
}

// wireFailure sorts what can go wrong on the way to an upstream and back.
func (q question) wireFailure(upstream string, err error) *Failure {
	switch {
	case errors.Is(err, errStray):
		return q.failed(Malformed, upstream, fmt.Errorf("%w, but %w", errSilent, err))
	case errors.Is(err, errMessage):
		return q.failed(Malformed, upstream, err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return q.failed(Timeout, upstream, errSilent)
	default:
		return q.failed(Network, upstream, err)
	}
}

// ask sends a question by UDP, and by TCP if the answer does not fit or
// strangers answer.
func (r *Resolver) ask(ctx context.Context, u *upstream, q question, deadline time.Time) (response, error) {
	id := dns.Id()
	query, err := packQuery(q, id, u.udpSize)
	if err != nil {
		return response{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	resp, err := r.askUDP(ctx, u, q, id, query, deadline)
	if err == nil && !resp.truncated {
		return resp, nil
	}
	if err != nil && !errors.Is(err, errGuessing) {
		return response{}, err
	}
	r.stats.tcp.Add(1)
	return r.askTCP(ctx, u, q, id, query, deadline)
}

// errGuessing says that more messages came than an upstream sends.
var errGuessing = errors.New("too many false answers")

// askUDP uses a connected socket, so that only what comes from the upstream's
// address gets through.
func (r *Resolver) askUDP(ctx context.Context, u *upstream, q question, id uint16, query []byte, deadline time.Time) (response, error) {
	conn, err := r.send(ctx, u, query, deadline)
	if err != nil {
		return response{}, err
	}
	unhook := hangUp(ctx, conn)
	resp, err := r.receive(conn, id, q)
	if !unhook() || err != nil { // an answer may still be on its way
		conn.Close()
	} else {
		u.keep(conn)
	}
	return resp, err
}

// send sends a query over a socket that is left over, or a new one.
func (r *Resolver) send(ctx context.Context, u *upstream, query []byte, deadline time.Time) (net.Conn, error) {
	if conn := u.reuse(); conn != nil {
		if conn.SetDeadline(deadline) == nil {
			if _, err := conn.Write(query); err == nil {
				return conn, nil
			}
		}
		conn.Close()
	}
	conn, err := r.connect(ctx, "udp", u.addr, deadline)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(query); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// receive reads messages until one answers the question.
func (r *Resolver) receive(conn net.Conn, id uint16, q question) (response, error) {
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	for strays := 0; ; {
		n, err := conn.Read(*buf)
		if err != nil {
			if strays > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				return response{}, fmt.Errorf("%w: %d of them", errStray, strays)
			}
			return response{}, err
		}
		resp, err := readResponse((*buf)[:n], id, q)
		if !errors.Is(err, errStray) {
			return resp, err
		}
		r.stats.strays.Add(1)
		if strays++; strays > maxStray {
			return response{}, errGuessing
		}
	}
}

// askTCP asks over a connection of its own (RFC 7766).
func (r *Resolver) askTCP(ctx context.Context, u *upstream, q question, id uint16, query []byte, deadline time.Time) (response, error) {
	conn, err := r.connect(ctx, "tcp", u.addr, deadline)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	defer hangUp(ctx, conn)()
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query)))
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return response{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return response{}, err
	}
	raw := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, raw); err != nil {
		return response{}, err
	}
	resp, err := readResponse(raw, id, q)
	if err == nil && resp.truncated {
		return response{}, fmt.Errorf("%w: cut short, over TCP", errMessage)
	}
	return resp, err
}

// connect returns a connection on which all ends with the deadline.
func (r *Resolver) connect(ctx context.Context, network, addr string, deadline time.Time) (net.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := r.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// hangUp makes the end of ctx the end of what a connection waits for. It returns
// the function that undoes that, and reports whether it could.
func hangUp(ctx context.Context, conn net.Conn) func() bool {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}
