package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/account"
	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
	"github.com/pawl-mail/pawl/internal/testnet"
)

const password = "correct-horse-battery"

// withTLS gives the relay a certificate of the small Internet's CA.
func withTLS(t *testing.T, tn *testnet.Net, c *config.Config) {
	t.Helper()
	pair, err := tn.CA.Issue(testnet.CertOptions{Names: []string{"relay.pawl.test"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.Relay.TLS = config.RelayTLS{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if err := testnet.WriteFiles(pair, c.Relay.TLS.Certificate, c.Relay.TLS.Key); err != nil {
		t.Fatal(err)
	}
}

func TestASubmitterHandsMailInUntilItIsDisabled(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	c := settings(t, tn.DNSAddr())
	c.Relay.Networks = nil
	c.Relay.Submissions = []string{"127.0.0.1:0"}
	withTLS(t, tn, &c)
	n, _ := start(t, c, w)

	p := node.SubmitterParams{Password: password}
	p.Submitter = account.Submitter{Name: "webshop", Senders: []string{"shop.test"}}
	if got := call[account.Submitter](t, n, "submitter.add", p); got.Name != "webshop" || got.Org == "" {
		t.Errorf("added: %+v", got)
	}
	talk := func(script string) *smtptest.Client {
		conn := smtptest.Dial(t, n.Addrs().Submissions[0])
		conn.StartTLS()
		conn.Talk("S: 220 …\nC: HELO app.test\nS: 250 …\nC: EHLO app.test\n" + strings.Repeat("S: 250-…\n", 9) + "S: 250 AUTH PLAIN LOGIN\n" + script)
		return conn
	}
	open := talk(`
		C: MAIL FROM:<app@shop.test>
		S: 550 5.7.1 127.0.0.1 may not relay here…
		AUTH webshop wrong-horse-battery
		S: 535 5.7.8 the credentials are not valid
		AUTH WebShop ` + password + `
		S: 235 2.7.0 welcome
		C: MAIL FROM:<ceo@bank.test>
		S: 550 5.7.1 webshop may not send as ceo@bank.test
		C: MAIL FROM:<app@shop.test>
		S: 250 …
		C: RCPT TO:<bob@good.test>
		S: 250 …
		C: DATA
		S: 354 …
		C: Subject: order
		C:
		C: .
		S: 250 2.0.0 queued as …
	`)
	if d, err := tn.WaitDelivered(t.Context(), "bob@good.test"); err != nil || !verified(d) {
		t.Errorf("delivered: %+v, %v", d, err)
	}
	call[bool](t, n, "submitter.disable", node.DisableParams{Name: "webshop", Disabled: true})
	open.Talk("C: MAIL FROM:<app@shop.test>\nS: 550 5.7.1 webshop may not relay here any longer")
	talk("AUTH webshop " + password + "\nS: 535 5.7.8 the credentials are not valid")
	call[bool](t, n, "submitter.disable", node.DisableParams{Name: "webshop"})
	call[bool](t, n, "submitter.password", node.PasswordParams{Name: "webshop", Password: "another-long-one"})
	talk("AUTH webshop " + password + "\nS: 535 …\nAUTH webshop another-long-one\nS: 235 …")

	if _, page := get(t, n, "/metrics"); !strings.Contains(page, "pawl_relay_accepted_total 1\n") ||
		!strings.Contains(page, `pawl_relay_auth_failures_total{reason="credentials"} 2`) || !strings.Contains(page, `pawl_relay_auth_failures_total{reason="disabled"} 1`) ||
		!strings.Contains(page, `pawl_relay_refused_total{reason="sender"} 1`) || !strings.Contains(page, "pawl_relay_full 0\n") {
		t.Errorf("the metrics are\n%s", page)
	}
	call[bool](t, n, "submitter.remove", "webshop")
	if all := call[[]account.Submitter](t, n, "submitter.list", struct{}{}); len(all) != 0 {
		t.Errorf("after the removal: %v", all)
	}
}

func TestWhatIsWrongWithASubmitterComesWithAdvice(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	for name, p := range map[string]node.SubmitterParams{
		"no senders":               {Submitter: account.Submitter{Name: "app"}, Password: password},
		"an unknown organisation":  {Submitter: account.Submitter{Name: "app", Org: "other", Senders: []string{"*"}}, Password: password},
		"a password that is short": {Submitter: account.Submitter{Name: "app", Senders: []string{"*"}}, Password: "short"},
	} {
		var e *control.Error
		err := control.NewClient(n.Addrs().Control).Call(t.Context(), "submitter.add", p, &account.Submitter{})
		if !errors.As(err, &e) || e.Do == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheChecksSayHowMuchRoomThereIsAndHowLongTheCertificateHolds(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	withTLS(t, tn, &c)
	c.Relay.MaxQueued = 1
	n, _ := start(t, c, w)
	found := map[string]bool{}
	for _, ck := range n.Checks() {
		found[ck.Name] = ck.OK
	}
	if !found["room"] || !found["relay TLS"] {
		t.Errorf("the checks: %+v", n.Checks())
	}
	tn.Domain("down.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}).On(testnet.MITMSelfSigned)
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "one@down.test", "first"); err != nil {
		t.Fatal(err)
	}
	said, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "two@down.test", "second")
	if err == nil || said != "452 4.3.1 there is no room for the message now, try again later" {
		t.Errorf("one more than may wait: %q, %v", said, err)
	}
	if waiting := call[[]queue.Delivery](t, n, "queue.list", queue.Filter{}); len(waiting) != 1 {
		t.Errorf("%d wait", len(waiting))
	}
	for _, ck := range node.Check(t.Context(), c, w) {
		if ck.Name == "relay TLS" && !ck.OK {
			t.Errorf("config check: %+v", ck)
		}
	}
	if err := os.WriteFile(c.Relay.TLS.Key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ck := range node.Check(t.Context(), c, w) {
		if ck.Name == "relay TLS" && (ck.OK || ck.Do == "") {
			t.Errorf("config check of a broken key: %+v", ck)
		}
	}
}

func TestBouncesToOneAddressAreLimited(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	c.Relay.Limits.Bounces = 1
	n, _ := start(t, c, w)
	tn.Domain("sender.test", testnet.DomainOptions{})
	for _, to := range []string{"one@nowhere.test", "two@nowhere.test", "three@nowhere.test"} { // the domain does not exist
		if _, err := submit(t.Context(), n.Addrs().Relay[0], "forged@sender.test", to, "x"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three deliveries have failed and one bounce is delivered", func() bool {
		failed := call[[]queue.Delivery](t, n, "queue.list", queue.Filter{States: []queue.State{queue.SomeFailed}})
		bounced := call[[]queue.Delivery](t, n, "queue.list", queue.Filter{States: []queue.State{queue.AllDelivered}, Domain: "sender.test"})
		return len(failed) == 3 && len(bounced) == 1
	})
	if _, page := get(t, n, "/metrics"); !strings.Contains(page, "pawl_relay_bounces_suppressed_total 2\n") {
		t.Errorf("the metrics are\n%s", page)
	}
	if waiting := call[[]queue.Delivery](t, n, "queue.list", queue.Filter{}); len(waiting) != 0 {
		t.Errorf("%d wait", len(waiting))
	}
}
