package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

const (
	// SoundQueue is a sound value of net.unix.max_dgram_qlen: how many datagrams
	// wait in the kernel until they are read. What comes when as many wait is
	// lost, since libtlsrpt does not wait.
	SoundQueue = 512
	// queueSetting is where Linux has it. It binds when a socket is made.
	queueSetting = "/proc/sys/net/unix/max_dgram_qlen"
	// maxWaiting caps what is read and not yet decoded, in bytes.
	maxWaiting = 64 << 20
	// maxBacklog caps the same in datagrams.
	maxBacklog = 64 << 10
	// turn is how many datagrams are read before the reader looks whether it
	// is to end.
	turn = 4096
	// lookEvery is how often the socket's file and the kernel's setting are
	// looked at.
	lookEvery = 30 * time.Second
	// linger is how long a socket that was replaced is still read, for those
	// who had found it before.
	linger = time.Second
	// tellBadEvery is how often the log tells of a bad datagram at the most.
	tellBadEvery = time.Minute
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// CollectorOptions are what a Collector needs.
type CollectorOptions struct {
	Path  string // of the socket
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time // time.After, or a test's clock
	Log   *slog.Logger
	// Record counts an outcome.
	Record func(context.Context, outcome.Attempt)
	// Cached is the answer for a domain that holds now, or nil ([Source]): by it
	// what Postfix cannot know is told apart.
	Cached func(domain string) *verify.Answer

	setting string // queueSetting, or a test's file
}

// Collector takes the outcomes that Postfix 3.10 and newer tells through
// libtlsrpt: a datagram socket, one JSON object for each session. Whoever sends
// does not wait: what does not fit into the kernel's queue is lost. So one
// goroutine reads and does nothing else; another decodes and counts.
type Collector struct {
	o CollectorOptions

	mu   sync.Mutex
	sock *socket
	last time.Time // when the log told of a bad datagram

	waiting chan []byte
	bytes   atomic.Int64 // of what waits
	buffers sync.Pool

	received, counted, dropped, remade atomic.Int64
	bad                                [len(badDatagrams)]atomic.Int64
}

// socket is one bound socket.
type socket struct {
	conn  *net.UnixConn
	inode uint64
	queue int // max_dgram_qlen when it was made; 0: not known
}

// ErrCollecting is wrapped by the error of [NewCollector] where another process
// reads the socket.
var ErrCollecting = errors.New("another process reads it")

// NewCollector makes the socket. Datagrams wait in it until [Collector.Serve] runs.
func NewCollector(o CollectorOptions) (*Collector, error) {
	if o.setting == "" {
		o.setting = queueSetting
	}
	c := &Collector{o: o, waiting: make(chan []byte, maxBacklog)}
	c.buffers.New = func() any { b := make([]byte, 0, 2048); return &b }
	var err error
	c.sock, err = c.bind()
	return c, err
}

// bind makes a socket and puts it in the place of whatever was there, in one
// step: no sender finds nothing.
func (c *Collector) bind() (*socket, error) {
	path := c.o.Path
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("the TLS-RPT socket %s: there is a file of that name that is no socket", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the TLS-RPT socket: %w", err)
	}
	if c.sock == nil && alive(path) {
		return nil, fmt.Errorf("the TLS-RPT socket %s: %w; stop it, or name another path with postfix.tlsrpt", path, ErrCollecting)
	}
	queue := c.queueLength()
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the TLS-RPT socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fresh, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("the TLS-RPT socket %s cannot be made: %w", path, err)
	}
	// Its users are smtp(8) processes of another user.
	if err = errors.Join(os.Chmod(fresh, 0o666), os.Rename(fresh, path)); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("the TLS-RPT socket %s cannot be put in its place: %w", path, err)
	}
	s := &socket{conn: conn, queue: queue}
	s.inode, err = inode(path)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("the TLS-RPT socket: %w", err)
	}
	return s, nil
}

