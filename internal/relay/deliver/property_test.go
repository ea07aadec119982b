package deliver

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// whim is what one message of the property test comes upon.
type whim struct {
	attacks []testnet.Attack
	hosts   []testnet.HostOptions
	scripts []scripted
	chaos   testnet.Chaos
}

type scripted struct {
	host int
	at   testnet.Stage
	testnet.Action
}

// The attacks that an attacker without a certificate for the host can make, and
// the mistakes that a domain's operator makes. What is told before TLS says that
// it is forged.
func (d *drawn) whim() whim {
	var w whim
	w.attacks = rapid.SliceOfNDistinct(rapid.SampledFrom([]testnet.Attack{
		testnet.StripSTARTTLS, testnet.STARTTLSTempFail, testnet.STARTTLSPermFail, testnet.KillHandshake, testnet.DowngradeVersion,
		testnet.DowngradeCipher, testnet.MITMSelfSigned, testnet.MITMOtherName, testnet.MITMFalseCA, testnet.MITMExpired,
		testnet.ShowExpired, testnet.ShowWrongName, testnet.ShowCNOnly, testnet.FakeCapabilities, testnet.InjectReplies,
		testnet.HijackRoute, testnet.PlainTextTap, testnet.SpoofMX, testnet.RogueMX, testnet.SpoofAddrs, testnet.HideTXT,
		testnet.ServFailTXT, testnet.ServFailTLSA, testnet.BogusTLSA, testnet.ServFailMX, testnet.BlockPolicyHost, testnet.PolicyRedirect,
		testnet.MoveMX, testnet.StaleTLSA, testnet.UncoveredBackup, testnet.DeletePolicy,
	}), 0, 3, rapid.ID).Draw(d.T, "attacks")
	for range d.hosts {
		w.hosts = append(w.hosts, testnet.HostOptions{
			NoSTARTTLS: rapid.IntRange(0, 4).Draw(d.T, "no STARTTLS") == 0, NoRequireTLS: rapid.IntRange(0, 4).Draw(d.T, "no REQUIRETLS") == 0,
			Flaw: rapid.SampledFrom([]testnet.Flaw{"", "", "", "", testnet.SelfSigned, testnet.Expired, testnet.NotYetValid, testnet.WrongName, testnet.CNOnly, testnet.Untrusted, testnet.Incomplete}).Draw(d.T, "flaw"),
		})
	}
	for range rapid.IntRange(0, 2).Draw(d.T, "scripts") {
		s := scripted{rapid.IntRange(0, d.hosts-1).Draw(d.T, "host"), rapid.SampledFrom([]testnet.Stage{
			testnet.AtConnect, testnet.AtEHLO, testnet.AtSTARTTLS, testnet.AtHandshake, testnet.AtEHLOTLS, testnet.AtMAIL, testnet.AtRCPT,
			testnet.AtDATA, testnet.AtMessage, testnet.AtRSET,
		}).Draw(d.T, "stage"), testnet.Action{}}
		word := "real"
		if s.at <= testnet.AtHandshake {
			word = "forged"
		}
		switch code := rapid.SampledFrom([]string{"421 4.3.2 ", "451 4.7.1 ", "550 5.7.1 ", "drop"}).Draw(d.T, "does"); code {
		case "drop":
			s.Drop = true
		default:
			s.Reply = code + word
		}
		w.scripts = append(w.scripts, s)
	}
	likely := rapid.SampledFrom([]float64{0, 0, 0.1, 0.4})
	w.chaos = testnet.Chaos{
		LoseQuery: likely.Draw(d.T, "lost queries"), Refuse: likely.Draw(d.T, "refused"), Reset: likely.Draw(d.T, "reset"), Truncate: likely.Draw(d.T, "cut"),
		MaxOctets: rapid.IntRange(1, 4000).Draw(d.T, "octets"),
	}
	return w
}

type drawn struct {
	*rapid.T
	hosts int
}

