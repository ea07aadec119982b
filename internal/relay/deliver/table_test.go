package deliver

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// column is what a destination of the attack table has.
type column struct {
	name       string
	options    testnet.DomainOptions
	requireTLS bool
}

func columns() []column {
	sts := func(mode string) testnet.DomainOptions { return testnet.DomainOptions{STS: testnet.STS{Mode: mode}} }
	return []column{
		{name: "none"},
		{name: "testing", options: sts("testing")},
		{name: "enforce", options: sts("enforce")},
		{name: "dane-ee", options: testnet.DomainOptions{DANE: testnet.DANEEE}},
		{name: "dane-ta", options: testnet.DomainOptions{DANE: testnet.DANETA}},
		{name: "requiretls", options: sts("enforce"), requireTLS: true},
	}
}

// Every attack on the session with the real host, at every kind of destination:
// what becomes of the mail, where it is found, and what is reported of it.
func TestAttacksOnTheSession(t *testing.T) {
	const (
		verified  = "delivered/verified"
		encrypted = "delivered/encrypted"
		clear     = "delivered/clear"
		attacker  = "delivered/attacker encrypted"
		held      = "held/"
		bounced   = "failed/"
	)
	notSupported, invalid := string(outcome.StartTLSNotSupported), string(outcome.ValidationFailure)
	notTrusted, expired, mismatch := string(outcome.CertificateNotTrusted), string(outcome.CertificateExpired), string(outcome.CertificateHostMismatch)
	for _, row := range []struct {
		attack   testnet.Attack
		none     string // without a policy, and with one in mode testing
		policed  string // under enforce and DANE
		bound    string // REQUIRETLS
		reported string // the result type where there is a policy
		except   map[string]string
	}{
		{testnet.StripSTARTTLS, clear, held, bounced, notSupported, nil},
		{testnet.STARTTLSTempFail, clear, held, bounced, notSupported, nil},
		{testnet.STARTTLSPermFail, clear, held, bounced, notSupported, nil},
		{testnet.KillHandshake, clear, held, bounced, invalid, nil},
		{testnet.InjectReplies, clear, held, bounced, invalid, nil},
		{testnet.DowngradeVersion, encrypted, held, bounced, invalid, nil},
		{testnet.DowngradeCipher, clear, held, bounced, invalid, nil},
		{testnet.MITMSelfSigned, attacker, held, bounced, notTrusted, nil},
		{testnet.MITMFalseCA, attacker, held, bounced, notTrusted, nil},
		{testnet.MITMOtherName, attacker, held, bounced, mismatch, map[string]string{"dane-ee/result": notTrusted}},
		{testnet.ShowExpired, encrypted, held, bounced, expired, map[string]string{"dane-ee": encrypted, "dane-ee/result": "ok"}},
		{testnet.ShowWrongName, encrypted, held, bounced, mismatch, map[string]string{"dane-ee": encrypted, "dane-ee/result": "ok"}},
		{testnet.ShowCNOnly, encrypted, held, bounced, mismatch, map[string]string{"dane-ee": encrypted, "dane-ee/result": "ok"}},
		{testnet.MITMMisissued, attacker, attacker, attacker, "ok", map[string]string{"dane-ee": held, "dane-ee/result": notTrusted, "dane-ta": held, "dane-ta/result": notTrusted}},
		{testnet.PlainTextTap, verified, verified, verified, "ok", nil},
		{testnet.FakeCapabilities, verified, verified, verified, "ok", nil},
	} {
		t.Run(string(row.attack), func(t *testing.T) {
			w := newWorld(t, settings{})
			for i, c := range columns() {
				name := "d" + strconv.Itoa(i) + ".test"
				w.Domain(name, c.options).On(row.attack)
				want, result := row.policed, row.reported
				switch c.name {
				case "none", "testing":
					want = row.none
				case "requiretls":
					want = row.bound
				}
				if x, ok := row.except[c.name]; ok {
					want = x
				}
				if x, ok := row.except[c.name+"/result"]; ok {
					result = x
				}
				policyType := map[bool]string{true: "tlsa", false: "sts"}[strings.HasPrefix(c.name, "dane")]
				if c.name == "none" {
					policyType, result = "no-policy-found", "ok"
				}
				l := letter{domain: name, requireTLS: c.requireTLS}
				r := w.send(l)
				if got := fate(l, r) + "/" + w.arrived("a@"+name); got != want {
					t.Errorf("%s: %s, want %s: %s\n%s", c.name, got, want, r.Story.Why, tries(r))
				}
				told := w.heard(name)
				wantTold := []string{policyType + " " + result}
				if c.requireTLS && want == bounced {
					wantTold = append(wantTold, wantTold[0]) // once before DNS was asked anew, once after
				}
				if got := results(told); !slices.Equal(got, wantTold) {
					t.Errorf("%s: reported %q, want %q", c.name, got, wantTold)
				}
				if c.requireTLS && want == bounced && !strings.HasPrefix(r.Recipients[0].Reply, "5.7.10 ") {
					t.Errorf("%s: bounced with %q", c.name, r.Recipients[0].Reply)
				}
				if r.DestinationDown != (want == held) {
					t.Errorf("%s: destination down: %v", c.name, r.DestinationDown)
				}
			}
		})
	}
}
