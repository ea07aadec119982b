// Package node puts the parts together for `pawl serve`: it checks what it
// stands on, starts what the configuration names in the order in which one part
// needs another, watches it, and stops it so that what was accepted is finished.
// The demo and the lab run the same node with another [Wiring].
package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/account"
	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/rate"
	"github.com/pawl-mail/pawl/internal/relay"
	"github.com/pawl-mail/pawl/internal/relay/bounce"
	"github.com/pawl-mail/pawl/internal/relay/deliver"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/systemd"
	"github.com/pawl-mail/pawl/internal/web"
	"github.com/pawl-mail/pawl/mtasts"
)

// Version is the version of pawl.
const Version = "0.1.0"

// recheck is how soon the checks are repeated while the resolver is not
// trusted: it may only have been slow to start.
const recheck = 5 * time.Minute

// stopGrace is how long parts may take to finish when the node stops.
const stopGrace = 30 * time.Second

// Node is a running pawl. Make one with [New], run it with [Node.Run].
type Node struct {
	config config.Config
	w      Wiring
	log    *slog.Logger
	level  *slog.LevelVar
	lab    web.Lab

	roots    *x509.CertPool
	db       *db.DB
	events   *event.Store
	ledger   *ledger.Ledger
	resolver *resolve.Resolver
	policy   *policy.Engine
	queue    *queue.Queue
	deliver  *deliver.Deliverer
	relay    *relay.Relay
	signer   *dkim.Signer
	accounts *account.Store
	logins   *account.Logins
	bounces  bounceLimit
	postfix  *postfix.Server
	reporter *ledger.Reporter

	collector *postfix.Collector // nil: postfix.tlsrpt is off

	started   time.Time
	force     atomic.Pointer[config.Config] // see inForce
	reloading sync.Mutex
	draining  atomic.Bool
	running   context.Context //nolint:containedctx // ends when the node begins to stop
	ending    context.CancelFunc
	mu        sync.Mutex
	checks    []web.Check
	told      map[string]time.Time // of which destinations' held mail an event told, and when
	bound     Addrs
	open      []net.Listener
	serving   []service
}

// service is one part that runs until the node stops.
type service struct {
	name string
	run  func(context.Context) error
}

// Addrs are where a node listens.
type Addrs struct {
	Postfix string
	Relay   []string
	// Submissions are the relay's listeners with implicit TLS.
	Submissions []string
	Web         string
	Control     string
}

