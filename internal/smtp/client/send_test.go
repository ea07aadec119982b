package client_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

func envelope(to ...string) client.Envelope {
	e := client.Envelope{Mail: smtp.Mail{From: smtp.Path{Local: "a", Domain: "example.org"}}}
	for _, r := range to {
		local, domain, _ := strings.Cut(r, "@")
		e.Rcpts = append(e.Rcpts, smtp.Rcpt{To: smtp.Path{Local: local, Domain: domain}})
	}
	return e
}

// became puts a result into words, one for each recipient.
func became(r client.Result) []string {
	var words []string
	for _, rcpt := range r.Rcpts {
		word := "refused"
		switch {
		case rcpt.Err != nil:
			word = "unfit: " + rcpt.Err.Error()
		case rcpt.Delivered:
			word = "delivered"
		case rcpt.Reply.Code == 0:
			word = "open"
		case rcpt.Reply.Class() == 2:
			word = "taken"
		case rcpt.Reply.Class() == 4:
			word = "deferred"
		}
		if rcpt.Reply.Code != 0 {
			word = fmt.Sprintf("%s at %s: %s", word, rcpt.Phase, rcpt.Reply)
		}
		words = append(words, word)
	}
	return words
}

func check(t *testing.T, r client.Result, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, became(r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// opened is a session of which the extensions are as given.
func opened(extensions ...string) string {
	s := "S: 220 mx.example.com\nC: EHLO mail.example.org\n"
	lines := append([]string{"mx.example.com"}, extensions...)
	for i, line := range lines {
		between := "-"
		if i == len(lines)-1 {
			between = " "
		}
		s += "S: 250" + between + line + "\n"
	}
	return s
}

const message = "Subject: hello\r\n\r\n.\r\n..two dots\r\nno dot.\r\n"

func TestAMessageWithoutExtensions(t *testing.T) {
	play(t, script(opened()+`
		C: MAIL FROM:<a@example.org>
		S: 250 ok
		C: RCPT TO:<b@example.com>
		S: 250 ok
		C: RCPT TO:<c@example.com>
		S: 550 no such user
		C: RCPT TO:<d@example.com>
		S: 451 later
		C: DATA
		S: 354 go
		C: Subject: hello
		C:
		C: ..
		C: ...two dots
		C: no dot.
		C: .
		S: 250 taken
		EOF
	`), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		env := envelope("b@example.com", "c@example.com", "d@example.com")
		env.Size, env.Body, env.Ret, env.EnvID = int64(len(message)), smtp.Body7Bit, smtp.RetHdrs, "id"
		r, err := c.Send(t.Context(), env, client.Bytes(message))
		good(t, err)
		check(t, r, "delivered at end of message: 250 taken", "refused at RCPT: 550 no such user", "deferred at RCPT: 451 later")
	})
}

func TestPipeliningTakesTwoRoundTrips(t *testing.T) {
	var conn *counted
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		conn = &counted{Conn: ours}
		done := make(chan error, 1)
		go func() {
			done <- script(opened("PIPELINING") + `
				C: MAIL FROM:<a@example.org>
				C: RCPT TO:<b@example.com>
				C: RCPT TO:<c@example.com>
				C: DATA
				S! 250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n
				C: Subject: hello
				C:
				C: ..
				C: ...two dots
				C: no dot.
				C: .
				S: 250 taken
			`).serve(theirs)
		}()
		c := client.New(conn, client.Options{Hello: "mail.example.org"})
		good(t, c.Hello(t.Context()))
		before := conn.writes.Load()
		r, err := c.Send(t.Context(), envelope("b@example.com", "c@example.com"), client.Bytes(message))
		good(t, err)
		check(t, r, "delivered at end of message: 250 taken", "refused at RCPT: 550 no")
		if writes := conn.writes.Load() - before; writes != 2 {
			t.Errorf("%d writes, want 2", writes)
		}
		c.Close()
		good(t, <-done)
	})
}

func TestPipeliningAndChunkingTakeOneRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		conn := &counted{Conn: ours}
		done := make(chan error, 1)
		go func() {
			done <- script(opened("PIPELINING", "CHUNKING", "SIZE 100000") + `
				C: MAIL FROM:<a@example.org> SIZE=42
				C: RCPT TO:<b@example.com>
				C: BDAT 42 LAST
				C: Subject: hello
				C:
				C: .
				C: ..two dots
				C: no dot.
				S! 250 ok\r\n250 ok\r\n250 taken\r\n
				C: MAIL FROM:<a@example.org> SIZE=42
				C: RCPT TO:<b@example.com>
				C: BDAT 42 LAST
				C: Subject: hello
				C:
				C: .
				C: ..two dots
				C: no dot.
				S! 250 ok\r\n550 no\r\n503 no recipients\r\n
				C: RSET
				C: MAIL FROM:<a@example.org> SIZE=42
				C: RCPT TO:<b@example.com>
				C: BDAT 42 LAST
				C: Subject: hello
				C:
				C: .
				C: ..two dots
				C: no dot.
				S! 250 ok\r\n250 ok\r\n250 ok\r\n452 full\r\n
			`).serve(theirs)
		}()
		c := client.New(conn, client.Options{Hello: "mail.example.org"})
		good(t, c.Hello(t.Context()))
		before := conn.writes.Load()
		env := envelope("b@example.com")
		env.Size = int64(len(message))
		for _, want := range []string{
			"delivered at end of message: 250 taken",
			"refused at RCPT: 550 no",
			"deferred at end of message: 452 full",
		} {
			r, err := c.Send(t.Context(), env, client.Bytes(message))
			good(t, err)
			check(t, r, want)
		}
		if writes := conn.writes.Load() - before; writes != 3 {
			t.Errorf("%d writes for 3 messages", writes)
		}
		c.Close()
		good(t, <-done)
	})
}

func TestDATAWhereChunkingIsNotWantedOrTheSizeIsNotKnown(t *testing.T) {
	said := script(opened("CHUNKING") + `
		C: MAIL FROM:<a@example.org>
		S: 250 ok
		C: RCPT TO:<b@example.com>
		S: 250 ok
		C: DATA
		S: 354 go
		C: x
		C: .
		S: 250 taken
	`)
	for name, size := range map[string]int64{"not wanted": 3, "not known": 0} {
		play(t, said, client.Options{NoChunking: size > 0}, func(t *testing.T, c *client.Client) {
			good(t, c.Hello(t.Context()))
			env := envelope("b@example.com")
			env.Size = size
			r, err := c.Send(t.Context(), env, client.Bytes("x\r\n"))
			if err != nil || !r.Rcpts[0].Delivered {
				t.Errorf("%s: %v, %v", name, err, became(r))
			}
		})
	}
}

func TestLargeMessagesWaitForTheEnvelopeAndGoInChunks(t *testing.T) {
	content := large(40_000) // 2,560,000 octets
	play(t, script(opened("PIPELINING", "CHUNKING")+`
		C: MAIL FROM:<a@example.org>
		C: RCPT TO:<b@example.com>
		S! 250 ok\r\n550 no\r\n
		C: RSET
		C: MAIL FROM:<a@example.org>
		C: RCPT TO:<b@example.com>
		S! 250 ok\r\n250 ok\r\n250 ok\r\n
		C: BDAT 1048576
		`+strings.Repeat("C: "+string(content[:62])+"\n", 1<<14)+`
		S: 250 go on
		C: BDAT 1048576
		`+strings.Repeat("C: "+string(content[:62])+"\n", 1<<14)+`
		S: 452 4.3.1 full
		C: RSET
		S: 250 ok
	`), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		env := envelope("b@example.com")
		env.Size = int64(len(content))
		r, err := c.Send(t.Context(), env, client.Bytes(content))
		good(t, err)
		check(t, r, "refused at RCPT: 550 no")
		r, err = c.Send(t.Context(), env, client.Bytes(content))
		good(t, err)
		check(t, r, "deferred at end of message: 452 4.3.1 full")
		good(t, c.Reset(t.Context()))
	})
}

