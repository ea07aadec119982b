package mta

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

// Resolver is the name server of the small Internet, in the namespace.
const Resolver = "127.0.0.1"

const dnsPort = 53

// Network is what the namespace has to be like.
func Network() netns.Options {
	return netns.Options{
		Prefixes: append(netns.Documentation(), testnet.Benchmarking()),
		Resolver: netip.MustParseAddr(Resolver), Addr: testnet.SenderAddr,
	}
}

// Field is a small Internet that any program in the namespace can use.
type Field struct {
	Net    *testnet.Net
	CAFile string // what the server under test has to trust

	changed chan struct{} // holds one element when something arrived since it was taken
}

// Open makes a small Internet in the namespace that this process is in, and
// writes its CA file. [Field.Close] ends it.
func Open(caFile string) (*Field, error) {
	if !netns.Inside() {
		return nil, netns.ErrOutside
	}
	f := &Field{CAFile: caFile, changed: make(chan struct{}, 1)}
	var err error
	f.Net, err = testnet.New(testnet.Options{
		Clock:     testnet.NewRealClock(),
		DNSListen: netip.AddrPortFrom(netip.MustParseAddr(Resolver), dnsPort).String(),
		Listen: func(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr.String())
		},
		Delivered: func(testnet.Delivery) { f.wake() },
	})
	if err != nil {
		return nil, fmt.Errorf("making a small Internet: %w", err)
	}
	if err := os.WriteFile(caFile, f.Net.RootsPEM(), 0o644); err != nil { //nolint:gosec // other users' programs read it
		f.Net.Close()
		return nil, fmt.Errorf("writing the CA file: %w", err)
	}
	f.Net.Domain(lab.SenderZone, testnet.DomainOptions{})
	return f, f.expose()
}

// TB is what [Start] needs of a testing.T.
type TB interface {
	Helper()
	TempDir() string
	Cleanup(func())
	Error(args ...any)
	Fatal(args ...any)
}

// Start opens a field for a test, and closes it when the test ends. Every user's
// programs can read its CA file.
func Start(t TB) *Field {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	f, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	for dir := filepath.Dir(name); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
			t.Fatal(err)
		}
	}
	return f
}

// Close ends the small Internet.
func (f *Field) Close() error {
	f.Net.Close()
	return f.Net.Err()
}

// expose opens a listener at every address that a host has by now.
func (f *Field) expose() error {
	for _, addr := range f.Net.Served() {
		if _, err := f.Net.Expose(addr); err != nil {
			return fmt.Errorf("%w: a mail server under test must not listen on all addresses, but on 127.0.0.1", err)
		}
	}
	return nil
}

func (f *Field) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// lookEvery is how often the state of things is looked at while nothing arrives:
// what a server gives up on leaves no other trace.
const lookEvery = 250 * time.Millisecond

// await waits until done, for so long at the most.
func (f *Field) await(ctx context.Context, limit time.Duration, done func() bool) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-f.changed:
		case <-tick.C:
		case <-end.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
