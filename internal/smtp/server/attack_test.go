package server

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const envelope = hello + `
	C: MAIL FROM:<ann@a.test>
	C: RCPT TO:<bob@b.test>
	C: DATA
	S: 250 2.1.0 go on
	S: 250 2.1.5 go on
	S: 354 go on…
`

// A message that another server ended where we do not would smuggle what
// follows the false end past us (attack 25). All of it is one message here,
// refused, and the connection is still in step.
func TestNoFalseEndOfDataSmugglesAMessage(t *testing.T) {
	for name, end := range map[string]string{
		"LF dot LF":           `\n.\n`,
		"LF dot CR LF":        `\n.\r\n`,
		"CR dot CR":           `\r.\r`,
		"CR dot LF":           `\r.\n`,
		"CR dot CR LF":        `\r.\r\n`,
		"CR LF dot LF":        `\r\n.\n`,
		"CR LF dot CR":        `\r\n.\r`,
		"CR LF NUL dot CR LF": `\r\n\x00.\r\n`,
		"CR LF dot NUL CR LF": `\r\n.\x00\r\n`,
		"LF LF dot CR LF":     `\n\n.\r\n`,
		"CR CR LF dot LF":     `\r\r\n.\n`,
		"CR LF LF dot CR LF":  `\r\n\n.\r\n`,
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil, nil)
			r.talk(envelope + `
				C| "Subject: x\r\n\r\nlook` + end + `MAIL FROM:<admin@b.test>\r\nRCPT TO:<boss@b.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"
				S: 550 5.6.11 …
				C: NOOP
				S: 250 2.0.0 nothing done
				C: QUIT
				S: 221 …
				END
			`)
			if got := r.bodies(); len(got) > 0 {
				t.Errorf("taken: %q", got)
			}
		})
	}
}

func TestAMessageThatOnlyEndsFalselyIsNeverTaken(t *testing.T) {
	for name, end := range map[string]string{
		"LF dot LF": "\n.\n", "LF dot CR LF": "\n.\r\n", "CR LF dot LF": "\r\n.\n", "CR LF dot CR": "\r\n.\r",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil, nil)
			c := r.talk(envelope)
			c.Send([]byte("Subject: x\r\n\r\nhello" + end))
			if err := c.Raw.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c.ExpectEnd()
			if got := r.bodies(); len(got) > 0 {
				t.Errorf("taken: %q", got)
			}
		})
	}
}

func TestAnExtraCRDoesNotHideTheTrueEnd(t *testing.T) {
	start(t, nil, nil).talk(envelope + `
		C| "hello\r\r\n.\r\nNOOP\r\n"
		S: 550 5.6.11 the message holds a bare CR: end every line in CR LF
		S: 250 2.0.0 nothing done
	`)
}

func TestBareLineEndsInCommandsEndTheConnection(t *testing.T) {
	for name, line := range map[string]string{
		"LF":                       `NOOP\n`,
		"CR within":                `NO\rOP\r\n`,
		"CR CR LF":                 `NOOP\r\r\n`,
		"LF hiding a command":      `NOOP\nMAIL FROM:<evil@a.test>\r\n`,
		"LF hiding in an address":  `MAIL FROM:<a\nRCPT TO:<b>@a.test>\r\n`,
		"an empty line of LF":      `\n`,
		"a batch that ends in LF":  `NOOP x\n`,
		"LF behind a long command": `NOOP ` + strings.Repeat("x", 1000) + `\n`,
	} {
		t.Run(name, func(t *testing.T) {
			start(t, nil, nil).talk(hello + `
				C| "` + line + `"
				S: 500 5.5.2 a bare CR or LF: end every line in CR LF
				END
			`)
		})
	}
}

