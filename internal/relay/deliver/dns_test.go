package deliver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestWhatDNSSaysForGood(t *testing.T) {
	null := []testnet.MX{{Preference: 0, Host: ""}}
	for name, c := range map[string]struct {
		o      testnet.DomainOptions
		before func(w *world, d *testnet.Domain)
		letter letter
		want   string
		reply  string // beginning of the reply, or of why it waits
	}{
		"RFC 7505 §4.1: a null MX": {testnet.DomainOptions{MX: null}, nil, letter{}, "failed", "5.1.10 a.test takes no mail: its MX record is the null MX (RFC 7505)"},
		"a null MX under an enforced policy that says otherwise": {
			enforce(), func(_ *world, d *testnet.Domain) { d.SetMX(null...) },
			letter{},
			"held",
			"DNS says that a.test takes no mail: its MX record is the null MX (RFC 7505), but a.test has an MTA-STS policy in mode enforce",
		},
		"a signed null MX under an enforced policy": {
			testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}, Signed: true}, func(_ *world, d *testnet.Domain) { d.SetMX(null...) }, letter{}, "failed", "5.1.10 ",
		},
		"a null MX under a policy in mode testing": {
			testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}}, func(_ *world, d *testnet.Domain) { d.SetMX(null...) }, letter{}, "failed", "5.1.10 ",
		},
		"a null MX for a message with TLS-Required: No": {
			enforce(), func(_ *world, d *testnet.Domain) { d.SetMX(null...) }, letter{waived: true}, "failed", "5.1.10 ",
		},
		"a null MX for a message with REQUIRETLS": {testnet.DomainOptions{MX: null}, nil, letter{requireTLS: true}, "failed", "5.1.10 "},
		"a domain that does not exist":            {testnet.DomainOptions{}, func(w *world, _ *testnet.Domain) { w.DNS.Break("a.test", "", testnet.NXDomain()) }, letter{}, "failed", "5.1.2 there is no domain a.test"},
		"a domain that does not exist but has an enforced policy": {
			enforce(), func(w *world, _ *testnet.Domain) { w.DNS.Break("a.test", "", testnet.NXDomain()) },
			letter{},
			"held",
			"DNS says that a.test does not exist, but it has an MTA-STS policy in mode enforce",
		},
		"the same for a message with TLS-Required: No": {
			enforce(), func(w *world, _ *testnet.Domain) { w.DNS.Break("a.test", "", testnet.NXDomain()) },
			letter{waived: true},
			"held",
			"DNS says that a.test does not exist",
		},
		"an MX lookup that fails":                          {testnet.DomainOptions{}, func(_ *world, d *testnet.Domain) { d.On(testnet.ServFailMX) }, letter{}, "deferred", "the MX hosts of a.test could not be looked up"},
		"an MX lookup that fails, REQUIRETLS":              {testnet.DomainOptions{}, func(_ *world, d *testnet.Domain) { d.On(testnet.ServFailMX) }, letter{requireTLS: true}, "deferred", "the MX hosts of a.test could not be looked up"},
		"an MX lookup that fails under a policy":           {enforce(), func(_ *world, d *testnet.Domain) { d.On(testnet.ServFailMX) }, letter{}, "deferred", "the MX hosts of a.test could not be looked up"},
		"an MX lookup that fails, TLS-Required: No":        {enforce(), func(_ *world, d *testnet.Domain) { d.On(testnet.ServFailMX) }, letter{waived: true}, "deferred", "the MX hosts of a.test could not be looked up"},
		"a signed zone whose MX is spoofed":                {testnet.DomainOptions{DANE: testnet.DANEEE}, func(_ *world, d *testnet.Domain) { d.On(testnet.SpoofMX) }, letter{}, "deferred", "the MX hosts of a.test could not be looked up"},
		"an address lookup that fails":                     {testnet.DomainOptions{}, func(w *world, _ *testnet.Domain) { w.DNS.Break("mx.a.test", "", testnet.ServFail()) }, letter{}, "deferred", ""},
		"an address lookup that fails, REQUIRETLS":         {enforce(), func(w *world, _ *testnet.Domain) { w.DNS.Break("mx.a.test", "", testnet.ServFail()) }, letter{requireTLS: true}, "deferred", ""},
		"an MX host that does not exist":                   {testnet.DomainOptions{}, func(w *world, _ *testnet.Domain) { w.DNS.Break("mx.a.test", "", testnet.NXDomain()) }, letter{}, "deferred", ""},
		"a message with REQUIRETLS and discovery in doubt": {enforce(), func(_ *world, d *testnet.Domain) { d.On(testnet.ServFailTXT) }, letter{requireTLS: true}, "held", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{})
			d := w.Domain("a.test", c.o)
			if c.o.STS.Mode != "" && c.before != nil && !strings.Contains(name, "doubt") {
				if s, err := w.policy.STS(t.Context(), "a.test"); err != nil || !s.STS.Found {
					t.Fatalf("the policy is not cached: %+v, %v", s, err)
				}
			}
			if c.before != nil {
				c.before(w, d)
			}
			c.letter.domain = "a.test"
			r := w.want(c.letter, c.want)
			said := r.Recipients[0].Reply
			if c.want != "failed" {
				said = r.Why
			}
			if !strings.HasPrefix(said, c.reply) {
				t.Errorf("it says %q, want %q", said, c.reply)
			}
			if r.DestinationDown != (c.want != "failed") {
				t.Errorf("destination down: %v", r.DestinationDown)
			}
			if c.want == "failed" && !strings.Contains(name, "exist") {
				if n := w.DNS.Queries("a.test", "MX"); n != 2 {
					t.Errorf("the MX was asked for %d times, and should be asked for anew before the bounce", n)
				}
			}
		})
	}
}

