package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestMailGoesByTheSmartHostThatTheConfigurationNames(t *testing.T) {
	tn, w := world(t)
	smart := tn.Domain("smart.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	smart.MX().Script(testnet.AtEHLOTLS, testnet.Action{Reply: "250-mx.smart.test\n250 AUTH PLAIN"})
	smart.MX().Script(testnet.AtAUTH, testnet.Action{
		Reply: "235 2.7.0 welcome", Only: func(line string) bool { return line == "AUTH PLAIN AG1lAHNlc2FtZQ==" },
	})
	c := settings(t, tn.DNSAddr())
	secret := filepath.Join(t.TempDir(), "password")
	c.Routes = []config.Route{{Domain: "*", Host: "smart.test", User: "me", PasswordFile: secret}}
	if _, err := node.New(t.Context(), c, w); err == nil || !strings.Contains(err.Error(), "password_file") {
		t.Errorf("without its password file: %v", err)
	}
	if err := os.WriteFile(secret, []byte("sesame\nremark\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, _ := start(t, c, w)
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "one@far.test", "by a route"); err != nil {
		t.Fatal(err)
	}
	got, err := tn.WaitDelivered(t.Context(), "one@far.test")
	if err != nil {
		t.Fatal(err)
	}
	if !verified(got) || got.Host != "mx.smart.test" {
		t.Errorf("it went to %s, verified: %v", got.Host, verified(got))
	}
	x := call[node.Explanation](t, n, "explain", node.ExplainParams{Subject: "far.test"})
	if x.Route != "* by way of smart.test, tls: verify" || x.Policy.Domain != "smart.test" {
		t.Errorf("explained: route %q, policy of %q", x.Route, x.Policy.Domain)
	}
	if _, page := get(t, n, "/destination/far.test"); !strings.Contains(page, "goes by a route: * by way of smart.test, tls: verify") {
		t.Error("the page does not say so")
	}
}

func TestAReloadBringsOtherRoutesAndKeepsTheOldOnesWhereTheNewCannotBeUsed(t *testing.T) {
	tn, w := world(t)
	for _, domain := range []string{"first.test", "second.test"} {
		tn.Domain(domain, testnet.DomainOptions{})
	}
	c := settings(t, tn.DNSAddr())
	c.Routes = []config.Route{{Domain: "far.test", Host: "[mx.first.test]", TLS: "verify"}}
	file := c
	w.Load = func() (config.Config, error) { return file, nil }
	n, _ := start(t, c, w)
	goesTo := func(rcpt, want string) {
		t.Helper()
		if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", rcpt, "by a route"); err != nil {
			t.Fatal(err)
		}
		if got, err := tn.WaitDelivered(t.Context(), rcpt); err != nil || got.Host != want {
			t.Errorf("%s went to %+v (%v), want %s", rcpt, got, err, want)
		}
	}
	goesTo("one@far.test", "mx.first.test")

	file.Routes = []config.Route{{Domain: "far.test", Host: "[mx.second.test]", User: "me", PasswordFile: filepath.Join(t.TempDir(), "nothing")}}
	var refused *control.Error
	if err := control.NewClient(n.Addrs().Control).Call(t.Context(), "reload", struct{}{}, new(node.Reloaded)); !errors.As(err, &refused) || !strings.Contains(refused.Text, "password_file") {
		t.Errorf("a reload without the password file: %v", err)
	}
	goesTo("two@far.test", "mx.first.test")

	file.Routes = []config.Route{{Domain: "far.test", Host: "[mx.second.test]", TLS: "verify"}}
	if got := call[node.Reloaded](t, n, "reload", struct{}{}); !slices.Equal(got.Changed, []string{"routes"}) {
		t.Errorf("changed %v", got.Changed)
	}
	goesTo("three@far.test", "mx.second.test")
	x := call[node.Explanation](t, n, "explain", node.ExplainParams{Subject: "far.test"})
	if len(x.Policy.Hosts) != 1 || x.Policy.Hosts[0].Name != "mx.second.test" {
		t.Errorf("explained: %+v", x.Policy.Hosts)
	}
}