// New makes a node: it opens the database, binds every listener and makes
// every part, so that what cannot work fails here, in one sentence. Close it
// with Run or, if it is never run, with Close.
func New(ctx context.Context, c config.Config, w Wiring) (*Node, error) {
	levels := new(slog.LevelVar)
	if w.Log == nil {
		w.Log = logger(c.Log, levels)
	}
	w = w.withDefaults()
	n := &Node{config: c, w: w, log: w.Log, level: levels, lab: w.Lab, started: w.Now(), told: map[string]time.Time{}}
	n.force.Store(&c)
	n.running, n.ending = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.build(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) build(ctx context.Context) error {
	for _, step := range []func(context.Context) error{n.openData, n.openWorld, n.makeRelay, n.makeReporter, n.bind} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	// Before mail flows: whether DANE is on must be known by then.
	n.checkSelf(ctx)
	return nil
}

// openData makes the data folder and opens the database in it.
func (n *Node) openData(ctx context.Context) (err error) {
	if err := os.MkdirAll(n.config.Data, 0o700); err != nil {
		return &control.Error{Text: fmt.Sprintf("the data folder %s cannot be made: %v", n.config.Data, errors.Unwrap(err)), Do: "Make it and give it to the user that runs pawl, or name another with data in the configuration."}
	}
	if err := writable(n.config.Data); err != nil {
		return &control.Error{Text: err.Error(), Do: "Give it to the user that runs pawl, or name another with data in the configuration."}
	}
	n.db, err = db.Open(ctx, db.Options{URL: n.config.Database, DataDir: n.config.Data, Log: n.log, Now: n.w.Now})
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if err := sweepCopies(n.config.Data); err != nil {
		return fmt.Errorf("removing what a backup left behind: %w", err)
	}
	n.events = event.NewStore(n.db, n.w.Now, n.log)
	n.ledger = ledger.New(ledger.Options{
		DB: n.db, Log: n.log, After: n.w.After, Node: n.config.Hostname,
		Testing: func(domain string) bool { return n.policy.Testing(domain) }, // there before anything is counted
	})
	return nil
}

// openWorld makes what asks the world: resolver, fetcher and policy.
func (n *Node) openWorld(context.Context) (err error) {
	if n.roots, err = roots(n.config, n.w); err != nil {
		return err
	}
	if n.resolver, err = newResolver(n.config, n.w); err != nil {
		return err
	}
	p := n.config.Policy
	n.policy, err = policy.New(policy.Options{
		Resolver: n.resolver,
		Fetcher:  &mtasts.Fetcher{Dial: byName(n.resolver, n.w.Dial), Roots: n.roots, Now: n.w.Now, Timeout: n.w.Fetch, UserAgent: "pawl/" + Version},
		DB:       n.db, Now: n.w.Now, After: n.w.After, Log: n.log, Events: n.events,
		Outcomes: func(a outcomeAttempt) { n.ledger.Record(context.Background(), a) },
		DANE:     p.DANE, DiscoveryHold: p.DiscoveryHold.Std(), Both: p.Both,
		Observe: p.Mode == observe, ObserveOnly: p.Observe, Warm: p.Warm.Std(), Port: n.w.SMTP,
	})
	return err
}

// makeRelay makes the queue, what empties it and what fills it.
func (n *Node) makeRelay(ctx context.Context) (err error) {
	r, t := n.config.Relay, tuning(n.config.Relay)
	if n.signer, err = signer(n.config, n.w.Now); err != nil {
		return err
	}
	n.bounces.table = rate.New(rate.Limit{Burst: r.Limits.Bounces, Per: time.Hour}, n.w.Now)
	n.queue, err = queue.New(ctx, queue.Options{
		DB: n.db, Spool: filepath.Join(n.config.Data, "spool"), Node: n.config.Hostname, Now: n.w.Now, After: n.w.After, Log: n.log,
		Lifetime: t.Lifetime, RetryFirst: t.RetryFirst, RetryMax: t.RetryMax, DelayNotice: r.DelayNotice.Std(),
		Concurrency: t.Concurrency, Destination: t.Destination, History: t.History,
		Bounce: bounce.New(bounce.Options{Hostname: n.config.Hostname, Now: n.w.Now, Body: n.newBody, Allow: n.bounces.allow, Signer: n.signer}),
		OnHeld: n.held,
	})
	if err != nil {
		return err
	}
	routes, err := routes(n.config)
	if err != nil {
		return err
	}
	n.deliver = deliver.New(deliver.Options{
		Policies: n.policy, Dial: n.w.Dial, Roots: n.roots, Now: n.w.Now, Hostname: n.config.Hostname,
		Source4: r.SourceIPv4.Addr, Source6: r.SourceIPv6.Addr, Port: n.w.SMTP, Routes: routes, Redact: n.config.Log.Redact, Log: n.log, Outcomes: n.ledger.Record,
	})
	return n.makeAccept(ctx)
}

func (n *Node) newBody() *queue.Body { return n.queue.Body() }

// bind opens every listener, so that a port in use is found before mail flows.
func (n *Node) bind(ctx context.Context) error {
	c := n.config
	if c.Postfix.Listen != config.Off {
		l, err := n.listen(ctx, "postfix.listen", c.Postfix.Listen)
		if err != nil {
			return err
		}
		n.postfix = postfix.New(postfix.Options{Source: n.policy, Log: n.log, After: n.w.After})
		n.bound.Postfix = l.Addr().String()
		n.serve("TLS policy map", func(ctx context.Context) error { return n.postfix.Serve(ctx, l) })
	}
	if err := n.collect(); err != nil {
		return err
	}
	if err := n.bindRelay(ctx); err != nil {
		return err
	}
	if c.Web.Listen != config.Off {
		l, err := n.listen(ctx, "web.listen", c.Web.Listen)
		if err != nil {
			return err
		}
		n.bound.Web = l.Addr().String()
		n.serve("dashboard", func(ctx context.Context) error { return serveHTTP(ctx, l, n.handler()) })
	}
	l, err := control.Listen(c.ControlSocket())
	if err != nil {
		return err
	}
	n.open = append(n.open, l)
	n.bound.Control = c.ControlSocket()
	n.serve("control", func(ctx context.Context) error { return n.controls().Serve(ctx, l) })
	n.serve("relay's room and certificate", n.relay.Watch)
	n.serve("policy refresh", n.policy.Run)
	n.serve("queue", func(ctx context.Context) error { return n.queue.Run(ctx, n.w.Attempts(n.deliver.Deliver)) })
	n.serve("TLS reports", n.reporter.Run)
	n.serve("comparison of outcomes", (&ledger.Comparer{Ledger: n.ledger, DB: n.db, Events: n.events, Now: n.w.Now, After: n.w.After, Log: n.log}).Run)
	n.serve("self-check", n.watch)
	if n.w.GiveBack {
		n.serve("memory", n.giveBack)
	}
	return nil
}

func (n *Node) listen(ctx context.Context, key, addr string) (net.Listener, error) {
	l, err := listen(ctx, key, addr)
	if err == nil {
		n.open = append(n.open, l)
	}
	return l, err
}

func (n *Node) serve(name string, run func(context.Context) error) {
	n.serving = append(n.serving, service{name, run})
}

// Addrs returns where the node listens.
func (n *Node) Addrs() Addrs { return n.bound }

// Run runs every part until ctx ends or one fails, then stops the others:
// what was accepted is stored, what is under way is finished or put back.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	counting, stopCounting := context.WithCancel(context.WithoutCancel(ctx))
	counted := make(chan error, 1)
	go func() { counted <- n.ledger.Run(counting) }()

	n.w.Notify(systemd.Ready)
	defer context.AfterFunc(ctx, func() {
		n.ending()
		n.w.Notify(systemd.Stopping)
	})()
	var wait sync.WaitGroup
	failures := make(chan error, len(n.serving))
	for _, s := range n.serving {
		wait.Go(func() {
			err := s.run(ctx)
			if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
				failures <- fmt.Errorf("%s: %w", s.name, err)
				cancel() // one part gone is a node that half works: better none, restarted
			}
		})
	}
	wait.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	stopCounting()
	return errors.Join(append(errs, <-counted, n.Close())...)
}

