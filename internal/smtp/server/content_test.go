package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
)

const chunkHello = `
	S: 220 …
	C: EHLO client.example
	S: 250-mx.example.com
	S: 250-PIPELINING
	S: 250-CHUNKING
	S: 250 ENHANCEDSTATUSCODES
	C: MAIL FROM:<ann@a.test>
	C: RCPT TO:<bob@b.test>
	S: 250 2.1.0 go on
	S: 250 2.1.5 go on
`

func chunking(o *Options) { o.Without = []string{"DSN", "SMTPUTF8", "8BITMIME", "SIZE"} }

func TestChunks(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		bodies       []string
	}{
		{
			name: "one chunk", script: `
				C| "BDAT 7 LAST\r\nhello\r\n"
				S: 250 2.0.0 taken`,
			bodies: []string{"hello\r\n"},
		},
		{
			name: "several chunks and the next message in one batch", script: `
				C| "BDAT 3\r\nhelBDAT 5\r\nlo\r\n.BDAT 0\r\nBDAT 2 last\r\n\r\nMAIL FROM:<>\r\n"
				S: 250 2.0.0 3 octets received
				S: 250 2.0.0 5 octets received
				S: 250 2.0.0 0 octets received
				S: 250 2.0.0 taken
				S: 250 2.1.0 go on`,
			bodies: []string{"hello\r\n.\r\n"},
		},
		{
			name: "a line end divided between chunks", script: `
				C| "BDAT 2\r\na\rBDAT 2 LAST\r\n\nb"
				S: 250 2.0.0 2 octets received
				S: 250 2.0.0 taken`,
			bodies: []string{"a\r\nb\r\n"},
		},
		{
			name: "dots mean nothing", script: `
				C| "BDAT 13 LAST\r\n.\r\n..\r\na\r\n.\r\n"
				S: 250 2.0.0 taken`,
			bodies: []string{".\r\n..\r\na\r\n.\r\n"},
		},
		{
			name: "an open last line is ended", script: `
				C| "BDAT 5 LAST\r\nhello"
				S: 250 2.0.0 taken`,
			bodies: []string{"hello\r\n"},
		},
		{
			name: "nothing at all", script: `
				C: BDAT 0 LAST
				S: 250 2.0.0 taken`,
			bodies: []string{""},
		},
		{
			name: "RFC 3030 §2: DATA and RCPT have no place among chunks, NOOP has", script: `
				C| "BDAT 3\r\na\r\n"
				S: 250 2.0.0 3 octets received
				C: DATA
				S: 503 5.5.1 the message comes by BDAT
				C: RCPT TO:<cat@c.test>
				S: 503 5.5.1 the message has begun
				C: MAIL FROM:<>
				S: 503 5.5.1 a transaction is open already
				C: NOOP
				S: 250 2.0.0 nothing done
				C| "BDAT 3 LAST\r\nb\r\n"
				S: 250 2.0.0 taken`,
			bodies: []string{"a\r\nb\r\n"},
		},
		{
			name: "RSET gives the message up", script: `
				C| "BDAT 3\r\na\r\n"
				S: 250 2.0.0 3 octets received
				C: RSET
				S: 250 2.0.0 reset
				C| "BDAT 3 LAST\r\nb\r\n"
				S: 503 5.5.1 say MAIL first
				C: MAIL FROM:<>
				S: 250 2.1.0 go on`,
		},
		{
			name: "QUIT gives the message up", script: `
				C| "BDAT 3\r\na\r\nQUIT\r\n"
				S: 250 2.0.0 3 octets received
				S: 221 2.0.0 mx.example.com closes
				END`,
		},
		{
			name: "a bare LF is refused where its chunk ends, and the rest has no place", script: `
				C| "BDAT 4\r\na\nb\nBDAT 3 LAST\r\nc\r\nNOOP\r\n"
				S: 550 5.6.11 the message holds a bare LF: end every line in CR LF
				S: 503 5.5.1 say MAIL first
				S: 250 2.0.0 nothing done`,
		},
		{
			name: "a bare CR at the very end is refused", script: `
				C| "BDAT 2 LAST\r\na\r"
				S: 550 5.6.11 the message holds a bare CR: end every line in CR LF
				C: NOOP
				S: 250 2.0.0 nothing done`,
		},
		{
			name: "a chunk without recipients is taken in and refused", script: `
				C: RSET
				S: 250 2.0.0 reset
				C: MAIL FROM:<>
				S: 250 2.1.0 go on
				C| "BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
				S: 554 5.5.1 no valid recipients
				S: 554 5.5.1 no valid recipients
				S: 250 2.0.0 nothing done`,
		},
		{
			name: "a size that is none ends the connection", script: `
				C| "BDAT -1 LAST\r\nhello"
				S: 501 5.5.4 after BDAT come the size and, at the end, LAST
				END`,
		},
		{
			name: "a size with a sign ends the connection", script: `
				C| "BDAT +5 LAST\r\nhello"
				S: 501 5.5.4 after BDAT come the size and, at the end, LAST
				END`,
		},
		{
			name: "a size beyond all bounds ends the connection", script: `
				C| "BDAT 99999999999999999999 LAST\r\nhello"
				S: 501 5.5.4 after BDAT come the size and, at the end, LAST
				END`,
		},
		{
			name: "a word other than LAST ends the connection", script: `
				C| "BDAT 5 FIRST\r\nhello"
				S: 501 5.5.4 after BDAT come the size and, at the end, LAST
				END`,
		},
		{
			name: "a chunk without a place that is far too large ends the connection", script: `
				C: RSET
				S: 250 2.0.0 reset
				C: BDAT 9999999999
				S: 552 5.3.4 the chunk is much too large
				END`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil, chunking)
			r.talk(chunkHello + tt.script)
			if diff := cmp.Diff(tt.bodies, r.bodies()); diff != "" {
				t.Errorf("bodies -want +got:\n%s", diff)
			}
		})
	}
}

