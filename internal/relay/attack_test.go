package relay

import (
	"fmt"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
)

// smuggled is what an attacker puts behind a false end of data: a message that
// would be taken in the name of somebody else.
const smuggled = "MAIL FROM:<ceo@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: pay\r\n\r\nsmuggled\r\n.\r\n"

func TestSmugglingFalseEndsOfDataEndNothing(t *testing.T) {
	for name, end := range map[string]string{
		"LF . LF": "\n.\n", "LF . CRLF": "\n.\r\n", "CRLF . LF": "\r\n.\n", "CR . CR": "\r.\r", "CR . CRLF": "\r.\r\n", "CRLF . CR": "\r\n.\r",
		"CR LF . CR CR LF": "\r\n.\r\r\n", "LF . CR LF with a NUL": "\n\x00.\r\n", "CR CR LF . CR CR LF": "\r\r\n.\r\r\n", "LF CR . LF CR": "\n\r.\n\r",
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, nil)
			c := w.talk(ours + hello + "C: MAIL FROM:<app@example.com>\nS: 250 …\nC: RCPT TO:<bob@example.net>\nS: 250 …\nC: DATA\nS: 354 …")
			c.Send([]byte("Subject: hello\r\n\r\ntext" + end + smuggled))
			// The whole of it is one message, which is refused; what was in it was
			// never a command, and the connection goes on behind the true end.
			c.Talk("S: 550 5.6.11 the message holds a bare …\nC: NOOP\nS: 250 2.0.0 nothing done")
			w.none()
			w.refused(BadContent, 1)
		})
	}
}

func TestSmugglingByBDATEndsNothing(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello + "C: MAIL FROM:<app@example.com>\nS: 250 …\nC: RCPT TO:<bob@example.net>\nS: 250 …")
	body := "Subject: hello\r\n\r\ntext\r\n.\r\n" + smuggled
	c.Send(fmt.Appendf(nil, "BDAT %d LAST\r\n%s", len(body), body))
	c.Talk("S: 250 2.0.0 queued as …")
	if m := w.one(); m.body != body {
		t.Errorf("the message is %q", m.body)
	}
}

func TestWhatComesBeforeTheHandshakeDoesNotSurviveIt(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello)
	c.Send([]byte("STARTTLS\r\nMAIL FROM:<ceo@example.com>\r\nRCPT TO:<bob@example.net>\r\n"))
	c.Talk("S: 554 5.5.0 sent on after STARTTLS without waiting for the reply\nEND")

	// What was said and done in clear is unknown under TLS: name, login, sender.
	c = w.talk(ours + hello + `
		C: MAIL FROM:<ceo@example.com>
		S: 250 …
		C: RSET
		S: 250 …
		C: STARTTLS
		S: 220 …
		TLS
		C: RCPT TO:<bob@example.net>
		S: 503 5.5.1 say MAIL first
		C: MAIL FROM:<app@example.com>
		S: 503 5.5.1 say EHLO first
	`)
	c.Talk("C: QUIT\nS: 221 …\nEND")
	w.none()
}

func TestAHeaderCannotBeInjectedThroughTheTrace(t *testing.T) {
	w := start(t, nil)
	for _, name := range []string{"a\tb", "a\rb", "a)\x0b(b"} {
		c := w.talk(ours + "S: 220 …")
		c.Send([]byte("EHLO " + name + "\r\n"))
		c.Talk("S: 50…")
	}
	c := smtptest.Dial(t, w.addr)
	c.Talk(ours + "S: 220 …\nC: EHLO [192.0.2.1]\nS: 250-…")
	w.none()
	for in, want := range map[string]string{
		"mail.example.com": "mail.example.com", "[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]", "a(b)c;d\r\nX: y": "abcdX:y", "": "unknown", "ä": "unknown",
	} {
		if got := word(in); got != want {
			t.Errorf("word(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCommandsThatCarryLineEndsAreRefused(t *testing.T) {
	w := start(t, nil)
	for _, command := range []string{"MAIL FROM:<app@example.com>\nRCPT TO:<x@example.net>", "MAIL FROM:<app@example.com>\rX"} {
		c := w.talk(ours + hello)
		c.Send([]byte(command + "\r\n"))
		c.Talk("S: 500 5.5.2 a bare CR or LF…\nEND")
	}
	w.none()
}
