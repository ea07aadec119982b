package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// special runs a variant that is not mail to a domain under attack: what a
// hostile client says to our server, or a hostile message to our client.
func (w *world) special(ctx context.Context, a Attack, v Variant, c Column) (Cell, error) {
	want := v.Want(c)
	cell := Cell{
		Attack: a.Attack, Variant: v.Variant, Column: c, Name: a.Name, Section: a.Section,
		Expected: want.Expect, Results: []outcome.ResultType{},
	}
	var run func(context.Context, *Cell) error
	switch v.Run {
	case "injected-commands":
		run = w.injectCommands
	case "smuggling-in":
		run = w.smuggleIn
	case "smuggling-out":
		run = w.smuggleOut
	default:
		return cell, fmt.Errorf("there is nothing %q to run", v.Run)
	}
	if err := run(ctx, &cell); err != nil {
		return cell, err
	}
	if cell.OK = cell.Observed == want.Expect; !cell.OK {
		cell.Wrong = []string{fmt.Sprintf("expected %s, and it was %s", want.Expect, cell.Observed)}
	}
	return cell, nil
}

const (
	evil       = "evil@attacker.test"
	injectedTo = "victim@" + SenderZone
)

// recorder takes mail as our server hands it on, and remembers who sent any.
type recorder struct {
	mu      sync.Mutex
	senders []string
}

// NewSession implements [server.Backend].
func (r *recorder) NewSession(context.Context, *server.Conn) (server.Session, error) { return r, nil }

// Mail, Rcpt, Data, Reset and Close implement [server.Session].
func (r *recorder) Mail(_ context.Context, m smtp.Mail) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.senders = append(r.senders, m.From.String())
	return nil
}

func (r *recorder) Rcpt(context.Context, smtp.Rcpt) error { return nil }

func (r *recorder) Data(_ context.Context, body *server.Body) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, body)
	return smtp.Reply{}, err
}

func (r *recorder) Reset() {}
func (r *recorder) Close() {}

// saw reports whether a transaction of the sender was begun.
func (r *recorder) saw(sender string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.senders, sender)
}

// injectCommands puts commands behind a client's STARTTLS, in the same segment,
// as an attacker on the path can (CVE-2011-0411).
func (w *world) injectCommands(ctx context.Context, cell *Cell) error {
	cert, err := w.net.CA.Issue(testnet.CertOptions{Names: []string{relayName}})
	if err != nil {
		return err
	}
	seen := new(recorder)
	s, err := server.New(server.Options{Hostname: relayName, Backend: seen, TLS: &tls.Config{Certificates: []tls.Certificate{cert}, Time: w.clock.Now}})
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(serving, l) }()
	talk, err := injection(ctx, l.Addr().String(), w.net)
	stop()
	if err := errors.Join(err, <-served); err != nil {
		return err
	}
	cell.Transcript = []Exchange{talk}
	cell.Observed, cell.Evidence = Refused, "the server ended the connection, and no command of the attacker's had an effect"
	if seen.saw(evil) {
		cell.Observed, cell.Evidence = Leaked, "the attacker's MAIL command, sent in clear, was obeyed under TLS"
	}
	return nil
}

// injection plays a client whose STARTTLS the attacker adds to.
func injection(ctx context.Context, addr string, n *testnet.Net) (Exchange, error) {
	x := Exchange{Host: relayName, Addr: addr}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return x, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	c, greeting, err := testnet.NewCaller(conn)
	if err != nil {
		return x, err
	}
	x.heard(greeting)
	reply, err := x.say(c, "client", "EHLO lab.test")
	if err != nil {
		return x, fmt.Errorf("the server answered EHLO with %q: %w", reply, err)
	}
	injected := "MAIL FROM:<" + evil + ">\r\nRCPT TO:<" + injectedTo + ">\r\n"
	x.said("client", "STARTTLS")
	x.said("attacker", "MAIL FROM:<"+evil+">")
	x.said("attacker", "RCPT TO:<"+injectedTo+">")
	if err := c.Raw("STARTTLS\r\n" + injected); err != nil {
		return x, err
	}
	if reply, err = c.Reply(); err != nil {
		x.said("server", "(the connection ended)")
		return x, nil //nolint:nilerr // it is one of the ways to refuse
	}
	x.heard(reply)
	if !strings.HasPrefix(reply, "220") {
		return x, nil
	}
	if _, err := c.Handshake(ctx, &tls.Config{ServerName: relayName, RootCAs: n.Roots(), Time: n.Clock.Now}); err != nil {
		x.said("server", "(the handshake failed)")
		return x, nil //nolint:nilerr // so is this
	}
	// What waits in the server's buffer is answered by now, if ever.
	_, _ = x.say(c, "client", "NOOP")
	return x, nil
}

func (x *Exchange) said(who, text string) {
	to := "server"
	if who == "server" {
		to = "client"
	}
	x.Lines = append(x.Lines, Line{From: who, To: to, Text: text})
}