// CVE-2011-0411 (attack 21): what an attacker on the path puts behind STARTTLS
// must not be run as if it had come under TLS.
func TestRFC3207_4_NothingSentBeforeTheHandshakeSurvivesIt(t *testing.T) {
	r := start(t, nil, withTLS)
	r.talk(hello + `
		C: STARTTLS
		C: RSET
		C: MAIL FROM:<evil@a.test>
		S: 554 5.5.0 sent on after STARTTLS without waiting for the reply
		END
	`)

	// What comes after the reply 220 but before the handshake breaks that.
	c := r.talk(hello + `
		C: STARTTLS
		S: 220 2.0.0 begin TLS
	`)
	c.Send([]byte("RSET\r\nMAIL FROM:<evil@a.test>\r\n"))
	conn := tls.Client(c.Raw, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err == nil {
		t.Error("the handshake succeeded behind injected commands")
	}
}

// RFC 3207 §4.2: the server must forget what it knew of the client.
func TestRFC3207_4_2_TheSessionBeginsAnewAfterTheHandshake(t *testing.T) {
	r := start(t, nil, func(o *Options) { withTLS(o); o.Without = []string{"CHUNKING", "DSN", "SMTPUTF8", "8BITMIME"} })
	r.talk(`
		S: 220 …
		C: EHLO before.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250-ENHANCEDSTATUSCODES
		S: 250-SIZE 52428800
		S: 250 STARTTLS
		C: STARTTLS please
		S: 501 5.5.4 STARTTLS takes no parameters
		C: MAIL FROM:<ann@a.test>
		S: 250 2.1.0 go on
		C: STARTTLS
		S: 503 5.5.1 a transaction is open, end it first
		C: RSET
		S: 250 2.0.0 reset
		C: STARTTLS
		S: 220 2.0.0 begin TLS
		TLS
		C: MAIL FROM:<ann@a.test>
		S: 503 5.5.1 say EHLO first
		C: EHLO after.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250-ENHANCEDSTATUSCODES
		S: 250-SIZE 52428800
		S: 250 REQUIRETLS
		C: STARTTLS
		S: 503 5.5.1 TLS is active already
		C: MAIL FROM:<ann@a.test>
		C: RCPT TO:<bob@b.test>
		C: DATA
		S: 250 2.1.0 go on
		S: 250 2.1.5 go on
		S: 354 go on…
		C: x
		C: .
		S: 250 2.0.0 taken
		C: QUIT
		S: 221 …
		END
	`)
	got := r.in.taken()
	if len(got) != 1 || got[0].helo != "after.example" || got[0].protocol != "ESMTPS" {
		t.Errorf("taken: %+v", got)
	}
	if r.in.sessions != 2 {
		t.Errorf("%d sessions, want 2: one in clear, one under TLS", r.in.sessions)
	}
}

func TestRFC8689_2_REQUIRETLSIsTakenUnderTLSOnly(t *testing.T) {
	r := start(t, nil, func(o *Options) { withTLS(o); o.Without = []string{"CHUNKING", "DSN", "SMTPUTF8", "8BITMIME", "SIZE"} })
	r.talk(`
		S: 220 …
		C: EHLO client.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250-ENHANCEDSTATUSCODES
		S: 250 STARTTLS
		C: MAIL FROM:<ann@a.test> REQUIRETLS
		S: 555 5.5.4 parameter REQUIRETLS is not offered here, it needs TLS first
		C: STARTTLS
		S: 220 …
		TLS
		C: EHLO client.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250-ENHANCEDSTATUSCODES
		S: 250 REQUIRETLS
		C: MAIL FROM:<ann@a.test> REQUIRETLS
		C: RCPT TO:<bob@b.test>
		C: DATA
		S: 250 2.1.0 go on
		S: 250 2.1.5 go on
		S: 354 go on…
		C: .
		S: 250 2.0.0 taken
	`)
	if got := r.in.taken(); len(got) != 1 || !got[0].mail.RequireTLS {
		t.Errorf("taken: %+v", got)
	}
}

func TestRFC3207_4_ASubmissionServerCanTakeNoMailInClear(t *testing.T) {
	r := start(t, nil, func(o *Options) { withTLS(o); o.TLSOnly = true })
	r.talk(`
		S: 220 …
		C: HELO client.example
		S: 530 5.7.0 issue a STARTTLS command first
		C: MAIL FROM:<ann@a.test>
		S: 530 5.7.0 issue a STARTTLS command first
		C: VRFY ann
		S: 530 5.7.0 issue a STARTTLS command first
		C: NOOP
		S: 250 2.0.0 nothing done
		C: BDAT 6 LAST
		C: QUIT
		S: 503 5.5.1 say MAIL first
		C: STARTTLS
		S: 220 …
		TLS
		C: HELO client.example
		S: 250 mx.example.com
		C: MAIL FROM:<ann@a.test>
		S: 250 2.1.0 go on
	`)
}

// Commands behind those that must be the last of their batch (RFC 2920 §3.1)
// come from somebody who does not know what it speaks to.
func TestRFC2920_3_1_WhoeverDoesNotWaitIsCutOff(t *testing.T) {
	for name, script := range map[string]string{
		"content behind DATA": hello + `
			C: MAIL FROM:<ann@a.test>
			C: RCPT TO:<bob@b.test>
			C: DATA
			C: Subject: x
			C: .
			S: 250 2.1.0 go on
			S: 250 2.1.5 go on
			S: 554 5.5.0 sent on after DATA without waiting for the reply
			END`,
		"content behind a DATA that would be refused": hello + `
			C: DATA
			C: MAIL FROM:<evil@a.test>
			C: .
			S: 554 5.5.0 sent on after DATA without waiting for the reply
			END`,
		"commands behind EHLO": `
			S: 220 …
			C: EHLO client.example
			C: MAIL FROM:<ann@a.test>
			S: 554 5.5.0 sent on after EHLO without waiting for the reply
			END`,
		"a web page's form": `
			S: 220 …
			C: POST / HTTP/1.1
			C: Host: mx.example.com
			C: 
			C: HELO evil.example
			S: 554 5.5.1 this is SMTP, not HTTP
			END`,
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil, nil)
			r.talk(script)
			if diff := cmp.Diff([]string(nil), r.bodies()); diff != "" {
				t.Errorf("bodies -want +got:\n%s", diff)
			}
		})
	}
}

func TestALineThatIsTooLongEndsTheConnection(t *testing.T) {
	r := start(t, nil, nil)
	r.talk(hello + `
		C: NOOP ` + strings.Repeat("x", 2041) + `
		S: 250 2.0.0 nothing done
	`)
	r.talk(hello + `
		C: NOOP ` + strings.Repeat("x", 2042) + `
		S: 500 5.5.2 the line is too long
		END
	`)
}
