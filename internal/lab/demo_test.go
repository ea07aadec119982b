package lab

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/web"
)

// startDemo runs a demo on free ports, which sends nothing but its first message.
func startDemo(t *testing.T) (*Demo, context.Context) {
	t.Helper()
	c := DemoConfig()
	c.Data = t.TempDir()
	c.Relay.Listen, c.Web.Listen, c.Postfix.Listen = []string{"127.0.0.1:0"}, "127.0.0.1:0", "127.0.0.1:0"
	c.Relay.RetryFirst, c.Relay.RetryMax = config.Duration(time.Second), config.Duration(time.Second)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	d, err := NewDemo(ctx, DemoOptions{Config: c, Every: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	})
	return d, ctx
}

// page gets the dashboard, after posting to its switch if there is something to post.
func page(ctx context.Context, t *testing.T, d *Demo, attack string) string {
	t.Helper()
	method, body, to := http.MethodGet, "", "http://"+d.Addrs().Web+"/"
	if attack != "" {
		method, body, to = http.MethodPost, url.Values{"attack": {attack}}.Encode(), to+"lab"
	}
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v", method, to, answer.Status, err)
	}
	return string(text)
}

func counts(t *testing.T, d *Demo) map[string]web.LabDomain {
	t.Helper()
	state, err := d.Attack(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[string]web.LabDomain)
	for _, x := range state.Domains {
		of[x.Domain] = x
	}
	return of
}

func TestTheDemoShowsAnAttackThatHoldsMailAndOneThatLeaksIt(t *testing.T) {
	d, ctx := startDemo(t)
	first, err := d.net.WaitDelivered(ctx, "user@enforce.test")
	if err != nil || leak(first, false) != "" {
		t.Fatalf("the first message: %v, %v", first, err)
	}

	if text := page(ctx, t, d, "on"); !strings.Contains(text, "attacking four domains") {
		t.Error("the page does not say that the attack is on")
	}
	for i, name := range []string{"enforce.test", "dane.test", "testing.test", "plain.test"} {
		if err := d.send(ctx, name, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"testing.test", "plain.test"} {
		if m, err := d.net.WaitDelivered(ctx, "user@"+name); err != nil || leak(m, false) == "" {
			t.Errorf("%s without protection: %v, %v", name, m, err)
		}
	}
	for ctx.Err() == nil {
		if text := page(ctx, t, d, ""); strings.Contains(text, "showed a certificate that is self-signed") && strings.Contains(text, "was not authenticated by its TLSA records") {
			break
		}
	}
	for name, c := range counts(t, d) {
		if want := name == "testing.test" || name == "plain.test"; (c.Stolen > 0) != want {
			t.Errorf("of %s the attacker got %d", name, c.Stolen)
		}
	}

	page(ctx, t, d, "off")
	for _, name := range []string{"enforce.test", "dane.test"} {
		_, err := d.net.Wait(ctx, func(m testnet.Delivery) bool {
			return m.Session != first.Session && m.For("user@"+name) && m.Accepted && leak(m, name == "dane.test") == ""
		})
		if err != nil {
			t.Errorf("held mail for %s did not leave: %v", name, err)
		}
	}
}

func TestTheDemosMailDoesNotPileUp(t *testing.T) {
	d := &Demo{waiting: make(map[string]int)}
	for range demoWaiting {
		if !d.claim("a.test") {
			t.Fatal("no more is sent while little waits")
		}
	}
	if d.claim("a.test") || !d.claim("b.test") {
		t.Error("how much waits for one destination is not what is counted")
	}
	d.settle("a.test")
	if !d.claim("a.test") {
		t.Error("nothing is sent after a message has ended")
	}
}

func TestADemoWhosePortIsTakenSaysWhich(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := DemoConfig()
	c.Data = t.TempDir()
	c.Relay.Listen, c.Web.Listen, c.Postfix.Listen = []string{"127.0.0.1:0"}, l.Addr().String(), "127.0.0.1:0"
	_, err = NewDemo(t.Context(), DemoOptions{Config: c})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()+" is in use by another program") {
		t.Errorf("got %v", err)
	}
}

func TestTheDemosConfigurationIsGood(t *testing.T) {
	if problems := DemoConfig().Check(); len(problems) > 0 {
		t.Error(problems)
	}
}