func TestManyRecipientsGoInBatches(t *testing.T) {
	var to []string
	for i := range 250 {
		to = append(to, fmt.Sprintf("r%d@example.com", i))
	}
	batch := func(first, last int) string {
		s := ""
		for i := first; i < last; i++ {
			s += "C: RCPT TO:<" + to[i] + ">\n"
		}
		return s
	}
	play(t, script(opened("PIPELINING")+"C: MAIL FROM:<a@example.org>\n"+batch(0, 99)+
		"S! "+strings.Repeat(`250 ok\r\n`, 100)+"\n"+batch(99, 199)+
		"S! "+strings.Repeat(`550 no\r\n`, 100)+"\n"+batch(199, 250)+"C: DATA\n"+
		"S! "+strings.Repeat(`450 later\r\n`, 51)+`354 go\r\n`+"\nC: x\nC: .\nS: 250 taken"),
		client.Options{}, func(t *testing.T, c *client.Client) {
			good(t, c.Hello(t.Context()))
			r, err := c.Send(t.Context(), envelope(to...), client.Bytes("x\r\n"))
			good(t, err)
			count := map[string]int{}
			for _, word := range became(r) {
				count[word]++
			}
			want := map[string]int{"delivered at end of message: 250 taken": 99, "refused at RCPT: 550 no": 100, "deferred at RCPT: 450 later": 51}
			if diff := cmp.Diff(want, count); diff != "" {
				t.Error(diff)
			}
		})
}

func TestRefusalsAtEachStage(t *testing.T) {
	for name, c := range map[string]struct {
		extensions []string
		said       string
		want       []string
	}{
		"MAIL": {
			nil, "C: MAIL FROM:<a@example.org>\nS: 550 5.7.1 not you\nC: RSET\nS: 250 ok",
			[]string{"refused at MAIL: 550 5.7.1 not you", "refused at MAIL: 550 5.7.1 not you"},
		},
		"MAIL, pipelined": {
			[]string{"PIPELINING"},
			`
				C: MAIL FROM:<a@example.org>
				C: RCPT TO:<b@example.com>
				C: RCPT TO:<c@example.com>
				C: DATA
				S! 450 4.7.1 greylisted\r\n503 no\r\n250 what?\r\n503 no\r\n
				C: RSET
				S: 250 ok`,
			[]string{"deferred at MAIL: 450 4.7.1 greylisted", "deferred at MAIL: 450 4.7.1 greylisted"},
		},
		"every RCPT": {
			nil, `
				C: MAIL FROM:<a@example.org>
				S: 250 ok
				C: RCPT TO:<b@example.com>
				S: 550 no
				C: RCPT TO:<c@example.com>
				S: 451 later
				C: RSET
				S: 250 ok`,
			[]string{"refused at RCPT: 550 no", "deferred at RCPT: 451 later"},
		},
		"every RCPT, pipelined, and DATA": {
			[]string{"PIPELINING"},
			`
				C: MAIL FROM:<a@example.org>
				C: RCPT TO:<b@example.com>
				C: RCPT TO:<c@example.com>
				C: DATA
				S! 250 ok\r\n550 no\r\n550 no\r\n503 no\r\n
				C: RSET
				S: 250 ok`,
			[]string{"refused at RCPT: 550 no", "refused at RCPT: 550 no"},
		},
		"every RCPT, pipelined, and DATA is taken (RFC 2920 §3.1)": {
			[]string{"PIPELINING"},
			`
				C: MAIL FROM:<a@example.org>
				C: RCPT TO:<b@example.com>
				C: RCPT TO:<c@example.com>
				C: DATA
				S! 250 ok\r\n550 no\r\n550 no\r\n354 go\r\n
				C: .
				S: 554 no valid recipients
				C: RSET
				S: 250 ok`,
			[]string{"refused at RCPT: 550 no", "refused at RCPT: 550 no"},
		},
		"DATA": {
			nil, `
				C: MAIL FROM:<a@example.org>
				S: 250 ok
				C: RCPT TO:<b@example.com>
				S: 550 no
				C: RCPT TO:<c@example.com>
				S: 250 ok
				C: DATA
				S: 451 4.3.0 not now
				C: RSET
				S: 250 ok`,
			[]string{"refused at RCPT: 550 no", "deferred at DATA: 451 4.3.0 not now"},
		},
		"the message": {
			[]string{"PIPELINING"},
			`
				C: MAIL FROM:<a@example.org>
				C: RCPT TO:<b@example.com>
				C: RCPT TO:<c@example.com>
				C: DATA
				S! 250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n
				C: x
				C: .
				S: 554 5.6.0 spam
				C: RSET
				S: 250 ok`,
			[]string{"refused at end of message: 554 5.6.0 spam", "refused at end of message: 554 5.6.0 spam"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(opened(c.extensions...)+c.said), client.Options{}, func(t *testing.T, cl *client.Client) {
				good(t, cl.Hello(t.Context()))
				r, err := cl.Send(t.Context(), envelope("b@example.com", "c@example.com"), client.Bytes("x\r\n"))
				good(t, err)
				check(t, r, c.want...)
				good(t, cl.Reset(t.Context()))
			})
		})
	}
}

