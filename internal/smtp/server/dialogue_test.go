package server

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
)

func TestAMessageIsTaken(t *testing.T) {
	r := start(t, nil, nil)
	r.talk(`
		S: 220 mx.example.com ESMTP
		C: EHLO client.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250-8BITMIME
		S: 250-SMTPUTF8
		S: 250-CHUNKING
		S: 250-ENHANCEDSTATUSCODES
		S: 250-DSN
		S: 250 SIZE 52428800
		C: MAIL FROM:<ann@a.test> SIZE=20 BODY=8BITMIME RET=HDRS ENVID=x1
		S: 250 2.1.0 go on
		C: RCPT TO:<bob@b.test> NOTIFY=FAILURE ORCPT=rfc822;bob@b.test
		S: 250 2.1.5 go on
		C: DATA
		S: 354 go on, end with a dot on a line by itself
		C: Subject: x
		C: 
		C: ..hidden
		C: .
		S: 250 2.0.0 taken
		C: QUIT
		S: 221 2.0.0 mx.example.com closes
		END
	`)
	want := []message{{
		mail: smtp.Mail{
			From: smtp.Path{Local: "ann", Domain: "a.test"}, Size: 20,
			Body: smtp.Body8Bit, Ret: smtp.RetHdrs, EnvID: "x1",
		},
		rcpts: []smtp.Rcpt{{
			To:     smtp.Path{Local: "bob", Domain: "b.test"},
			Notify: smtp.NotifyFailure, ORcpt: smtp.ORcpt{Type: "rfc822", Addr: "bob@b.test"},
		}},
		body: "Subject: x\r\n\r\n.hidden\r\n", whole: true, protocol: "ESMTP", helo: "client.example",
	}}
	got := r.in.taken()
	for i := range got {
		if !strings.HasPrefix(got[i].client, "127.0.0.1:") {
			t.Errorf("client %s", got[i].client)
		}
		got[i].client = ""
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(message{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if r.in.resets != 1 {
		t.Errorf("Reset was called %d times, want 1", r.in.resets)
	}
}

func TestDialogues(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		bodies       []string
	}{
		{
			name: "HELO offers no extension and takes no parameter",
			script: `
				S: 220 …
				C: HELO client.example
				S: 250 mx.example.com
				C: MAIL FROM:<ann@a.test> SIZE=1
				S: 555 5.5.4 parameter SIZE is not offered here
				C: MAIL FROM:<ann@a.test>
				S: 250 2.1.0 go on
			`,
		},
		{
			name: "commands out of order are refused",
			script: `
				S: 220 …
				C: MAIL FROM:<ann@a.test>
				S: 503 5.5.1 say EHLO first
				C: EHLO client.example
				S: 250-mx.example.com
				S: 250-PIPELINING
				S: 250-8BITMIME
				S: 250-SMTPUTF8
				S: 250-CHUNKING
				S: 250-ENHANCEDSTATUSCODES
				S: 250-DSN
				S: 250 SIZE 52428800
				C: RCPT TO:<bob@b.test>
				S: 503 5.5.1 say MAIL first
				C: DATA
				S: 503 5.5.1 say MAIL first
				C: MAIL FROM:<ann@a.test>
				S: 250 2.1.0 go on
				C: MAIL FROM:<ann@a.test>
				S: 503 5.5.1 a transaction is open already
				C: DATA
				S: 554 5.5.1 no valid recipients
				C: RSET
				S: 250 2.0.0 reset
				C: RCPT TO:<bob@b.test>
				S: 503 5.5.1 say MAIL first
			`,
		},
		{
			name: "the small commands",
			script: `
				S: 220 …
				C: noop with words
				S: 250 2.0.0 nothing done
				C: VRFY ann
				S: 252 2.0.0 send mail and see
				C: VRFY
				S: 501 5.5.4 VRFY needs an address
				C: EXPN list
				S: 502 5.5.1 EXPN is not offered here
				C: HELP
				S: 214 2.0.0 EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT, see RFC 5321
				C: RSET now
				S: 501 5.5.4 RSET takes no argument
				C: XYZZY
				S: 500 5.5.1 unknown command
				C: 
				S: 500 5.5.1 unknown command
				C: STARTTLS
				S: 502 5.5.1 STARTTLS is not offered here
				C: AUTH PLAIN
				S: 502 5.5.1 AUTH is not offered here
				C: EHLO
				S: 501 5.5.4 EHLO needs a domain or an address literal
				C: EHLO two words
				S: 501 5.5.4 EHLO needs a domain or an address literal
				C| "NO\x00OP\r\n"
				S: 500 5.5.2 a control character in the command
				C| "NOOP\t\r\n"
				S: 500 5.5.2 a control character in the command
				C: quit   
				S: 221 2.0.0 mx.example.com closes
				END
			`,
		},
		{
			name: "a batch of commands is answered as a whole",
			script: `
				S: 220 …
				C: HELO client.example
				S: 250 mx.example.com
				C: MAIL FROM:<ann@a.test>
				C: RCPT TO:<bob@b.test>
				C: RCPT TO:bad
				C: RCPT TO:<cat@c.test>
				C: DATA
				S: 250 2.1.0 go on
				S: 250 2.1.5 go on
				S: 501 5.1.3 malformed address: no opening bracket
				S: 250 2.1.5 go on
				S: 354 go on…
				C: one
				C: .
				C: MAIL FROM:<ann@a.test>
				C: RCPT TO:<bob@b.test>
				C: DATA
				S: 250 2.0.0 taken
				S: 250 2.1.0 go on
				S: 250 2.1.5 go on
				S: 354 go on…
				C: two
				C: .
				C: QUIT
				S: 250 2.0.0 taken
				S: 221 2.0.0 mx.example.com closes
				END
			`,
			bodies: []string{"one\r\n", "two\r\n"},
		},
		{
			name: "a declared size that is too large is refused at once",
			script: `
				S: 220 …
				C: EHLO [192.0.2.1]
				S: 250-mx.example.com
				S: 250-PIPELINING
				S: 250-8BITMIME
				S: 250-SMTPUTF8
				S: 250-CHUNKING
				S: 250-ENHANCEDSTATUSCODES
				S: 250-DSN
				S: 250 SIZE 52428800
				C: MAIL FROM:<ann@a.test> SIZE=52428801
				S: 552 5.3.4 the message is larger than 52428800 octets
				C: MAIL FROM:<ann@a.test> SIZE=99999999999999999999
				S: 552 5.3.4 the message is larger than 52428800 octets
				C: MAIL FROM:<ann@a.test> SIZE=52428800
				S: 250 2.1.0 go on
			`,
		},
		{
			name: "an address beyond ASCII needs SMTPUTF8 in its transaction",
			script: `
				S: 220 …
				C: EHLO client.example
				S: 250-mx.example.com
				S: 250-PIPELINING
				S: 250-8BITMIME
				S: 250-SMTPUTF8
				S: 250-CHUNKING
				S: 250-ENHANCEDSTATUSCODES
				S: 250-DSN
				S: 250 SIZE 52428800
				C: MAIL FROM:<jürgen@a.test>
				S: 553 5.6.7 the address holds characters beyond ASCII: give MAIL the parameter SMTPUTF8
				C: MAIL FROM:<ann@a.test>
				S: 250 2.1.0 go on
				C: RCPT TO:<jürgen@b.test>
				S: 553 5.6.7 the address holds characters beyond ASCII: give MAIL the parameter SMTPUTF8
				C: RSET
				S: 250 2.0.0 reset
				C: MAIL FROM:<jürgen@a.test> SMTPUTF8
				S: 250 2.1.0 go on
				C: RCPT TO:<jürgen@b.test>
				S: 250 2.1.5 go on
				C: DATA
				S: 354 go on…
				C: Subject: grüße
				C: .
				S: 250 2.0.0 taken
			`,
			bodies: []string{"Subject: grüße\r\n"},
		},
		{
			name: "EHLO ends a transaction",
			script: `
				S: 220 …
				C: HELO client.example
				S: 250 mx.example.com
				C: MAIL FROM:<>
				S: 250 2.1.0 go on
				C: HELO client.example
				S: 250 mx.example.com
				C: RCPT TO:<bob@b.test>
				S: 503 5.5.1 say MAIL first
			`,
		},
		{
			name: "the empty message",
			script: `
				S: 220 …
				C: HELO client.example
				S: 250 mx.example.com
				C: MAIL FROM:<>
				S: 250 2.1.0 go on
				C: RCPT TO:<Postmaster>
				S: 250 2.1.5 go on
				C: DATA
				S: 354 go on…
				C: .
				S: 250 2.0.0 taken
			`,
			bodies: []string{""},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil, nil)
			r.talk(tt.script)
			if diff := cmp.Diff(tt.bodies, r.bodies()); diff != "" {
				t.Errorf("bodies -want +got:\n%s", diff)
			}
		})
	}
}