// text is n octets of lines.
func text(n int) string {
	line := strings.Repeat("x", 70) + "\r\n"
	return strings.Repeat(line, (n-2)/len(line)) + strings.Repeat("y", (n-2)%len(line)) + "\r\n"
}

func TestMessagesOfEverySizeComeThrough(t *testing.T) {
	for _, size := range []int{2, 100, smallBody - 1, smallBody, smallBody + 1, wholeBody - 1, wholeBody, wholeBody + 1, 3*wholeBody + 7, 5 << 20} {
		for _, by := range []string{"DATA", "BDAT", "BDAT by 50000"} {
			r := start(t, nil, chunking)
			c := r.talk(chunkHello)
			body := text(size)
			switch by {
			case "DATA":
				c.Talk("C: DATA\nS: 354 …")
				c.Send([]byte(body + ".\r\n"))
			case "BDAT":
				c.Send(chunk(body, true))
			default:
				rest := body
				for len(rest) > 50_000 {
					c.Send(chunk(rest[:50_000], false))
					c.Expect("250 2.0.0 50000 octets received")
					rest = rest[50_000:]
				}
				c.Send(chunk(rest, true))
			}
			c.Talk("S: 250 2.0.0 taken\nC: NOOP\nS: 250 2.0.0 nothing done")
			got := r.in.taken()
			if len(got) != 1 || got[0].body != body {
				t.Errorf("%d octets by %s did not come through", size, by)
				continue
			}
			if got[0].whole != (size < wholeBody) {
				t.Errorf("%d octets by %s: whole %v", size, by, got[0].whole)
			}
		}
	}
}

// chunk is a BDAT command with its content.
func chunk(content string, last bool) []byte {
	word := ""
	if last {
		word = " LAST"
	}
	return fmt.Appendf(nil, "BDAT %d%s\r\n%s", len(content), word, content)
}

func TestAMessageThatIsTooLargeIsRefusedAtItsEnd(t *testing.T) {
	for _, size := range []int{1000, wholeBody * 2} {
		limited := func(o *Options) { chunking(o); o.Limits.Size = int64(size) }
		r := start(t, nil, limited)
		c := r.talk(chunkHello + "C: DATA\nS: 354 …")
		c.Send([]byte(text(size) + ".\r\n"))
		c.Talk("S: 250 2.0.0 taken\nC: MAIL FROM:<>\nC: RCPT TO:<bob@b.test>\nC: DATA\nS: 250 …\nS: 250 …\nS: 354 …")
		c.Send([]byte(text(size+1) + ".\r\n"))
		refusal := "S: 552 5.3.4 the message is larger than " + strconv.Itoa(size) + " octets\n"
		c.Talk(refusal + "C: MAIL FROM:<>\nC: RCPT TO:<bob@b.test>\nS: 250 …\nS: 250 …")
		c.Send(chunk(text(size/2+1), false))
		c.Talk("S: 250 …")
		c.Send(chunk(text(size/2+1), false))
		c.Talk(refusal)
		c.Send(chunk("x", true))
		c.Talk("S: 503 5.5.1 say MAIL first\nC: NOOP\nS: 250 …")
		if n := len(r.in.taken()); n != 1 {
			t.Errorf("%d messages taken, want 1", n)
		}
	}
}

