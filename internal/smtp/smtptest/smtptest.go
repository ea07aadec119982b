// Package smtptest speaks SMTP in tests, as transcripts: what the client sends
// and what the server must answer, line by line.
package smtptest

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long a client waits for what must happen.
const patience = 20 * time.Second

// Client is the test's end of a connection.
type Client struct {
	Raw  net.Conn
	Conn net.Conn // Raw, or TLS over it
	In   *bufio.Reader
	TLS  *tls.Config // of its side of a handshake

	t testing.TB
}

// Dial connects to a server, until the test ends.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return New(t, conn)
}

// New returns a client on a connection, for 20 s.
func New(t testing.TB, conn net.Conn) *Client {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return Untimed(t, conn)
}

// Untimed is New without a limit of time.
func Untimed(t testing.TB, conn net.Conn) *Client {
	return &Client{Raw: conn, Conn: conn, In: bufio.NewReader(conn), TLS: &tls.Config{InsecureSkipVerify: true}, t: t}
}

// Talk plays a transcript. Its lines are
//
//	C: text      the client sends the text and CR LF, with the C lines that follow in one write
//	C| "text"    the client sends the quoted text, and no more than that
//	S: text      the server must send exactly this line
//	S: text…     the server must send a line that begins so
//	AUTH n p     the client sends AUTH PLAIN with name and password
//	TLS          both begin TLS
//	END          the server must close the connection
//
// and text after "#" at the beginning of a line explains.
func (c *Client) Talk(script string) {
	c.t.Helper()
	var batch []byte
	for line := range strings.Lines(script) {
		line = strings.Trim(line, "\t\n")
		kind, text := line[:min(2, len(line))], strings.TrimPrefix(line[min(2, len(line)):], " ")
		switch kind {
		case "", "# ":
			continue
		case "C:":
			batch = append(append(batch, text...), "\r\n"...)
			continue
		case "C|":
			raw, err := strconv.Unquote(text)
			if err != nil {
				c.t.Fatalf("%s: %v", line, err)
			}
			batch = append(batch, raw...)
			continue
		}
		if words := strings.Fields(line); len(words) == 3 && words[0] == "AUTH" {
			response := base64.StdEncoding.EncodeToString([]byte("\x00" + words[1] + "\x00" + words[2]))
			batch = append(batch, "AUTH PLAIN "+response+"\r\n"...)
			continue
		}
		c.Send(batch)
		batch = nil
		switch {
		case kind == "S:":
			c.Expect(text)
		case line == "TLS":
			c.StartTLS()
		case line == "END":
			c.ExpectEnd()
		default:
			c.t.Fatalf("not a line of a transcript: %s", line)
		}
	}
	c.Send(batch)
}

// Send sends octets as they are.
func (c *Client) Send(b []byte) {
	c.t.Helper()
	if len(b) == 0 {
		return
	}
	if _, err := c.Conn.Write(b); err != nil {
		c.t.Fatalf("sending %.60q: %v", b, err)
	}
}

// Expect reads a line that must be this one, or begin so if it ends in "…".
func (c *Client) Expect(want string) {
	c.t.Helper()
	line, err := c.In.ReadString('\n')
	if err != nil {
		c.t.Fatalf("got %q, %v; want %q", line, err, want)
	}
	got, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		c.t.Fatalf("a line that does not end in CR LF: %q", line)
	}
	if start, open := strings.CutSuffix(want, "…"); open {
		ok = strings.HasPrefix(got, start)
	} else {
		ok = got == want
	}
	if !ok {
		c.t.Fatalf("S: %s\nwant %s", got, want)
	}
}

// ExpectEnd waits until the server closes the connection.
func (c *Client) ExpectEnd() {
	c.t.Helper()
	line, err := c.In.ReadString('\n')
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection goes on: %q, %v", line, err)
	}
	if line != "" {
		c.t.Fatalf("the connection ends inside a line: %q", line)
	}
}

// StartTLS runs the handshake.
func (c *Client) StartTLS() {
	c.t.Helper()
	conn := tls.Client(c.Raw, c.TLS)
	if err := conn.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.Conn, c.In = conn, bufio.NewReader(conn)
}
