package testnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAHostMisbehavesAtEachStageAsItIsTold(t *testing.T) {
	const later = "451 4.3.0 Later"
	for _, tt := range []struct {
		what   string
		at     Stage
		action Action
		want   string
	}{
		{"greeting 4xx", AtConnect, Action{Reply: "421 4.3.2 Later"}, "later: 421 4.3.2 Later"},
		{"greeting 5xx", AtConnect, Action{Reply: "554 5.3.2 No"}, "bounced: 554 5.3.2 No"},
		{"greeting of several lines", AtConnect, Action{Reply: "220-a\n220 b"}, "mx.a.test, TLS 1.3, trusted, true key"},
		{"EHLO", AtEHLO, Action{Reply: later}, "later: " + later},
		{"STARTTLS", AtSTARTTLS, Action{Reply: "454 4.7.0 No"}, "mx.a.test, in clear"},
		{"handshake dropped", AtHandshake, Action{Drop: true}, "mx.a.test, in clear"},
		{"EHLO under TLS", AtEHLOTLS, Action{Reply: later}, "later: " + later},
		{"MAIL", AtMAIL, Action{Reply: "550 5.7.1 No"}, "bounced: 550 5.7.1 No"},
		{"RCPT", AtRCPT, Action{Reply: "550 5.1.1 No"}, "bounced: 550 5.1.1 No"},
		{"RCPT of another", AtRCPT, Action{Reply: later, Only: func(l string) bool { return strings.Contains(l, "nobody") }}, "mx.a.test, TLS 1.3, trusted, true key"},
		{"DATA", AtDATA, Action{Reply: later}, "later: " + later},
		{"message", AtMessage, Action{Reply: "452 4.3.1 Full"}, "later: 452 4.3.1 Full"},
		{"message, reply lost", AtMessage, Action{Drop: true}, "connection reset by peer"},
		{"QUIT", AtQUIT, Action{Drop: true}, "mx.a.test, TLS 1.3, trusted, true key"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			n := Start(t, Options{})
			d := n.Domain("a.test", DomainOptions{})
			undo := d.MX().Script(tt.at, tt.action)
			if got := naive(t, n, "a.test"); !strings.HasSuffix(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			undo()
			if got := naive(t, n, "a.test"); got != "mx.a.test, TLS 1.3, trusted, true key" {
				t.Errorf("after it: %s", got)
			}
		})
	}
}

func TestAMessageThatWasRefusedHasStillArrived(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{}).MX().Script(AtMessage, Action{Reply: "451 4.3.0 Later", Times: 1})
	if got := naive(t, n, "a.test"); got != "later: 451 4.3.0 Later" {
		t.Fatalf("first: %s", got)
	}
	if got := naive(t, n, "a.test"); got != "mx.a.test, TLS 1.3, trusted, true key" {
		t.Fatalf("second: %s", got)
	}
	if all, taken := n.Deliveries(), n.Delivered("to@a.test"); len(all) != 2 || len(taken) != 1 || all[0].Accepted {
		t.Errorf("%d arrived, %d taken", len(all), len(taken))
	}
}

func TestAHostThatHangsAfterTheMessageHasIt(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{})
	d.MX().Script(AtMessage, Action{Hang: true})
	c := call(t, n, "mx.a.test:25")
	say(t, c, "EHLO sender.test", "250")
	done := make(chan error)
	go func() {
		_, err := c.Send("x@b.test", "y@a.test", "Subject: x\r\n\r\n")
		done <- err
	}()
	m, err := n.Wait(limit(t), func(d Delivery) bool { return d.For("y@a.test") })
	if err != nil || m.Accepted || m.Reply != "" || !m.Clear() {
		t.Errorf("got %+v, %v", m, err)
	}
	c.Close()
	if err := <-done; err == nil {
		t.Error("the sender was told something")
	}
}

func TestASlowHostRepliesByTheClock(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{}).MX().Script(AtConnect, Action{Delay: 5 * time.Minute})
	conn, err := n.Dial(limit(t), "tcp", "mx.a.test:25")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	greeting := make(chan string)
	go func() {
		_, g, _ := NewCaller(conn)
		greeting <- g
	}()
	if err := n.Clock.WaitTimers(limit(t), 1); err != nil {
		t.Fatal(err)
	}
	select {
	case g := <-greeting:
		t.Fatalf("too early: %s", g)
	default:
	}
	n.Clock.Advance(5 * time.Minute)
	if g := <-greeting; g != "220 mx.a.test ESMTP" {
		t.Errorf("got %q", g)
	}
}