const hello = `
	S: 220 …
	C: HELO client.example
	S: 250 mx.example.com
`

func TestWhatACallbackSaysIsTheReply(t *testing.T) {
	secret := errors.New("db at 192.0.2.99 has no space left")
	in := &inbox{
		onMail: func(_ context.Context, m smtp.Mail) error {
			switch m.From.Local {
			case "spam":
				return smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "%s may not send", m.From)
			case "broken":
				return secret
			case "odd":
				return &smtp.Error{Code: 250, Text: "an error that is none"}
			case "last":
				return &smtp.Error{Code: 421, Enhanced: smtp.Enhanced{4, 3, 2}, Text: "leave"}
			}
			return nil
		},
		onRcpt: func(r smtp.Rcpt) error {
			if r.To.Local == "full" {
				return smtp.Errorf(452, smtp.Enhanced{4, 3, 1}, "the queue is full")
			}
			return nil
		},
		onData: func(context.Context, *Body) (smtp.Reply, error) {
			return smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{"queued as 42"}}, nil
		},
	}
	start(t, in, nil).talk(hello + `
		C: MAIL FROM:<spam@a.test>
		S: 550 5.7.1 spam@a.test may not send
		C: MAIL FROM:<broken@a.test>
		S: 451 4.3.0 this cannot be done now, try again later
		C: MAIL FROM:<odd@a.test>
		S: 451 4.3.0 this cannot be done now, try again later
		C: MAIL FROM:<ann@a.test>
		S: 250 2.1.0 go on
		C: RCPT TO:<full@b.test>
		S: 452 4.3.1 the queue is full
		C: DATA
		S: 554 5.5.1 no valid recipients
		C: RCPT TO:<bob@b.test>
		S: 250 2.1.5 go on
		C: DATA
		S: 354 go on…
		C: x
		C: .
		S: 250 2.0.0 queued as 42
		C: MAIL FROM:<last@a.test>
		S: 421 4.3.2 leave
		END
	`)
}

