// Package relay takes mail in: SMTP from the operator's own machines, into the
// queue. It decides who may relay, gives each message its Received line, ends
// loops, and answers 250 only once the queue has the message for good.
package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

// maxReceived is how many Received lines a message may have; one with more goes
// in circles (RFC 5321 §6.3 asks for a large threshold, at least 100).
const maxReceived = 100

// stopGrace is how long clients may take to finish when the relay stops.
const stopGrace = 20 * time.Second

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
	MaxSize       int64          // bytes of one message
	MaxRecipients int            // of one message
	Connections   int            // at once
	PerClient     int            // at once, from one address
	Signer        *dkim.Signer   // of the operator's own domains; nil: nothing is signed
	Now           func() time.Time
	Log           *slog.Logger
}

// Relay is the submission side of the relay.
type Relay struct {
	opts Options
	smtp *server.Server
	live atomic.Pointer[Live]
	door door

	accepted, refused, failed atomic.Int64
}

// New returns a Relay. It serves after [Relay.Serve] is called.
func New(o Options) (*Relay, error) {
	r := &Relay{opts: o}
	r.door.shut.L = &r.door.mu
	live := o.live()
	r.live.Store(&live)
	var err error
	r.smtp, err = server.New(server.Options{
		Hostname: o.Hostname, Backend: r, Log: o.Log,
		Limits: live.limits(),
	})
	if err != nil {
		return nil, fmt.Errorf("making the relay: %w", err)
	}
	return r, nil
}

// Serve takes mail on l until ctx ends. Idle clients are told 421, and a
// message that is on its way in comes to its reply, for [stopGrace] at most.
func (r *Relay) Serve(ctx context.Context, l net.Listener) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := r.smtp.Shutdown(grace); err != nil {
			r.opts.Log.Warn("clients were cut off; what had no reply, they send again", "err", err)
		}
	})
	err := r.smtp.Serve(context.WithoutCancel(ctx), l)
	if !stop() {
		<-stopped
		return nil
	}
	return err
}

// Stats are the relay's counters since its start.
type Stats struct {
	Accepted int64 // messages taken into the queue
	Refused  int64 // messages or recipients refused for good
	Failed   int64 // messages that could not be stored, and were refused for now
}

// Stats returns the counters as they are now.
func (r *Relay) Stats() Stats {
	return Stats{Accepted: r.accepted.Load(), Refused: r.refused.Load(), Failed: r.failed.Load()}
}

// mayRelay reports whether a client's mail is taken.
func (r *Relay) mayRelay(client netip.Addr) bool {
	client = client.Unmap()
	return slices.ContainsFunc(r.live.Load().Networks, func(n netip.Prefix) bool { return n.Contains(client) })
}
