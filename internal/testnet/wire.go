package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// connectTimeout is how long a system waits for a host that does not answer.
const connectTimeout = 127 * time.Second

// ErrClosed is returned once the Net is closed.
var ErrClosed = errors.New("the small Internet is closed")

// handler serves the far end of a connection and closes it.
type handler func(ctx context.Context, s *Session, c net.Conn)

// Interceptor stands in the path of a connection. It has the sender's end in
// down and may open, with next, the rest of the path. It closes what it opened;
// down is closed for it.
type Interceptor func(ctx context.Context, s *Session, down net.Conn, next func() (net.Conn, error))

// Unreachable says how an address does not answer.
type Unreachable int

// The ways not to answer.
const (
	Refuse    Unreachable = iota + 1 // connection refused
	BlackHole                        // nothing comes back, until the sender's timeout
)

// wire maps the addresses of the small Internet to what serves them, and knows
// what lies in the path to each. All connections are TCP over loopback.
type wire struct {
	n      *Net
	pairMu sync.Mutex // one pair at a time: dial, then accept
	shared *net.TCPListener
	active sync.WaitGroup

	mu        sync.Mutex
	served    map[netip.AddrPort]handler
	owners    map[netip.Addr]string
	path      map[netip.AddrPort][]obstacle
	placed    int
	conns     map[farEnd]struct{}
	listeners map[netip.AddrPort]net.Listener
	closed    bool
}

// obstacle is something in the path: an interceptor or unreachability.
type obstacle struct {
	number    int
	attack    Attack
	intercept Interceptor
	dead      Unreachable
}

func newWire(n *Net) (*wire, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listen on loopback: %w", err)
	}
	return &wire{
		n: n, shared: l,
		served: make(map[netip.AddrPort]handler), owners: make(map[netip.Addr]string),
		path: make(map[netip.AddrPort][]obstacle), conns: make(map[farEnd]struct{}),
		listeners: make(map[netip.AddrPort]net.Listener),
	}, nil
}

// serve makes h answer at an address and port of a host.
func (w *wire) serve(addr netip.AddrPort, owner string, h handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served[addr] = h
	w.owners[addr.Addr()] = owner
}

// place puts an obstacle in the path to an address and returns what takes it
// away. The one placed last is the nearest to the sender.
func (w *wire) place(addr netip.AddrPort, o obstacle) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.placed++
	o.number = w.placed
	w.path[addr] = append(w.path[addr], o)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.path[addr] = slices.DeleteFunc(w.path[addr], func(p obstacle) bool { return p.number == o.number })
	}
}

// Intercept puts an interceptor in the path to an address and port, for every
// connection opened from now on. The attack is its name in [Delivery.Via].
func (n *Net) Intercept(addr netip.AddrPort, attack Attack, f Interceptor) (remove func()) {
	return n.wire.place(addr, obstacle{attack: attack, intercept: f})
}

// Unreach makes an address and port not answer.
func (n *Net) Unreach(addr netip.AddrPort, how Unreachable) (restore func()) {
	return n.wire.place(addr, obstacle{dead: how})
}

// Dial connects like net.Dialer.DialContext, on the small Internet: an address
// of documentation space leads to the host that has it, with whatever lies in
// the path; a name is looked up in the Net's DNS first; loopback addresses are
// dialled as they are. To all else the connection is refused.
func (n *Net) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return n.dialName(ctx, network, host, uint16(port))
	}
	to := netip.AddrPortFrom(ip.Unmap(), uint16(port))
	switch {
	case ip.IsLoopback():
		return n.dialLoopback(ctx, network, to)
	case network == "tcp" || network == "tcp4" || network == "tcp6":
		return n.wire.connect(ctx, network, to)
	default:
		return nil, refused(network, to)
	}
}