// Close ends what New made. Run calls it.
func (n *Node) Close() error {
	n.ending()
	var errs []error
	for _, l := range n.open {
		l.Close() // closed already where it was served
	}
	if n.deliver != nil {
		n.deliver.Close()
	}
	if n.policy != nil {
		grace, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		errs = append(errs, n.policy.Close(grace))
	}
	if n.resolver != nil {
		n.resolver.Close()
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	return errors.Join(errs...)
}

// heldAgain is how long a destination's next held message is no news.
const heldAgain = time.Hour

// maxHeldTold caps the destinations of which it is remembered that they were told.
const maxHeldTold = 10000

// held tells of mail that a policy makes wait, once an hour for a destination:
// under attack it is every message.
func (n *Node) held(ctx context.Context, d queue.Delivery) {
	now := n.w.Now()
	n.mu.Lock()
	if last, told := n.told[d.Domain]; told && now.Sub(last) < heldAgain {
		n.mu.Unlock()
		return
	}
	if len(n.told) >= maxHeldTold {
		clear(n.told)
	}
	n.told[d.Domain] = now
	n.mu.Unlock()
	n.events.Record(ctx, event.Event{
		Org: d.Org, Kind: event.MessageHeld, Severity: event.Warning, Domain: d.Domain,
		Text: "Mail for " + d.Domain + " waits: " + d.Why, Do: d.Do, Evidence: map[string]string{"delivery": d.ID},
	})
}

// watch repeats the checks that can change while the node runs.
func (n *Node) watch(ctx context.Context) error {
	for {
		wait := resolve.CheckInterval
		if !n.resolver.Validation().Trusted {
			wait = recheck
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.w.After(wait):
		}
		n.checkSelf(ctx)
	}
}

// Checks returns what the last look at itself found.
func (n *Node) Checks() []web.Check {
	n.mu.Lock()
	defer n.mu.Unlock()
	checks := append(slices.Clone(n.checks), n.relayChecks()...)
	if n.draining.Load() {
		checks = append(checks, drainCheck())
	}
	return checks
}

func (n *Node) checkSelf(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	checks := []web.Check{
		checkRoots(n.config, n.w), checkClock(n.w.Now()), checkData(n.config.Data), checkResolver(ctx, n.resolver),
		checkValidation(n.config, n.resolver.CheckValidation(ctx, n.config.DNS.Signed, n.config.DNS.Bogus)),
	}
	if n.collector != nil {
		checks = append(checks, checkCollector(n.collector.Stats()))
	}
	if n.config.TLSRPT.On() {
		checks = append(checks, checkReports(n.config.TLSRPT, n.reporter.Ready()))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.checks = checks
}

// observe is the policy.mode that stops nothing.
const observe = "observe"

// errDraining is what /readyz says then.
var errDraining = errors.New("draining: no new mail is taken")

// ready reports whether the node can take mail and answer Postfix.
func (n *Node) ready() error {
	if n.draining.Load() {
		return errDraining
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	return n.db.Ping(ctx)
}