// alive reports whether a process reads the socket at a path.
func alive(path string) bool {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, fmt.Errorf("looking at %s: %w", path, err)
	}
	return st.Ino, nil
}

// queueLength is the kernel's setting; 0: it is not known.
func (c *Collector) queueLength() int {
	text, err := os.ReadFile(c.o.setting)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return n
}

// Serve reads and counts until ctx ends, then what is left in the socket, and
// removes it. It may be called once.
func (c *Collector) Serve(ctx context.Context) error {
	decoded := make(chan struct{})
	go func() {
		defer close(decoded)
		c.decode(context.WithoutCancel(ctx))
	}()
	var readers sync.WaitGroup
	read := func(s *socket) { readers.Go(func() { c.read(s) }) }
	read(c.sock)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-c.o.After(lookEvery):
		}
		if old, fresh := c.renew(); fresh != nil {
			read(fresh)
			readers.Go(func() {
				select {
				case <-ctx.Done():
				case <-c.o.After(linger):
				}
				_ = old.conn.SetReadDeadline(past)
			})
		}
	}
	c.mu.Lock()
	last := c.sock
	c.mu.Unlock()
	// What was sent before the end is counted; what comes after finds no socket.
	if n, err := inode(c.o.Path); err == nil && n == last.inode {
		_ = os.Remove(c.o.Path)
	}
	_ = last.conn.SetReadDeadline(past)
	readers.Wait()
	close(c.waiting)
	<-decoded
	return nil
}

// renew makes the socket anew if its file is gone or replaced, or if the
// kernel's setting changed, which binds when a socket is made. It returns the one
// before and the new one, or nil if there is nothing to do.
func (c *Collector) renew() (old, fresh *socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old = c.sock
	found, err := inode(c.o.Path)
	queue := c.queueLength()
	var why string
	switch {
	case err != nil || found != old.inode:
		why = "its file was gone or replaced"
	case queue != old.queue:
		why = fmt.Sprintf("net.unix.max_dgram_qlen went from %d to %d", old.queue, queue)
	default:
		return nil, nil
	}
	fresh, err = c.bind()
	if err != nil {
		c.o.Log.Error("the TLS-RPT socket could not be made anew; outcomes of Postfix may be lost until it can", "why", why, "err", err)
		return nil, nil
	}
	c.o.Log.Info("the TLS-RPT socket was made anew", "path", c.o.Path, "why", why)
	c.sock = fresh
	c.remade.Add(1)
	return old, fresh
}

// read moves datagrams out of the kernel's queue, and does nothing else, until
// the socket's deadline is over and it is empty.
func (c *Collector) read(s *socket) {
	defer func() { _ = s.conn.Close() }() // a failed read was told
	raw, err := s.conn.SyscallConn()
	if err != nil {
		c.o.Log.Error("the TLS-RPT socket cannot be read", "err", err)
		return
	}
	scratch := make([]byte, maxDatagram+1)
	for err == nil {
		// The function is called again once there is something to read.
		err = raw.Read(func(fd uintptr) bool { return c.empty(int(fd), scratch) })
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.o.Log.Error("the TLS-RPT socket cannot be read any more", "err", err)
		return
	}
	// What came in before the end, without waiting for more.
	_ = raw.Control(func(fd uintptr) { c.empty(int(fd), scratch) })
}

// empty reads until nothing is there, and returns false, or until a turn is over.
func (c *Collector) empty(fd int, scratch []byte) bool {
	for range turn {
		n, err := unix.Read(fd, scratch)
		switch {
		case err == nil:
			c.put(scratch[:n])
		case !errors.Is(err, syscall.EINTR):
			return false
		}
	}
	return true
}