// dialName dials the addresses of a name, one after the other.
func (n *Net) dialName(ctx context.Context, network, host string, port uint16) (net.Conn, error) {
	addrs, err := n.DNS.lookup(ctx, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	for _, a := range addrs {
		if (network == "tcp4" && !a.Is4()) || (network == "tcp6" && !a.Is6()) {
			continue
		}
		var c net.Conn
		if c, err = n.wire.connect(ctx, network, netip.AddrPortFrom(a, port)); err == nil {
			return c, nil
		}
	}
	if err == nil {
		err = &net.OpError{Op: "dial", Net: network, Err: &net.AddrError{Err: "no suitable address", Addr: host}}
	}
	return nil, err
}

// lookup asks the DNS for a name's addresses, without the network.
func (d *DNS) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	fail := &net.DNSError{Name: host, Server: d.Addr(), Err: "no such host", IsNotFound: true}
	var addrs []netip.Addr
	for _, t := range [2]uint16{dns.TypeA, dns.TypeAAAA} {
		ans := d.ask(host, t, false)
		if ans.release != nil {
			select {
			case <-ans.release:
			case <-d.done:
				return nil, ErrClosed
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		switch {
		case ans.drop:
			fail.Err, fail.IsNotFound, fail.IsTimeout, fail.IsTemporary = "i/o timeout", false, true, true
		case ans.rcode != dns.RcodeSuccess && ans.rcode != dns.RcodeNameError:
			fail.Err, fail.IsNotFound, fail.IsTemporary = "server misbehaving", false, true
		}
		for _, rr := range ans.answer {
			switch rr := rr.(type) {
			case *dns.A:
				a, _ := netip.AddrFromSlice(rr.A.To4())
				addrs = append(addrs, a)
			case *dns.AAAA:
				a, _ := netip.AddrFromSlice(rr.AAAA)
				addrs = append(addrs, a)
			}
		}
	}
	if len(addrs) == 0 {
		return nil, fail
	}
	return addrs, nil
}

// connect opens a connection to an address of the small Internet.
func (w *wire) connect(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	h, ok := w.served[to]
	owner := w.owners[to.Addr()]
	path := slices.Clone(w.path[to])
	w.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	plan := w.n.fate(to, path)
	s := w.n.seen.open(to, owner)
	switch {
	case plan.dead == BlackHole:
		s.say("sender", owner, false, "(no answer)")
		return nil, w.blackHole(ctx, network, to)
	case plan.dead == Refuse, !ok && !intercepted(path):
		s.say(to.String(), "sender", false, "(connection refused)")
		return nil, refused(network, to)
	}
	return w.open(ctx, s, to, h, path, plan)
}

// fate is what befalls a connection: by the weather, or because the address
// does not answer.
func (n *Net) fate(to netip.AddrPort, path []obstacle) plan {
	p := n.chaosPlan(to)
	for _, o := range path {
		if o.dead != 0 {
			p.dead = o.dead
		}
	}
	return p
}

func intercepted(path []obstacle) bool {
	return slices.ContainsFunc(path, func(o obstacle) bool { return o.intercept != nil })
}

// open makes the sender's leg and starts who serves its far end.
func (w *wire) open(ctx context.Context, s *Session, to netip.AddrPort, h handler, path []obstacle, plan plan) (net.Conn, error) {
	near, far, err := w.pair(ctx)
	if err != nil {
		return nil, err
	}
	from := netip.AddrPortFrom(SenderAddr, near.LocalAddr().(*net.TCPAddr).AddrPort().Port())
	w.start(s, &conn{far, net.TCPAddrFromAddrPort(to), net.TCPAddrFromAddrPort(from), "sender"}, h, path, plan)
	return &sender{near, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to)}, nil
}

// start serves the far end of a leg: the nearest interceptor gets it, with the
// way to the next, or the host itself.
func (w *wire) start(s *Session, far *conn, h handler, path []obstacle, plan plan) {
	c := plan.wrap(w.n, far)
	if !w.track(c) {
		c.kill()
		return
	}
	go func() {
		defer w.untrack(c)
		w.step(s, c, h, path)
	}()
}

// step gives a leg to the nearest thing in the path.
func (w *wire) step(s *Session, c net.Conn, h handler, path []obstacle) {
	for len(path) > 0 {
		o := path[len(path)-1]
		path = path[:len(path)-1]
		if o.intercept == nil {
			continue
		}
		s.pass(o.attack)
		rest := path
		o.intercept(w.n.ctx, s, c, func() (net.Conn, error) {
			near, far, err := w.pair(w.n.ctx)
			if err != nil {
				return nil, err
			}
			w.start(s, &conn{far, c.LocalAddr(), c.RemoteAddr(), "attacker"}, h, rest, plan{})
			return near, nil
		})
		return
	}
	if h != nil {
		h(w.n.ctx, s, c)
	}
}

// pair makes the two ends of a TCP connection over loopback.
func (w *wire) pair(ctx context.Context) (near, far *net.TCPConn, err error) {
	w.pairMu.Lock()
	defer w.pairMu.Unlock()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", w.shared.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	near, _ = c.(*net.TCPConn)
	for {
		far, err = w.shared.AcceptTCP()
		if err != nil {
			_ = near.Close()
			return nil, nil, err
		}
		if far.RemoteAddr().String() == near.LocalAddr().String() {
			return near, far, nil
		}
		_ = far.Close() // a stranger on this machine
	}
}

func (w *wire) blackHole(ctx context.Context, network string, to netip.AddrPort) error {
	err := os.NewSyscallError("connect", syscall.ETIMEDOUT)
	expired, stop := w.n.Clock.Timer(connectTimeout)
	defer stop()
	select {
	case <-expired:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-w.n.ctx.Done():
		err = ErrClosed
	}
	return &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: err}
}

func refused(network string, to netip.AddrPort) error {
	return &net.OpError{
		Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to),
		Err: os.NewSyscallError("connect", syscall.ECONNREFUSED),
	}
}

// track remembers a connection so that close can end it and wait for who
// serves it; false once the wire is closed.
func (w *wire) track(c farEnd) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.conns[c] = struct{}{}
	w.active.Add(1)
	return true
}

func (w *wire) untrack(c farEnd) {
	defer w.active.Done()
	_ = c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	_ = w.shared.Close()
	for _, l := range w.listeners {
		l.Close()
	}
	for c := range w.conns {
		c.kill()
	}
	w.mu.Unlock()
	w.active.Wait()
}

// farEnd is a conn, as it is or in bad weather.
type farEnd interface {
	net.Conn
	kill()
}

// conn is the far end of a leg, with the addresses of the small Internet.
type conn struct {
	*net.TCPConn
	local, remote net.Addr
	from          string // who opened the leg, for the transcript
}

// sender is the near end, which the system under test has.
type sender struct {
	*net.TCPConn
	local, remote net.Addr
}

func (c *sender) LocalAddr() net.Addr  { return c.local }
func (c *sender) RemoteAddr() net.Addr { return c.remote }

// leg returns who opened a leg: "sender" or "attacker".
func (c *conn) leg() string { return c.from }

// Close ends what this end says, and then reads until the other end has closed
// too: a close with something unread would be a reset, and could take the last
// reply with it.
func (c *conn) Close() error {
	if c.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, c.TCPConn)
	}
	return c.TCPConn.Close()
}

// kill closes at once.
func (c *conn) kill() { _ = c.TCPConn.Close() }

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }
