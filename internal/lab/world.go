package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

const (
	relayName = "relay.lab.test"
	// SenderZone is the domain that the mail comes from, and bounces go to.
	SenderZone = "sender.test"

	// lifetime and retry are the relay's: a message is tried every two hours or
	// so, for five days.
	lifetime = 5 * 24 * time.Hour
	retry    = 2 * time.Hour
	// step is how far the clock goes for every message that waits to be tried
	// again: the retry with its jitter.
	step = retry + retry/4

	// stall is how long, by the machine's clock, nothing may happen before the
	// lab's is moved on: what waits there for its time, as a host that does not
	// answer, would wait for ever.
	stall = 300 * time.Millisecond
	// patience is how long a bounce may take to reach the sender, by the machine's
	// clock.
	patience = 2 * time.Second
	// maxStalled is how long it may all stand still before it is a mistake.
	maxStalled = 30 * time.Second
	// maxStall is how many times longer the lab waits the longer nothing happens:
	// on a busy machine its clock must not run away from what is being done.
	maxStall = 4
)

// world is one small Internet with pawl's relay on it.
type world struct {
	net     *testnet.Net
	clock   *testnet.Clock
	node    *node.Node
	relay   string // where it takes mail
	tries   attempts
	commits int
	stall   time.Duration // const stall, but where much is to be waited for
	dir     string
	stop    context.CancelFunc
	stopped chan error
}

// worldOptions are what a world may be told.
type worldOptions struct {
	Seed      uint64
	Fetch     time.Duration
	Log       *slog.Logger
	Configure func(*config.Config)
	Roots     func(*testnet.Net) *x509.CertPool
}

// newWorld makes a world and starts the relay. [world.close] ends it.
func newWorld(ctx context.Context, o worldOptions) (_ *world, err error) {
	w := &world{stopped: make(chan error, 1), stall: stall}
	w.net, err = testnet.New(testnet.Options{Seed: o.Seed, Delivered: func(testnet.Delivery) { w.tries.wake() }})
	if err != nil {
		return nil, fmt.Errorf("making a small Internet: %w", err)
	}
	w.clock = w.net.Clock
	w.tries.asked = func(domain string) int { return w.net.DNS.Queries("_mta-sts."+domain, "TXT") }
	w.net.Domain(SenderZone, testnet.DomainOptions{})
	if w.dir, err = os.MkdirTemp("", "pawl-lab-*"); err != nil {
		w.net.Close()
		return nil, fmt.Errorf("making a folder for the relay: %w", err)
	}
	if err := w.startRelay(ctx, o); err != nil {
		w.net.Close()
		return nil, errors.Join(fmt.Errorf("starting the relay: %w", err), os.RemoveAll(w.dir))
	}
	return w, nil
}