func TestADomainThatComesBackIsNotBouncedByTheCache(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", testnet.DomainOptions{})
	mend := w.DNS.Break("a.test", "", testnet.NXDomain())
	if _, err := w.policy.Destination(t.Context(), "a.test"); err == nil {
		t.Fatal("it does exist")
	}
	mend()
	w.want(letter{domain: "a.test"}, "delivered")
}

func TestRFC8461_5_1_NoMailIsGivenUpBeforeANewerPolicyWasAskedFor(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", enforce())
	w.want(letter{domain: "a.test"}, "delivered")
	w.out.Forget()
	// The domain moves its MX and publishes a new policy; caches know nothing of it.
	d.SetMX(testnet.MX{Preference: 10, Host: "new.a.test"})
	d.SetPolicy(testnet.STS{Mode: "enforce"})
	d.Hosts()[0].Script(testnet.AtEHLO, testnet.Action{})
	w.Host("mx.a.test", testnet.HostOptions{}).Down(testnet.Refuse)
	w.want(letter{domain: "a.test"}, "deferred")
	w.want(letter{domain: "a.test", last: true}, "delivered")
	got := w.Delivered("a@a.test")
	if len(got) != 2 || got[1].Host != "new.a.test" {
		t.Errorf("it went to %v", got)
	}
}

func TestTheLastAttemptAsksAboutTheHostsAnewToo(t *testing.T) {
	w := newWorld(t, settings{})
	mx := w.Domain("a.test", testnet.DomainOptions{DANE: testnet.DANEEE}).MX()
	w.want(letter{domain: "a.test"}, "delivered")
	w.out.Forget()
	mx.RollKey()
	w.want(letter{domain: "a.test"}, "held")
	w.DNS.SetTLSA(mx.TLSABase(), mx.EE())
	w.want(letter{domain: "a.test"}, "held") // the old record is still in the cache
	w.want(letter{domain: "a.test", last: true}, "delivered")
}