func (x *Exchange) heard(reply string) {
	for line := range strings.SplitSeq(reply, "\n") {
		x.said("server", line)
	}
}

// say says a line and takes both it and the reply down.
func (x *Exchange) say(c *testnet.Caller, who, line string) (string, error) {
	x.said(who, line)
	reply, err := c.Say(line)
	if err == nil {
		x.heard(reply)
	}
	return reply, err
}

// falseEnds are ends of data that some server somewhere takes for one.
func falseEnds() []string {
	return []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n\x00.\r\n", "\r\n.\r\r\n"}
}

// smuggled is a message with a false end of data and a second one behind it.
func smuggled(end, to string) string {
	return "Subject: first\r\n\r\nhello" + end +
		"MAIL FROM:<" + evil + ">\r\nRCPT TO:<" + to + ">\r\nDATA\r\nSubject: second\r\n\r\nsmuggled\r\n"
}

// smuggleIn sends our relay messages with each false end of data.
func (w *world) smuggleIn(ctx context.Context, cell *Cell) error {
	cell.Observed, cell.Evidence = Refused, "every message with a false end of data was refused as a whole"
	to := w.net.Domain("smuggling-in.test", testnet.DomainOptions{}).Name
	for i, end := range falseEnds() {
		x := Exchange{Host: relayName, Addr: w.relay}
		took, err := w.smuggleOne(ctx, &x, end, to, i)
		if err != nil {
			return err
		}
		cell.Transcript = append(cell.Transcript, x)
		if took {
			cell.Observed, cell.Evidence = Leaked, fmt.Sprintf("a message with %q in it was taken", end)
		}
	}
	// Mail that was smuggled in would go before this.
	last := letter{from: "after@" + SenderZone, to: "after@" + to}
	if err := w.send(ctx, last); err != nil {
		return err
	}
	if err := w.await(ctx, nudge, func() bool { return len(w.net.Delivered(last.to)) > 0 }); err != nil {
		return err
	}
	for _, d := range w.net.Deliveries() {
		if d.From == evil || bytes.Contains(d.Data, []byte("smuggled")) {
			cell.Observed, cell.Evidence = Leaked, "a smuggled message went out: "+d.String()
		}
	}
	return nil
}

// smuggleOne sends one message and reports whether the relay took it, or
// anything behind its false end.
func (w *world) smuggleOne(ctx context.Context, x *Exchange, end, to string, i int) (bool, error) {
	c, err := w.call(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close()
	for _, line := range []string{"EHLO lab.test", fmt.Sprintf("MAIL FROM:<smuggler%d@%s>", i, SenderZone), "RCPT TO:<x@" + to + ">", "DATA"} {
		if reply, err := x.say(c, "client", line); err != nil || reply[0] > '3' {
			return false, fmt.Errorf("the relay answered %s with %q: %w", line, reply, err)
		}
	}
	x.said("client", fmt.Sprintf("(a message with %q in it, and commands behind that)", end))
	if err := c.Raw(smuggled(end, "x@"+to) + ".\r\nQUIT\r\n"); err != nil {
		return false, err
	}
	took := false
	for { // replies to the message, to what it had behind the false end, and to QUIT
		reply, err := c.Reply()
		if err != nil {
			return took, nil //nolint:nilerr // the relay hung up
		}
		x.heard(reply)
		took = took || strings.HasPrefix(reply, "250")
	}
}

// smuggleOut gives our client messages with each false end of data, as a fault
// in what takes mail in would, and looks at what arrives.
func (w *world) smuggleOut(ctx context.Context, cell *Cell) error {
	cell.Observed, cell.Evidence = Refused, "the client sent no message with a false end of data"
	domain := w.net.Domain("smuggling-out.test", testnet.DomainOptions{})
	var letters []letter
	for i, end := range falseEnds() {
		l := letter{from: fmt.Sprintf("smuggler%d@%s", i, SenderZone), to: fmt.Sprintf("x%d@%s", i, domain.Name)}
		letters = append(letters, l)
		if err := w.enqueueBody(ctx, l, smuggled(end, l.to)); err != nil {
			return err
		}
	}
	err := w.await(ctx, nudge, func() bool {
		return !slices.ContainsFunc(letters, func(l letter) bool { return len(w.tries.at(l.to)) == 0 })
	})
	if err != nil {
		return err
	}
	for _, d := range w.net.Deliveries() {
		if d.From == evil || bytes.HasPrefix(d.Data, []byte("Subject: second")) {
			cell.Observed, cell.Evidence = Leaked, "a smuggled message went out: "+d.String()
		}
	}
	for _, s := range w.net.SessionsOf(domain.MX().Name) {
		cell.Transcript = append(cell.Transcript, exchange(s))
		if notes := s.Notes(); len(notes) > 0 {
			cell.Observed, cell.Evidence = Leaked, words(notes)
		}
	}
	return nil
}
