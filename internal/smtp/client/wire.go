package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

const (
	// writeBlock is how much is gathered before it is written, and the most that
	// is written under one deadline.
	writeBlock = 64 << 10
	// keptBuffer is how much room a client keeps between messages.
	keptBuffer = 32 << 10
	// lastWords is how long a server that no longer listens has to say why.
	lastWords = time.Second
)

// guard makes the end of ctx end whatever the connection is waiting for, until
// the returned function is called.
func (c *Client) guard(ctx context.Context) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = c.raw.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done // or it would strike at what comes next
		}
	}
}

// arm gives a phase its time. The context is looked at after the deadline is
// set: had it ended before, its own deadline has just been overwritten.
func (c *Client) arm(ctx context.Context, p Phase) error {
	at := time.Now().Add(c.o.Timeouts.of(p))
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		at = d
	}
	// Of a connection that is closed already there may be replies left to read.
	if err := c.raw.SetDeadline(at); errors.Is(err, os.ErrNoDeadline) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// enter begins a method of the client; the function that it returns ends it.
func (c *Client) enter(ctx context.Context, p Phase) (leave func(), err error) {
	switch {
	case c.err != nil:
		return nil, c.err
	case ctx.Err() != nil:
		return nil, &ConnError{p, context.Cause(ctx)} // nothing was begun: the session goes on
	}
	return c.guard(ctx), nil
}

// ask sends one command and returns the reply to it.
func (c *Client) ask(ctx context.Context, p Phase, command string) (smtp.Reply, error) {
	c.line([]byte(command))
	if err := c.flush(ctx, p); err != nil {
		return smtp.Reply{}, err
	}
	return c.reply(ctx, p)
}

// line adds a command to what waits to be written.
func (c *Client) line(command []byte) {
	if c.o.Trace != nil {
		c.o.Trace(Sent, string(command))
	}
	c.out = append(append(c.out, command...), '\r', '\n')
}

// flush writes what waits. All replies are read by then. A server that has said
// more, other than goodbye, is out of step, or somebody speaks for it: each reply
// would be taken for that to another command.
func (c *Client) flush(ctx context.Context, p Phase) error {
	if c.in.Buffered() > 0 {
		r, err := c.reply(ctx, p)
		if err != nil {
			return err
		}
		return c.fail(&ProtocolError{p, fmt.Errorf("the server said %q unasked", r)})
	}
	out := c.out
	c.out = c.out[:0]
	if cap(c.out) > keptBuffer {
		c.out = nil
	}
	return c.write(ctx, p, out)
}

// write writes b, in blocks that have the phase's time each.
func (c *Client) write(ctx context.Context, p Phase, b []byte) error {
	for len(b) > 0 {
		if err := c.arm(ctx, p); err != nil {
			return c.fail(&ConnError{p, cause(ctx, err)})
		}
		n, err := c.conn.Write(b[:min(len(b), writeBlock)])
		if err != nil {
			return c.fail(c.lastReply(ctx, p, err))
		}
		b = b[n:]
	}
	return nil
}

// lastReply looks for what a server said before it stopped listening, as 421 or
// 552, and makes the error of it.
func (c *Client) lastReply(ctx context.Context, p Phase, err error) error {
	lost := &ConnError{p, cause(ctx, err)}
	if ctx.Err() != nil || lost.Timeout() {
		return lost
	}
	_ = c.raw.SetDeadline(time.Now().Add(min(lastWords, c.o.Timeouts.of(p))))
	r, replyErr := smtp.ReadReply(c.in)
	if replyErr != nil || r.Class() < 4 || ctx.Err() != nil {
		return lost
	}
	c.traceReply(r)
	return &ReplyError{Phase: p, Reply: r, BeforeTLS: c.state == nil}
}

// reply reads one reply. With 421 the session is over, whatever was asked.
func (c *Client) reply(ctx context.Context, p Phase) (smtp.Reply, error) {
	if err := c.arm(ctx, p); err != nil {
		return smtp.Reply{}, c.fail(&ConnError{p, cause(ctx, err)})
	}
	r, err := smtp.ReadReply(c.in)
	var malformed *smtp.ReplyError
	switch {
	case errors.As(err, &malformed):
		return smtp.Reply{}, c.fail(&ProtocolError{p, err})
	case err != nil:
		return smtp.Reply{}, c.fail(&ConnError{p, cause(ctx, err)})
	}
	c.traceReply(r)
	if r.Code == 421 {
		return r, c.fail(&ReplyError{Phase: p, Reply: r, BeforeTLS: c.state == nil})
	}
	return r, nil
}

func (c *Client) traceReply(r smtp.Reply) {
	if c.o.Trace == nil {
		return
	}
	enhanced := r.Enhanced.String()
	if enhanced != "" {
		enhanced += " "
	}
	for i, text := range r.Lines {
		between := byte('-')
		if i == len(r.Lines)-1 {
			between = ' '
		}
		c.o.Trace(Received, strings.TrimRight(fmt.Sprintf("%d%c%s%s", r.Code, between, enhanced, text), " "))
	}
}

func (c *Client) took(p Phase, since time.Time) {
	if c.o.Timing != nil {
		c.o.Timing(p, time.Since(since))
	}
}
