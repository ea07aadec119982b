// Package postfix speaks Postfix's wires. [Server] is the TLS policy map: a
// socketmap (socketmap_table(5)) that Postfix asks for each next-hop, and that
// answers from the decisions of policy what the connection must show. Each
// answer's bytes are made once; a cached answer costs one read and one write.
package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pawl-mail/pawl/internal/verify"
)

const (
	// defaultConns caps the connections at once; Postfix keeps one for each of
	// its smtp(8) processes.
	defaultConns = 20_000
	// lookupTimeout is how long a lookup may take. Postfix waits 100 s; a policy
	// that takes longer to fetch is there when the deferred mail is tried again.
	lookupTimeout = 30 * time.Second
	// idleSweep is how often connections are looked at. One on which nothing
	// moved between two looks is closed. Postfix closes an idle one itself, after
	// 10 s where the process gets to look at its timers and after max_idle
	// (100 s) otherwise, and the server should not be the first to.
	idleSweep = 5 * time.Minute
	// lastWrite is how long a client may take to read its last answer when the
	// server stops.
	lastWrite = 5 * time.Second
	// acceptPause is how long the server waits when the system has no
	// connection to give, for want of file descriptors for example.
	acceptPause = time.Second
	// firstBuffer is a connection's buffer before it needs a larger one: most
	// next-hops are shorter.
	firstBuffer = 512
)

// Source decides what Postfix is told.
type Source interface {
	// Cached returns the answer for a domain that holds now, or nil if it must
	// be asked for. It does not wait.
	Cached(domain string) *verify.Answer
	// Postfix answers for a domain's MX hosts. It does not return nil; what
	// cannot be decided is an answer of kind temp.
	Postfix(ctx context.Context, domain string) *verify.Answer
	// SmartHost answers for a host that is named as the next hop itself; its
	// own name is the policy domain (RFC 8461 §3.4).
	SmartHost(ctx context.Context, host string) *verify.Answer
	// NextHop is Postfix or, for a host, SmartHost where the next hop is named
	// with its port.
	NextHop(ctx context.Context, name string, port uint16, isHost bool) *verify.Answer
}

// Options are what a Server needs.
type Options struct {
	Source Source
	Log    *slog.Logger
	After  func(time.Duration) <-chan time.Time // time.After, or a test's clock

	MaxConns int // connections at once, more are closed; 0: 20,000
}

// Server is the TLS policy map.
type Server struct {
	opts Options

	mu    sync.Mutex
	conns map[*conn]struct{}
	past  tally // of connections that have ended
	wait  sync.WaitGroup

	malformed atomic.Int64
	refused   atomic.Int64
}

// tally counts what one connection was answered. Each has its own, so that those
// who answer do not wait for each other's caches.
type tally struct {
	answers [verify.AnswerKinds]atomic.Int64
	unknown atomic.Int64
}

func (t *tally) add(more *tally) {
	for k := range t.answers {
		t.answers[k].Add(more.answers[k].Load())
	}
	t.unknown.Add(more.unknown.Load())
}

// New returns a server. It serves after [Server.Serve] is called.
func New(o Options) *Server {
	if o.MaxConns == 0 {
		o.MaxConns = defaultConns
	}
	return &Server{opts: o, conns: map[*conn]struct{}{}}
}

// Stats are the server's counters since its start.
type Stats struct {
	Answers     map[verify.AnswerKind]int64
	Unknown     int64 // queries for a map that there is not
	Malformed   int64 // connections ended for not being socketmap
	Refused     int64 // connections over the cap
	Connections int   // open now
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum tally
	sum.add(&s.past)
	for c := range s.conns {
		sum.add(&c.tally)
	}
	st := Stats{
		Answers: make(map[verify.AnswerKind]int64, len(sum.answers)), Unknown: sum.unknown.Load(),
		Malformed: s.malformed.Load(), Refused: s.refused.Load(), Connections: len(s.conns),
	}
	for k := range sum.answers {
		st.Answers[verify.AnswerKind(k)] = sum.answers[k].Load()
	}
	return st
}

// Serve answers on l until ctx ends. Then it stops accepting, lets each
// connection finish the query that it is at, closes them and returns nil:
// Postfix asks again on a new connection. It may be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s.wait.Go(func() { s.sweep(ctx) })
	err := s.accept(ctx, l)
	stopped := ctx.Err() != nil
	cancel()
	s.interrupt()
	s.wait.Wait()
	if stopped {
		return nil
	}
	return fmt.Errorf("TLS policy map on %s: %w", l.Addr(), err)
}

func (s *Server) accept(ctx context.Context, l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil && ctx.Err() == nil && passes(err) {
			s.opts.Log.Warn("the TLS policy map cannot take a connection now, and goes on; is the limit of open files too low?", "err", err)
			select {
			case <-s.opts.After(acceptPause):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return err
		}
		c := &conn{server: s, nc: nc, swept: -1}
		if !s.add(c) {
			s.refused.Add(1)
			nc.Close()
			continue
		}
		s.wait.Go(func() {
			defer s.remove(c)
			c.serve(ctx)
		})
	}
}

// passes reports whether a listener that returned err may be asked again.
func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.opts.MaxConns {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c *conn) {
	c.nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.past.add(&c.tally)
}

// interrupt wakes the connections that wait for a query; one that is at an
// answer writes it and then sees that the server stops. A client that does not
// read is not waited for.
func (s *Server) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.nc.SetReadDeadline(longAgo)
		c.nc.SetWriteDeadline(time.Now().Add(lastWrite))
	}
}

