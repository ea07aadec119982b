package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// sent is the transcript of a message of one line that is taken.
func sent(mail string, rcpts ...string) string {
	s := "C: MAIL FROM:" + mail + "\nS: 250 ok\n"
	for _, r := range rcpts {
		s += "C: RCPT TO:" + r + "\nS: 250 ok\n"
	}
	return s + "C: DATA\nS: 354 go\nC: x\nC: .\nS: 250 taken\n"
}

func TestParametersGoWhereTheyAreOffered(t *testing.T) {
	env := envelope("b@example.com", "c@example.com")
	env.Size, env.Body, env.Ret, env.EnvID = 3, smtp.Body8Bit, smtp.RetHdrs, "a+b=c"
	env.Rcpts[0].Notify = smtp.NotifySuccess | smtp.NotifyDelay
	env.Rcpts[0].ORcpt = smtp.ORcpt{Type: "rfc822", Addr: "b+x@example.com"}
	for name, c := range map[string]struct {
		extensions []string
		said       string
	}{
		"none":     {nil, sent("<a@example.org>", "<b@example.com>", "<c@example.com>")},
		"SIZE":     {[]string{"SIZE"}, sent("<a@example.org> SIZE=3", "<b@example.com>", "<c@example.com>")},
		"8BITMIME": {[]string{"8BITMIME"}, sent("<a@example.org> BODY=8BITMIME", "<b@example.com>", "<c@example.com>")},
		"DSN (RFC 3461)": {[]string{"DSN"}, sent("<a@example.org> RET=HDRS ENVID=a+2Bb+3Dc",
			"<b@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@example.com", "<c@example.com>")},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(opened(c.extensions...)+c.said), client.Options{}, func(t *testing.T, cl *client.Client) {
				good(t, cl.Hello(t.Context()))
				_, err := cl.Send(t.Context(), env, client.Bytes("x\r\n"))
				good(t, err)
			})
		})
	}
}

func TestTheNullSender(t *testing.T) {
	play(t, script(opened()+sent("<>", "<b@example.com>")), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		env := envelope("b@example.com")
		env.From = smtp.Path{}
		_, err := c.Send(t.Context(), env, client.Bytes("x\r\n"))
		good(t, err)
	})
}

func TestRFC1870_AMessageBeyondTheServersSizeIsNotSent(t *testing.T) {
	play(t, script(opened("SIZE 1000")+sent("<a@example.org> SIZE=1000", "<b@example.com>")), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		env := envelope("b@example.com")
		env.Size = 1001
		_, err := c.Send(t.Context(), env, client.Bytes("x\r\n"))
		tooLarge := bad[*client.TooLargeError](t, err)
		if want := "552 5.3.4 the message has 1001 octets, and the server takes 1000"; tooLarge.Reply().String() != want {
			t.Errorf("%s", tooLarge.Reply())
		}
		env.Size = 1000 // the session is still good
		_, err = c.Send(t.Context(), env, client.Bytes("x\r\n"))
		good(t, err)
	})
}

// What was declared and is not needed does not keep a message from an old server.
func TestEightBitAndUTF8FallBackWhereTheContentAllows(t *testing.T) {
	const (
		ascii  = "Subject: x\r\n\r\nx\r\n"
		header = "Subject: gr\xc3\xbcn\r\n\r\nx\r\n"
		body   = "Subject: x\r\n\r\ngr\xc3\xbcn\r\n"
		noHead = "\r\ngr\xc3\xbcn\r\n"
	)
	for name, c := range map[string]struct {
		extensions []string
		eight      smtp.Body
		utf8       bool
		content    string
		missing    string
		mail       string
	}{
		"8BITMIME declared, ASCII":                      {nil, smtp.Body8Bit, false, ascii, "", "<a@example.org>"},
		"8BITMIME declared, 8-bit body":                 {nil, smtp.Body8Bit, false, body, "8BITMIME", ""},
		"8BITMIME declared, 8-bit body, no header":      {nil, smtp.Body8Bit, false, noHead, "8BITMIME", ""},
		"8BITMIME declared, 8-bit header":               {nil, smtp.Body8Bit, false, header, "8BITMIME", ""},
		"8BITMIME offered":                              {[]string{"8BITMIME"}, smtp.Body8Bit, false, body, "", "<a@example.org> BODY=8BITMIME"},
		"SMTPUTF8 declared, ASCII":                      {nil, "", true, ascii, "", "<a@example.org>"},
		"SMTPUTF8 declared, UTF-8 header":               {[]string{"8BITMIME"}, smtp.Body8Bit, true, header, "SMTPUTF8", ""},
		"SMTPUTF8 declared, 8-bit body":                 {[]string{"8BITMIME"}, smtp.Body8Bit, true, body, "", "<a@example.org> BODY=8BITMIME"},
		"SMTPUTF8 declared, 8-bit body and no 8BITMIME": {nil, smtp.Body8Bit, true, body, "8BITMIME", ""},
		"SMTPUTF8 offered":                              {[]string{"8BITMIME", "SMTPUTF8"}, smtp.Body8Bit, true, header, "", "<a@example.org> BODY=8BITMIME SMTPUTF8"},
	} {
		t.Run(name, func(t *testing.T) {
			said := opened(c.extensions...) + "EOF"
			if c.missing == "" {
				said = strings.Replace(opened(c.extensions...)+sent(c.mail, "<b@example.com>"), "C: x\n",
					"C: "+strings.ReplaceAll(strings.TrimSuffix(c.content, "\r\n"), "\r\n", "\nC: ")+"\n", 1)
			}
			play(t, script(said), client.Options{}, func(t *testing.T, cl *client.Client) {
				good(t, cl.Hello(t.Context()))
				env := envelope("b@example.com")
				env.Body, env.UTF8 = c.eight, c.utf8
				_, err := cl.Send(t.Context(), env, client.Bytes(c.content))
				if c.missing == "" {
					good(t, err)
					return
				}
				if missing := bad[*client.MissingError](t, err); missing.Extension != c.missing || cl.Err() != nil {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestRFC6531_3_5_AddressesBeyondASCIINeedSMTPUTF8(t *testing.T) {
	env := envelope("grün@example.com", "b@example.com")
	play(t, script(opened("SMTPUTF8")+sent("<a@example.org> SMTPUTF8", "<grün@example.com>", "<b@example.com>")),
		client.Options{}, func(t *testing.T, c *client.Client) {
			good(t, c.Hello(t.Context()))
			_, err := c.Send(t.Context(), env, client.Bytes("x\r\n"))
			good(t, err)
		})
	// Only the recipient who needs it does without.
	play(t, script(opened()+sent("<a@example.org>", "<b@example.com>")), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		r, err := c.Send(t.Context(), env, client.Bytes("x\r\n"))
		good(t, err)
		check(t, r,
			"unfit: the server does not offer SMTPUTF8, and the recipient's address needs it",
			"delivered at end of message: 250 taken")
		missing := bad[*client.MissingError](t, r.Rcpts[0].Err)
		if got := missing.Reply(); got.Code != 550 || got.Enhanced != (smtp.Enhanced{5, 6, 7}) {
			t.Errorf("%s", got)
		}
	})
	play(t, script(opened()+"EOF"), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		r, err := c.Send(t.Context(), envelope("grün@example.com"), client.Bytes("x\r\n"))
		good(t, err)
		check(t, r, "unfit: the server does not offer SMTPUTF8, and the recipient's address needs it")
		from := envelope("b@example.com")
		from.From.Local = "grün"
		_, err = c.Send(t.Context(), from, client.Bytes("x\r\n"))
		if missing := bad[*client.MissingError](t, err); missing.Extension != "SMTPUTF8" {
			t.Errorf("%v", err)
		}
	})
}

func TestRFC8689_2_REQUIRETLSOnlyUnderTLSAndWhereOffered(t *testing.T) {
	env := envelope("b@example.com")
	env.RequireTLS = true
	bounce := env
	bounce.From = smtp.Path{}
	clear := opened("REQUIRETLS", "STARTTLS")
	secured := clear + "C: STARTTLS\nS: 220 go\nTLS\nC: EHLO mail.example.org\n"
	for name, c := range map[string]struct {
		said    string
		tls     bool
		env     client.Envelope
		missing bool
	}{
		"offered under TLS":                 {secured + "S: 250-mx\nS: 250 REQUIRETLS\n" + sent("<a@example.org> REQUIRETLS", "<b@example.com>"), true, env, false},
		"offered only before TLS":           {secured + "S: 250 mx\nEOF", true, env, true},
		"offered in clear":                  {clear + "EOF", false, env, true},
		"a bounce, offered (§5)":            {secured + "S: 250-mx\nS: 250 REQUIRETLS\n" + sent("<> REQUIRETLS", "<b@example.com>"), true, bounce, false},
		"a bounce, not offered (§5)":        {secured + "S: 250 mx\n" + sent("<>", "<b@example.com>"), true, bounce, false},
		"a bounce, offered in clear (§2)":   {clear + sent("<>", "<b@example.com>"), false, bounce, false},
		"not asked for, and so not said to": {secured + "S: 250-mx\nS: 250 REQUIRETLS\n" + sent("<a@example.org>", "<b@example.com>"), true, envelope("b@example.com"), false},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(c.said), client.Options{}, func(t *testing.T, cl *client.Client) {
				good(t, cl.Hello(t.Context()))
				if c.tls {
					good(t, cl.StartTLS(t.Context(), insecure()))
					good(t, cl.Hello(t.Context()))
				}
				_, err := cl.Send(t.Context(), c.env, client.Bytes("x\r\n"))
				if !c.missing {
					good(t, err)
					return
				}
				missing := bad[*client.MissingError](t, err)
				if missing.Extension != "REQUIRETLS" || missing.Reply().Enhanced != (smtp.Enhanced{5, 7, 30}) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestAnEnvelopeThatIsNoCommandIsNotSent(t *testing.T) {
	inject := envelope("b@example.com")
	inject.Rcpts[0].To.Local = "b>\r\nRSET\r\nMAIL FROM:<evil"
	from := envelope("b@example.com")
	from.From.Domain = "example.org>\nRSET"
	long := envelope("b@example.com")
	long.Rcpts[0].To.Local = strings.Repeat("b", 3000)
	for name, env := range map[string]client.Envelope{
		"a line end in a recipient": inject, "a line end in the sender": from, "no recipients": envelope(), "an endless address": long,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, script(opened("PIPELINING")+"EOF"), client.Options{}, func(t *testing.T, c *client.Client) {
				good(t, c.Hello(t.Context()))
				if _, err := c.Send(t.Context(), env, client.Bytes("x\r\n")); !errors.Is(err, client.ErrEnvelope) || c.Err() != nil {
					t.Errorf("%v", err)
				}
			})
		})
	}
	play(t, "EOF", client.Options{Hello: "a b\r\nMAIL"}, func(t *testing.T, c *client.Client) {
		if err := c.Hello(t.Context()); !errors.Is(err, smtp.ErrAddress) {
			t.Errorf("%v", err)
		}
	})
}

func TestAConnectionIsUsedAgain(t *testing.T) {
	play(t, script(opened()+sent("<a@example.org>", "<b@example.com>")+sent("<a@example.org>", "<c@example.com>")+`
		C: MAIL FROM:<a@example.org>
		S: 550 no
		C: RSET
		S: 250 ok
	`+sent("<a@example.org>", "<d@example.com>")+"C: QUIT\nS: 221 bye"), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		for _, to := range []string{"b@example.com", "c@example.com", "refused@example.com", "d@example.com"} {
			_, err := c.Send(t.Context(), envelope(to), client.Bytes("x\r\n"))
			good(t, err)
		}
		c.Quit(t.Context())
	})
}

func TestRSETThatIsRefusedEndsTheSessionAndNoMessage(t *testing.T) {
	play(t, script(opened()+"C: MAIL FROM:<a@example.org>\nS: 550 no\nC: RSET\nS: 500 what?\nEOF"), client.Options{}, func(t *testing.T, c *client.Client) {
		good(t, c.Hello(t.Context()))
		_, err := c.Send(t.Context(), envelope("b@example.com"), client.Bytes("x\r\n"))
		good(t, err)
		r, err := c.Send(t.Context(), envelope("b@example.com"), client.Bytes("x\r\n"))
		if reply := bad[*client.ReplyError](t, err); reply.Phase != client.Reset {
			t.Errorf("%v", err)
		}
		check(t, r, "open")
	})
}
