package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// ErrNoTLS is returned by ServeTLS if the server has no TLS configuration.
var ErrNoTLS = errors.New("smtp server: implicit TLS needs a TLS configuration")

// ErrStopped is returned by Serve if the server was told to stop before.
var ErrStopped = errors.New("smtp server: it was stopped")

const (
	firstPause = 5 * time.Millisecond // after Accept failed
	lastPause  = time.Second
	// refusalTime is how long a client that is one too many is written to.
	refusalTime = time.Second
)

// Server receives mail. It is safe for concurrent use.
type Server struct {
	o       Options
	limits  atomic.Pointer[Limits]
	buffers buffers
	counts  counts

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	clients   map[netip.Prefix]int // connections of each
	stopping  bool
	drained   chan struct{} // closed when stopping and no connection is left
}

// New returns a server.
func New(o Options) (*Server, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	s := &Server{
		o:         o,
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*Conn]struct{}),
		clients:   make(map[netip.Prefix]int),
		drained:   make(chan struct{}),
	}
	s.limits.Store(&o.Limits)
	return s, nil
}

// SetLimits changes the limits. A connection keeps those that it began with;
// the two numbers of connections hold from the next one on.
func (s *Server) SetLimits(l Limits) {
	l = l.filled()
	s.limits.Store(&l)
}

// Serve takes connections until [Server.Shutdown] is called or ctx ends, and
// returns nil when the last of them is done; it closes l. The end of ctx also
// ends its connections at once. Several listeners may be served at a time.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return s.serve(ctx, l, false) }

// ServeTLS is Serve for connections that begin with the handshake (RFC 8314 §3).
func (s *Server) ServeTLS(ctx context.Context, l net.Listener) error {
	if s.o.TLS == nil {
		l.Close()
		return ErrNoTLS
	}
	return s.serve(ctx, l, true)
}

func (s *Server) serve(ctx context.Context, l net.Listener, implicit bool) error {
	defer l.Close()
	if !s.addListener(l) {
		return ErrStopped
	}
	defer s.removeListener(l)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()

	var conns sync.WaitGroup
	err := s.accept(ctx, l, func(raw net.Conn) {
		if c := s.admit(ctx, raw, implicit); c != nil {
			conns.Go(c.run)
		}
	})
	if err != nil {
		cancel()
	}
	conns.Wait()
	return err
}

// accept hands on connections until the server stops or ctx ends. A failure
// that passes, as too many open files, only makes it pause.
func (s *Server) accept(ctx context.Context, l net.Listener, take func(net.Conn)) error {
	pause := firstPause
	for {
		raw, err := l.Accept()
		if err == nil {
			pause = firstPause
			take(raw)
			continue
		}
		if ctx.Err() != nil || s.isStopping() {
			return nil //nolint:nilerr // the listener was closed to make it fail
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("smtp server: taking connections on %v: %w", l.Addr(), err)
		}
		s.o.Log.Warn("smtp: a connection could not be taken, trying again", "listener", l.Addr().String(), "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		}
	}
}

// admit enters a connection in the books, or turns it away.
func (s *Server) admit(ctx context.Context, raw net.Conn, implicit bool) *Conn {
	c := newConn(ctx, s, raw, implicit)
	s.mu.Lock()
	full := len(s.conns) >= s.limits.Load().Connections
	stopping := s.stopping
	if !full && !stopping {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if !full && !stopping {
		return c
	}
	if full {
		s.counts.turnedAway.Add(1)
	}
	c.unhook()
	c.cancel()
	if !implicit { // there it could not be read
		reply := smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{4, 3, 2}, Lines: []string{"too many connections, try again later"}}
		_ = raw.SetWriteDeadline(time.Now().Add(refusalTime))
		_, _ = raw.Write(reply.Append(nil)) // it goes away in any case
	}
	raw.Close()
	return nil
}

// enter counts a connection of a client; it reports whether there is room.
func (s *Server) enter(client netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[client] >= s.limits.Load().PerClient {
		s.counts.turnedAway.Add(1)
		return false
	}
	s.clients[client]++
	return true
}

func (s *Server) leave(client netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[client]--; s.clients[client] <= 0 {
		delete(s.clients, client)
	}
}

// remove takes a connection out of the books.
func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.checkDrained()
}

// checkDrained is called with mu held.
func (s *Server) checkDrained() {
	if !s.stopping || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Shutdown takes no more connections, tells idle clients 421, lets a message
// that is being received come to its reply, and returns when no connection is
// left. If ctx ends first, the others are cut off and its error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.stop()
	}
	s.checkDrained()
	s.mu.Unlock()

	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.cut()
	}
	return fmt.Errorf("smtp server: waiting for %d connections: %w", len(s.conns), ctx.Err())
}
