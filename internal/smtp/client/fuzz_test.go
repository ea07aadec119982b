package client_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// taped is a connection of which all that the other end says is known before.
type taped struct {
	says *bytes.Reader
	said bytes.Buffer
}

func (c *taped) Read(p []byte) (int, error) {
	n, err := c.says.Read(p)
	if err == io.EOF {
		err = os.ErrDeadlineExceeded // it just says nothing more
	}
	return n, err
}

func (c *taped) Write(p []byte) (int, error)      { return c.said.Write(p) }
func (c *taped) Close() error                     { return nil }
func (c *taped) LocalAddr() net.Addr              { return nil }
func (c *taped) RemoteAddr() net.Addr             { return nil }
func (c *taped) SetDeadline(time.Time) error      { return nil }
func (c *taped) SetReadDeadline(time.Time) error  { return nil }
func (c *taped) SetWriteDeadline(time.Time) error { return nil }

// Whatever a server says, the session ends, and nothing is called delivered that
// was not taken with a reply of 2yz.
func FuzzASession(f *testing.F) {
	for _, seed := range []string{
		"", "220 mx\r\n", "220 mx\r\n250 mx\r\n", "220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n\x15\x03\x01\x00\x02\x02\x28",
		"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 10\r\n250 DSN\r\n250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n250 ok\r\n",
		"421 bye\r\n", "220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n250 taken\r\n", "220-\r\n220-\r\n220 \r\n502 no\r\n250 mx\r\n",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, says string, dense bool) {
		var conn net.Conn
		tape := &taped{says: bytes.NewReader([]byte(says))}
		if conn = tape; !dense {
			conn = &dripping{tape} // replies come one by one, as they should
		}
		c := client.New(conn, client.Options{Hello: "mail.example.org", FallBackToHELO: true, Trace: func(_ client.Direction, line string) {
			if strings.ContainsAny(line, "\r\n\x00") {
				t.Errorf("a line of the transcript is more than one: %q", line)
			}
		}})
		if c.Hello(t.Context()) != nil {
			return
		}
		if c.Extensions().Has(smtp.StartTLS) && c.StartTLS(t.Context(), insecure()) == nil {
			t.Error("a handshake with random octets")
		}
		env := envelope("b@example.com", "c@example.com")
		env.Size = int64(len(message))
		for range 3 {
			r, err := c.Send(t.Context(), env, client.Bytes(message))
			for _, rcpt := range r.Rcpts {
				if rcpt.Delivered && (err != nil || rcpt.Reply.Class() != 2 || rcpt.Phase != client.End) {
					t.Errorf("delivered with %v, %v", rcpt, err)
				}
				if err == nil && rcpt.Reply.Code == 0 {
					t.Errorf("no error and no reply: %q", says)
				}
			}
			if (err != nil) != (c.Err() != nil) && c.Err() != nil {
				t.Errorf("ended by %v, and Send returned %v", c.Err(), err)
			}
		}
		c.Quit(t.Context())
		if c.Err() == nil {
			t.Error("the session goes on after QUIT")
		}
	})
}

// dripping hands out one line for each read.
type dripping struct{ *taped }

func (d *dripping) Read(p []byte) (int, error) {
	for n := range p {
		b, err := d.says.ReadByte()
		if err != nil {
			return n, os.ErrDeadlineExceeded
		}
		if p[n] = b; b == '\n' {
			return n + 1, nil
		}
	}
	return len(p), nil
}

// Content is either what a server that follows the RFC receives, or it is not
// delivered at all.
func FuzzContentArrivesOrIsNotDelivered(f *testing.F) {
	for _, seed := range []string{"", ".", "\r\n.\r\n", "x\r\n..\r\n", "x\n.\r\n", "\r", "a\r\r\n", "x", message} {
		f.Add([]byte(seed), true, true)
		f.Add([]byte(seed), false, true)
		f.Add([]byte(seed), false, false)
	}
	f.Fuzz(func(t *testing.T, content []byte, chunking, pipelining bool) {
		extensions := ""
		if chunking {
			extensions += "\r\n250-CHUNKING"
		}
		if pipelining {
			extensions += "\r\n250-PIPELINING"
		}
		got, err := deliver(t, extensions, client.Bytes(content), int64(len(content)))
		lines := strings.ReplaceAll(string(content), "\r\n", "")
		fit := !strings.ContainsAny(lines, "\r\n\x00")
		want := content
		if !bytes.HasSuffix(content, []byte("\r\n")) && len(content) > 0 && !chunking {
			want = append(bytes.Clone(content), "\r\n"...) // RFC 5321 §4.1.1.4: the end is CR LF dot CR LF
		}
		switch {
		case fit && (err != nil || !bytes.Equal(got, want)):
			t.Errorf("%q arrived as %q: %v", content, got, err)
		case !fit && err == nil:
			t.Errorf("%q was delivered as %q", content, got)
		}
	})
}
