package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/web"
)

const (
	// demoEvery is how often the demo sends a message. A destination's turn comes
	// seldom enough that the relay has let go of its connection by then, so that
	// each message meets the attacker.
	demoEvery = 2500 * time.Millisecond
	// demoWaiting is how many messages of the demo may wait for one destination;
	// while they do, it is sent no more.
	demoWaiting = 5
	// demoRemembered is how many messages the small Internet keeps, with their
	// sessions; the counts go on.
	demoRemembered = 500
)

// DemoConfig is the configuration of a demo: that of a server without a file,
// with a folder of its own and retries that a newcomer can wait for.
func DemoConfig() config.Config {
	c := config.Default()
	c.Hostname, c.Data = "relay.demo.test", "pawl-demo"
	c.Log.Level = "error" // what it would tell is on the page
	c.DNS.Signed, c.DNS.Bogus = testnet.SignedName, testnet.BogusName
	c.Relay.RetryFirst, c.Relay.RetryMax = config.Duration(5*time.Second), config.Duration(10*time.Second)
	c.Relay.Lifetime, c.Relay.History = config.Duration(6*time.Hour), config.Duration(time.Hour)
	return c
}

// DemoOptions are what a demo may be told.
type DemoOptions struct {
	Config config.Config // from DemoConfig; its resolver is set by the demo
	Every  time.Duration // between messages; 0: 2.5 s
	Log    *slog.Logger  // of the server; nil: as the configuration says
}

// Demo is a server on a small Internet of its own, in real time: mail flows to a
// few domains, and an attacker can be switched on. It is the [web.Lab] of the
// server's page.
type Demo struct {
	every   time.Duration
	net     *testnet.Net
	node    *node.Node
	domains []*demoDomain
	seen    atomic.Int64

	mu      sync.Mutex
	on      bool
	mend    []func()       // what the attack did beside its attacks
	waiting map[string]int // messages of the demo that have not ended, by destination
}

// demoDomain is a domain of the demo.
type demoDomain struct {
	name, kind string
	options    testnet.DomainOptions
	attack     []testnet.Attack // when the attack is on
	attacked   string           // that in words
	replaced   bool             // the attacker speaks in the host's place

	domain            *testnet.Domain
	delivered, stolen atomic.Int64
}

// demoDomains are the destinations of the demo.
func demoDomains() []*demoDomain {
	return []*demoDomain{
		{
			name: "enforce.test", kind: "MTA-STS enforce",
			options: testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}},
			attack:  []testnet.Attack{testnet.MITMSelfSigned}, attacked: "a self-signed certificate", replaced: true,
		},
		{
			name: "testing.test", kind: "MTA-STS testing",
			options: testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}},
			attack:  []testnet.Attack{testnet.MITMSelfSigned}, attacked: "a self-signed certificate", replaced: true,
		},
		{
			name: "dane.test", kind: "DANE",
			options: testnet.DomainOptions{DANE: testnet.DANEEE},
			attack:  []testnet.Attack{testnet.MITMMisissued}, attacked: "a certificate that a trusted CA mis-issued", replaced: true,
		},
		{
			name: "plain.test", kind: "no policy",
			attack: []testnet.Attack{testnet.StripSTARTTLS}, attacked: "STARTTLS taken away",
		},
		{
			name: "broken.test", kind: "MTA-STS enforce, and its certificate has expired",
			options: testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}, Host: testnet.HostOptions{Flaw: testnet.Expired}},
		},
	}
}

// NewDemo makes a demo: the small Internet, and the server with all its
// listeners. [Demo.Run] runs it, or [Demo.Close] ends it.
func NewDemo(ctx context.Context, o DemoOptions) (*Demo, error) {
	d := &Demo{every: o.Every, domains: demoDomains(), waiting: make(map[string]int)}
	if d.every <= 0 {
		d.every = demoEvery
	}
	var err error
	if d.net, err = testnet.New(testnet.Options{Clock: testnet.NewRealClock(), Delivered: d.received}); err != nil {
		return nil, fmt.Errorf("making a small Internet: %w", err)
	}
	d.net.Domain(SenderZone, testnet.DomainOptions{})
	for _, x := range d.domains {
		x.domain = d.net.Domain(x.name, x.options)
	}
	c := o.Config
	c.DNS.Upstreams = []string{d.net.DNSAddr()}
	d.node, err = node.New(ctx, c, node.Wiring{Dial: d.net.Dial, Roots: d.net.Roots(), Log: o.Log, Lab: d, Attempts: d.watch})
	if err != nil {
		d.net.Close()
		return nil, err
	}
	return d, nil
}

// Addrs returns where the server listens.
func (d *Demo) Addrs() node.Addrs { return d.node.Addrs() }

// Checks returns what the server found out of itself.
func (d *Demo) Checks() []web.Check { return d.node.Checks() }

// Domains returns the demo's destinations and what each is protected by.
func (d *Demo) Domains() []web.LabDomain {
	list := make([]web.LabDomain, len(d.domains))
	for i, x := range d.domains {
		list[i] = web.LabDomain{Domain: x.name, Kind: x.kind, Delivered: x.delivered.Load(), Stolen: x.stolen.Load()}
	}
	return list
}

// Run serves and sends mail until ctx ends, and ends the demo.
func (d *Demo) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		d.traffic(ctx)
	}()
	err := d.node.Run(ctx)
	stop()
	<-sent
	d.net.Close()
	return errors.Join(err, d.net.Err())
}

// Close ends a demo that is not run.
func (d *Demo) Close() error {
	err := d.node.Close()
	d.net.Close()
	return err
}

// Attack implements [web.Lab].
func (d *Demo) Attack(context.Context) (web.LabState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state := web.LabState{On: d.on, Domain: "four domains", Domains: d.Domains()}
	state.Attack = "Between the relay and the hosts stands an attacker:"
	for _, x := range d.domains {
		if len(x.attack) > 0 {
			state.Attack += " " + x.name + " gets " + x.attacked + ","
		}
	}
	state.Attack = state.Attack[:len(state.Attack)-1] + "."
	return state, nil
}

// SetAttack implements [web.Lab].
func (d *Demo) SetAttack(_ context.Context, on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if on == d.on {
		return nil
	}
	d.on = on
	for _, undo := range d.mend {
		undo()
	}
	d.mend = nil
	for _, x := range d.domains {
		if !on {
			x.domain.Off()
			continue
		}
		x.domain.On(x.attack...)
		if x.replaced {
			// The connections that are open he resets, so that the next mail meets him.
			d.mend = append(d.mend, x.domain.MX().Script(testnet.AtMAIL, testnet.Action{Drop: true}))
		}
	}
	return d.net.Err()
}