func TestABackendCanTurnAClientAway(t *testing.T) {
	for _, tt := range []struct {
		name, reply string
		err         error
	}{
		{"with a reply", "554 5.7.1 not you", smtp.Errorf(554, smtp.Enhanced{5, 7, 1}, "not you")},
		{"with an error", "421 4.3.0 this cannot be done now, try again later", errors.New("secret")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, &inbox{onSession: func(*Conn) error { return tt.err }}, nil)
			r.talk("S: " + tt.reply + "\nEND")
		})
	}
}

func TestAPanicInACallbackEndsThatConnectionOnly(t *testing.T) {
	in := &inbox{
		onMail: func(_ context.Context, m smtp.Mail) error {
			if m.From.Local == "poison" {
				panic("a defect")
			}
			return nil
		},
		onData: func(context.Context, *Body) (smtp.Reply, error) { panic("another") },
	}
	r := start(t, in, nil)
	r.talk(hello + `
		C: MAIL FROM:<poison@a.test>
		END
	`)
	r.talk(envelope + `
		C: .
		END
	`)
	r.talk(hello + `
		C: MAIL FROM:<ann@a.test>
		S: 250 2.1.0 go on
	`)
}

func TestABodyIsGoneWhenDataHasReturned(t *testing.T) {
	var kept *Body
	in := &inbox{onData: func(_ context.Context, b *Body) (smtp.Reply, error) {
		kept = b
		return smtp.Reply{}, nil
	}}
	start(t, in, nil).talk(envelope + `
		C: secret
		C: .
		S: 250 2.0.0 taken
		C: QUIT
		S: 221 …
		END
	`)
	if n, err := kept.Read(make([]byte, 10)); n > 0 || !errors.Is(err, errReleased) {
		t.Errorf("read %d octets, %v", n, err)
	}
	if b, whole := kept.Bytes(); whole {
		t.Errorf("it is still there: %q", b)
	}
}

func TestExtensionsCanBeLeftOut(t *testing.T) {
	r := start(t, nil, func(o *Options) {
		o.Without = []string{smtp.Chunking, smtp.SMTPUTF8, smtp.DSN, smtp.EightBitMIME, smtp.Size, smtp.StartTLS}
		withTLS(o)
	})
	r.talk(`
		S: 220 …
		C: EHLO client.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250 ENHANCEDSTATUSCODES
		C: STARTTLS
		S: 502 5.5.1 STARTTLS is not offered here
		C: MAIL FROM:<ann@a.test> SMTPUTF8
		S: 555 5.5.4 parameter SMTPUTF8 is not offered here
		C: BDAT 10
		S: 502 5.5.1 BDAT is not offered here
		C: BDAT 6 LAST
		C: RSET
		S: 554 5.5.0 sent on after BDAT without waiting for the reply
		END
	`)
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"no hostname": {Backend: &inbox{}},
		"no backend":  {Hostname: "mx.example.com"},
		"AUTH without TLS": {Hostname: "mx.example.com", Backend: &inbox{}, Auth: func(context.Context, *Conn, Credentials) (string, error) {
			return "", nil
		}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
