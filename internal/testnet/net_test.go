package testnet

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long anything here may take on a slow machine; nothing waits
// for it when all is well.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func call(t *testing.T, n *Net, addr string) *Caller {
	t.Helper()
	c, err := n.Dial(limit(t), "tcp", addr)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	t.Cleanup(func() { c.Close() })
	caller, _, err := NewCaller(c)
	if err != nil {
		t.Fatalf("greeting of %s: %v", addr, err)
	}
	return caller
}

func say(t *testing.T, c *Caller, line, want string) {
	t.Helper()
	got, err := c.Say(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if got[:3] != want {
		t.Fatalf("%s: got %q, want %s", line, got, want)
	}
}

func TestMailToAHostIsWitnessedWithItsTLS(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{})
	c := call(t, n, "mx.a.test:25")
	say(t, c, "EHLO sender.test", "250")
	if _, err := c.StartTLS(limit(t), &tls.Config{ServerName: "mx.a.test", RootCAs: n.Roots(), Time: n.Clock.Now}); err != nil {
		t.Fatal(err)
	}
	say(t, c, "EHLO sender.test", "250")
	if reply, err := c.Send("x@b.test", "y@a.test", "Subject: hi\r\n\r\n.dot"); err != nil || reply != "250 2.0.0 Taken" {
		t.Fatalf("send: %q, %v", reply, err)
	}
	say(t, c, "QUIT", "221")
	got := n.Delivered("Y@a.test")
	if len(got) != 1 {
		t.Fatalf("%d deliveries, want 1", len(got))
	}
	m := got[0]
	if m.Host != d.MX().Name || m.ByAttacker || m.Clear() || !m.Trusted || !m.TrueKey || m.From != "x@b.test" ||
		string(m.Data) != "Subject: hi\r\n\r\n.dot\r\n" || m.Helo != "sender.test" {
		t.Errorf("recorded %+v", m)
	}
	t.Log(m.Session)
}
