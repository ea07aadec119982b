// Package testnet is a small Internet on loopback in one process: a DNS
// resolver with its zones, certificate authorities, MX hosts, MTA-STS policy
// hosts, and an attacker in the path of each connection. The tests of every
// package run on it, and so do the lab and the demo.
//
// A [Net] is made by [New] or, in tests, [Start]. [Net.Domain] makes a mail
// domain with all that belongs to it; [Domain.On] switches an [Attack] on. The
// system under test is given the Net's parts in place of the world's: the
// resolver [DNS.Addr], the dialler [Net.Dial], the roots [Net.Roots], the time
// [Clock.Now]. What became of a message is seen at the receiving end:
// [Net.Deliveries] says who got it and how.
//
// Hosts have addresses of documentation space, which Dial maps to loopback; no
// packet leaves the machine.
package testnet

import (
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
)

// SeedVariable is the environment variable that sets the seed of [Start], to
// repeat a run.
const SeedVariable = "PAWL_SEED"

// Options are what a Net may be told. The zero value is a Net with a fake
// clock and a random seed.
type Options struct {
	Clock     *Clock                                                               // default: a fake one at Epoch
	Seed      uint64                                                               // of all that is random; 0: chosen, see Net.Seed
	DNSListen string                                                               // default 127.0.0.1:0
	Listen    func(ctx context.Context, addr netip.AddrPort) (net.Listener, error) // for Expose; default a free loopback port
	Delivered func(Delivery)                                                       // called for every message, by the receiving end: must not block
}

// Net is one small Internet. It is safe for concurrent use.
type Net struct {
	Clock *Clock
	Seed  uint64
	DNS   *DNS

	CA      *CA // every honest certificate is from it
	FalseCA *CA // nobody trusts it
	RogueCA *CA // trusted like CA, and issues to the attacker what it should not

	options Options
	ctx     context.Context
	cancel  context.CancelFunc
	wire    *wire
	web     *webServer
	addrs   allocator
	seen    witness
	roots   *x509.CertPool
	foe     *attacker

	troubleMu sync.Mutex
	wrong     []error

	mu      sync.Mutex
	hosts   map[string]*Host
	sites   map[string]*Site
	domains map[string]*Domain
	weather *chaos
}

// New makes a Net. [Net.Close] ends it.
func New(o Options) (*Net, error) {
	if o.Clock == nil {
		o.Clock = NewClock(Epoch)
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.DNSListen == "" {
		o.DNSListen = "127.0.0.1:0"
	}
	if o.Listen == nil {
		o.Listen = listenLoopback
	}
	n := &Net{
		Clock: o.Clock, Seed: o.Seed, options: o,
		hosts: make(map[string]*Host), sites: make(map[string]*Site), domains: make(map[string]*Domain),
	}
	n.seen.now, n.seen.watch = o.Clock.Now, o.Delivered
	if err := n.certify(); err != nil {
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	var err error
	if n.wire, err = newWire(n); err != nil {
		n.cancel()
		return nil, err
	}
	if n.DNS, err = newDNS(o.DNSListen, n.ctx.Done()); err != nil {
		n.cancel()
		n.wire.close()
		return nil, err
	}
	n.web = newWebServer(n)
	if n.foe, err = newAttacker(n); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Net) certify() error {
	var err error
	if n.CA, err = NewCA("Small Internet", n.Clock.Now); err != nil {
		return err
	}
	if n.FalseCA, err = NewCA("False", n.Clock.Now); err != nil {
		return err
	}
	if n.RogueCA, err = NewCA("Rogue", n.Clock.Now); err != nil {
		return err
	}
	n.roots = x509.NewCertPool()
	n.roots.AddCert(n.CA.Root)
	n.roots.AddCert(n.RogueCA.Root)
	return nil
}

// TB is what [Start] needs of a testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// Start makes a Net for a test, logs its seed and closes it when the test ends.
// The environment variable PAWL_SEED sets the seed where the options do not.
func Start(t TB, o Options) *Net {
	t.Helper()
	if o.Seed == 0 {
		o.Seed, _ = strconv.ParseUint(os.Getenv(SeedVariable), 10, 64)
	}
	n, err := New(o)
	if err != nil {
		t.Fatalf("start the small Internet: %v", err)
		return nil
	}
	t.Cleanup(func() {
		n.Close()
		if err := n.Err(); err != nil {
			t.Errorf("the small Internet: %v", err)
		}
	})
	t.Logf("seed %d (%s=%d repeats this run)", n.Seed, SeedVariable, n.Seed)
	return n
}

// Close ends everything and waits for it. It may be called more than once.
func (n *Net) Close() {
	n.cancel()
	n.wire.close()
	n.web.close()
	n.DNS.close()
}

// Err returns what went wrong in the Net itself, or was asked of it wrongly (an
// attack of an unknown name). A test under [Start] fails of it.
func (n *Net) Err() error {
	n.troubleMu.Lock()
	defer n.troubleMu.Unlock()
	return errors.Join(n.wrong...)
}

// trouble keeps an error for Err.
func (n *Net) trouble(err error) {
	if err == nil {
		return
	}
	n.troubleMu.Lock()
	defer n.troubleMu.Unlock()
	n.wrong = append(n.wrong, err)
}

// DNSAddr returns where the resolver listens, for UDP and TCP.
func (n *Net) DNSAddr() string { return n.DNS.Addr() }

// Roots returns what a system on this Internet trusts: the CA, and the one
// that mis-issues.
func (n *Net) Roots() *x509.CertPool { return n.roots.Clone() }

// RootsPEM returns the same as a CA file.
func (n *Net) RootsPEM() []byte { return append(n.CA.PEM(), n.RogueCA.PEM()...) }
