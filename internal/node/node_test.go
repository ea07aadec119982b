package node_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestMailGoesUnderTLSIsHeldUnderAttackAndLeavesAfterIt(t *testing.T) {
	tn, w := world(t)
	d := tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	relay := n.Addrs().Relay[0]

	if _, err := submit(t.Context(), relay, "a@client.test", "one@good.test", "before"); err != nil {
		t.Fatal(err)
	}
	got, err := tn.WaitDelivered(t.Context(), "one@good.test")
	if err != nil {
		t.Fatal(err)
	}
	if !verified(got) {
		t.Errorf("the first message arrived, and not under verified TLS: %+v", got)
	}

	eventually(t, "the first delivery is done with", func() bool {
		return len(call[[]queue.Delivery](t, n, "queue.list", queue.Filter{States: []queue.State{queue.AllDelivered}})) == 1
	})
	tn.Clock.Advance(time.Minute) // no connection is kept so long: the next message shakes hands anew
	d.On(testnet.MITMSelfSigned)
	if _, err := submit(t.Context(), relay, "a@client.test", "two@good.test", "during"); err != nil {
		t.Fatal(err)
	}
	var held []queue.Delivery
	eventually(t, "the message is held by policy", func() bool {
		held = call[[]queue.Delivery](t, n, "queue.list", queue.Filter{ByPolicy: true})
		return len(held) == 1
	})
	if !strings.Contains(held[0].Why, "good.test") || held[0].Do == "" {
		t.Errorf("why: %q; do: %q", held[0].Why, held[0].Do)
	}
	if status, page := get(t, n, "/"); status != 200 || !strings.Contains(page, "held by policy") {
		t.Errorf("the page (%d) does not show the held message", status)
	}
	if status, page := get(t, n, "/message/"+held[0].ID); status != 200 || !strings.Contains(page, "self-signed") {
		t.Errorf("the message's page (%d) does not say what was wrong:\n%s", status, page)
	}
	x := call[node.Explanation](t, n, "explain", node.ExplainParams{Subject: held[0].ID})
	if len(x.Deliveries) != 1 || len(x.Deliveries[0].Stories) == 0 || len(x.Deliveries[0].Stories[0].Tries) == 0 {
		t.Errorf("explain knows no attempt: %+v", x)
	}
	if len(tn.Delivered("two@good.test")) != 0 {
		t.Fatal("the message reached somebody under attack")
	}

	d.Off()
	got, err = tn.WaitDelivered(t.Context(), "two@good.test")
	if err != nil {
		t.Fatal(err)
	}
	if !verified(got) {
		t.Errorf("after the attack the message arrived, and not under verified TLS: %+v", got)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	for path, says := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "pawl_queue_deliveries"} {
		if status, body := get(t, n, path); status != 200 || !strings.Contains(body, says) {
			t.Errorf("%s: %d %.200q", path, status, body)
		}
	}
	if status, body := get(t, n, "/nowhere"); status != 404 || !strings.Contains(body, "no such page") {
		t.Errorf("an unknown page: %d %.200q", status, body)
	}
}

func TestMetricsOfPolicies(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	tn.Domain("blocked.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}).On(testnet.BlockPolicyHost)
	conn, err := net.Dial("tcp", n.Addrs().Postfix)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, query := range []string{"14:pawl good.test,", "14:pawl good.test,", "17:pawl blocked.test,", "10:pawl .test,"} {
		fmt.Fprint(conn, query)
		if _, err := r.ReadString(','); err != nil {
			t.Fatal(err)
		}
	}
	var body string
	eventually(t, "the policy is stored", func() bool { // behind the answer
		_, body = get(t, n, "/metrics")
		return strings.Contains(body, "pawl_policy_oldest_age_seconds ")
	})
	for _, line := range []string{
		`pawl_policy_answers_total{kind="secure"} 2`,
		`pawl_policy_answers_total{kind="notfound"} 2`,
		`pawl_policy_lookups_total{from="memory"} 1`,
		`pawl_policy_lookups_total{from="network"} 2`,
		`pawl_policy_refreshes_total 1`,
		`pawl_policy_failures_total{result="sts-policy-fetch-error"} 1`,
		`pawl_policy_overrides 0`,
		`pawl_policy_overridden_total 0`,
		`pawl_postfix_connections 1`,
		`pawl_dane_enabled 1`,
		`pawl_dns_lookups_total{from="network"} `,
		`pawl_dns_dropped_total 0`,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("there is no %s", line)
		}
	}
}

func TestWhatCannotWorkIsOneSentenceWithAdvice(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tn, w := world(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*config.Config)
		says   string
	}{
		"a port in use":              {func(c *config.Config) { c.Web.Listen = taken.Addr().String() }, "is in use by another program"},
		"a data folder that is none": {func(c *config.Config) { c.Data = filepath.Join(file, "data") }, "cannot be made"},
		"an address of another host": {func(c *config.Config) { c.Postfix.Listen = "192.0.2.1:8461" }, "is not an address of this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			c := settings(t, tn.DNSAddr())
			tc.change(&c)
			_, err := node.New(t.Context(), c, w)
			var e *control.Error
			if !errors.As(err, &e) || !strings.Contains(e.Text, tc.says) || e.Do == "" || strings.Contains(e.Text, "\n") {
				t.Errorf("got %q", err)
			}
		})
	}
}

func TestASecondServerOnTheSameDataIsRefused(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	start(t, c, w)
	if _, err := node.New(t.Context(), c, w); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestTheChecksSayWhatIsAmiss(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	for _, ck := range node.Check(t.Context(), c, w) {
		if !ck.OK {
			t.Errorf("on a sound machine: %s: %s", ck.Name, ck.Text)
		}
	}
	c.DNS.Upstreams = []string{"127.0.0.1:1"}
	bad := map[string]bool{}
	for _, ck := range node.Check(t.Context(), c, w) {
		if !ck.OK {
			bad[ck.Name] = true
			if ck.Do == "" {
				t.Errorf("%s: %q, and no advice", ck.Name, ck.Text)
			}
		}
	}
	if !bad["resolver"] || !bad["DNSSEC"] || len(bad) != 2 {
		t.Errorf("with a dead resolver these fail: %v", bad)
	}
}