func TestAHostIsAsStrictAsItsReplies(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{})
	c := call(t, n, "mx.a.test:25")
	for _, x := range [][2]string{
		{"MAIL FROM:<a@b.test>", "503"},
		{"DATA", "503"},
		{"EHLO x", "250"},
		{"RCPT TO:<a@a.test>", "503"},
		{"MAIL FROM: a@b.test", "501"},
		{"MAIL FROM:<a@b.test> REQUIRETLS", "555"},
		{`MAIL FROM:<"a>b"@b.test> SIZE=10`, "250"},
		{"MAIL FROM:<a@b.test>", "503"},
		{"DATA", "503"},
		{"RCPT TO:<>", "501"},
		{"RSET", "250"},
		{"NOOP", "250"},
		{"VRFY x", "500"},
		{"QUIT", "221"},
	} {
		say(t, c, x[0], x[1])
	}
	if _, err := c.Say("NOOP"); err == nil {
		t.Error("it goes on after QUIT")
	}
}

func TestRequireTLSIsOfferedUnderTLSAndSeen(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{})
	n.Domain("b.test", DomainOptions{Host: HostOptions{NoRequireTLS: true}})
	for host, offered := range map[string]bool{"mx.a.test": true, "mx.b.test": false} {
		c := call(t, n, host+":25")
		say(t, c, "EHLO sender.test", "250")
		if _, err := c.StartTLS(limit(t), &tls.Config{InsecureSkipVerify: true}); err != nil {
			t.Fatal(err)
		}
		reply, err := c.Say("EHLO sender.test")
		if err != nil || strings.Contains(reply, "REQUIRETLS") != offered || strings.Contains(reply, "STARTTLS") {
			t.Errorf("%s: %q, %v", host, reply, err)
		}
		if !offered {
			continue
		}
		say(t, c, "MAIL FROM:<x@b.test> REQUIRETLS", "250")
		say(t, c, "RCPT TO:<y@a.test>", "250")
		say(t, c, "DATA", "354")
		say(t, c, "\r\nhello\r\n.", "250")
		if got := n.Delivered("y@a.test"); len(got) != 1 || !got[0].RequireTLS {
			t.Errorf("got %+v", got)
		}
	}
}

func TestOnlyADotBetweenTwoCRLFEndsAMessage(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{})
	for _, smuggled := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r\n\x00.\r\n"} {
		c := call(t, n, "mx.a.test:25")
		say(t, c, "EHLO sender.test", "250")
		say(t, c, "MAIL FROM:<x@b.test>", "250")
		say(t, c, "RCPT TO:<y@a.test>", "250")
		say(t, c, "DATA", "354")
		before := len(n.Deliveries())
		say(t, c, "one"+smuggled+"two\r\n.", "250")
		got := n.Deliveries()[before:]
		if len(got) != 1 || !strings.HasSuffix(string(got[0].Data), "two\r\n") {
			t.Errorf("%q: %d messages", smuggled, len(got))
			continue
		}
		odd := strings.Contains(strings.Join(got[0].Session.Notes(), ","), "bare")
		if want := smuggled != "\r\n\x00.\r\n"; odd != want {
			t.Errorf("%q: notes %v", smuggled, got[0].Session.Notes())
		}
	}
}

func TestAClientThatSaysTooMuchTooEarlyIsNoted(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{})
	for early, want := range map[string]string{
		"EHLO x\r\nNOOP\r\n":                 "came before the reply to EHLO",
		"EHLO x\r\nSTARTTLS\r\nRSET\r\n":     "came between STARTTLS and the handshake",
		"EHLO x\n":                           "bare LF",
		"EHLO x\r\nMAIL FROM:<>\r\nDATA\r\n": "came before the reply to EHLO",
	} {
		c := call(t, n, "mx.a.test:25")
		if err := c.Raw(early); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Reply(); err != nil {
			t.Fatal(err)
		}
		_ = c.Raw("QUIT\r\n")
		_, _ = io.Copy(io.Discard, c.Conn)
		sessions := n.SessionsOf("mx.a.test")
		notes := strings.Join(sessions[len(sessions)-1].Notes(), "; ")
		if !strings.Contains(notes, want) {
			t.Errorf("%q: noted %q, want %q", early, notes, want)
		}
	}
}

func TestTheFlawsOfAHostsCertificate(t *testing.T) {
	for flaw, want := range map[Flaw]string{
		NoFlaw: "", SelfSigned: "unknown authority", Expired: "expired", NotYetValid: "not yet valid",
		WrongName: "valid for other.test", CNOnly: "Common Name", Untrusted: "unknown authority", Misissued: "", Incomplete: "unknown authority",
	} {
		n := Start(t, Options{})
		n.Domain("a.test", DomainOptions{Host: HostOptions{Flaw: flaw}})
		c := call(t, n, "mx.a.test:25")
		say(t, c, "EHLO sender.test", "250")
		_, err := c.StartTLS(limit(t), &tls.Config{ServerName: "mx.a.test", RootCAs: n.Roots(), Time: n.Clock.Now})
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", flaw, err, want)
		}
	}
}

