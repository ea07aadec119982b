package deliver

import (
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func observing(o *policy.Options) { o.Observe = true }

// RFC 8689 §4.2.1: a path that meets REQUIRETLS, or the message goes back.
func TestRFC8689_4_2_1_RequireTLS(t *testing.T) {
	testing1 := testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}}
	signed := testnet.DomainOptions{Signed: true}
	daneEE := testnet.DomainOptions{DANE: testnet.DANEEE}
	without := testnet.HostOptions{NoRequireTLS: true}
	for name, c := range map[string]struct {
		o      testnet.DomainOptions
		before func(d *testnet.Domain)
		want   string
		reply  string
		host   string
	}{
		"a matching MX and a trusted certificate":     {enforce(), nil, "delivered", "250 ", "mx1.a.test"},
		"the policy may be in mode testing":           {testing1, nil, "delivered", "250 ", "mx1.a.test"},
		"a signed MX and a trusted certificate":       {signed, nil, "delivered", "250 ", "mx1.a.test"},
		"a signed MX and TLSA records":                {daneEE, nil, "delivered", "250 ", "mx1.a.test"},
		"nothing vouches for the MX":                  {testnet.DomainOptions{}, nil, "failed", "5.7.10 ", ""},
		"the MX is not in a policy in mode testing":   {testing1, func(d *testnet.Domain) { d.On(testnet.SpoofMX) }, "failed", "5.7.10 ", ""},
		"the MX is not in an enforced policy":         {enforce(), func(d *testnet.Domain) { d.On(testnet.SpoofMX) }, "failed", "5.7.10 ", ""},
		"the certificate is expired, in mode testing": {testing1, func(d *testnet.Domain) { d.On(testnet.ShowExpired) }, "failed", "5.7.10 ", ""},
		"TLSA records that do not match":              {daneEE, func(d *testnet.Domain) { d.On(testnet.StaleTLSA) }, "failed", "5.7.10 ", ""},
		"TLSA records that cannot be looked up":       {daneEE, func(d *testnet.Domain) { d.On(testnet.ServFailTLSA) }, "failed", "5.7.10 ", ""},
		"no host offers REQUIRETLS":                   {enforce(), func(d *testnet.Domain) { d.Hosts()[0].SetOptions(without); d.Hosts()[1].SetOptions(without) }, "failed", "5.7.30 no host of a.test meets REQUIRETLS: mx1.a.test [192.0.2.1] does not offer REQUIRETLS, which the message demands", ""},
		"another host offers REQUIRETLS":              {enforce(), func(d *testnet.Domain) { d.Hosts()[0].SetOptions(without) }, "delivered", "250 ", "mx2.a.test"},
		"another host has a good certificate":         {enforce(), func(d *testnet.Domain) { d.Hosts()[0].SetOptions(testnet.HostOptions{Flaw: testnet.Expired}) }, "delivered", "250 ", "mx2.a.test"},
		"REQUIRETLS that was offered before TLS only": {enforce(), func(d *testnet.Domain) {
			d.Hosts()[0].SetOptions(without)
			d.Hosts()[1].SetOptions(without)
			d.On(testnet.FakeCapabilities)
		}, "failed", "5.7.30 ", ""},
		"one without it and one that is down": {enforce(), func(d *testnet.Domain) { d.Hosts()[0].SetOptions(without); d.Hosts()[1].Down(testnet.Refuse) }, "held", "", ""},
		"one that is down and one without it": {enforce(), func(d *testnet.Domain) { d.Hosts()[1].SetOptions(without); d.Hosts()[0].Down(testnet.Refuse) }, "held", "", ""},
		"all are down":                        {enforce(), func(d *testnet.Domain) { d.On(testnet.DeadMX) }, "deferred", "", ""},
		"all are busy":                        {enforce(), func(d *testnet.Domain) { d.On(testnet.ForgeBusy) }, "deferred", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{})
			d := w.Domain("a.test", two(c.o, "a.test"))
			if c.before != nil {
				c.before(d)
			}
			r := w.want(letter{domain: "a.test", requireTLS: true}, c.want)
			if !strings.HasPrefix(r.Recipients[0].Reply, c.reply) {
				t.Errorf("reply %q, want %q", r.Recipients[0].Reply, c.reply)
			}
			got := w.Delivered("a@a.test")
			switch {
			case c.host == "" && len(got) != 0, c.host != "" && (len(got) != 1 || got[0].Host != c.host):
				t.Errorf("it went to %v", got)
			case c.host != "" && !got[0].RequireTLS:
				t.Error("MAIL lacks the parameter")
			}
			if c.want == "failed" && w.DNS.Queries("a.test", "MX") < 2 {
				t.Error("DNS was not asked anew before the bounce")
			}
			if c.want == "held" && r.DestinationDown {
				t.Error("the destination is called down for what one message asks for")
			}
		})
	}
}

