package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// errBroken ends a connection on which nothing more can be said.
var errBroken = errors.New("the connection is broken")

// startTLS runs STARTTLS (RFC 3207 §4).
func (c *Conn) startTLS(arg string) error {
	switch {
	case c.tls != nil:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "TLS is active already")
	case !c.offersStartTLS():
		return c.fail(502, smtp.Enhanced{5, 5, 1}, "STARTTLS is not offered here")
	case arg != "":
		return c.fail(501, smtp.Enhanced{5, 5, 4}, "STARTTLS takes no parameters")
	case c.mail.open:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "a transaction is open, end it first")
	}
	// Whatever came with the command came in clear, from anyone on the path. It
	// is dropped, and since it is an attack or a broken client, so is the
	// connection (CVE-2011-0411). What comes later goes into the handshake, and
	// breaks that.
	if err := c.alone("STARTTLS"); err != nil {
		return err
	}
	c.say(220, smtp.Enhanced{2, 0, 0}, "begin TLS")
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.handshake(); err != nil {
		return err
	}
	// RFC 3207 §4.2: as after the greeting, with nothing known of the client.
	c.closeSession()
	c.session = nil
	c.helo, c.extended = "", false
	return c.newSession()
}

// handshake runs the TLS handshake.
func (c *Conn) handshake() error {
	if err := c.beginHandshake(); err != nil {
		return err
	}
	conn := tls.Server(c.beneathTLS(), c.s.o.TLS)
	err := c.endHandshake(conn.HandshakeContext(c.ctx))
	if err != nil {
		if !errors.Is(err, errStopping) {
			c.s.counts.badHandshake.Add(1)
			c.log().Info("smtp: a TLS handshake came to nothing", "err", err)
		}
		return fmt.Errorf("%w: %v", errBroken, err) //nolint:errorlint // a timeout in there must not be answered in clear
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	state := conn.ConnectionState()
	c.conn, c.tls = conn, &state
	c.in.Reset(c)
	return nil
}

// beginHandshake sets the time for it and lets a stopping server end it.
func (c *Conn) beginHandshake() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return errStopping
	}
	c.reading = true
	return c.raw.SetDeadline(time.Now().Add(c.s.o.Timeouts.Handshake))
}

func (c *Conn) endHandshake(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if err != nil && c.stopping {
		return errStopping
	}
	return err
}
