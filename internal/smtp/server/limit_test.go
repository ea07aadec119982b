package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
)

func TestLimits(t *testing.T) {
	rcpt := "\nC: RCPT TO:<bob@b.test>\nS: 250 2.1.5 go on"
	take := "\nC: MAIL FROM:<>\nS: 250 …" + rcpt + "\nC: DATA\nS: 354 …\nC: .\nS: 250 …"
	for _, tt := range []struct {
		name   string
		limits Limits
		script string
	}{
		{"recipients of a message", Limits{Recipients: 3}, "C: MAIL FROM:<>\nS: 250 …" + strings.Repeat(rcpt, 3) + `
			C: RCPT TO:<one.more@b.test>
			S: 452 4.5.3 more than 3 recipients, send to the others again
			C: DATA
			S: 354 …
			C: .
			S: 250 …`},
		{"a hundred recipients are no idling", Limits{Idling: 10}, "C: MAIL FROM:<>\nS: 250 …" + strings.Repeat(rcpt, 100)},
		{"commands that lead to no mail", Limits{Idling: 4}, strings.Repeat("C: NOOP\nS: 250 …\n", 3) + `
			C: NOOP
			S: 421 4.7.0 too many commands without mail
			END`},
		{"transactions that lead to no mail", Limits{Idling: 5}, strings.Repeat("C: MAIL FROM:<>\nS: 250 …"+rcpt+"\nC: RSET\nS: 250 …\n", 2) + `
			C: MAIL FROM:<>
			S: 421 4.7.0 too many commands without mail
			END`},
		{"mail makes good for idling", Limits{Idling: 5}, strings.Repeat("C: NOOP\nS: 250 …\nC: NOOP\nS: 250 …"+take+"\n", 4)},
		{"errors", Limits{Errors: 2}, strings.Repeat("C: XYZZY\nS: 500 …\n", 2) + `
			C: XYZZY
			S: 500 5.5.1 unknown command
			S: 421 4.7.0 too many errors
			END`},
		{"mail makes good for errors", Limits{Errors: 2}, strings.Repeat("C: XYZZY\nS: 500 …\nC: XYZZY\nS: 500 …"+take+"\n", 3)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start(t, nil, func(o *Options) { o.Limits = tt.limits }).talk(hello + tt.script)
		})
	}
}

func TestRefusalsThatPassAreNoErrors(t *testing.T) {
	in := &inbox{onMail: func(context.Context, smtp.Mail) error { return smtp.Errorf(452, smtp.Enhanced{4, 3, 1}, "full") }}
	r := start(t, in, func(o *Options) { o.Limits.Errors = 1 })
	r.talk(hello + strings.Repeat("C: MAIL FROM:<>\nS: 452 4.3.1 full\n", 10))
}

func TestConnectionsInAllAreLimited(t *testing.T) {
	r := start(t, nil, func(o *Options) { o.Limits.Connections = 2 })
	first := r.talk(hello)
	r.talk(hello)
	r.talk("S: 421 4.3.2 too many connections, try again later\nEND")
	first.Talk("C: QUIT\nS: 221 …\nEND")
	eventually(t, func() bool { return r.talks() })
}

// talks reports whether a new connection is greeted.
func (r *running) talks() bool {
	c := r.dial()
	line, err := c.In.ReadString('\n')
	return err == nil && strings.HasPrefix(line, "220 ")
}

// eventually tries until it holds, without a pause: what it waits for is under way.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for range 10_000 {
		if holds() {
			return
		}
	}
	t.Fatal("it never came to be")
}

func TestConnectionsOfOneClientAreLimited(t *testing.T) {
	r := start(t, nil, func(o *Options) { behindProxy(o); o.Limits.PerClient = 1 })
	from := func(addr, script string) *smtptest.Client {
		c := r.dial()
		family := "TCP4 " + addr + " 192.0.2.99"
		if netip.MustParseAddr(addr).Is6() {
			family = "TCP6 " + addr + " 2001:db8::99"
		}
		c.Send([]byte("PROXY " + family + " 5000 25\r\n"))
		c.Talk(script)
		return c
	}
	const full = "S: 421 4.7.0 too many connections from you, try again later\nEND"
	first := from("192.0.2.1", hello)
	from("192.0.2.1", full)
	from("192.0.2.2", hello)
	from("2001:db8:1:2::1", hello)
	from("2001:db8:1:2:ffff::1", full) // the same network
	from("2001:db8:1:3::1", hello)
	first.Talk("C: QUIT\nS: 221 …\nEND")
	eventually(t, func() bool {
		c := r.dial()
		c.Send([]byte("PROXY TCP4 192.0.2.1 192.0.2.99 5000 25\r\n"))
		line, err := c.In.ReadString('\n')
		return err == nil && strings.HasPrefix(line, "220 ")
	})
}

func TestConnectionsWithoutAnAddressAreNoClientsConnections(t *testing.T) {
	s, err := New(Options{Hostname: "mx.example.com", Backend: &inbox{}, Limits: Limits{PerClient: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); s.admit(t.Context(), theirs, false).run() }()
		smtptest.New(t, ours).Talk("S: 220 …")
		ours.Close()
		<-done
	}
}

// flaky is a listener whose first Accepts fail as if there were no files left.
type flaky struct {
	net.Listener
	left atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAListenerThatFailsForAWhileIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{Listener: l}
	f.left.Store(3)
	s, err := New(Options{Hostname: "mx.example.com", Backend: &inbox{}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), f) }()
	(&running{Server: s, t: t, addr: l.Addr().String()}).talk("S: 220 …\nC: QUIT\nS: 221 …\nEND")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Serve(t.Context(), f); !errors.Is(err, ErrStopped) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestAListenerThatIsClosedEndsServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s, err := New(Options{Hostname: "mx.example.com", Backend: &inbox{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
}
