package client

import (
	"errors"
	"fmt"
	"io"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Envelope is what a message is sent with. Parameters that the server does not
// offer are left out, where that is allowed; see [Client.Send].
type Envelope struct {
	smtp.Mail
	Rcpts []smtp.Rcpt
}

// Content is a message in wire form: lines end in CR LF, no dots are stuffed. It
// is opened for each sending; [Bytes] is one. A reader that has a WriteTo method,
// as that of a [bytes.Reader], saves a copy.
type Content interface {
	Open() (io.ReadCloser, error)
}

// plan is an envelope fitted to what a server offers.
type plan struct {
	mail  smtp.Mail
	rcpts []smtp.Rcpt
	offer smtp.Offer
	unfit []error // of each recipient: why it cannot be asked for, nil if it can

	script []byte // the commands MAIL and RCPT, end to end
	ends   []int  // where each of them ends; one of an unfit recipient is empty
}

// fit fits an envelope to what the server offers. Its errors are a
// [*MissingError], a [*TooLargeError], a [*BodyError] or an [ErrEnvelope].
func (c *Client) fit(env Envelope, content Content) (*plan, error) {
	if len(env.Rcpts) == 0 {
		return nil, fmt.Errorf("%w: no recipients", ErrEnvelope)
	}
	p := &plan{mail: env.Mail, rcpts: env.Rcpts, offer: c.offered.Offer(), unfit: make([]error, len(env.Rcpts))}
	if limit := c.offered.MaxSize(); limit > 0 && env.Size > limit {
		return nil, &TooLargeError{env.Size, limit}
	}
	// RFC 8689 §2: the option MUST only be specified under TLS.
	p.offer.RequireTLS = p.offer.RequireTLS && c.state != nil
	if env.RequireTLS && !p.offer.RequireTLS && !env.From.IsNull() {
		// §4.2.1. §5: a bounce should not be discarded for it.
		return nil, &MissingError{smtp.RequireTLS, "the message demands it"}
	}
	if err := p.fitCharacters(content); err != nil {
		return nil, err
	}
	return p, p.write()
}

// write writes the commands, before any is sent.
func (p *plan) write() error {
	p.ends = make([]int, 0, 1+len(p.rcpts))
	p.script = p.mail.Append(p.script, p.offer)
	p.offer.UTF8 = p.mail.UTF8 // as [smtp.Rcpt.Append] takes it
	for i := 0; ; i++ {
		p.ends = append(p.ends, len(p.script))
		if err := sound(p.command(i)); err != nil {
			return err
		}
		if i == len(p.rcpts) {
			return nil
		}
		if p.unfit[i] == nil {
			p.script = p.rcpts[i].Append(p.script, p.offer)
		}
	}
}

// command returns a command of the script: MAIL is 0, RCPT from 1 on.
func (p *plan) command(i int) []byte {
	if i == 0 {
		return p.script[:p.ends[0]]
	}
	return p.script[p.ends[i-1]:p.ends[i]]
}

// fitCharacters sees to SMTPUTF8 and 8BITMIME. What is declared and not offered
// may still go if the content makes no use of it: most messages that are declared
// as 8BITMIME have nothing but ASCII in them.
func (p *plan) fitCharacters(content Content) error {
	addresses := !p.mail.From.IsASCII()
	for i, r := range p.rcpts {
		if r.To.IsASCII() {
			continue
		}
		if !p.offer.UTF8 {
			p.unfit[i] = &MissingError{smtp.SMTPUTF8, "the recipient's address needs it"} // RFC 6531 §3.5
		}
		addresses = addresses || p.offer.UTF8
	}
	if p.offer.UTF8 {
		p.mail.UTF8 = p.mail.UTF8 || addresses // §3.4: a client MUST say so
	} else if !p.mail.From.IsASCII() {
		return &MissingError{smtp.SMTPUTF8, "the sender's address needs it"}
	}
	needsUTF8 := p.mail.UTF8 && !p.offer.UTF8
	needsEight := p.mail.Body == smtp.Body8Bit && !p.offer.EightBit
	if !needsUTF8 && !needsEight {
		return nil
	}
	header, body, err := eightBit(content)
	switch {
	case err != nil:
		return &BodyError{err}
	case needsUTF8 && header:
		return &MissingError{smtp.SMTPUTF8, "the message's header needs it"}
	case needsEight && (header || body):
		// RFC 6152 §3: converted or returned, and never sent as it is.
		return &MissingError{smtp.EightBitMIME, "the message has 8-bit content"}
	}
	p.mail.UTF8 = p.mail.UTF8 && p.offer.UTF8
	return nil
}

// eightBit reports whether a message's header and body have octets beyond ASCII.
func eightBit(content Content) (header, body bool, err error) {
	r, err := content.Open()
	if err != nil {
		return false, false, err
	}
	defer r.Close()
	buf := make([]byte, writeBlock)
	inBody, newlines := false, 1 // line ends in a row; a message may have no header
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			switch {
			case b >= 0x80 && inBody:
				return header, true, nil
			case b >= 0x80:
				header, newlines = true, 0
			case b == '\n':
				newlines++
				inBody = inBody || newlines == 2
			case b != '\r':
				newlines = 0
			}
		}
		if errors.Is(err, io.EOF) {
			return header, false, nil
		}
		if err != nil {
			return false, false, err
		}
	}
}

// sound reports whether a command can be sent: a line of its own and no more.
func sound(command []byte) error {
	if len(command)+len("\r\n") > smtp.MaxCommandLine {
		return fmt.Errorf("%w: a command of %d octets", ErrEnvelope, len(command))
	}
	for _, b := range command {
		if b < ' ' || b == 0x7f {
			return fmt.Errorf("%w: a control character in %q", ErrEnvelope, command)
		}
	}
	return nil
}