func TestTheServerSaysGoodbyeInTheMiddle(t *testing.T) {
	pipelined := `
		C: MAIL FROM:<a@example.org>
		C: RCPT TO:<b@example.com>
		C: RCPT TO:<c@example.com>
		C: DATA
	`
	for name, c := range map[string]struct {
		said string
		want []string
	}{
		"to MAIL":                {pipelined + `S: 421 bye`, []string{"deferred at MAIL: 421 bye", "deferred at MAIL: 421 bye"}},
		"to the second RCPT":     {pipelined + `S! 250 ok\r\n550 no\r\n421 bye\r\n`, []string{"refused at RCPT: 550 no", "deferred at RCPT: 421 bye"}},
		"to DATA":                {pipelined + `S! 250 ok\r\n250 ok\r\n550 no\r\n421 bye\r\n`, []string{"deferred at DATA: 421 bye", "refused at RCPT: 550 no"}},
		"behind 354":             {pipelined + `S! 250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n421 bye\r\n`, []string{"deferred at end of message: 421 bye", "refused at RCPT: 550 no"}},
		"to the message":         {pipelined + `S! 250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n` + "\nC: x\nC: .\nS: 421 bye", []string{"deferred at end of message: 421 bye", "refused at RCPT: 550 no"}},
		"before it is asked":     {"S: 421 idle", []string{"deferred at MAIL: 421 idle", "deferred at MAIL: 421 idle"}},
		"as a reply of any kind": {pipelined + `S! 250 ok\r\n421-bye\r\n421 really\r\n`, []string{"deferred at RCPT: 421 bye, really", "deferred at RCPT: 421 bye, really"}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(opened("PIPELINING")+c.said), client.Options{}, func(t *testing.T, cl *client.Client) {
				good(t, cl.Hello(t.Context()))
				r, err := cl.Send(t.Context(), envelope("b@example.com", "c@example.com"), client.Bytes("x\r\n"))
				if !errors.Is(err, client.ErrClosing) || !errors.Is(cl.Err(), client.ErrClosing) {
					t.Errorf("%v", err)
				}
				check(t, r, c.want...)
			})
		})
	}
}

