package mta

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// patience is how long the server under test may take for one message.
const patience = 30 * time.Second

// letter is one message for the server under test.
type letter struct {
	from, to    string
	requireTLS  bool // MAIL has REQUIRETLS
	tlsOptional bool // the header has TLS-Required: No
}

func (l letter) text(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: from the lab\r\n", l.from, l.to)
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%d.%s>\r\n", now.UTC().Format(time.RFC1123Z), now.UnixNano(), l.from)
	if l.tlsOptional {
		b.WriteString("TLS-Required: No\r\n")
	}
	b.WriteString("\r\nMeet me at the harbour at noon.\r\n")
	return b.String()
}

// Login is a user of the server under test. The zero value is none.
type Login struct{ User, Password string }

// plain is the argument of AUTH (RFC 4616 §2).
func (l Login) plain() string {
	return "PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+l.User+"\x00"+l.Password))
}

// hand gives a message to the server at addr.
func hand(ctx context.Context, addr string, as Login, l letter) error {
	c, _, err := call(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if as != (Login{}) {
		if reply, err := c.Say("AUTH " + as.plain()); err != nil || reply[0] != '2' {
			return refused(addr, "AUTH PLAIN of "+as.User, reply, err)
		}
	}
	from := "MAIL FROM:<" + l.from + ">"
	if l.requireTLS {
		from += " REQUIRETLS"
	}
	for _, line := range []string{from, "RCPT TO:<" + l.to + ">", "DATA"} {
		if reply, err := c.Say(line); err != nil || reply[0] > '3' {
			return refused(addr, line, reply, err)
		}
	}
	if err := c.Raw(l.text(time.Now())); err != nil {
		return refused(addr, "the message", "", err)
	}
	if reply, err := c.Say("."); err != nil || reply[0] != '2' {
		return refused(addr, "the message", reply, err)
	}
	_, _ = c.Say("QUIT")
	return nil
}

func refused(addr, what, reply string, err error) error {
	text := fmt.Sprintf("the mail server at %s answered %s with %q", addr, what, reply)
	if err != nil {
		text = fmt.Sprintf("the mail server at %s did not answer %s: %v", addr, what, err)
	}
	return &control.Error{Text: text, Do: "It has to take mail from 127.0.0.1 for any domain (in Postfix: mynetworks = 127.0.0.0/8), or from a user that --auth names."}
}

// call opens a session, under TLS where the server offers it, and returns the
// last EHLO reply.
func call(ctx context.Context, addr string) (*testnet.Caller, string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, "", fmt.Errorf("the mail server under test: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, "", err
	}
	c, greeting, err := testnet.NewCaller(conn)
	if err != nil || greeting[0] != '2' {
		conn.Close()
		return nil, "", refused(addr, "the connection", greeting, err)
	}
	reply, err := c.Say("EHLO lab.test")
	if err == nil && offers(reply, "STARTTLS") {
		// Its own certificate is no matter here: it is on this machine.
		if _, err = c.StartTLS(ctx, &tls.Config{InsecureSkipVerify: true}); err == nil { //nolint:gosec // see above
			reply, err = c.Say("EHLO lab.test")
		}
	}
	if err != nil || reply[0] != '2' {
		c.Close()
		return nil, "", refused(addr, "EHLO", reply, err)
	}
	return c, reply, nil
}

// offers reports whether an EHLO reply has a keyword.
func offers(reply, keyword string) bool {
	for line := range strings.SplitSeq(reply, "\n") {
		if word, _, _ := strings.Cut(line[min(len(line), 4):], " "); strings.EqualFold(word, keyword) {
			return true
		}
	}
	return false
}

// Ready waits until a server takes connections at addr.
func Ready(ctx context.Context, addr string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		c, _, err := call(ctx, addr)
		if err == nil {
			_, _ = c.Say("QUIT")
			c.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &control.Error{
				Text: fmt.Sprintf("no mail server took connections at %s within %s: %v", addr, limit, err),
				Do:   "Start it inside the namespace, listening there; --run starts it for you, and its output says why it does not start.",
			}
		}
	}
}
