package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

const (
	// heldReplies is how much waits at most until a batch of commands is done.
	heldReplies = 4 << 10
	// idleReplies is the space for replies that an idle connection keeps.
	idleReplies = 512
	// A client is given this long, and is read this far, to take in why the
	// connection is ended under it.
	lingerTime   = time.Second
	lingerOctets = 256 << 10
	// watchAfter is how long a callback takes before the client is watched for
	// going away.
	watchAfter = time.Second
)

var (
	// errStopping is what an idle connection reads when the server stops.
	errStopping = errors.New("the server is stopping")
	// errDisturbed is what a watcher reads when the callback is done.
	errDisturbed = errors.New("the callback is done")
	// errGone and errLate are why the context of a callback ends.
	errGone = errors.New("the client went away")
	errLate = errors.New("the client will have stopped waiting")
)

// wire is the part of a connection that reads and writes.
type wire struct {
	in       *smtp.Reader
	out      []byte    // replies that wait for the end of the batch
	deadline time.Time // of the next read
	idle     bool      // the next read may be broken off when the server stops

	mu        sync.Mutex
	reading   bool // an idle read is under way
	disturbed bool // the callback that is watched over is done
	stopping  bool
}

// past is a deadline that ends a read at once.
func past() time.Time { return time.Unix(1, 0) }

// Read sends the replies that wait and then reads from the client; it is what
// the [smtp.Reader] reads from. So replies go out once for each batch of
// commands (RFC 2920 §3.2).
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	if err := c.prepare(); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(p)
	if n > 0 {
		err = nil // it comes again
	}
	return n, c.readDone(err)
}

func (c *Conn) prepare() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping && c.idle {
		return errStopping
	}
	if c.disturbed {
		return errDisturbed
	}
	c.reading = c.idle
	return c.raw.SetReadDeadline(c.deadline)
}

func (c *Conn) readDone(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if c.stopping && c.idle && isTimeout(err) {
		return errStopping
	}
	return err
}

// stop makes an idle connection end.
func (w *wire) stop(raw net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = true
	if w.reading {
		_ = raw.SetReadDeadline(past()) // a closed connection is as good
	}
}

// flush sends the replies that wait.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.raw.SetWriteDeadline(time.Now().Add(c.s.o.Timeouts.Write)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	if cap(c.out) > idleReplies {
		c.out = nil
	}
	c.out = c.out[:0]
	if err != nil {
		return fmt.Errorf("%w: %v", errBroken, err) //nolint:errorlint // a timeout in there is none of the client's silence
	}
	return nil
}

// reply puts a reply in line.
func (c *Conn) reply(r smtp.Reply) error {
	c.out = r.Append(c.out)
	if len(c.out) < heldReplies {
		return nil
	}
	return c.flush()
}

// say puts a reply of one line in line, to be sent before the next read.
func (c *Conn) say(code int, enhanced smtp.Enhanced, text string) {
	c.out = smtp.Reply{Code: code, Enhanced: enhanced, Lines: []string{text}}.Append(c.out)
}

// end says why the connection ends, and ends it.
func (c *Conn) end(code int, enhanced smtp.Enhanced, text string) error {
	c.say(code, enhanced, text)
	return errEnd
}

// linger lets the client read the last reply: closing a connection with input
// unread would make TCP throw the reply away.
func (c *Conn) linger() {
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite() // close_notify; without it the reply is still readable
	}
	half, ok := c.raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.raw, lingerOctets) // until the client is gone, or enough
}

// call runs a callback with a context that ends when the limit is reached or,
// if it takes longer, when the client goes away.
func (c *Conn) call(limit time.Duration, callback func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	defer c.watch(limit, cancel)()
	return callback(ctx)
}

// watch begins to watch over a callback; what it returns ends that, and must
// be called before the connection is read or written again.
func (c *Conn) watch(limit time.Duration, cancel context.CancelCauseFunc) (end func()) {
	c.idle, c.deadline = false, time.Time{}
	first := min(watchAfter, limit)
	var late *time.Timer
	done := make(chan struct{})
	begin := time.AfterFunc(first, func() {
		defer close(done)
		late = time.AfterFunc(limit-first, func() { cancel(errLate) })
		if c.in.Buffered() > 0 {
			return // commands wait: it was there a moment ago
		}
		if err := c.in.Fill(); err != nil && !c.isDisturbed() {
			cancel(errGone)
		}
	})
	return func() {
		if begin.Stop() {
			return
		}
		c.disturb()
		<-done
		late.Stop()
		c.disturbed = false
	}
}

// disturb ends the read of a watcher.
func (c *Conn) disturb() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disturbed = true
	_ = c.raw.SetReadDeadline(past()) // a closed connection is as good
}

func (c *Conn) isDisturbed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disturbed
}
