package testnet

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

const maxReplyLines = 100

// Caller is a raw SMTP client, which says exactly what it is told to: for
// hostile clients and for looking at a server by hand.
type Caller struct {
	Conn net.Conn
	r    *bufio.Reader
}

// NewCaller takes a connection and reads the greeting.
func NewCaller(c net.Conn) (*Caller, string, error) {
	caller := &Caller{Conn: c, r: bufio.NewReader(c)}
	greeting, err := caller.Reply()
	return caller, greeting, err
}

// Reply reads one reply, its lines joined by "\n".
func (c *Caller) Reply() (string, error) { return readReply(c.r) }

// Raw writes octets as they are.
func (c *Caller) Raw(octets string) error {
	_, err := io.WriteString(c.Conn, octets)
	return err
}

// Say sends one line and reads the reply to it.
func (c *Caller) Say(line string) (string, error) {
	if err := c.Raw(line + "\r\n"); err != nil {
		return "", err
	}
	return c.Reply()
}

// StartTLS asks for TLS and does the handshake.
func (c *Caller) StartTLS(ctx context.Context, config *tls.Config) (tls.ConnectionState, error) {
	reply, err := c.Say("STARTTLS")
	if err != nil {
		return tls.ConnectionState{}, err
	}
	if !strings.HasPrefix(reply, "220") {
		return tls.ConnectionState{}, fmt.Errorf("STARTTLS refused: %s", reply)
	}
	return c.Handshake(ctx, config)
}

// Handshake begins TLS on the connection.
func (c *Caller) Handshake(ctx context.Context, config *tls.Config) (tls.ConnectionState, error) {
	t := tls.Client(c.Conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	c.Conn, c.r = t, bufio.NewReader(t)
	return t.ConnectionState(), nil
}

// Send sends one message and returns the last reply: to the message, or to the
// command that was refused.
func (c *Caller) Send(from, to, message string) (string, error) {
	for _, line := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"} {
		reply, err := c.Say(line)
		if err != nil || reply[0] > '3' {
			return reply, err
		}
	}
	if err := c.Raw(stuff(message)); err != nil {
		return "", err
	}
	return c.Say(".")
}

// Close closes the connection.
func (c *Caller) Close() error { return c.Conn.Close() }

// readReply reads a reply of one line or several (RFC 5321 §4.2.1).
func readReply(r *bufio.Reader) (string, error) {
	var lines []string
	for {
		b, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(lines) == maxReplyLines {
			return "", errTooLong
		}
		if err != nil {
			return "", err
		}
		line := strings.TrimRight(string(b), "\r\n")
		if len(line) < 3 {
			return "", fmt.Errorf("not a reply: %q", line)
		}
		lines = append(lines, line)
		if len(line) == 3 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// stuff doubles the dots that begin lines (RFC 5321 §4.5.2), and ends the last
// line.
func stuff(message string) string {
	if strings.HasPrefix(message, ".") {
		message = "." + message
	}
	message = strings.ReplaceAll(message, "\r\n.", "\r\n..")
	if message != "" && !strings.HasSuffix(message, "\r\n") {
		message += "\r\n"
	}
	return message
}
