package testnet

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
)

// Expose opens a listener for an address and port of the small Internet, for
// programs that cannot be given [Net.Dial] (Postfix). It returns where it
// listens: on a free loopback port, or where [Options].Listen put it. What lies
// in the path of the address lies in the path of these connections as well; an
// address that refuses accepts and closes here, and one that does not answer
// accepts and says nothing.
func (n *Net) Expose(addr netip.AddrPort) (string, error) {
	w := n.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return "", ErrClosed
	}
	if l := w.listeners[addr]; l != nil {
		return l.Addr().String(), nil
	}
	l, err := n.options.Listen(n.ctx, addr)
	if err != nil {
		return "", fmt.Errorf("listen for %s: %w", addr, err)
	}
	w.listeners[addr] = l
	w.active.Go(func() { w.acceptAll(l, addr) })
	return l.Addr().String(), nil
}

// acceptAll serves what comes to a listener until it is closed.
func (w *wire) acceptAll(l net.Listener, addr netip.AddrPort) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		h, owner, path := w.served[addr], w.owners[addr.Addr()], slices.Clone(w.path[addr])
		w.mu.Unlock()
		plan := w.n.fate(addr, path)
		tcp, ok := c.(*net.TCPConn)
		if !ok || plan.dead == Refuse || (h == nil && !intercepted(path)) {
			_ = c.Close()
			continue
		}
		s := w.n.seen.open(addr, owner)
		if plan.dead == BlackHole {
			h, path = silence, nil
		}
		w.start(s, &conn{tcp, net.TCPAddrFromAddrPort(addr), c.RemoteAddr(), "sender"}, h, path, plan)
	}
}

// silence is a host that says nothing until the client goes.
func silence(_ context.Context, _ *Session, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// Served returns every address and port that a host or the attacker has, in
// order: what [Net.Expose] must be told to open the whole Net to a program.
func (n *Net) Served() []netip.AddrPort {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	return slices.SortedFunc(maps.Keys(n.wire.served), netip.AddrPort.Compare)
}

// listenLoopback is the default of Options.Listen.
func listenLoopback(ctx context.Context, _ netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", "127.0.0.1:0")
}

// dialLoopback dials what really is on loopback. A UDP client of the Net's
// resolver is told of dropped queries at once, so that no test waits for one.
func (n *Net) dialLoopback(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok || to != n.DNS.addr {
		return c, nil
	}
	n.DNS.setQuick(udp.LocalAddr(), true)
	return &quickConn{udp, n.DNS}, nil
}

// quickConn is a UDP connection to the resolver whose Read ends with a timeout
// as soon as the resolver has dropped the query.
type quickConn struct {
	*net.UDPConn
	dns *DNS
}

func (c *quickConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil && string(b[:n]) == dropMessage {
		return 0, c.timeout()
	}
	return n, err
}

func (c *quickConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.UDPConn.ReadFrom(b)
	if err == nil && string(b[:n]) == dropMessage {
		return 0, nil, c.timeout()
	}
	return n, a, err
}

func (c *quickConn) timeout() error {
	return &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.ErrDeadlineExceeded}
}

func (c *quickConn) Close() error {
	c.dns.setQuick(c.UDPConn.LocalAddr(), false)
	return c.UDPConn.Close()
}