func TestAMessageThatNeverEndsEndsTheConnection(t *testing.T) {
	r := start(t, nil, func(o *Options) { o.Limits.Size = 1000 })
	c := r.talk(envelope)
	block := []byte(text(64 << 10))
	for {
		if _, err := c.Conn.Write(block); err != nil {
			break
		}
	}
	if n := len(r.in.taken()); n != 0 {
		t.Errorf("%d messages taken", n)
	}
}

func TestAStreamedMessageWithABadLineIsRefusedWhateverTheSessionSays(t *testing.T) {
	for name, data := range map[string]func(context.Context, *Body) (smtp.Reply, error){
		"that reads and ignores the error": func(_ context.Context, b *Body) (smtp.Reply, error) {
			_, err := io.Copy(io.Discard, b)
			var refusal *smtp.Error
			if !errors.As(err, &refusal) || refusal.Code != 550 {
				return smtp.Reply{Code: 599, Lines: []string{"no error of the body"}}, nil
			}
			return smtp.Reply{}, nil
		},
		"that reads nothing": func(context.Context, *Body) (smtp.Reply, error) { return smtp.Reply{}, nil },
		"that has a reply": func(context.Context, *Body) (smtp.Reply, error) {
			return smtp.Reply{Code: 250, Lines: []string{"yes"}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, &inbox{onData: data}, nil)
			c := r.talk(envelope)
			c.Send([]byte(text(2*wholeBody) + "bare\nLF\r\n.\r\nNOOP\r\n"))
			c.Talk("S: 550 5.6.11 the message holds a bare LF: end every line in CR LF\nS: 250 2.0.0 nothing done")
		})
	}
}

func TestASessionMayRefuseAMessageWithoutReadingIt(t *testing.T) {
	refuse := func(context.Context, *Body) (smtp.Reply, error) {
		return smtp.Reply{}, smtp.Errorf(554, smtp.Enhanced{5, 7, 1}, "no")
	}
	for _, size := range []int{10, 3 * wholeBody} {
		r := start(t, &inbox{onData: refuse}, chunking)
		c := r.talk(chunkHello + "C: DATA\nS: 354 …")
		c.Send([]byte(text(size) + ".\r\nMAIL FROM:<>\r\nRCPT TO:<bob@b.test>\r\n"))
		c.Talk("S: 554 5.7.1 no\nS: 250 …\nS: 250 …")
		c.Send(append(chunk(text(size), true), "NOOP\r\n"...))
		c.Talk("S: 554 5.7.1 no\nS: 250 2.0.0 nothing done")
	}
}

func TestABodyCanBeReadInAnyWay(t *testing.T) {
	var got string
	in := &inbox{onData: func(_ context.Context, b *Body) (smtp.Reply, error) {
		first := make([]byte, 10) // by hand, then by WriteTo
		if _, err := io.ReadFull(b, first); err != nil {
			return smtp.Reply{}, err
		}
		var rest strings.Builder
		if _, err := b.WriteTo(&rest); err != nil {
			return smtp.Reply{}, err
		}
		if n, err := b.Read(first[:1]); n != 0 || !errors.Is(err, io.EOF) {
			return smtp.Reply{}, errors.New("no io.EOF after the end")
		}
		got = string(first) + rest.String()
		return smtp.Reply{}, nil
	}}
	r := start(t, in, nil)
	for _, size := range []int{100, 3 * wholeBody} {
		c := r.talk(envelope)
		body := text(size)
		c.Send([]byte(body + ".\r\n"))
		c.Talk("S: 250 2.0.0 taken")
		if got != body {
			t.Errorf("%d octets came as %d", size, len(got))
		}
	}
}

func TestAClientThatLeavesInsideAMessageLeavesNone(t *testing.T) {
	for _, sent := range []string{"hello\r\n", "hello\r\n.", text(2 * wholeBody)} {
		failed := make(chan error, 1)
		in := &inbox{onData: func(ctx context.Context, b *Body) (smtp.Reply, error) {
			_, err := io.Copy(io.Discard, b)
			failed <- errors.Join(err, ctx.Err())
			return smtp.Reply{}, nil
		}}
		r := start(t, in, nil)
		c := r.talk(envelope)
		c.Send([]byte(sent))
		if err := c.Raw.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.ExpectEnd()
		if len(sent) > wholeBody {
			if err := <-failed; !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, context.Canceled) {
				t.Errorf("the session saw %v", err)
			}
		}
		select {
		case <-failed:
			t.Error("Data was called for a message without its end")
		default:
		}
	}
}
