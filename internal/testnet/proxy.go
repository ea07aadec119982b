package testnet

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
)

// proxy passes an SMTP session on while it is in clear, one command at a time,
// and changes what is said.
type proxy struct {
	// command may answer a command in the host's place.
	command func(verb string) (answer string, answered bool)
	// reply may change the host's reply to a command; the verb of the greeting
	// is "".
	reply func(verb, reply string) string
	// secured takes over after the 220 to STARTTLS was passed on. Without it
	// the rest is passed on as it is.
	secured func(s *Session, down net.Conn)
}

// passage is one session that goes through a proxy.
type passage struct {
	proxy
	s        *Session
	down, up net.Conn
	dr, ur   *bufio.Reader
}

// intercept makes the proxy an Interceptor.
func (p proxy) intercept(_ context.Context, s *Session, down net.Conn, next func() (net.Conn, error)) {
	up, err := next()
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	t := &passage{p, s, down, up, bufio.NewReaderSize(down, maxCommand), bufio.NewReaderSize(up, maxCommand)}
	if _, err := t.answer(""); err != nil {
		return
	}
	for {
		more, err := t.pass()
		if err != nil || !more {
			return
		}
	}
}

// pass passes one command on and its reply back; false at the end.
func (t *passage) pass() (bool, error) {
	b, err := t.dr.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	line := strings.TrimRight(string(b), "\r\n")
	verb := strings.ToUpper(strings.SplitN(line, " ", 2)[0])
	if t.command != nil {
		if answer, ok := t.command(verb); ok {
			t.s.say("sender", "attacker", false, line)
			return true, t.tell(answer)
		}
	}
	if _, err := io.WriteString(t.up, line+"\r\n"); err != nil {
		return false, err
	}
	reply, err := t.answer(verb)
	switch {
	case err != nil:
		return false, err
	case verb == "DATA" && strings.HasPrefix(reply, "354"):
		return true, t.message()
	case verb == "STARTTLS" && strings.HasPrefix(reply, "220"):
		if t.secured != nil {
			t.secured(t.s, t.down)
			return false, nil
		}
		t.passOn()
		return false, nil
	default:
		return verb != "QUIT", nil
	}
}

// answer passes the host's next reply back, changed or not.
func (t *passage) answer(verb string) (string, error) {
	reply, err := readReply(t.ur)
	if err != nil {
		return "", err
	}
	if t.reply != nil {
		if changed := t.reply(verb, reply); changed != reply {
			return changed, t.tell(changed)
		}
	}
	return reply, t.write(reply)
}

// tell says something of the attacker's own.
func (t *passage) tell(reply string) error {
	for line := range strings.SplitSeq(reply, "\n") {
		t.s.say("attacker", "sender", false, line)
	}
	return t.write(reply)
}

// write sends a reply in one piece.
func (t *passage) write(reply string) error {
	_, err := io.WriteString(t.down, strings.ReplaceAll(reply, "\n", "\r\n")+"\r\n")
	return err
}

// message passes a message on and the reply to it back.
func (t *passage) message() error {
	body, _, err := readMessage(t.dr)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(t.up, stuff(string(body))+".\r\n"); err != nil {
		return err
	}
	_, err = t.answer(".")
	return err
}

// passOn passes octets both ways, those that wait in the buffers first.
func (t *passage) passOn() {
	for _, w := range []struct {
		from *bufio.Reader
		to   net.Conn
	}{{t.dr, t.up}, {t.ur, t.down}} {
		waiting, _ := w.from.Peek(w.from.Buffered())
		if _, err := w.to.Write(waiting); err != nil {
			return
		}
	}
	splice(t.down, t.up)
}
