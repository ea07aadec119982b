package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Direction says who said a line of a transcript.
type Direction string

// The directions of a transcript's lines.
const (
	Sent     Direction = "C"
	Received Direction = "S"
	Remark   Direction = "-" // nobody's: that TLS began, that content went out
)

// Options are how a client speaks.
type Options struct {
	// Hello is the name or address literal with which the client introduces
	// itself, as "mail.example.com".
	Hello string
	// FallBackToHELO says HELO to a server that refuses EHLO. There is no
	// STARTTLS then, so it has no place where TLS is demanded.
	FallBackToHELO bool
	// NoChunking sends by DATA even where BDAT is offered.
	NoChunking bool
	Timeouts   Timeouts
	// Trace, if set, is given each line of the session without its CR LF, apart
	// from the content of messages.
	Trace func(Direction, string)
	// Timing, if set, is told how long each phase took. Mail covers the whole
	// envelope, End the content and the reply to it.
	Timing func(Phase, time.Duration)
}

// readBuffer holds a reply of many lines.
const readBuffer = 4 << 10

// Client is one SMTP session. It is not safe for concurrent use.
//
// Deadlines and timings are those of the runtime's clock, as net.Conn's are.
type Client struct {
	o    Options
	raw  net.Conn // as dialled: deadlines are set and the end is made here
	conn net.Conn // raw, or TLS over it
	in   *bufio.Reader
	out  []byte // what waits to be written

	greeting smtp.Reply
	greeted  bool
	hello    smtp.Reply      // to EHLO or HELO
	offered  smtp.Extensions // nil: not known
	state    *tls.ConnectionState
	dirty    bool  // a transaction is open that the next one must reset
	err      error // what ended the session
}

// New returns a client on a connection that is the client's from then on. If it
// is a [*tls.Conn] whose handshake is done, the session is under TLS from the
// start.
func New(conn net.Conn, o Options) *Client {
	c := &Client{o: o, raw: conn, conn: conn, in: bufio.NewReaderSize(conn, readBuffer)}
	if t, ok := conn.(*tls.Conn); ok {
		if state := t.ConnectionState(); state.HandshakeComplete {
			c.state = &state
		}
	}
	return c
}

// Greeting returns the reply with which the server opened the session.
func (c *Client) Greeting() smtp.Reply { return c.greeting }

// ServerName returns the name by which the server calls itself in its reply to
// EHLO: the receiving-mx-helo of TLS-RPT. It is whatever the server writes.
func (c *Client) ServerName() string {
	if len(c.hello.Lines) == 0 {
		return ""
	}
	return c.hello.Lines[0]
}

// Extensions returns what the server offers, nil between the handshake and the
// Hello that must follow it.
func (c *Client) Extensions() smtp.Extensions { return c.offered }

// TLSState returns the state of the TLS session, nil without one.
func (c *Client) TLSState() *tls.ConnectionState { return c.state }

// Err returns what ended the session, nil while it goes on.
func (c *Client) Err() error { return c.err }

// Close ends the session at once.
func (c *Client) Close() error {
	if c.Err() == nil {
		c.err = ErrClosed
		return c.raw.Close()
	}
	return nil
}

// Hello says EHLO, after reading the greeting if that has not been done. It is to
// be called again after [Client.StartTLS].
func (c *Client) Hello(ctx context.Context) error {
	leave, err := c.enter(ctx, Hello)
	if err != nil {
		return err
	}
	defer leave()
	if !c.greeted {
		if err := c.greet(ctx); err != nil {
			return err
		}
	}
	defer c.took(Hello, time.Now())
	r, err := c.ask(ctx, Hello, "EHLO "+c.o.Hello)
	if err != nil {
		return err
	}
	if r.Class() == 5 && c.o.FallBackToHELO {
		if r, err = c.ask(ctx, Hello, "HELO "+c.o.Hello); err != nil {
			return err
		}
		if r.Class() == 2 {
			r.Lines = r.Lines[:min(1, len(r.Lines))] // HELO offers nothing, whatever follows
		}
	}
	if r.Class() != 2 {
		return c.refused(Hello, r)
	}
	c.hello, c.offered = r, smtp.ParseExtensions(r)
	return nil
}

