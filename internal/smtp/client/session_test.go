package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

func TestASessionOpens(t *testing.T) {
	play(t, `
		S: 220-mx.example.com ESMTP
		S: 220 at your service
		C: EHLO mail.example.org
		S: 250-mx.example.com greets mail.example.org
		S: 250-PIPELINING
		S: 250-SIZE 1000000
		S: 250 STARTTLS
		C: QUIT
		S: 221 2.0.0 bye
		EOF
	`, client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		want := smtp.Extensions{"PIPELINING": "", "SIZE": "1000000", "STARTTLS": ""}
		if diff := cmp.Diff(want, c.Extensions()); diff != "" {
			t.Error(diff)
		}
		if got := c.ServerName(); got != "mx.example.com greets mail.example.org" {
			t.Errorf("server name %q", got)
		}
		if got := c.Greeting().String(); got != "220 mx.example.com ESMTP, at your service" {
			t.Errorf("greeting %q", got)
		}
		c.Quit(t.Context())
		if !errors.Is(c.Err(), client.ErrClosed) {
			t.Errorf("after QUIT: %v", c.Err())
		}
	})
}

func TestHELOOnlyWhereItIsAllowed(t *testing.T) {
	play(t, `
		S: 220 old.example.com
		C: EHLO mail.example.org
		S: 502 5.5.1 what?
		C: HELO mail.example.org
		S: 250-old.example.com
		S: 250 STARTTLS
		EOF
	`, client.Options{FallBackToHELO: true}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		if len(c.Extensions()) != 0 {
			t.Errorf("HELO brought %v", c.Extensions())
		}
	})
	play(t, `
		S: 220 old.example.com
		C: EHLO mail.example.org
		S: 502 5.5.1 what?
		C: QUIT
		S: 221 bye
		EOF
	`, client.Options{}, func(t *testing.T, c *client.Client) {
		err := bad[*client.ReplyError](t, c.Hello(t.Context()))
		if err.Phase != client.Hello || err.Temporary() || !err.BeforeTLS || err.Reply.Code != 502 {
			t.Errorf("%+v", err)
		}
		c.Quit(t.Context())
	})
}

func TestAGreetingThatRefuses(t *testing.T) {
	for greeting, temporary := range map[string]bool{"554 5.3.2 no mail here": false, "450 4.3.2 later": true} {
		play(t, script("S: "+greeting+`
			C: QUIT
			S: 221 bye
			EOF
		`), client.Options{}, func(t *testing.T, c *client.Client) {
			err := bad[*client.ReplyError](t, c.Hello(t.Context()))
			if err.Phase != client.Greeting || err.Temporary() != temporary || !err.BeforeTLS || err.Reply.String() != greeting {
				t.Errorf("%+v", err)
			}
			c.Quit(t.Context())
		})
	}
}

func TestRFC3207_4_2_NothingLearnedBeforeTLSSurvives(t *testing.T) {
	play(t, `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250-forged.example.net
		S: 250-AUTH PLAIN
		S: 250-SIZE 1
		S: 250 STARTTLS
		C: STARTTLS
		S: 220 go ahead
		TLS
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 REQUIRETLS
		C: QUIT
		S: 221 bye
	`, client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		if c.TLSState() != nil {
			t.Error("TLS before the handshake")
		}
		good(t, c.StartTLS(t.Context(), insecure()))
		if c.Extensions() != nil || c.ServerName() != "" {
			t.Errorf("still there: %v, %q", c.Extensions(), c.ServerName())
		}
		if s := c.TLSState(); s == nil || !s.HandshakeComplete || s.ServerName != "mx.example.com" || len(s.PeerCertificates) != 1 {
			t.Errorf("%+v", s)
		}
		if _, err := c.Send(t.Context(), envelope("b@example.com"), client.Bytes("x\r\n")); err == nil {
			t.Error("a message was sent before EHLO was said again")
		}
		good(t, c.Hello(t.Context()))
		if diff := cmp.Diff(smtp.Extensions{"REQUIRETLS": ""}, c.Extensions()); diff != "" {
			t.Error(diff)
		}
		if err := c.StartTLS(t.Context(), insecure()); !errors.Is(err, client.ErrTLSActive) {
			t.Errorf("TLS in TLS: %v", err)
		}
		c.Quit(t.Context())
	})
}

func TestRFC3207_4_STARTTLSRefusedLeavesTheSession(t *testing.T) {
	for reply, temporary := range map[string]bool{"454 4.7.0 not now": true, "501 5.5.4 no": false, "250 well": false} {
		play(t, script(`
			S: 220 mx.example.com
			C: EHLO mail.example.org
			S: 250-mx.example.com
			S: 250 STARTTLS
			C: STARTTLS
			S: `+reply+`
			C: RSET
			S: 250 ok
			EOF
		`), client.Options{}, func(t *testing.T, c *client.Client) {
			good(t, c.Hello(t.Context()))
			err := bad[*client.StartTLSRefused](t, c.StartTLS(t.Context(), insecure()))
			if err.Reply.String() != reply || err.Temporary() != temporary || err.ResultType() != "starttls-not-supported" {
				t.Errorf("%+v", err)
			}
			good(t, c.Reset(t.Context()))
		})
	}
}

func TestSTARTTLSIsNotSaidWhereItIsNotOffered(t *testing.T) {
	play(t, `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250 mx.example.com
		EOF
	`, client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		err := bad[*client.MissingError](t, c.StartTLS(t.Context(), insecure()))
		if err.Extension != "STARTTLS" {
			t.Errorf("%+v", err)
		}
	})
}

// Attack 22: what is pipelined behind the 220 would be read as replies under TLS.
func TestRepliesInjectedBeforeTheHandshakeEndTheConnection(t *testing.T) {
	play(t, `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 STARTTLS
		C: STARTTLS
		S! 220 go ahead\r\n250-mx.example.com\r\n250 AUTH PLAIN\r\n
		EOF
	`, client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		err := bad[*client.InjectionError](t, c.StartTLS(t.Context(), insecure()))
		if err.Octets != len("250-mx.example.com\r\n250 AUTH PLAIN\r\n") || err.ResultType() != "validation-failure" || err.FailureReason() != "replies-injected" {
			t.Errorf("%+v", err)
		}
		if c.Hello(t.Context()) == nil || c.TLSState() != nil {
			t.Error("the session went on")
		}
	})
}

// What is injected later than the client can see goes into the handshake.
func TestRepliesInjectedIntoTheHandshakeBreakIt(t *testing.T) {
	play(t, `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 STARTTLS
		C: STARTTLS
		S: 220 go ahead
		WAIT 1ms
		S: 250 AUTH PLAIN
		DROP
	`, client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		// A pipe has no room: let the server speak while the client writes.
		err := bad[*client.HandshakeError](t, c.StartTLS(t.Context(), insecure()))
		if c.Err() == nil {
			t.Errorf("the session goes on after %v", err)
		}
	})
}

func TestHandshakeErrorsWrapTheirCause(t *testing.T) {
	opening := `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 STARTTLS
		C: STARTTLS
		S: 220 go ahead
	`
	play(t, script(opening+"DROP"), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		err := bad[*client.HandshakeError](t, c.StartTLS(t.Context(), insecure()))
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%v", err)
		}
	})
	play(t, script(opening+"WAIT 1h"), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		start := time.Now()
		err := bad[*client.HandshakeError](t, c.StartTLS(t.Context(), insecure()))
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != client.HandshakeTimeout {
			t.Errorf("after %v: %v", took, err)
		}
	})
	play(t, script(opening+"WAIT 1h"), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(time.Second, cancel).Stop()
		err := bad[*client.HandshakeError](t, c.StartTLS(ctx, insecure()))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	config := insecure()
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	synctest.Test(t, func(t *testing.T) {
		// The server's alert is what the error is about.
		ours, theirs := pipe()
		done := make(chan error, 1)
		go func() { done <- script(opening + "TLS").serve(theirs) }()
		c := client.New(ours, client.Options{Hello: "mail.example.org"})
		good(t, c.Hello(t.Context()))
		err := bad[*client.HandshakeError](t, c.StartTLS(t.Context(), config))
		if !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%v", err)
		}
		<-done
	})
}

// Each reply that ends a session does so at each of its stages.
func TestRFC5321_3_8_421AtAnyTime(t *testing.T) {
	stages := []struct {
		phase client.Phase
		said  string
	}{
		{client.Greeting, ""},
		{client.Hello, "S: 220 mx.example.com\nC: EHLO mail.example.org\n"},
		{client.StartTLS, "S: 220 mx.example.com\nC: EHLO mail.example.org\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n"},
	}
	for _, stage := range stages {
		play(t, script(stage.said+"S: 421 4.3.2 going down\nEOF"), client.Options{}, func(t *testing.T, c *client.Client) {
			err := c.Hello(t.Context())
			if err == nil {
				err = c.StartTLS(t.Context(), insecure())
			}
			reply := bad[*client.ReplyError](t, err)
			if !errors.Is(err, client.ErrClosing) || reply.Phase != stage.phase || !reply.Temporary() || !errors.Is(c.Err(), client.ErrClosing) {
				t.Errorf("at %s: %v", stage.phase, err)
			}
		})
	}
}

func TestAHostileServerIsCutOff(t *testing.T) {
	hello := "S: 220 mx.example.com\nC: EHLO mail.example.org\n"
	for name, s := range map[string]script{
		"a reply without end":                     script("S! " + strings.Repeat(`220-on and on\r\n`, 200)),
		"a line without end":                      script("S! 220 " + strings.Repeat("a", 3000)),
		"an EHLO reply without end":               script(hello + "S! " + strings.Repeat(`250-X-EXTENSION\r\n`, 200)),
		"two codes in a reply":                    script(hello + `S! 250-mx\r\n550 STARTTLS\r\n`),
		"a line that ends in LF":                  script(hello + `S! 250 mx\n`),
		"a NUL":                                   script(hello + `S! 250 mx\0\r\n`),
		"no code":                                 "S: SSH-2.0-OpenSSH_9.9",
		"an intermediate reply to EHLO":           script(hello + "S: 354 go on"),
		"an intermediate reply as greeting":       "S: 334 go on",
		"replies before they are asked for":       script("S! 220 mx\\r\\n250 mx\\r\\n"),
		"one more reply to EHLO than was wanted":  script(hello + "S! 250-mx\\r\\n250 STARTTLS\\r\\n250 ok\\r\\n"),
		"HTTP, which begins no line with a digit": `S! HTTP/1.1 400 Bad Request\r\n\r\n`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := pipe()
				done := make(chan error, 1)
				go func() { done <- s.serve(theirs) }()
				c := client.New(ours, client.Options{Hello: "mail.example.org"})
				err := c.Hello(t.Context())
				if err == nil {
					err = c.Reset(t.Context())
				}
				_ = bad[*client.ProtocolError](t, err)
				if !errors.Is(c.Err(), err) {
					t.Errorf("the session goes on: %v", c.Err())
				}
				<-done // the server may have been cut off in the middle of its word
			})
		})
	}
}

func TestEachPhaseHasItsTimeout(t *testing.T) {
	hello := "S: 220 mx.example.com\nC: EHLO mail.example.org\n"
	extensions := "S: 250-mx.example.com\nS: 250 STARTTLS\n"
	session := func(t *testing.T, c *client.Client) error {
		if err := c.Hello(t.Context()); err != nil {
			return err
		}
		if err := c.Reset(t.Context()); err != nil {
			return err
		}
		_, err := c.Send(t.Context(), envelope("b@example.com"), client.Bytes("x\r\n"))
		return err
	}
	mail := hello + extensions + "C: RSET\nS: 250 ok\nC: MAIL FROM:<a@example.org>\n"
	rcpt := mail + "S: 250 ok\nC: RCPT TO:<b@example.com>\n"
	data := rcpt + "S: 250 ok\nC: DATA\n"
	body := data + "S: 354 go\n"
	end := body + "C: x\nC: .\n"
	for name, c := range map[string]struct {
		said  string
		phase client.Phase
		after time.Duration
	}{
		"greeting":                           {"", client.Greeting, 5 * time.Minute},
		"a greeting of one octet":            {"S! 2\n", client.Greeting, 5 * time.Minute},
		"EHLO":                               {hello, client.Hello, 5 * time.Minute},
		"RSET":                               {hello + extensions + "C: RSET\n", client.Reset, 5 * time.Minute},
		"MAIL (RFC 5321 §4.5.3.2.2)":         {mail, client.Mail, 5 * time.Minute},
		"RCPT (RFC 5321 §4.5.3.2.3)":         {rcpt, client.Rcpt, 5 * time.Minute},
		"DATA (RFC 5321 §4.5.3.2.4)":         {data, client.Data, 2 * time.Minute},
		"content (RFC 5321 §4.5.3.2.5)":      {body, client.End, 10 * time.Minute},
		"end of content (RFC 5321 §4.5.3.2)": {end, client.End, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(c.said+"WAIT 1h"), client.Options{}, func(t *testing.T, c2 *client.Client) {
				start := time.Now()
				err := bad[*client.ConnError](t, session(t, c2))
				if took := time.Since(start); took != c.after || err.Phase != c.phase || !err.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after %v at %s: %v", took, err.Phase, err)
				}
			})
		})
	}
}

