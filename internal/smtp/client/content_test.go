package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// large is a message of n lines of 64 octets, each beginning with a dot.
func large(n int) []byte { return bytes.Repeat([]byte("."+strings.Repeat("a", 61)+"\r\n"), n) }

// received serves one message, as a server made of the shared words does, and
// returns what came.
func received(conn net.Conn, extensions string) ([]byte, error) {
	defer conn.Close()
	in := smtp.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("220 mx.example.com")
	var content []byte
	for {
		line, err := in.ReadLine(smtp.MaxCommandLine)
		if err != nil {
			return content, err
		}
		verb, rest, _ := strings.Cut(string(line), " ")
		switch verb {
		case "EHLO":
			say("250-mx.example.com%s\r\n250 ok", extensions)
		case "DATA":
			say("354 go")
			if content, err = io.ReadAll(in.Data()); err != nil {
				return content, err
			}
			say("250 taken")
		case "BDAT":
			var size int
			fmt.Sscan(rest, &size)
			chunk := make([]byte, size)
			if _, err := io.ReadFull(in, chunk); err != nil {
				return content, err
			}
			content = append(content, chunk...)
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return content, nil
		default:
			say("250 ok")
		}
	}
}

func TestContentArrivesAsItIs(t *testing.T) {
	for name, content := range map[string][]byte{
		"empty":           {},
		"one line":        []byte("x\r\n"),
		"a dot":           []byte(".\r\n"),
		"dots":            []byte("..\r\n.\r\n...\r\nx.\r\n.x\r\n"),
		"40 kB":           large(640),
		"just a block":    large(1024),
		"one line more":   large(1025),
		"several chunks":  large(40_000),
		"one long line":   append(bytes.Repeat([]byte("a"), 300_000), "\r\n"...),
		"empty lines":     bytes.Repeat([]byte("\r\n"), 50_000),
		"8-bit and blank": []byte("\xff\xfe\x80 \t\r\n \r\n"),
	} {
		for _, extensions := range []string{"", "\r\n250-PIPELINING", "\r\n250-CHUNKING", "\r\n250-PIPELINING\r\n250-CHUNKING"} {
			for how, c := range map[string]client.Content{"memory": client.Bytes(content), "stream": stream{content}} {
				if got, err := deliver(t, extensions, c, int64(len(content))); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s from %s with %q: %d octets of %d, %v", name, how, extensions, len(got), len(content), err)
				}
			}
		}
	}
}

// stream is content that is read in small, odd pieces.
type stream struct{ content []byte }

func (s stream) Open() (io.ReadCloser, error) {
	return io.NopCloser(struct{ io.Reader }{&pieces{s.content}}), nil
}

type pieces struct{ left []byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1021)], p.left)
	p.left = p.left[n:]
	return n, nil
}

// deliver sends content over a pipe and returns what arrived.
func deliver(t *testing.T, extensions string, content client.Content, size int64) (got []byte, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			got, _ = received(theirs, extensions)
		}()
		c := client.New(ours, client.Options{Hello: "mail.example.org"})
		good(t, c.Hello(t.Context()))
		env := envelope("b@example.com")
		env.Size = size
		var r client.Result
		if r, err = c.Send(t.Context(), env, content); err == nil && !r.Rcpts[0].Delivered {
			err = errors.New(became(r)[0])
		}
		c.Quit(t.Context())
		<-done
	})
	return got, err
}

// Attack 25: what is no line end here may be one elsewhere.
func TestContentWithABareCROrLFIsNeverDelivered(t *testing.T) {
	for name, content := range map[string]string{
		"a bare LF":               "x\ny\r\n",
		"a bare CR":               "x\ry\r\n",
		"LF dot LF":               "x\n.\nMAIL FROM:<evil@example.net>\r\n",
		"LF dot CR LF":            "x\n.\r\nMAIL FROM:<evil@example.net>\r\n",
		"CR LF dot LF":            "x\r\n.\nMAIL FROM:<evil@example.net>\r\n",
		"CR dot CR":               "x\r.\rMAIL FROM:<evil@example.net>\r\n",
		"a last line of CR":       "x\r\n\r",
		"CR at the end of a line": "x\r\r\n",
		"a NUL":                   "x\x00y\r\n",
		"after a lot that is fit": string(large(30_000)) + "x\ny\r\n",
		"a CR after a lot":        string(large(20_000)) + "x\r",
	} {
		for _, extensions := range []string{"", "\r\n250-PIPELINING", "\r\n250-CHUNKING", "\r\n250-PIPELINING\r\n250-CHUNKING"} {
			for how, c := range map[string]client.Content{"memory": client.Bytes(content), "stream": stream{[]byte(content)}} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						ours, theirs := pipe()
						ended := make(chan error, 1)
						go func() {
							_, err := received(theirs, extensions)
							ended <- err
						}()
						conn := client.New(ours, client.Options{Hello: "mail.example.org"})
						good(t, conn.Hello(t.Context()))
						env := envelope("b@example.com")
						env.Size = int64(len(content))
						r, err := conn.Send(t.Context(), env, c)
						_ = bad[*client.BodyError](t, err)
						fault := bad[*smtp.Error](t, err)
						if r.Rcpts[0].Delivered || conn.Err() == nil || fault.Temporary() {
							t.Errorf("%s, %q: %v, %v", how, extensions, became(r), err)
						}
						// Neither the end nor anything behind it was sent.
						if err := <-ended; !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
							t.Errorf("%s, %q: the server saw %v", how, extensions, err)
						}
					})
				})
			}
		}
	}
}

func TestContentThatFailsIsNotEnded(t *testing.T) {
	broken := errors.New("the spool is gone")
	for name, c := range map[string]struct {
		content client.Content
		size    int64
		wraps   error
	}{
		"that cannot be opened":     {failing{open: broken}, 6, broken},
		"that ends with an error":   {failing{read: broken}, 6, broken},
		"that is shorter than said": {client.Bytes("x\r\n"), 6, nil},
		"that is longer than said":  {client.Bytes("x\r\ny\r\nz\r\n"), 6, nil},
	} {
		for _, extensions := range []string{"\r\n250-CHUNKING", "\r\n250-PIPELINING\r\n250-CHUNKING", "\r\n250-PIPELINING"} {
			if c.wraps == nil && !strings.Contains(extensions, "CHUNKING") {
				continue // the size is nobody's business then
			}
			got, err := deliver(t, extensions, c.content, c.size)
			_ = bad[*client.BodyError](t, err)
			if c.wraps != nil && !errors.Is(err, c.wraps) || len(got) > 0 {
				t.Errorf("%s, %q: %v; the server has %q", name, extensions, err, got)
			}
		}
	}
}

type failing struct{ open, read error }

func (f failing) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("x\r\n"), &pieces{}, failingReader{f.read})), f.open
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
