// Package relay takes mail in: SMTP from the operator's own machines, into the
// queue. It decides who may relay (by network, by a client's certificate, by
// AUTH), as whom and how much, gives each message its Received line, ends loops,
// and answers 250 only once the queue has the message for good.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

const (
	// maxReceived is how many Received lines a message may have; one with more
	// goes in circles (RFC 5321 §6.3 asks for a large threshold, at least 100).
	maxReceived = 100
	// stopGrace is how long clients may take to finish when the relay stops.
	stopGrace = 20 * time.Second
	// reloadEvery is how often the certificate's files are read again, in looks.
	reloadEvery = 6
)

// Queue takes messages for good.
type Queue interface {
	Body() *queue.Body
	Enqueue(ctx context.Context, s queue.Submission) (string, error)
}

// Options are what a Relay needs.
type Options struct {
	Queue         Queue
	Hostname      string
	Networks      []netip.Prefix // who may relay
	Proxy         []netip.Prefix // load balancers, which speak the PROXY protocol
	TLSOptional   []netip.Prefix // who may send TLS-Required: No
	Files         Files
	Submitters    Submitters // who may log in; nil, or without a certificate: nobody
	MaxSize       int64      // bytes of one message
	MaxRecipients int        // of one message
	Connections   int        // at once
	PerClient     int        // at once, from one address
	Limits        Limits
	Watermarks    Watermarks
	Gauge         Gauge
	Events        event.Sink
	Signer        *dkim.Signer // of the operator's own domains; nil: nothing is signed
	Now           func() time.Time
	After         func(time.Duration) <-chan time.Time
	Log           *slog.Logger
}

// Relay is the submission side of the relay.
type Relay struct {
	opts     Options
	smtp     *server.Server
	live     atomic.Pointer[Live]
	door     door
	identity atomic.Pointer[identity] // nil: no TLS
	counters counters
	room     *room

	accepted, waived, notWaived atomic.Int64
	refused                     tally

	mu        sync.Mutex
	reloadErr error
}

// New returns a Relay. It serves after [Relay.Serve] is called, and keeps an eye
// on disk, queue and certificate while [Relay.Watch] runs.
func New(o Options) (*Relay, error) {
	r := &Relay{opts: o, counters: newCounters(o.Limits, o.Now), room: newRoom(o), refused: newTally()}
	r.door.shut.L = &r.door.mu
	live := o.live()
	r.live.Store(&live)
	id, err := o.Files.read(nil)
	if err != nil {
		return nil, err
	}
	so := server.Options{
		Hostname: o.Hostname, Backend: r, Log: o.Log, ProxyNetworks: o.Proxy,
		Limits: live.limits(),
	}
	if id != nil {
		r.identity.Store(id)
		so.TLS = r.tlsConfig()
		if o.Submitters != nil {
			so.Auth = r.login
		}
	}
	if r.smtp, err = server.New(so); err != nil {
		return nil, fmt.Errorf("making the relay: %w", err)
	}
	return r, nil
}

// Serve takes mail on l until ctx ends: in clear, with STARTTLS if there is a
// certificate. Idle clients are told 421, and a message that is on its way in
// comes to its reply, for [stopGrace] at most.
func (r *Relay) Serve(ctx context.Context, l net.Listener) error {
	return r.serve(ctx, l, r.smtp.Serve)
}

// ServeTLS is Serve for connections that begin with the handshake (RFC 8314 §3).
func (r *Relay) ServeTLS(ctx context.Context, l net.Listener) error {
	return r.serve(ctx, l, r.smtp.ServeTLS)
}

func (r *Relay) serve(ctx context.Context, l net.Listener, serve func(context.Context, net.Listener) error) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := r.smtp.Shutdown(grace); err != nil {
			r.opts.Log.Warn("clients were cut off; what had no reply, they send again", "err", err)
		}
	})
	err := serve(context.WithoutCancel(ctx), l)
	if !stop() {
		<-stopped
		if errors.Is(err, server.ErrStopped) {
			err = nil // another listener was quicker
		}
		return err
	}
	return err
}

// Watch keeps an eye on how much room there is and on the certificate's files,
// until ctx ends.
func (r *Relay) Watch(ctx context.Context) error {
	for looks := 0; ; looks++ {
		r.Look(ctx)
		if looks%reloadEvery == 0 {
			if err := r.Reload(); err != nil {
				r.opts.Log.Error("the relay's certificate cannot be used; the one from before stays", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.opts.After(lookEvery):
		}
	}
}

// ours reports whether a client is in one of the networks. A load balancer is
// in none: it speaks for itself where its PROXY header names no client, and then
// nobody knows who that is.
func (r *Relay) ours(networks []netip.Prefix, client netip.Addr) bool {
	client = client.Unmap()
	in := func(n netip.Prefix) bool { return n.Contains(client) }
	return slices.ContainsFunc(networks, in) && !slices.ContainsFunc(r.opts.Proxy, in)
}