func (w *world) startRelay(ctx context.Context, o worldOptions) (err error) {
	c := config.Default()
	c.Hostname, c.Data = relayName, w.dir
	// Its word that it validates is good here, and nothing need wait for a check.
	c.DNS.Upstreams, c.DNS.Validating = []string{w.net.DNSAddr()}, true
	c.DNS.Signed, c.DNS.Bogus = testnet.SignedName, testnet.BogusName
	c.Postfix.Listen, c.Web.Listen, c.Relay.Listen = config.Off, config.Off, []string{"127.0.0.1:0"}
	c.Relay.Lifetime, c.Relay.RetryFirst, c.Relay.RetryMax = config.Duration(lifetime), config.Duration(retry), config.Duration(retry)
	c.Relay.DelayNotice = 0 // what comes back to a sender is a bounce
	if o.Configure != nil {
		o.Configure(&c)
	}
	roots := w.net.Roots()
	if o.Roots != nil {
		roots = o.Roots(w.net)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w.node, err = node.New(ctx, c, node.Wiring{
		Now: w.clock.Now, After: w.clock.After, Dial: w.net.Dial, Roots: roots, Log: log, Fetch: o.Fetch, Attempts: w.tries.watch,
	})
	if err != nil {
		return err
	}
	w.relay = w.node.Addrs().Relay[0]
	running, stop := context.WithCancel(ctx)
	w.stop = stop
	go func() { w.stopped <- w.node.Run(running) }()
	return nil
}

// close ends the relay and the small Internet. It returns what went wrong in
// either.
func (w *world) close() error {
	w.stop()
	err := <-w.stopped
	w.net.Close()
	return errors.Join(err, w.net.Err(), os.RemoveAll(w.dir))
}

// letter is one message of the lab.
type letter struct {
	from, to    string
	requireTLS  bool // MAIL has REQUIRETLS
	tlsOptional bool // the header has TLS-Required: No, and the sender may
}

func (l letter) text(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: from the lab\r\n", l.from, l.to)
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s>\r\n", now.UTC().Format(time.RFC1123Z), l.from)
	if l.tlsOptional {
		b.WriteString("TLS-Required: No\r\n")
	}
	b.WriteString("\r\nMeet me at the harbour at noon.\r\n")
	return b.String()
}

// send hands a message to the relay: by SMTP, but for those that the relay
// takes from authenticated senders only.
func (w *world) send(ctx context.Context, l letter) error {
	if l.requireTLS || l.tlsOptional {
		return w.enqueue(ctx, l)
	}
	c, err := w.call(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if reply, err := c.Say("EHLO lab.test"); err != nil || reply[0] != '2' {
		return fmt.Errorf("the relay answered EHLO with %q: %w", reply, err)
	}
	reply, err := c.Send(l.from, l.to, l.text(w.clock.Now()))
	if err != nil || reply[0] != '2' {
		return fmt.Errorf("the relay did not take the message to %s: %q: %w", l.to, reply, err)
	}
	_, _ = c.Say("QUIT")
	return nil
}

// call opens a connection to the relay.
func (w *world) call(ctx context.Context) (*testnet.Caller, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", w.relay)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, greeting, err := testnet.NewCaller(conn)
	if err != nil || greeting[0] != '2' {
		stop()
		conn.Close()
		return nil, fmt.Errorf("the relay greeted with %q: %w", greeting, err)
	}
	return c, nil
}

// enqueue puts a message into the relay's queue.
func (w *world) enqueue(ctx context.Context, l letter) error {
	return w.enqueueBody(ctx, l, l.text(w.clock.Now()))
}

func (w *world) enqueueBody(ctx context.Context, l letter, text string) error {
	q := w.node.Queue()
	body := q.Body()
	if _, err := body.Write([]byte(text)); err != nil {
		body.Discard()
		return err
	}
	_, err := q.Enqueue(ctx, queue.Submission{
		Message:    queue.Message{Org: db.DefaultOrg, From: l.from, RequireTLS: l.requireTLS, TLSOptional: l.tlsOptional},
		Recipients: []queue.Destined{{Recipient: queue.Recipient{Addr: l.to, State: queue.Pending}, Domain: queue.Domain(l.to)}},
		Body:       body,
	})
	return err
}

// soon waits until done, but not for long: what does not come by itself in
// that time does not come.
func (w *world) soon(ctx context.Context, done func() bool) error {
	patience := time.NewTimer(patience)
	defer patience.Stop()
	for {
		changed := w.tries.wait()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// await waits until done, which is asked whenever something has happened. When
// nothing happens the clock is moved on by nudge.
func (w *world) await(ctx context.Context, nudge time.Duration, done func() bool) error {
	stalled, wait := time.Duration(0), w.stall
	for {
		changed := w.tries.wait()
		if done() {
			return nil
		}
		still := time.NewTimer(wait)
		select {
		case <-changed:
		case <-still.C:
			if stalled += wait; stalled > maxStalled {
				return errors.New("the mail does not come to rest")
			}
			wait = min(2*wait, maxStall*w.stall)
			w.clock.Advance(nudge)
		case <-ctx.Done():
			still.Stop()
			return context.Cause(ctx)
		case err := <-w.stopped:
			w.stopped <- err
			still.Stop()
			return fmt.Errorf("the relay stopped: %w", err)
		}
		still.Stop()
	}
}
