// Package deliver takes mail out. For one delivery it asks policy what the
// destination demands, then takes the MX hosts in the order of preference: what
// a host must show (decision table 2), a connection, TLS, the judgement of
// package verify, and only then the mail. A host that fails a policy is as if
// unreachable (RFC 8461 §5.1); when none is left, the delivery waits. Every host
// and address that was tried is in the story that comes back.
//
// Connections are kept for a moment after a message, for the next one of which
// exactly the same is demanded.
package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/verify"
)

// sessionCache is how many TLS sessions are kept for resumption.
const sessionCache = 4096

// Policies decides what a destination demands. Implementations are safe for
// concurrent use.
type Policies interface {
	// Destination returns what holds for a domain now. An error that wraps a
	// *resolve.NotFound says that there is no such domain.
	Destination(ctx context.Context, domain string) (verify.Destination, error)
	// DestinationFresh is Destination with DNS and the policy's id asked afresh.
	DestinationFresh(ctx context.Context, domain string) (verify.Destination, error)
	// Via returns what holds for mail by way of a smart host.
	Via(ctx context.Context, host string, port uint16, viaMX, fresh bool) (verify.Destination, error)
	// Host returns what one of its MX hosts must show. A ctx made by
	// resolve.Fresh asks DNS afresh.
	Host(ctx context.Context, d verify.Destination, mx string) verify.Host
}

// Options are what a Deliverer needs; all of it but the sources and timeouts.
type Options struct {
	Policies Policies
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error) // "IP:PORT"; see [Source]
	Roots    *x509.CertPool
	Now      func() time.Time
	Hostname string     // said in EHLO; MX hosts of this name and after it are not tried
	Source4  netip.Addr // local address for IPv4; zero: the system's choice
	Source6  netip.Addr
	Port     uint16 // of MX hosts
	Routes   []Route
	Timeouts client.Timeouts
	Redact   bool         // stories name no mailboxes
	Log      *slog.Logger // one line an attempt
	Outcomes func(context.Context, outcome.Attempt)
}

// Deliverer delivers. Its methods are safe for concurrent use.
type Deliverer struct {
	opts     Options
	routes   atomic.Pointer[routes]
	records  atomic.Pointer[[]Recording]
	sessions tls.ClientSessionCache
	pool     *pool
}

// New returns a Deliverer. [Deliverer.Close] ends the connections it keeps.
func New(o Options) *Deliverer {
	o.Hostname = strings.ToLower(strings.TrimSuffix(o.Hostname, "."))
	d := &Deliverer{opts: o, sessions: tls.NewLRUClientSessionCache(sessionCache), pool: newPool(o.Now)}
	d.SetRoutes(o.Routes)
	return d
}

// Close ends the connections that are kept open and waits until they are. No
// more are kept from then on.
func (d *Deliverer) Close() { d.pool.close() }

// Forget ends the connections that are kept open, so that every host is
// connected to and judged anew.
func (d *Deliverer) Forget() { d.pool.forget() }

// Deliver makes one attempt at a delivery. When ctx ends it returns soon, with
// what has become final.
func (d *Deliverer) Deliver(ctx context.Context, job *queue.Job) queue.Result {
	return d.deliver(ctx, &mail{Delivery: &job.Delivery, last: job.Last, content: job})
}

// mail is a delivery with what is needed to make it.
type mail struct {
	*queue.Delivery
	last    bool // its lifetime is over: what is left after this attempt fails
	content client.Content
}

// waived reports whether TLS-Required: No lifts policies for this message;
// REQUIRETLS beats it (RFC 8689 §4.1).
func (m *mail) waived() bool { return m.TLSOptional && !m.RequireTLS }

// bound reports whether REQUIRETLS decides how the message may go. A bounce
// asks for it and is not lost for want of it (RFC 8689 §5).
func (m *mail) bound() bool { return m.RequireTLS && m.From != "" }

func (d *Deliverer) deliver(ctx context.Context, m *mail) queue.Result {
	a := &attempt{mail: m, d: d, began: d.opts.Now(), open: m.Pending(), fresh: m.last, route: d.Route(m.Domain), full: d.recorded(m.Domain)}
	a.result.Story.Route = a.route.String()
	a.result.Recipients = make(map[int]queue.Recipient, len(a.open))
	a.result.Story.At, a.result.Story.Transcript = a.began, a.full
	a.run(ctx)
	a.sum(ctx)
	a.log(ctx)
	if d.opts.Redact {
		redact(&a.result.Story)
	}
	return a.result
}