func TestTimeoutsCanBeSet(t *testing.T) {
	set := client.Timeouts{Greeting: time.Second}
	play(t, "WAIT 1h", client.Options{Timeouts: set}, func(t *testing.T, c *client.Client) {
		start := time.Now()
		err := bad[*client.ConnError](t, c.Hello(t.Context()))
		if took := time.Since(start); took != time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestAReplyThatDripsIsBoundedAsAWhole(t *testing.T) {
	s := script(strings.Repeat("S! 220-drip\\r\\n\nWAIT 1m\n", 100))
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		done := make(chan error, 1)
		go func() { done <- s.serve(theirs) }()
		c := client.New(ours, client.Options{Hello: "mail.example.org"})
		start := time.Now()
		err := bad[*client.ConnError](t, c.Hello(t.Context()))
		if took := time.Since(start); took != client.GreetingTimeout {
			t.Errorf("after %v: %v", took, err)
		}
		<-done
	})
}

func TestTheContextEndsWhatIsWaitedFor(t *testing.T) {
	play(t, "WAIT 1h", client.Options{}, func(t *testing.T, c *client.Client) {
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("pawl stops")
		defer time.AfterFunc(time.Second, func() { cancel(reason) }).Stop()
		start := time.Now()
		err := bad[*client.ConnError](t, c.Hello(ctx))
		if took := time.Since(start); took != time.Second || !errors.Is(err, reason) {
			t.Errorf("after %v: %v", took, err)
		}
	})
	play(t, "WAIT 1h", client.Options{}, func(t *testing.T, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := bad[*client.ConnError](t, c.Hello(ctx))
		if took := time.Since(start); took != time.Minute || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, err)
		}
	})
	// One that ended before leaves the session as it is.
	play(t, "S: 220 mx\nC: EHLO mail.example.org\nS: 250 mx\nEOF", client.Options{}, func(t *testing.T, c *client.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := bad[*client.ConnError](t, c.Hello(ctx))
		if !errors.Is(err, context.Canceled) || c.Err() != nil {
			t.Errorf("%v, %v", err, c.Err())
		}
		good(t, c.Hello(t.Context()))
	})
}

func TestQuitDoesNotWaitForLong(t *testing.T) {
	play(t, "S: 220 mx\nC: EHLO mail.example.org\nS: 250 mx\nC: QUIT\nWAIT 1h", client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		start := time.Now()
		c.Quit(t.Context())
		if took := time.Since(start); took != client.QuitTimeout {
			t.Errorf("waited %v", took)
		}
		c.Quit(t.Context()) // again, and nothing happens
	})
}

func TestATranscriptAndItsTimings(t *testing.T) {
	var lines []string
	took := map[client.Phase]time.Duration{}
	o := client.Options{
		Trace:  func(d client.Direction, line string) { lines = append(lines, string(d)+": "+line) },
		Timing: func(p client.Phase, d time.Duration) { took[p] = d },
	}
	play(t, `
		WAIT 1s
		S: 220 mx.example.com
		C: EHLO mail.example.org
		WAIT 2s
		S: 250-mx.example.com
		S: 250 STARTTLS
		C: STARTTLS
		WAIT 3s
		S: 220 2.0.0 go ahead
		TLS
		C: EHLO mail.example.org
		S: 250 mx.example.com
		C: MAIL FROM:<a@example.org>
		S: 250-2.1.0 one
		S: 250 2.1.0 two
		C: RCPT TO:<b@example.com>
		S: 250
		C: DATA
		WAIT 4s
		S: 354 go
		C: secret
		C: .
		WAIT 5s
		S: 250 2.0.0
		C: QUIT
		S: 221 bye
	`, o, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		good(t, c.StartTLS(t.Context(), insecure()))
		good(t, c.Hello(t.Context()))
		env := envelope("b@example.com")
		env.Size = int64(len("secret\r\n"))
		_, err := c.Send(t.Context(), env, client.Bytes("secret\r\n"))
		good(t, err)
		c.Quit(t.Context())
	})
	want := strings.Split(strings.TrimSpace(`
S: 220 mx.example.com
C: EHLO mail.example.org
S: 250-mx.example.com
S: 250 STARTTLS
C: STARTTLS
S: 220 2.0.0 go ahead
-: TLS 1.3, TLS_AES_128_GCM_SHA256
C: EHLO mail.example.org
S: 250 mx.example.com
C: MAIL FROM:<a@example.org>
S: 250-2.1.0 one
S: 250 2.1.0 two
C: RCPT TO:<b@example.com>
S: 250
C: DATA
S: 354 go
-: the message follows, 8 octets
S: 250 2.0.0
C: QUIT
S: 221 bye`), "\n")
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for phase, want := range map[client.Phase]time.Duration{
		client.Greeting: time.Second, client.StartTLS: 3 * time.Second, client.Mail: 4 * time.Second, client.End: 5 * time.Second,
	} {
		if took[phase] != want {
			t.Errorf("%s took %v, want %v", phase, took[phase], want)
		}
	}
}
