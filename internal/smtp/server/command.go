package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// next reads and runs one command.
func (c *Conn) next() error {
	line, err := c.readCommand()
	if err != nil {
		return err
	}
	return c.command(cutVerb(line))
}

// readCommand returns the next command line. Where the client does what
// makes the line's end doubtful, the connection ends.
func (c *Conn) readCommand() (string, error) {
	if c.held != "" {
		line := c.held
		c.held = ""
		return line, nil
	}
	line, err := c.readLine(smtp.MaxCommandLine)
	if err != nil {
		return "", err
	}
	if c.idling++; c.idling > c.limits.Idling {
		return "", c.end(421, smtp.Enhanced{4, 7, 0}, "too many commands without mail")
	}
	return string(line), nil
}

func (c *Conn) readLine(limit int) ([]byte, error) {
	c.idle, c.deadline = true, time.Now().Add(c.s.o.Timeouts.Command)
	line, err := c.in.ReadLine(limit)
	switch {
	case errors.Is(err, smtp.ErrBareLine):
		return nil, c.end(500, smtp.Enhanced{5, 5, 2}, "a bare CR or LF: end every line in CR LF")
	case errors.Is(err, smtp.ErrLineTooLong):
		return nil, c.end(500, smtp.Enhanced{5, 5, 2}, "the line is too long")
	}
	return line, err
}

// cutVerb takes a command line apart: the verb in upper case, and what follows
// its blank.
func cutVerb(line string) (verb, arg string) {
	line = strings.TrimRight(line, " ") // RFC 5321 §4.1.1 asks for tolerance
	verb, arg, _ = strings.Cut(line, " ")
	return strings.ToUpper(verb), arg
}

// command runs one command.
func (c *Conn) command(verb, arg string) error {
	if hasControl(verb) || hasControl(arg) {
		return c.fail(500, smtp.Enhanced{5, 5, 2}, "a control character in the command")
	}
	if c.s.o.TLSOnly && c.tls == nil {
		switch verb {
		case "EHLO", "NOOP", "STARTTLS", "QUIT":
		case "BDAT": // its content must not be run as commands
		default: // RFC 3207 §4
			return c.fail(530, smtp.Enhanced{5, 7, 0}, "issue a STARTTLS command first")
		}
	}
	switch verb {
	case "EHLO", "HELO":
		return c.hello(verb, arg)
	case "MAIL":
		return c.mailFrom(arg)
	case "RCPT":
		return c.rcptTo(arg)
	case "DATA":
		return c.data(arg)
	case "BDAT":
		return c.bdat(arg)
	case "STARTTLS":
		return c.startTLS(arg)
	case "AUTH":
		return c.auth(arg)
	}
	return c.plain(verb, arg)
}

// plain runs the commands that change nothing, or little.
func (c *Conn) plain(verb, arg string) error {
	switch verb {
	case "RSET":
		if arg != "" {
			return c.fail(501, smtp.Enhanced{5, 5, 4}, "RSET takes no argument")
		}
		c.endTransaction()
		return c.ok(250, smtp.Enhanced{2, 0, 0}, "reset")
	case "NOOP":
		return c.ok(250, smtp.Enhanced{2, 0, 0}, "nothing done")
	case "QUIT":
		c.say(221, smtp.Enhanced{2, 0, 0}, c.s.o.Hostname+" closes")
		return errQuit
	case "VRFY":
		if arg == "" {
			return c.fail(501, smtp.Enhanced{5, 5, 4}, "VRFY needs an address")
		}
		// RFC 5321 §3.5.3: not verified, and no secret given away.
		return c.ok(252, smtp.Enhanced{2, 0, 0}, "send mail and see")
	case "HELP":
		return c.ok(214, smtp.Enhanced{2, 0, 0}, "EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT, see RFC 5321")
	case "EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML":
		return c.fail(502, smtp.Enhanced{5, 5, 1}, verb+" is not offered here")
	case "GET", "POST", "HEAD", "PUT", "CONNECT", "OPTIONS":
		// A browser was made to speak to us: what follows is not its user's will.
		return c.end(554, smtp.Enhanced{5, 5, 1}, "this is SMTP, not HTTP")
	}
	return c.fail(500, smtp.Enhanced{5, 5, 1}, "unknown command")
}

// errQuit ends a connection that the client wants ended.
var errQuit = errors.New("the client said QUIT")

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// ok replies.
func (c *Conn) ok(code int, enhanced smtp.Enhanced, text string) error {
	return c.reply(smtp.Reply{Code: code, Enhanced: enhanced, Lines: []string{text}})
}

// fail replies with an error, and ends the connection after too many of them
// or with 421.
func (c *Conn) fail(code int, enhanced smtp.Enhanced, text string) error {
	if err := c.ok(code, enhanced, text); err != nil {
		return err
	}
	if code == 421 {
		return errEnd
	}
	if code >= 500 {
		if c.errors++; c.errors > c.limits.Errors {
			return c.end(421, smtp.Enhanced{4, 7, 0}, "too many errors")
		}
	}
	return nil
}

// refuse replies with what a parser or a callback found: word for word if it
// is an [*smtp.Error], else without anything of it.
func (c *Conn) refuse(what string, err error) error {
	var refusal *smtp.Error
	if errors.As(err, &refusal) && refusal.Code >= 400 && refusal.Code <= 599 {
		return c.fail(refusal.Code, refusal.Enhanced, refusal.Text)
	}
	if c.ctx.Err() == nil {
		c.log().Error("smtp: "+what+" could not be decided", "err", err)
	}
	return c.fail(451, smtp.Enhanced{4, 3, 0}, "this cannot be done now, try again later")
}

