package server

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// withAuth knows ann with the password "secret", and gives every other name
// away only by its credentials.
func withAuth(seen *[]Credentials) func(*Options) {
	return func(o *Options) {
		withTLS(o)
		o.Without = []string{"CHUNKING", "DSN", "SMTPUTF8", "8BITMIME", "SIZE", "REQUIRETLS"}
		o.Auth = func(_ context.Context, _ *Conn, cred Credentials) (string, error) {
			*seen = append(*seen, cred)
			switch {
			case cred.User == "down":
				return "", errors.New("no database at 192.0.2.99")
			case cred.User == "ann" && cred.Password == "secret":
				return "ann@a.test", nil
			}
			return "", ErrCredentials()
		}
	}
}

const underTLS = `
	S: 220 …
	C: HELO client.example
	S: 250 mx.example.com
	C: STARTTLS
	S: 220 …
	TLS
	C: EHLO client.example
	S: 250-mx.example.com
	S: 250-PIPELINING
	S: 250-ENHANCEDSTATUSCODES
	S: 250 AUTH PLAIN LOGIN
`

func TestRFC4954_4_AUTHIsOfferedAndTakenUnderTLSOnly(t *testing.T) {
	var seen []Credentials
	start(t, nil, withAuth(&seen)).talk(`
		S: 220 …
		C: EHLO client.example
		S: 250-mx.example.com
		S: 250-PIPELINING
		S: 250-ENHANCEDSTATUSCODES
		S: 250 STARTTLS
		C: AUTH PLAIN ` + b64("\x00ann\x00secret") + `
		S: 538 5.7.11 AUTH needs TLS: issue STARTTLS first
		C: AUTH LOGIN
		S: 538 5.7.11 AUTH needs TLS: issue STARTTLS first
		C: MAIL FROM:<ann@a.test> AUTH=<>
		S: 555 5.5.4 parameter AUTH is not offered here
	`)
	if len(seen) > 0 {
		t.Errorf("the callback was shown %+v", seen)
	}
}

func TestAuthDialogues(t *testing.T) {
	plain := Credentials{Mechanism: "PLAIN", User: "ann", Password: "secret"}
	login := Credentials{Mechanism: "LOGIN", User: "ann", Password: "secret"}
	for _, tt := range []struct {
		name, script string
		seen         []Credentials
	}{
		{
			"PLAIN with an initial response", `
				C: AUTH PLAIN ` + b64("\x00ann\x00secret") + `
				S: 235 2.7.0 welcome
				C: AUTH PLAIN ` + b64("\x00ann\x00secret") + `
				S: 503 5.5.1 AUTH was done already`,
			[]Credentials{plain},
		},
		{
			"PLAIN with a challenge, naming itself twice", `
				C: auth plain
				S: 334 
				C: ` + b64("ann\x00ann\x00secret") + `
				S: 235 2.7.0 welcome`,
			[]Credentials{plain},
		},
		{
			"LOGIN", `
				C: AUTH LOGIN
				S: 334 VXNlcm5hbWU6
				C: ` + b64("ann") + `
				S: 334 UGFzc3dvcmQ6
				C: ` + b64("secret") + `
				S: 235 2.7.0 welcome`,
			[]Credentials{login},
		},
		{
			"LOGIN with an initial response", `
				C: AUTH LOGIN ` + b64("ann") + `
				S: 334 UGFzc3dvcmQ6
				C: ` + b64("secret") + `
				S: 235 2.7.0 welcome`,
			[]Credentials{login},
		},
		{
			"a wrong password, then the right one", `
				C: AUTH PLAIN ` + b64("\x00ann\x00wrong") + `
				S: 535 5.7.8 the credentials are not valid
				C: AUTH PLAIN ` + b64("\x00ann\x00secret") + `
				S: 235 2.7.0 welcome`,
			[]Credentials{{Mechanism: "PLAIN", User: "ann", Password: "wrong"}, plain},
		},
		{
			"a third wrong password ends the connection", strings.Repeat(`
				C: AUTH PLAIN `+b64("\x00ann\x00wrong")+`
				S: 535 5.7.8 the credentials are not valid`, 3) + `
				S: 421 4.7.0 too many failures of AUTH
				END`,
			[]Credentials{
				{Mechanism: "PLAIN", User: "ann", Password: "wrong"},
				{Mechanism: "PLAIN", User: "ann", Password: "wrong"},
				{Mechanism: "PLAIN", User: "ann", Password: "wrong"},
			},
		},
		{
			"a callback that cannot decide gives nothing away", `
				C: AUTH PLAIN ` + b64("\x00down\x00secret") + `
				S: 451 4.3.0 this cannot be done now, try again later`,
			[]Credentials{{Mechanism: "PLAIN", User: "down", Password: "secret"}},
		},
		{
			"the client cancels", `
				C: AUTH PLAIN
				S: 334 
				C: *
				S: 501 5.0.0 AUTH canceled
				C: NOOP
				S: 250 2.0.0 nothing done`,
			nil,
		},
		{
			"malformed responses", `
				C: AUTH PLAIN !!!
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN =
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN ` + b64("ann\x00secret") + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN ` + b64("boss\x00ann\x00secret") + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN ` + b64("\x00ann\x00") + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN ` + b64("\x00an\nn\x00secret") + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN ` + b64("\x00a\xffb\x00secret") + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN ` + b64("\x00ann\x00"+strings.Repeat("x", 256)) + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH CRAM-MD5
				S: 504 5.5.4 the mechanisms are PLAIN and LOGIN
				C: AUTH
				S: 504 5.5.4 the mechanisms are PLAIN and LOGIN`,
			nil,
		},
		{
			"not inside a transaction", `
				C: MAIL FROM:<ann@a.test> AUTH=<>
				S: 250 2.1.0 go on
				C: AUTH PLAIN ` + b64("\x00ann\x00secret") + `
				S: 503 5.5.1 a transaction is open`,
			nil,
		},
		{
			"a response may be as long as RFC 4954 §4 has it, and no longer", `
				C: AUTH PLAIN
				S: 334 
				C: ` + strings.Repeat("A", 12286) + `
				S: 501 5.5.2 malformed response in AUTH
				C: AUTH PLAIN
				S: 334 
				C: ` + strings.Repeat("A", 12287) + `
				S: 500 5.5.2 the line is too long
				END`,
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen []Credentials
			start(t, nil, withAuth(&seen)).talk(underTLS + tt.script)
			if diff := cmp.Diff(tt.seen, seen); diff != "" {
				t.Errorf("credentials -want +got:\n%s", diff)
			}
		})
	}
}

func TestTheSessionKnowsWhoSendsAndHow(t *testing.T) {
	var seen []Credentials
	r := start(t, nil, withAuth(&seen))
	r.talk(underTLS + `
		C: AUTH PLAIN ` + b64("\x00ann\x00secret") + `
		S: 235 …
		C: MAIL FROM:<ann@a.test>
		C: RCPT TO:<bob@b.test>
		C: DATA
		S: 250 …
		S: 250 …
		S: 354 …
		C: .
		S: 250 …
	`)
	got := r.in.taken()
	if len(got) != 1 || got[0].user != "ann@a.test" || got[0].protocol != "ESMTPSA" {
		t.Errorf("taken: %+v", got)
	}
}

func TestRFC3848_TheProtocolHasItsWord(t *testing.T) {
	state := &tls.ConnectionState{}
	for _, tt := range []struct {
		c    *Conn
		utf8 bool
		want string
	}{
		{&Conn{}, false, "SMTP"},
		{&Conn{extended: true}, false, "ESMTP"},
		{&Conn{extended: true, tls: state}, false, "ESMTPS"},
		{&Conn{extended: true, tls: state, user: "ann"}, false, "ESMTPSA"},
		{&Conn{extended: true, tls: state, user: "ann"}, true, "UTF8SMTPSA"},
		{&Conn{extended: true}, true, "UTF8SMTP"},
	} {
		if got := tt.c.Protocol(tt.utf8); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestImplicitTLSWithTheClientsCertificate(t *testing.T) {
	var subject string
	in := &inbox{onMail: func(context.Context, smtp.Mail) error { return nil }}
	in.onSession = func(c *Conn) error {
		if c.TLS() == nil {
			return errors.New("no TLS")
		}
		subject = c.TLS().PeerCertificates[0].Subject.CommonName
		return nil
	}
	r := startBy(t, (*Server).ServeTLS, in, func(o *Options) {
		withTLS(o)
		o.TLS.ClientAuth = tls.RequireAnyClientCert
	})
	c := r.dial()
	conn := tls.Client(c.Raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate()}})
	smtptest.New(t, conn).Talk(hello + `
		C: STARTTLS
		S: 503 5.5.1 TLS is active already
		C: MAIL FROM:<ann@a.test>
		S: 250 2.1.0 go on
		C: QUIT
		S: 221 …
		END
	`)
	if subject != "mx.example.com" {
		t.Errorf("certificate of %q", subject)
	}
}

func TestAFailedHandshakeIsNotAnsweredInClear(t *testing.T) {
	r := start(t, nil, withTLS)
	c := r.talk(hello + "C: STARTTLS\nS: 220 2.0.0 begin TLS")
	c.Send([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00")) // a ClientHello without content
	rest, _ := c.In.ReadString(0)
	if strings.Contains(rest, "421") || strings.Contains(rest, "\r\n") {
		t.Errorf("in clear: %q", rest)
	}
}

func TestImplicitTLSNeedsATLSConfiguration(t *testing.T) {
	s, err := New(Options{Hostname: "mx.example.com", Backend: &inbox{}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeTLS(t.Context(), l); !errors.Is(err, ErrNoTLS) {
		t.Errorf("got %v", err)
	}
}
