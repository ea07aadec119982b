package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// withKeys puts keys of both algorithms for a domain into a node's data folder
// and configuration, and returns their records.
func withKeys(t *testing.T, c *config.Config, domain string) map[string]string {
	t.Helper()
	return withKeysFor(t, c, domain, dkim.Email)
}

// withKeysFor is withKeys for one service.
func withKeysFor(t *testing.T, c *config.Config, domain string, service dkim.Service) map[string]string {
	t.Helper()
	records := map[string]string{}
	var selectors []string
	for _, a := range []dkim.Algorithm{dkim.RSA, dkim.Ed25519} {
		k, err := dkim.New(domain, string(a), service, a)
		if err != nil {
			t.Fatal(err)
		}
		if err := dkim.Folder(c.DKIMFolder()).Save(k); err != nil {
			t.Fatal(err)
		}
		if records[k.Name()], err = k.Record(); err != nil {
			t.Fatal(err)
		}
		selectors = append(selectors, string(a))
	}
	c.DKIM = append(c.DKIM, config.DKIM{Domain: domain, Selectors: selectors, Service: string(service)})
	return records
}

// signatures verifies a message with go-msgauth: the domains that signed, or why
// a signature is none.
func signatures(t *testing.T, message string, records map[string]string) []string {
	t.Helper()
	found, err := msgauth.VerifyWithOptions(strings.NewReader(message), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if text, ok := records[name]; ok {
			return []string{text}, nil
		}
		return nil, errors.New("no such record")
	}})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, v := range found {
		if v.Err != nil {
			said = append(said, v.Err.Error())
			continue
		}
		said = append(said, v.Domain)
	}
	return said
}

func TestMailArrivesWithValidSignaturesByBothAlgorithms(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	c := settings(t, tn.DNSAddr())
	records := withKeys(t, &c, "client.test")
	n, _ := start(t, c, w)

	for name, body := range map[string]string{
		"short": "Meet me at  noon.\r\n\r\n..and a dot\r\n",
		"large": strings.Repeat(strings.Repeat("0123456789abcdef ", 50)+"\r\n", 1000), // 850 kB: in the spool
	} {
		to := name + "@good.test"
		// submit writes the body behind its own subject, dots doubled.
		subject := "x\r\nFrom: A <a@client.test>\r\nTo: <" + to + ">\r\n\r\n" + body
		if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", to, subject); err != nil {
			t.Fatal(err)
		}
		got, err := tn.WaitDelivered(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(signatures(t, string(got.Data), records), ", "); said != "client.test, client.test" {
			t.Errorf("%s: %s\n%.2000s", name, said, got.Data)
		}
		if tampered := strings.Replace(string(got.Data), "hello", "hullo", 1); strings.Contains(strings.Join(signatures(t, tampered, records), " "), "client.test") {
			t.Errorf("%s: a message that was changed still verifies", name)
		}
		for _, a := range []string{"a=rsa-sha256", "a=ed25519-sha256"} {
			if head, _, _ := strings.Cut(string(got.Data), "Received:"); strings.Count(head, a) != 1 {
				t.Errorf("%s: no %s before the first Received line", name, a)
			}
		}
	}
	// Somebody else's domain is not signed for.
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "other@good.test", "x\r\nFrom: a@other.test"); err != nil {
		t.Fatal(err)
	}
	got, err := tn.WaitDelivered(t.Context(), "other@good.test")
	if err != nil || strings.Contains(string(got.Data), "DKIM-Signature") {
		t.Errorf("mail of another domain: %v\n%s", err, got.Data)
	}
}

func TestTheRecordsOfKeysAreLookedUp(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	records := withKeys(t, &c, "client.test")
	tn.DNS.SetZone("client.test", false)
	say := func() map[string]bool {
		found, err := node.CheckKeys(t.Context(), c, w)
		if err != nil || len(found) != 2 {
			t.Fatalf("%+v, %v", found, err)
		}
		said := map[string]bool{}
		for _, k := range found {
			if !k.Published && (k.Text == "" || k.Do == "") {
				t.Errorf("it is not said what is amiss: %+v", k)
			}
			said[k.Selector] = k.Published
		}
		return said
	}
	failing := func() string {
		for _, ck := range node.Check(t.Context(), c, w) {
			if ck.Name == "DKIM" && !ck.OK {
				return ck.Text + ck.Do
			}
		}
		return ""
	}
	if said := say(); said["rsa"] || said["ed25519"] {
		t.Errorf("nothing is published: %v", said)
	}
	if failing() == "" {
		t.Error("the check finds nothing amiss with keys that are not published")
	}
	tn.DNS.SetTXT("rsa._domainkey.client.test", records["rsa._domainkey.client.test"])
	tn.DNS.SetTXT("ed25519._domainkey.client.test", records["rsa._domainkey.client.test"])
	if said := say(); !said["rsa"] || said["ed25519"] {
		t.Errorf("the record of one key is published at both names: %v", said)
	}
	tn.DNS.SetTXT("ed25519._domainkey.client.test", records["ed25519._domainkey.client.test"])
	if said := say(); !said["rsa"] || !said["ed25519"] {
		t.Errorf("both are published: %v", said)
	}
	if said := failing(); said != "" {
		t.Errorf("the check: %s", said)
	}
}

func TestAKeyThatIsMissingOrBrokenIsFoundAtTheStart(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	c.DKIM = []config.DKIM{{Domain: "client.test", Selectors: []string{"s1"}}}
	start := func() *control.Error {
		t.Helper()
		_, err := node.New(t.Context(), c, w)
		var e *control.Error
		if !errors.As(err, &e) || e.Do == "" || !strings.Contains(e.Text, "dkim[0].selectors[0]") {
			t.Fatalf("got %v", err)
		}
		return e
	}
	if e := start(); !strings.Contains(e.Do, "pawl dkim key new client.test --selector s1") {
		t.Errorf("of a missing key: %s", e.Do)
	}
	file := filepath.Join(c.DKIMFolder(), "client.test", "s1.pem")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := start(); !strings.Contains(e.Text, "holds no key") {
		t.Errorf("of a broken key: %s", e.Text)
	}
}