// Whatever hosts and the path to them do: where a policy is known and enforced,
// nothing but EHLO and STARTTLS is said in clear, and no message reaches anybody
// but a host that the policy vouches for.
func TestNothingGoesOutUnverifiedUnderAPolicy(t *testing.T) {
	w := newWorld(t, settings{})
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		w.Net.Forget()
		d := &drawn{rt, rapid.IntRange(1, 3).Draw(rt, "hosts")}
		name := fmt.Sprintf("d%d.test", run)
		var o testnet.DomainOptions
		switch rapid.SampledFrom([]string{"enforce", "DANE-EE", "DANE-TA", "both"}).Draw(rt, "policy") {
		case "enforce":
			o = enforce()
		case "DANE-EE":
			o.DANE = testnet.DANEEE
		case "DANE-TA":
			o.DANE = testnet.DANETA
		case "both":
			o = enforce()
			o.DANE = testnet.DANEEE
		}
		for i := range d.hosts {
			o.MX = append(o.MX, testnet.MX{Preference: uint16(10 * rapid.IntRange(1, 2).Draw(rt, "preference")), Host: fmt.Sprintf("mx%d.%s", i, name)})
		}
		w.SetChaos(testnet.Chaos{})
		domain := w.Domain(name, o)
		if s, err := w.policy.STS(t.Context(), name); err != nil || s.STS.Found != (o.STS.Mode != "") {
			rt.Fatalf("the policy is not cached: %+v, %v", s, err)
		}
		for i := range rapid.IntRange(1, 4).Draw(rt, "messages") {
			message(rt, w, d, domain, o, i)
		}
		w.out.Forget()
		domain.Off()
	})
}

// message sends one message through a whim and looks at where it ended.
func message(rt *rapid.T, w *world, d *drawn, domain *testnet.Domain, o testnet.DomainOptions, n int) {
	whim := d.whim()
	domain.Off()
	domain.On(whim.attacks...)
	hosts := domain.Hosts()
	for i, h := range hosts[:min(len(hosts), d.hosts)] {
		h.SetOptions(whim.hosts[i])
	}
	var undo []func()
	for _, s := range whim.scripts {
		if s.host < len(hosts) {
			undo = append(undo, hosts[s.host].Script(s.at, s.Action))
		}
	}
	w.SetChaos(whim.chaos)
	l := letter{
		domain: domain.Name, to: []string{fmt.Sprintf("m%d@%s", n, domain.Name)}, requireTLS: rapid.Bool().Draw(rt, "REQUIRETLS"),
		last: rapid.Bool().Draw(rt, "last"),
	}
	r := w.send(l)
	w.SetChaos(testnet.Chaos{})
	for _, f := range undo {
		f()
	}
	rcpt := r.Recipients[0]
	arrived := w.Delivered(l.to[0])
	switch {
	case rcpt.State == queue.Delivered && len(arrived) == 0:
		rt.Fatalf("called delivered, and arrived nowhere: %s", tries(r))
	case rcpt.State == queue.Failed && strings.Contains(rcpt.Reply, "forged") && !l.requireTLS:
		rt.Fatalf("bounced by what came before TLS: %q", rcpt.Reply)
	case rcpt.State == queue.Failed && !l.requireTLS && !strings.Contains(rcpt.Reply, "real"):
		rt.Fatalf("bounced, and no host refused it: %q\n%s", rcpt.Reply, tries(r))
	case rcpt.State != queue.Delivered && rcpt.State != queue.Failed && (r.Why == "" || r.Story.Why == ""):
		rt.Fatalf("it is not said why it waits: %+v", r)
	}
	for _, got := range arrived {
		vouched := got.Trusted && slices.ContainsFunc(o.MX, func(mx testnet.MX) bool { return mx.Host == got.Host })
		if o.DANE != testnet.NoDANE {
			vouched = got.TrueKey
		}
		if got.ByAttacker || got.Clear() || !vouched || l.requireTLS && !got.RequireTLS {
			rt.Fatalf("it went to %v\n%s", got, got.Session)
		}
	}
	for _, s := range w.Sessions() {
		if s.Addr.Port() != 25 {
			continue
		}
		for _, line := range s.Lines() {
			verb, _, _ := strings.Cut(line.Text, " ")
			if line.From == "sender" && !line.TLS && !slices.Contains([]string{"EHLO", "STARTTLS", "QUIT", "(no"}, verb) {
				rt.Fatalf("%q was said in clear:\n%s", line.Text, s)
			}
		}
	}
	for _, a := range w.heard(domain.Name) {
		if a.Transport == outcome.Clear || a.Delivered && a.Transport != outcome.Verified {
			rt.Fatalf("reported %+v", a)
		}
	}
}