func TestRFC8689_4_2_1_TheClientQuitsAHostThatDoesNotOfferRequireTLS(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce()).MX().SetOptions(testnet.HostOptions{NoRequireTLS: true})
	w.want(letter{domain: "a.test", requireTLS: true}, "failed")
	w.out.Close()
	for _, s := range w.SessionsOf("mx.a.test") {
		if text := s.String(); !strings.Contains(text, "QUIT") || strings.Contains(text, "MAIL FROM") {
			t.Errorf("the session was\n%s", text)
		}
	}
}

func TestRFC8689_5_ABounceIsNotLostForWantOfRequireTLS(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("with.test", enforce())
	w.Domain("lacks.test", enforce()).MX().SetOptions(testnet.HostOptions{NoRequireTLS: true})
	w.Domain("clear.test", testnet.DomainOptions{}).MX().SetOptions(testnet.HostOptions{NoSTARTTLS: true})
	for domain, asks := range map[string]bool{"with.test": true, "lacks.test": false, "clear.test": false} {
		w.want(letter{domain: domain, from: "<>", requireTLS: true}, "delivered")
		got := w.Delivered("a@" + domain)
		if len(got) != 1 || got[0].From != "" || got[0].RequireTLS != asks {
			t.Errorf("%s: %+v", domain, got)
		}
	}
	// The destination's policies bind it as they bind any other mail.
	w.Domain("policed.test", enforce()).On(testnet.StripSTARTTLS)
	w.want(letter{domain: "policed.test", from: "<>", requireTLS: true}, "held")
}

// RFC 8689 §4.2.2: "follow any policy published by the recipient domain, but do
// not fail if this is unsuccessful".
func TestRFC8689_4_2_2_TLSRequiredNoLiftsPolicies(t *testing.T) {
	for _, c := range []struct {
		attack testnet.Attack
		o      testnet.DomainOptions
		where  string
	}{
		{testnet.StripSTARTTLS, enforce(), "clear"},
		{testnet.KillHandshake, enforce(), "clear"},
		{testnet.MITMSelfSigned, enforce(), "attacker encrypted"},
		{testnet.ShowExpired, enforce(), "encrypted"},
		{testnet.SpoofMX, enforce(), "attacker encrypted"}, // a host that policy refused
		{testnet.ServFailTLSA, testnet.DomainOptions{DANE: testnet.DANEEE}, "verified"},
		{testnet.StaleTLSA, testnet.DomainOptions{DANE: testnet.DANEEE}, "verified"},
		{testnet.ServFailTXT, enforce(), "verified"},
	} {
		w := newWorld(t, settings{})
		d := w.Domain("a.test", c.o)
		d.On(c.attack)
		w.want(letter{domain: "a.test"}, "held")
		w.heard("a.test")
		r := w.want(letter{domain: "a.test", waived: true}, "delivered")
		if got := w.arrived("a@a.test"); got != c.where {
			t.Errorf("%s: arrived %q, want %q", c.attack, got, c.where)
		}
		if c.attack != testnet.ServFailTXT {
			if told := w.heard("a.test"); len(told) != 1 || !told[0].Failed() {
				t.Errorf("%s: the failure is not reported: %+v", c.attack, told)
			}
			if s := r.Story.Tries[0]; s.WouldHold == "" {
				t.Errorf("%s: it is not said what was lifted: %+v", c.attack, s)
			}
		}
		// §4.1: the parameter beats the field.
		both := w.send(letter{domain: "a.test", waived: true, requireTLS: true})
		if got := fate(letter{}, both); got != "failed" && got != "held" {
			t.Errorf("%s: with REQUIRETLS as well it was %s", c.attack, got)
		}
	}
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce())
	w.want(letter{domain: "a.test", waived: true}, "delivered")
	if got := w.arrived("a@a.test"); got != "verified" {
		t.Errorf("where the policy can be followed, it is: arrived %q", got)
	}
}