func TestAHostThatIsDownIsRefusedOrSilent(t *testing.T) {
	n := Start(t, Options{})
	h := n.Domain("a.test", DomainOptions{Host: HostOptions{IPv6: true}}).MX()
	up := h.Down(Refuse)
	for _, a := range h.Addrs {
		if _, err := n.Dial(limit(t), "tcp", net.JoinHostPort(a.String(), "25")); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", a, err)
		}
	}
	up()
	h.Down(BlackHole)
	ctx, cancel := context.WithCancelCause(limit(t))
	gone := errors.New("gone")
	done := make(chan error)
	go func() {
		_, err := n.Dial(ctx, "tcp6", "mx.a.test:25")
		done <- err
	}()
	if err := n.Clock.WaitTimers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	cancel(gone)
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestWhoIsDialledAndWhoIsNot(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{})
	n.Domain("b.test", DomainOptions{MX: []MX{{10, d.MX().Name}}})
	c, err := n.Dial(limit(t), "tcp", "192.0.2.1:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != "192.0.2.1:25" {
		t.Errorf("remote address %s", got)
	}
	if got, _, _ := net.SplitHostPort(c.LocalAddr().String()); got != SenderAddr.String() {
		t.Errorf("local address %s", got)
	}
	for addr, want := range map[string]string{
		NobodyAddr.String() + ":25": "connection refused",
		"192.0.2.1:26":              "connection refused",
		"10.0.0.1:25":               "connection refused",
		"nowhere.test:25":           "no such host",
		"mx.a.test":                 "missing port",
		"mx.a.test:smtp":            "invalid syntax",
	} {
		if _, err := n.Dial(limit(t), "tcp", addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", addr, err, want)
		}
	}
	if _, err := n.Dial(limit(t), "udp", "192.0.2.1:25"); err == nil {
		t.Error("UDP to a mail host is not refused")
	}
}

func TestAHostIsReachedByProgramsThatCannotBeGivenADialler(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}})
	addr, err := d.MX().Listen()
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.MX().Listen()
	if err != nil || again != addr {
		t.Errorf("a second time it listens at %s, %v", again, err)
	}
	d.On(StripSTARTTLS)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, greeting, err := NewCaller(conn)
	if err != nil || greeting != "220 mx.a.test ESMTP" {
		t.Fatalf("%q, %v", greeting, err)
	}
	if reply, err := c.Say("EHLO x"); err != nil || strings.Contains(reply, "STARTTLS") {
		t.Errorf("%q, %v", reply, err)
	}
	web, err := d.PolicyHost().Listen()
	if err != nil {
		t.Fatal(err)
	}
	tc, err := tls.Dial("tcp", web, &tls.Config{ServerName: "mta-sts.a.test", RootCAs: n.Roots(), Time: n.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	tc.Close()
	for how, want := range map[Unreachable]string{Refuse: "EOF", BlackHole: "i/o timeout"} {
		up := d.MX().Down(how)
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if how == BlackHole {
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		}
		if _, _, err := NewCaller(conn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("down: %v", err)
		}
		conn.Close()
		up()
	}
	want := []string{"192.0.2.1:25", "192.0.2.2:443", hostileMX.String() + ":25", hostileWeb.String() + ":443"}
	var got []string
	for _, a := range n.Served() {
		got = append(got, a.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("served are %v, want %v", got, want)
	}
}

func TestHundredsOfDomainsAreQuick(t *testing.T) {
	const domains = 400
	n := Start(t, Options{})
	began := time.Now()
	seen := make(map[string]bool)
	for i := range domains {
		d := n.Domain(fmt.Sprintf("d%d.test", i), DomainOptions{STS: STS{Mode: "enforce"}, DANE: DANEEE})
		for _, a := range append(d.MX().Addrs, d.PolicyHost().Addrs...) {
			if seen[a.String()] {
				t.Fatalf("%s is given out twice", a)
			}
			seen[a.String()] = true
		}
	}
	t.Logf("%d domains made in %v", domains, time.Since(began))
	last := fmt.Sprintf("d%d.test", domains-1) // its hosts have IPv6 alone
	if got := naive(t, n, last); got != "mx."+last+", TLS 1.3, trusted, true key" {
		t.Errorf("mail to %s: %s", last, got)
	}
	if head, _, err := fetch(limit(t), browser(t, n), last); err != nil || head != "200 OK text/plain" {
		t.Errorf("policy of %s: %s, %v", last, head, err)
	}
}