func TestDeliverPassesOnThatTheLifetimeIsOver(t *testing.T) {
	w := newWorld(t, settings{})
	for _, last := range []bool{false, true} {
		before := w.DNS.Queries("gone.test", "MX")
		r := w.out.Deliver(t.Context(), &queue.Job{Delivery: *letter{domain: "gone.test"}.mail().Delivery, Last: last})
		asked := w.DNS.Queries("gone.test", "MX") - before
		// Once, and once more before the bounce unless that was asked anew at once.
		if want := map[bool]int{false: 2, true: 1}[last]; r.Recipients[0].State != queue.Failed || asked != want {
			t.Errorf("last %v: %d lookups, %+v", last, asked, r.Recipients)
		}
	}
}

func TestDiscoveryThatFailsHoldsForFourHours(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce()).On(testnet.ServFailTXT, testnet.StripSTARTTLS)
	r := w.want(letter{domain: "a.test"}, "held")
	if !strings.Contains(r.Why, "MTA-STS") || len(r.Story.Tries) != 0 || r.Story.Destination.Hold == nil {
		t.Errorf("%+v", r)
	}
	w.want(letter{domain: "a.test", waived: true}, "delivered")
	w.Clock.Advance(4*time.Hour + time.Minute)
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.arrived("a@a.test"); got != "clear, clear" {
		t.Errorf("arrived %q", got)
	}
}

func TestADomainWithoutMXIsItsOwnHost(t *testing.T) {
	w := newWorld(t, settings{})
	w.DNS.SetZone("a.test", false)
	w.Host("a.test", testnet.HostOptions{})
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.arrived("a@a.test"); got != "verified" {
		t.Errorf("arrived %q", got)
	}
}

func TestObserveDecidesRecordsAndLetsTheMailGo(t *testing.T) {
	for _, c := range []struct {
		attack testnet.Attack
		o      testnet.DomainOptions
		told   string
	}{
		{testnet.StripSTARTTLS, enforce(), "sts starttls-not-supported"},
		{testnet.MITMSelfSigned, enforce(), "sts certificate-not-trusted"},
		{testnet.KillHandshake, enforce(), "sts validation-failure"},
		{testnet.SpoofMX, enforce(), "sts validation-failure"},
		{testnet.StaleTLSA, testnet.DomainOptions{DANE: testnet.DANEEE}, "tlsa certificate-not-trusted"},
		{testnet.ServFailTLSA, testnet.DomainOptions{DANE: testnet.DANEEE}, "tlsa dnssec-invalid"},
	} {
		w := newWorld(t, settings{policy: observing})
		w.Domain("a.test", c.o).On(c.attack)
		r := w.want(letter{domain: "a.test"}, "delivered")
		last := r.Story.Tries[len(r.Story.Tries)-1]
		if last.WouldHold == "" || !last.OK {
			t.Errorf("%s: it is not said that it would have been held: %+v", c.attack, last)
		}
		told := w.heard("a.test")
		if got := results(told); !slices.Equal(got, []string{c.told}) || !told[0].Delivered {
			t.Errorf("%s: reported %q", c.attack, got)
		}
		if c.attack == testnet.ServFailTLSA {
			continue // the certificate and the signed MX meet REQUIRETLS
		}
		// REQUIRETLS is the sender's demand and not the destination's.
		r = w.want(letter{domain: "a.test", requireTLS: true}, "failed")
		if !strings.HasPrefix(r.Recipients[0].Reply, "5.7.10 ") {
			t.Errorf("%s: %q", c.attack, r.Recipients[0].Reply)
		}
	}
	w := newWorld(t, settings{policy: observing})
	w.Domain("a.test", enforce()).On(testnet.ForgeGreeting)
	w.want(letter{domain: "a.test"}, "failed")
}

func TestWhatWouldNotHaveBeenHeldIsNotSaidToBe(t *testing.T) {
	w := newWorld(t, settings{policy: observing})
	w.Domain("a.test", enforce())
	r := w.want(letter{domain: "a.test"}, "delivered")
	if s := r.Story.Tries[0]; s.WouldHold != "" || s.Transport != outcome.Verified {
		t.Errorf("%+v", s)
	}
}
