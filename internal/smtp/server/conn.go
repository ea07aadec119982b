package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Conn is a connection, as the callbacks may look at it. Its methods are for
// use inside the callbacks only.
type Conn struct {
	s      *Server
	limits *Limits // those that held when it began
	ctx    context.Context
	cancel context.CancelFunc
	unhook func() bool // from the context of Serve
	raw    net.Conn    // as accepted: deadlines are set here
	conn   net.Conn    // raw, or TLS over it
	wire               // what is read and written, and until when

	client, local netip.AddrPort
	implicit      bool         // TLS comes first
	counted       netip.Prefix // under which the client is counted; zero: not yet
	helo          string
	extended      bool // EHLO rather than HELO
	tls           *tls.ConnectionState
	user          string

	session Session
	mail    transaction
	held    string // a command that ended a message sent by BDAT and is yet to be run

	idling, errors, authErrors int // see Limits
}

// transaction is what the protocol has to know of one.
type transaction struct {
	open     bool
	utf8     bool
	rcpts    int
	chunking bool // BDAT has begun
}

func newConn(ctx context.Context, s *Server, raw net.Conn, implicit bool) *Conn {
	c := &Conn{s: s, limits: s.limits.Load(), raw: raw, conn: raw, implicit: implicit}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.unhook = context.AfterFunc(ctx, c.cut)
	c.in = smtp.NewReader(c)
	c.client, c.local = addrPort(raw.RemoteAddr()), addrPort(raw.LocalAddr())
	return c
}

// addrPort returns the address and port, zero if it is none of TCP.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// Client returns the address of the client: the one that the PROXY header
// names, if there was one.
func (c *Conn) Client() netip.AddrPort { return c.client }

// Local returns the address that the client connected to, likewise.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Hello returns the name that the client gave in EHLO or HELO, "" before that
// and after STARTTLS. It is what the client says.
func (c *Conn) Hello() string { return c.helo }

// TLS returns the state of the TLS session with the client's certificates, nil
// without one.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// User returns the name that AUTH established, "" without.
func (c *Conn) User() string { return c.user }

// Protocol returns the word that a Received field says after "with": "SMTP",
// "ESMTPSA" and the like (RFC 3848), or "UTF8SMTPS" and the like for a message
// that needs SMTPUTF8 (RFC 6531 §4.3).
func (c *Conn) Protocol(utf8 bool) string {
	if !c.extended {
		return "SMTP"
	}
	word := "ESMTP"
	if utf8 {
		word = "UTF8SMTP"
	}
	if c.tls != nil {
		word += "S"
	}
	if c.user != "" {
		word += "A"
	}
	return word
}

// log returns the server's log with who the client is.
func (c *Conn) log() *slog.Logger {
	return c.s.o.Log.With("client", c.client.String(), "helo", c.helo)
}

// errEnd ends a connection that was told what there is to tell.
var errEnd = errors.New("the connection is over")

// run serves the connection.
func (c *Conn) run() {
	defer c.release()
	defer c.recovered()
	defer c.closeSession()
	err := c.begin()
	for err == nil {
		err = c.next()
	}
	c.farewell(err)
}

// farewell says why the connection ends, where that is still to be said.
func (c *Conn) farewell(err error) {
	switch {
	case errors.Is(err, errEnd), errors.Is(err, errQuit):
	case errors.Is(err, errBroken):
		c.log().Debug("smtp: a connection broke", "err", err)
		return
	case errors.Is(err, errStopping):
		c.say(421, smtp.Enhanced{4, 3, 2}, c.s.o.Hostname+" is shutting down")
	case isTimeout(err):
		c.say(421, smtp.Enhanced{4, 4, 2}, "nothing came for too long")
	default:
		c.log().Debug("smtp: a client left", "err", err)
		return
	}
	if c.flush() == nil && errors.Is(err, errEnd) {
		c.linger()
	}
}

// recovered contains a defect: one client's message that trips over it must
// not end the mail of all the others.
func (c *Conn) recovered() {
	if v := recover(); v != nil {
		c.log().Error("smtp: a defect ended a connection", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (c *Conn) closeSession() {
	if c.session == nil {
		return
	}
	session := c.session
	defer session.Close()
	c.endTransaction()
}

// release gives back all that the connection holds.
func (c *Conn) release() {
	c.unhook()
	c.cancel()
	c.conn.Close()
	if c.counted.IsValid() {
		c.s.leave(c.counted)
	}
	c.s.remove(c)
}

// begin goes as far as the greeting.
func (c *Conn) begin() error {
	if err := c.readProxyHeader(); err != nil {
		return err
	}
	if !c.enter() {
		if c.implicit {
			return errEnd // it could not read the reason
		}
		return c.end(421, smtp.Enhanced{4, 7, 0}, "too many connections from you, try again later")
	}
	if c.implicit {
		if err := c.handshake(); err != nil {
			return err
		}
	}
	if err := c.newSession(); err != nil {
		return err
	}
	c.say(220, smtp.Enhanced{}, c.s.o.Hostname+" ESMTP")
	return nil
}

// enter counts the connection as one of its client's.
func (c *Conn) enter() bool {
	bits := 32
	if c.client.Addr().Is6() {
		bits = 64 // one customer's network
	}
	client, err := c.client.Addr().Prefix(bits)
	if err != nil || !client.IsValid() {
		return true // it has no address: a pipe, a Unix socket
	}
	if !c.s.enter(client) {
		return false
	}
	c.counted = client
	return true
}

// newSession asks the backend whether to go on.
func (c *Conn) newSession() error {
	err := c.call(c.s.o.Timeouts.Answer, func(ctx context.Context) (err error) {
		c.session, err = c.s.o.Backend.NewSession(ctx, c)
		return err
	})
	if err == nil {
		return nil
	}
	c.session = nil
	var refusal *smtp.Error
	if errors.As(err, &refusal) {
		return c.end(refusal.Code, refusal.Enhanced, refusal.Text)
	}
	c.log().Error("smtp: no session could be opened", "err", err)
	return c.end(421, smtp.Enhanced{4, 3, 0}, "this cannot be done now, try again later")
}

// endTransaction forgets the transaction, if there is one.
func (c *Conn) endTransaction() {
	if c.mail.open {
		c.mail = transaction{}
		c.session.Reset()
	}
}

// stop tells a connection to end when it is idle.
func (c *Conn) stop() { c.wire.stop(c.raw) }

// cut ends a connection now.
func (c *Conn) cut() {
	c.cancel()
	c.raw.Close()
}