func TestTheConnectionIsLostInTheMiddle(t *testing.T) {
	one := `
		C: MAIL FROM:<a@example.org>
		C: RCPT TO:<b@example.com>
		C: RCPT TO:<c@example.com>
		C: DATA
	`
	for name, c := range map[string]struct {
		said  string
		phase client.Phase
		want  []string
	}{
		"before any reply":    {one + "DROP", client.Mail, []string{"open", "open"}},
		"after a refusal":     {one + "S! 250 ok\\r\\n550 no\\r\\n\nDROP", client.Rcpt, []string{"refused at RCPT: 550 no", "open"}},
		"in a reply":          {one + "S! 250 ok\\r\\n250-o\nDROP", client.Rcpt, []string{"open", "open"}},
		"after 354":           {one + "S! 250 ok\\r\\n250 ok\\r\\n550 no\\r\\n354 go\\r\\n\nC: x\nDROP", client.End, []string{"taken at RCPT: 250 ok", "refused at RCPT: 550 no"}},
		"after the message":   {one + "S! 250 ok\\r\\n250 ok\\r\\n550 no\\r\\n354 go\\r\\n\nC: x\nC: .\nDROP", client.End, []string{"taken at RCPT: 250 ok", "refused at RCPT: 550 no"}},
		"in the last reply":   {one + "S! 250 ok\\r\\n250 ok\\r\\n550 no\\r\\n354 go\\r\\n\nC: x\nC: .\nS! 250 ta\nDROP", client.End, []string{"taken at RCPT: 250 ok", "refused at RCPT: 550 no"}},
		"a reply is missing":  {one + "S! 250 ok\\r\\n250 ok\\r\\n354 go\\r\\n\nWAIT 1h", client.Rcpt, []string{"taken at RCPT: 250 ok", "open"}},
		"a reply is too many": {one + "S! 250 ok\\r\\n250 ok\\r\\n250 ok\\r\\n354 go\\r\\n250 taken\\r\\n", client.End, []string{"taken at RCPT: 250 ok", "taken at RCPT: 250 ok"}},
		"DATA after a refusal of MAIL": {
			one + "S! 550 no\\r\\n250 ok\\r\\n250 ok\\r\\n354 go\\r\\n", client.Data,
			[]string{"refused at MAIL: 550 no", "refused at MAIL: 550 no"},
		},
		"354 to MAIL": {one + "S: 354 go", client.Mail, []string{"open", "open"}},
		"250 to DATA": {one + "S! 250 ok\\r\\n250 ok\\r\\n250 ok\\r\\n250 ok\\r\\n", client.Data, []string{"taken at RCPT: 250 ok", "taken at RCPT: 250 ok"}},
		"354 to the message": {
			one + "S! 250 ok\\r\\n250 ok\\r\\n250 ok\\r\\n354 go\\r\\n\nC: x\nC: .\nS: 354 more", client.End,
			[]string{"taken at RCPT: 250 ok", "taken at RCPT: 250 ok"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(opened("PIPELINING")+c.said), client.Options{}, func(t *testing.T, cl *client.Client) {
				good(t, cl.Hello(t.Context()))
				r, err := cl.Send(t.Context(), envelope("b@example.com", "c@example.com"), client.Bytes("x\r\n"))
				var conn *client.ConnError
				var protocol *client.ProtocolError
				var phase client.Phase
				switch {
				case errors.As(err, &conn):
					phase = conn.Phase
				case errors.As(err, &protocol):
					phase = protocol.Phase
				default:
					t.Fatalf("%v", err)
				}
				if phase != c.phase || cl.Err() == nil {
					t.Errorf("at %s: %v", phase, err)
				}
				check(t, r, c.want...)
				if _, again := cl.Send(t.Context(), envelope("b@example.com"), client.Bytes("x\r\n")); !errors.Is(again, cl.Err()) {
					t.Errorf("the session goes on: %v", again)
				}
			})
		})
	}
}

func TestAServerThatStopsReadingIsGivenItsTime(t *testing.T) {
	play(t, script(opened()+`
		C: MAIL FROM:<a@example.org>
		S: 250 ok
		C: RCPT TO:<b@example.com>
		S: 250 ok
		C: DATA
		S: 354 go
		WAIT 24h
	`), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		start := time.Now()
		_, err := c.Send(t.Context(), envelope("b@example.com"), client.Bytes(large(100_000)))
		lost := bad[*client.ConnError](t, err)
		if took := time.Since(start); took != client.BlockTimeout || lost.Phase != client.Body || !lost.Timeout() {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestWhatTheServerSaidBeforeItStoppedReadingIsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		done := make(chan error, 1)
		go func() { done <- script(opened() + "C: RSET\nS: 250 ok").serve(theirs) }()
		conn := &lateWords{Conn: ours, words: []byte("552 5.3.4 too much\r\n")}
		c := client.New(conn, client.Options{Hello: "mail.example.org"})
		good(t, c.Hello(t.Context()))
		good(t, c.Reset(t.Context()))
		good(t, <-done)
		reply := bad[*client.ReplyError](t, c.Reset(t.Context()))
		if reply.Reply.String() != "552 5.3.4 too much" || c.Err() == nil {
			t.Errorf("%v", reply)
		}
	})
}

// lateWords is a connection on which the other end, having closed it, left
// something to read.
type lateWords struct {
	net.Conn
	words []byte
}

func (l *lateWords) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n == 0 && err != nil && len(l.words) > 0 {
		n = copy(p, l.words)
		l.words = l.words[n:]
		return n, nil
	}
	return n, err
}