// greet reads the greeting (RFC 5321 §3.1).
func (c *Client) greet(ctx context.Context) error {
	defer c.took(Greeting, time.Now())
	if _, err := smtp.ParseHello(c.o.Hello); err != nil {
		return fmt.Errorf("saying EHLO as %q: %w", c.o.Hello, err)
	}
	r, err := c.reply(ctx, Greeting)
	if err != nil {
		return err
	}
	c.greeting, c.greeted = r, true
	if r.Class() != 2 {
		return c.refused(Greeting, r)
	}
	return nil
}

// StartTLS asks for TLS and runs the handshake. Its errors are a
// [*StartTLSRefused], after which the session is as it was, and a
// [*MissingError] where the server offers none; else a [*HandshakeError], an
// [*InjectionError] or one of the others, and the session is over.
//
// Afterwards nothing is left of what the server said before (RFC 3207 §4.2).
func (c *Client) StartTLS(ctx context.Context, config *tls.Config) error {
	leave, err := c.enter(ctx, StartTLS)
	if err != nil {
		return err
	}
	defer leave()
	switch {
	case c.state != nil:
		return ErrTLSActive
	case !c.offered.Has(smtp.StartTLS):
		return &MissingError{smtp.StartTLS, "TLS is wanted"}
	}
	start := time.Now()
	r, err := c.ask(ctx, StartTLS, "STARTTLS")
	c.took(StartTLS, start)
	switch {
	case err != nil:
		return err
	case r.Code != 220: // RFC 3207 §4
		return &StartTLSRefused{r}
	}
	// What was read with the reply came in clear, and nothing may come between
	// the two. What comes later goes into the handshake, and breaks it.
	if n := c.in.Buffered(); n > 0 {
		return c.fail(&InjectionError{n})
	}
	return c.handshake(ctx, config)
}

func (c *Client) handshake(ctx context.Context, config *tls.Config) error {
	defer c.took(Handshake, time.Now())
	if err := c.arm(ctx, Handshake); err != nil {
		return c.fail(&HandshakeError{err})
	}
	conn := tls.Client(c.raw, config)
	if err := conn.Handshake(); err != nil {
		return c.fail(&HandshakeError{cause(ctx, err)})
	}
	state := conn.ConnectionState()
	c.state, c.conn = &state, conn
	c.in.Reset(conn)
	// RFC 3207 §4.2: the client MUST discard any knowledge obtained from the
	// server, such as the list of extensions.
	c.hello, c.offered = smtp.Reply{}, nil
	if c.o.Trace != nil {
		c.o.Trace(Remark, fmt.Sprintf("%s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)))
	}
	return nil
}

// Reset aborts what may be left of a transaction. It also shows whether the
// server is still there, before a kept connection is used again.
func (c *Client) Reset(ctx context.Context) error {
	leave, err := c.enter(ctx, Reset)
	if err != nil {
		return err
	}
	defer leave()
	defer c.took(Reset, time.Now())
	r, err := c.ask(ctx, Reset, "RSET")
	if err != nil {
		return err
	}
	if r.Class() != 2 {
		return c.fail(c.refused(Reset, r))
	}
	c.dirty = false
	return nil
}

// Quit ends the session politely, and without waiting for long. It returns no
// error, since nothing follows from one.
func (c *Client) Quit(ctx context.Context) {
	leave, err := c.enter(ctx, Quit)
	if err != nil {
		_ = c.Close()
		return
	}
	defer leave()
	defer c.took(Quit, time.Now())
	if _, err := c.ask(ctx, Quit, "QUIT"); err == nil {
		c.err = ErrClosed
		_ = c.raw.SetDeadline(time.Now().Add(c.o.Timeouts.of(Quit)))
		_ = c.conn.Close()
	}
}

// refused is the error for a reply that the session cannot go on with.
func (c *Client) refused(p Phase, r smtp.Reply) error {
	if r.Class() == 3 || r.Class() == 2 {
		return c.fail(&ProtocolError{p, fmt.Errorf("the server answered with %q", r)})
	}
	return &ReplyError{Phase: p, Reply: r, BeforeTLS: c.state == nil}
}

// fail ends the session with an error, and returns it.
func (c *Client) fail(err error) error {
	if c.err == nil {
		c.err = err
		_ = c.raw.Close()
	}
	return err
}

// cause returns the context's error if that has ended, and err otherwise.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) && isTimeout(err) {
		return context.DeadlineExceeded
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
