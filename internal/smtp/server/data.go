package server

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// minOverrun is how much of a refused message is taken in at least, to reach
// the place where the refusal can be said.
const minOverrun = 1 << 20

// data runs DATA (RFC 5321 §4.1.1.4).
func (c *Conn) data(arg string) error {
	switch {
	case arg != "":
		return c.fail(501, smtp.Enhanced{5, 5, 4}, "DATA takes no argument")
	case c.mail.chunking: // RFC 3030 §2
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "the message comes by BDAT")
	}
	// Content that was sent ahead must not be run as commands if DATA is
	// refused.
	if err := c.alone("DATA"); err != nil {
		return err
	}
	switch {
	case !c.mail.open:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "say MAIL first")
	case c.mail.rcpts == 0:
		return c.fail(554, smtp.Enhanced{5, 5, 1}, "no valid recipients")
	}
	c.say(354, smtp.Enhanced{}, "go on, end with a dot on a line by itself")
	return c.receive(&dataSource{c.newPace(), c.in.Data()})
}

// receive takes in the content of a message and replies to it.
func (c *Conn) receive(src source) error {
	body := &Body{src: src, limit: c.limits.Size}
	defer body.release(&c.s.buffers)
	body.fill(&c.s.buffers)
	var reply smtp.Reply
	var refusal error
	if body.whole || body.err == nil {
		reply, refusal = c.accept(body)
		if refusal == nil {
			// Taken without being read to its end, which may still be a bad one.
			for body.err == nil {
				body.take(body.buf)
			}
		}
	}
	if body.err != nil && !errors.Is(body.err, io.EOF) {
		refusal = body.err // whatever the session says
	}
	if refusal != nil {
		return c.refuseMessage(body, refusal)
	}
	c.endTransaction()
	c.idling, c.errors = 0, 0
	if reply.Code == 0 {
		return c.ok(250, smtp.Enhanced{2, 0, 0}, "taken")
	}
	return c.reply(reply)
}

// accept asks the session to take the message.
func (c *Conn) accept(body *Body) (smtp.Reply, error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	endWatch := func() {}
	defer func() { endWatch() }()
	// As long as the body is being read, a client that goes away is seen there.
	body.onEnd = func() {
		if errors.Is(body.err, io.EOF) {
			endWatch = c.watch(c.s.o.Timeouts.Accept, cancel)
			return
		}
		cancel(body.err)
	}
	if body.whole {
		body.onEnd()
	}
	reply, err := c.session.Data(ctx, body)
	body.onEnd = nil
	return reply, err
}

// refuseMessage replies to a message that is not taken.
func (c *Conn) refuseMessage(body *Body, refusal error) error {
	var reply *smtp.Error
	switch {
	case errors.Is(body.err, errAborted):
		c.endTransaction()
		return nil // the command that did it has its own reply
	case body.err != nil && !errors.Is(body.err, io.EOF) && !errors.As(body.err, &reply):
		return body.err // the connection broke
	}
	if body.err != nil && !errors.Is(body.err, io.EOF) {
		c.s.counts.badContent.Add(1)
	}
	err := body.src.skip(body.buf, max(minOverrun, c.limits.Size))
	if errors.Is(err, errEndless) {
		return c.end(552, smtp.Enhanced{5, 3, 4}, "the message is much too large")
	}
	if err != nil {
		return err
	}
	c.endTransaction()
	return c.refuse("a message", refusal)
}

// pace sets the deadlines of content.
type pace struct {
	c   *Conn
	end time.Time // of the whole message
}

func (c *Conn) newPace() pace { return pace{c, time.Now().Add(c.s.o.Timeouts.Message)} }

func (p pace) set() {
	p.c.idle, p.c.deadline = false, time.Now().Add(p.c.s.o.Timeouts.Content)
	if p.end.Before(p.c.deadline) {
		p.c.deadline = p.end
	}
}

// dataSource is the content of DATA.
type dataSource struct {
	pace
	data *smtp.DataReader
}

func (d *dataSource) Read(p []byte) (int, error) {
	d.set()
	return d.data.Read(p)
}

// skip reads as far as the message's true end.
func (d *dataSource) skip(buf []byte, limit int64) error {
	for limit > 0 {
		n, err := d.Read(buf)
		limit -= int64(n)
		var refusal *smtp.Error
		switch {
		case errors.Is(err, io.EOF), errors.As(err, &refusal):
			return nil
		case err != nil:
			return err
		}
	}
	return errEndless
}