// put keeps a datagram for those who decode. It never waits: what is over the
// cap is dropped, and counted.
func (c *Collector) put(b []byte) {
	c.received.Add(1)
	if c.bytes.Add(int64(len(b))) > maxWaiting {
		c.bytes.Add(-int64(len(b)))
		c.dropped.Add(1)
		return
	}
	kept := (*c.buffers.Get().(*[]byte))[:0]
	kept = append(kept, b...)
	select {
	case c.waiting <- kept:
	default:
		c.done(kept)
		c.dropped.Add(1)
	}
}

func (c *Collector) done(b []byte) {
	c.bytes.Add(-int64(len(b)))
	if cap(b) <= 8<<10 { // a large one is not kept for small ones
		c.buffers.Put(&b)
	}
}

// decode counts what was read.
func (c *Collector) decode(ctx context.Context) {
	for b := range c.waiting {
		a, err := parseDatagram(b, c.o.Now())
		if err != nil {
			c.spurn(b, err)
		} else {
			c.correct(&a)
			c.counted.Add(1)
			c.o.Record(ctx, a)
		}
		c.done(b)
	}
}

// correct tells apart what Postfix cannot know. It says "no policy found" of a
// domain that has one where it was not given the policy's attributes: always in
// mode testing, and in mode enforce under the map name without attributes. A
// failure is then one under the policy. A success is none that was verified.
func (c *Collector) correct(a *outcome.Attempt) {
	for i := range a.Policies {
		p := &a.Policies[i]
		if p.Type != outcome.NoPolicy {
			continue
		}
		known := c.o.Cached(a.Domain)
		if known == nil || known.Policy == nil || known.Policy.Mode == mtasts.None {
			return
		}
		p.Type, p.Domain = outcome.STS, a.Domain
		p.Strings, p.MXHosts = known.Policy.Strings(), known.Policy.MX
		if p.Failure == nil {
			a.Transport = outcome.Encrypted
		}
	}
}

// spurn counts a datagram that says nothing, and tells of it now and then.
func (c *Collector) spurn(b []byte, err error) {
	var bad *DatagramError
	if !errors.As(err, &bad) {
		return // parseDatagram returns no others
	}
	for i, kind := range badDatagrams {
		if kind == bad.Kind {
			c.bad[i].Add(1)
		}
	}
	now := c.o.Now()
	c.mu.Lock()
	tell := now.Sub(c.last) >= tellBadEvery
	if tell {
		c.last = now
	}
	c.mu.Unlock()
	if tell {
		c.o.Log.Warn("a datagram at the TLS-RPT socket could not be counted; more of them are counted in pawl_tlsrpt_datagrams_bad_total only",
			"kind", string(bad.Kind), "err", bad.Err, "begins", fmt.Sprintf("%.80q", b))
	}
}

// CollectorStats are a Collector's counters since its start.
type CollectorStats struct {
	Path     string
	Received int64                 // datagrams read
	Counted  int64                 // of them, those that went into the ledger
	Dropped  int64                 // over the cap of what waits to be decoded
	Remade   int64                 // how often the socket was made anew
	Bad      map[BadDatagram]int64 // that say nothing, by kind; only kinds that came
	Queue    int                   // net.unix.max_dgram_qlen as the socket has it; 0: not known
}

// Stats returns the counters as they are now.
func (c *Collector) Stats() CollectorStats {
	c.mu.Lock()
	queue := c.sock.queue
	c.mu.Unlock()
	st := CollectorStats{
		Path: c.o.Path, Received: c.received.Load(), Counted: c.counted.Load(), Dropped: c.dropped.Load(),
		Remade: c.remade.Load(), Bad: map[BadDatagram]int64{}, Queue: queue,
	}
	for i, kind := range badDatagrams {
		if n := c.bad[i].Load(); n > 0 {
			st.Bad[kind] = n
		}
	}
	return st
}

// Reachable reports whether processes of other users, as smtp(8), can come to
// the socket: every folder above it must let them pass. The error names the
// first that does not.
func Reachable(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("the TLS-RPT socket: %w", err)
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("the TLS-RPT socket: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("the folder %s is closed to other users, and Postfix's smtp(8) is one", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