// longAgo is a deadline that ends a Read or Write at once.
var longAgo = time.Unix(1, 0)

// sweep closes connections on which nothing came for a whole interval: idle ones,
// and those whose client does not read (no lookup takes that long). It costs a
// query nothing, where a deadline would cost it a timer.
func (s *Server) sweep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.opts.After(idleSweep):
		}
		s.mu.Lock()
		for c := range s.conns {
			moved := c.moved.Load()
			if moved == c.swept {
				c.nc.SetDeadline(longAgo)
			}
			c.swept = moved
		}
		s.mu.Unlock()
	}
}

// conn is one connection. It has one buffer, which grows when a query needs it.
type conn struct {
	server *Server
	nc     net.Conn
	buf    []byte
	tally  tally
	moved  atomic.Int64 // counts what was read
	swept  int64        // moved at the last sweep; the server's lock guards it
}

func (c *conn) serve(ctx context.Context) {
	c.buf = make([]byte, firstBuffer)
	have := 0 // bytes of a query that is not whole yet
	for {
		n, err := c.nc.Read(c.buf[have:])
		if n == 0 && err != nil {
			c.ended(ctx, err, have)
			return
		}
		c.moved.Add(1)
		have += n
		took, err := c.answerAll(ctx, c.buf[:have])
		if err != nil {
			c.ended(ctx, err, 0)
			return
		}
		if ctx.Err() != nil {
			return
		}
		have = c.makeRoom(took, have)
	}
}

// makeRoom moves what was not taken to the front and returns how much that is.
// It grows the buffer when it is full; splitQuery refuses longer queries, so it
// never grows over that. A buffer that grew is not kept longer than needed.
func (c *conn) makeRoom(took, have int) int {
	switch {
	case took == have:
		if len(c.buf) > firstBuffer {
			c.buf = make([]byte, firstBuffer)
		}
		return 0
	case took > 0:
		have = copy(c.buf, c.buf[took:have])
	}
	if have == len(c.buf) {
		bigger := make([]byte, min(2*len(c.buf), maxQuery+lengthChars+1))
		copy(bigger, c.buf[:have])
		c.buf = bigger
	}
	return have
}

// answerAll answers the whole queries in b with one write and returns how many
// bytes they took.
func (c *conn) answerAll(ctx context.Context, b []byte) (int, error) {
	took := 0
	var reply, batch []byte
	for {
		payload, n, err := splitQuery(b[took:])
		if err != nil {
			return took, err
		}
		if n == 0 {
			break
		}
		took += n
		if reply != nil {
			batch = append(batch, reply...)
		}
		reply = c.answer(ctx, payload)
	}
	if batch != nil {
		reply = append(batch, reply...)
	}
	if reply == nil {
		return took, nil
	}
	if ctx.Err() != nil { // the lookup took longer than interrupt could know
		c.nc.SetWriteDeadline(time.Now().Add(lastWrite))
	}
	if _, err := c.nc.Write(reply); err != nil {
		return took, err
	}
	return took, nil
}

// answer returns the framed reply to one query.
func (c *conn) answer(ctx context.Context, payload []byte) []byte {
	name, key, ok := bytes.Cut(payload, []byte{' '})
	if !ok {
		c.tally.unknown.Add(1)
		return netstring("PERM a query is \"NAME KEY\"; this one has no space")
	}
	form, build := formPlain, plainReply
	switch string(name) {
	case MapPlain:
	case MapAttributes:
		form, build = formAttributes, attributesReply
	default:
		c.tally.unknown.Add(1)
		return netstring("PERM pawl has no map of this name; use " + MapPlain + ", or " + MapAttributes + " from Postfix 3.10 on")
	}
	t := parseKey(string(key))
	if t.domain == "" {
		c.tally.answers[verify.AnswerNotFound].Add(1)
		return notFound
	}
	a := c.server.ask(ctx, t)
	c.tally.answers[a.Kind].Add(1)
	return a.Reply(form, build)
}

// notFound is the reply that needs no answer from policy. Never written to.
var notFound = netstring("NOTFOUND ")

// ask gives the source its time. A server that stops does not cut a lookup
// short: the answer in hand is still given.
func (s *Server) ask(ctx context.Context, t target) *verify.Answer {
	if !t.smartHost && t.port == 0 {
		if a := s.opts.Source.Cached(t.domain); a != nil {
			return a
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	switch {
	case t.port != 0:
		return s.opts.Source.NextHop(ctx, t.domain, t.port, t.smartHost)
	case t.smartHost:
		return s.opts.Source.SmartHost(ctx, t.domain)
	default:
		return s.opts.Source.Postfix(ctx, t.domain)
	}
}

// ended notes why a connection ended, where it is worth a line.
func (c *conn) ended(ctx context.Context, err error, unread int) {
	switch {
	case errors.Is(err, errMalformed):
		level := slog.LevelDebug
		if c.server.malformed.Add(1) == 1 { // said once: the counter tells of the rest
			level = slog.LevelWarn
		}
		c.server.opts.Log.Log(ctx, level, "a client of the TLS policy map does not speak socketmap; is something else pointed at this port?", "client", c.nc.RemoteAddr())
	case errors.Is(err, io.EOF) && unread > 0:
		c.server.malformed.Add(1)
	case ctx.Err() != nil, errors.Is(err, io.EOF):
	default:
		c.server.opts.Log.Debug("a connection of the TLS policy map ended", "client", c.nc.RemoteAddr(), "err", err)
	}
}