// alone makes sure that nothing was sent behind a command which must be the
// last of its batch (RFC 2920 §3.1). Whoever does not wait for the reply does
// not know what it is sending to, so the connection ends.
func (c *Conn) alone(verb string) error {
	if c.in.Buffered() == 0 {
		return nil
	}
	c.log().Warn("smtp: a client sent on without waiting for the reply", "command", verb)
	return c.end(554, smtp.Enhanced{5, 5, 0}, "sent on after "+verb+" without waiting for the reply")
}

// hello runs EHLO and HELO (RFC 5321 §4.1.1.1).
func (c *Conn) hello(verb, arg string) error {
	if err := c.alone(verb); err != nil {
		return err
	}
	name, err := smtp.ParseHello(arg)
	if err != nil {
		return c.fail(501, smtp.Enhanced{5, 5, 4}, verb+" needs a domain or an address literal")
	}
	c.endTransaction() // RFC 5321 §4.1.4
	c.helo, c.extended = name, verb == "EHLO"
	if !c.extended {
		return c.ok(250, smtp.Enhanced{}, c.s.o.Hostname)
	}
	return c.reply(smtp.Reply{Code: 250, Lines: c.extensions()})
}

// extensions returns the lines of the reply to EHLO.
func (c *Conn) extensions() []string {
	o := &c.s.o
	lines := []string{o.Hostname}
	for _, keyword := range []string{
		smtp.Pipelining, smtp.EightBitMIME, smtp.SMTPUTF8, smtp.Chunking, smtp.EnhancedStatusCodes, smtp.DSN,
	} {
		if o.offers(keyword) {
			lines = append(lines, keyword)
		}
	}
	if o.offers(smtp.Size) {
		lines = append(lines, smtp.Size+" "+strconv.FormatInt(c.limits.Size, 10))
	}
	if c.offersStartTLS() {
		lines = append(lines, smtp.StartTLS)
	}
	if c.tls != nil && o.offers(smtp.RequireTLS) {
		lines = append(lines, smtp.RequireTLS) // RFC 8689 §2: after STARTTLS only
	}
	if c.offersAuth() {
		lines = append(lines, smtp.Auth+" PLAIN LOGIN")
	}
	return lines
}

// offer says which parameters hold; without EHLO there are none.
func (c *Conn) offer() smtp.Offer {
	o := &c.s.o
	if !c.extended {
		return smtp.Offer{}
	}
	return smtp.Offer{
		Size:       o.offers(smtp.Size),
		EightBit:   o.offers(smtp.EightBitMIME),
		UTF8:       o.offers(smtp.SMTPUTF8),
		DSN:        o.offers(smtp.DSN),
		RequireTLS: c.tls != nil && o.offers(smtp.RequireTLS),
		Auth:       c.offersAuth(),
	}
}

func (c *Conn) offersStartTLS() bool {
	return c.tls == nil && c.s.o.TLS != nil && c.s.o.offers(smtp.StartTLS)
}

func (c *Conn) offersAuth() bool {
	return c.tls != nil && c.s.o.Auth != nil && c.s.o.offers(smtp.Auth)
}

// mailFrom runs MAIL.
func (c *Conn) mailFrom(arg string) error {
	switch {
	case c.helo == "":
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "say EHLO first")
	case c.mail.open:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "a transaction is open already")
	}
	m, err := smtp.ParseMail(arg, c.offer())
	if err != nil {
		return c.refuse("MAIL", err)
	}
	if limit := c.limits.Size; m.Size > limit {
		return c.refuse("MAIL", tooLarge(limit)) // RFC 1870 §6.1
	}
	err = c.call(c.s.o.Timeouts.Answer, func(ctx context.Context) error { return c.session.Mail(ctx, m) })
	if err != nil {
		return c.refuse("MAIL", err)
	}
	c.mail = transaction{open: true, utf8: m.UTF8}
	return c.ok(250, smtp.Enhanced{2, 1, 0}, "go on")
}

func tooLarge(limit int64) *smtp.Error {
	return smtp.Errorf(552, smtp.Enhanced{5, 3, 4}, "the message is larger than %d octets", limit)
}

// rcptTo runs RCPT.
func (c *Conn) rcptTo(arg string) error {
	switch {
	case !c.mail.open:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "say MAIL first")
	case c.mail.chunking:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "the message has begun")
	case c.mail.rcpts >= c.limits.Recipients:
		// RFC 5321 §4.5.3.1.10
		return c.fail(452, smtp.Enhanced{4, 5, 3}, fmt.Sprintf("more than %d recipients, send to the others again", c.limits.Recipients))
	}
	offer := c.offer()
	offer.UTF8 = c.mail.utf8
	r, err := smtp.ParseRcpt(arg, offer)
	if err != nil {
		return c.refuse("RCPT", err)
	}
	err = c.call(c.s.o.Timeouts.Answer, func(ctx context.Context) error { return c.session.Rcpt(ctx, r) })
	if err != nil {
		return c.refuse("RCPT", err)
	}
	c.mail.rcpts++
	c.idling-- // it leads to mail
	return c.ok(250, smtp.Enhanced{2, 1, 5}, "go on")
}
