package deliver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/verify"
)

func by(routes ...Route) settings {
	return settings{deliver: func(o *Options) { o.Routes = routes }}
}

func TestTheRouteThatNamesMostOfTheDomainIsTaken(t *testing.T) {
	d := New(Options{Routes: []Route{
		{Pattern: "*", Host: "all"},
		{Pattern: "*.example.com", Host: "below"},
		{Pattern: "*.b.example.com", Host: "deeper"},
		{Pattern: "example.com", Host: "exact"},
		{Pattern: "x.b.example.com", Host: "exact-below"},
	}})
	for domain, want := range map[string]string{
		"example.com": "exact", "a.example.com": "below", "b.example.com": "below", "y.b.example.com": "deeper", "z.y.b.example.com": "deeper",
		"x.b.example.com": "exact-below", "notexample.com": "all", "test": "all",
	} {
		if got := d.Route(domain).Host; got != want {
			t.Errorf("%s goes by %s, want %s", domain, got, want)
		}
	}
	if r := New(Options{Routes: []Route{{Pattern: "*.example.com"}}}).Route("example.com"); r != nil {
		t.Errorf("example.com is not below itself: %v", r)
	}
}

// RFC 8461 §3.4: "the smart host domain MUST be used as the Policy Domain".
func TestRFC8461_3_4_TheSmartHostsDomainIsThePolicyDomain(t *testing.T) {
	w := newWorld(t, by(Route{Pattern: "*", Host: "smart.test", MX: true, TLS: RoutePolicy}))
	smart := w.Domain("smart.test", enforce())
	// The recipient's own domain has a policy that no host of the route meets, and
	// none of its own is up.
	w.Domain("a.test", enforce()).On(testnet.DeadMX)
	r := w.want(letter{domain: "a.test"}, "delivered")
	if got := w.arrived("a@a.test"); got != "verified" {
		t.Errorf("it arrived %q", got)
	}
	if r.Story.Route != "* by way of smart.test, tls: policy" || r.Story.Destination.Domain != "smart.test" || r.Story.Tries[0].MX != "mx.smart.test" {
		t.Errorf("the story: %+v", r.Story)
	}
	if told := w.heard("smart.test"); len(told) != 1 || told[0].Policies[0].Domain != "smart.test" {
		t.Errorf("reported of smart.test: %+v", told)
	}
	if told := w.heard("a.test"); len(told) != 0 {
		t.Errorf("reported of a.test: %+v", told)
	}

	smart.On(testnet.MITMSelfSigned)
	w.out.Forget()
	w.want(letter{domain: "b.test"}, "held")
	if got := w.arrived("a@b.test"); got != "" {
		t.Errorf("under attack it arrived %q", got)
	}
}

func TestAHostInBracketsIsNotLookedUpAsADomain(t *testing.T) {
	w := newWorld(t, by(Route{Pattern: "a.test", Host: "smart.test", TLS: RoutePolicy}))
	w.Domain("elsewhere.test", testnet.DomainOptions{})
	w.Host("smart.test", testnet.HostOptions{})
	w.DNS.SetMX("smart.test", testnet.MX{Preference: 1, Host: "mx.elsewhere.test"})
	r := w.want(letter{domain: "a.test"}, "delivered")
	if got := r.Story.Tries[0].MX; got != "smart.test" {
		t.Errorf("it went to %s", got)
	}
}

func TestWhatARouteDemandsIsDemandedBesideThePolicyAndLiftedByNothing(t *testing.T) {
	stripped := func(d *testnet.Domain) { d.On(testnet.StripSTARTTLS) }
	selfSigned := func(d *testnet.Domain) { d.On(testnet.MITMSelfSigned) }
	none, dane := testnet.DomainOptions{}, testnet.DomainOptions{DANE: testnet.DANEEE}
	for _, c := range []struct {
		tls     RouteTLS
		mx      bool
		o       testnet.DomainOptions
		before  func(*testnet.Domain)
		observe bool
		waived  bool
		fate    string
		arrived string
	}{
		{RoutePolicy, false, none, stripped, false, false, "delivered", "clear"},
		{RouteEncrypt, false, none, nil, false, false, "delivered", "verified"},
		{RouteEncrypt, false, none, stripped, false, false, "held", ""},
		{RouteEncrypt, false, none, stripped, true, false, "held", ""},
		{RouteEncrypt, false, none, stripped, false, true, "held", ""},
		{RouteEncrypt, false, none, selfSigned, false, false, "delivered", "attacker encrypted"},
		{RouteVerify, false, none, nil, false, false, "delivered", "verified"},
		{RouteVerify, false, none, selfSigned, false, false, "held", ""},
		{RouteVerify, false, none, selfSigned, true, false, "held", ""},
		{RouteVerify, false, none, selfSigned, false, true, "held", ""},
		{RouteVerify, false, none, stripped, false, true, "held", ""},
		{RouteVerify, true, none, nil, false, false, "held", ""}, // the MX record may be anybody's
		{RouteVerify, true, enforce(), nil, false, false, "delivered", "verified"},
		{RouteVerify, true, testnet.DomainOptions{Signed: true}, nil, false, false, "delivered", "verified"},
		{RouteVerify, true, dane, nil, false, false, "delivered", "verified"},
		{RouteDANE, true, dane, nil, false, false, "delivered", "verified"},
		{RouteDANE, true, dane, selfSigned, false, true, "held", ""},
		{RouteDANE, true, enforce(), nil, false, false, "held", ""},
		{RouteEncrypt, true, enforce(), selfSigned, false, false, "held", ""}, // the policy asks for more
	} {
		name := fmt.Sprintf("%s mx=%v sts=%s dane=%d attacked=%v observe=%v waived=%v", c.tls, c.mx, c.o.STS.Mode, c.o.DANE, c.before != nil, c.observe, c.waived)
		t.Run(name, func(t *testing.T) {
			s := by(Route{Pattern: "*", Host: "mx.smart.test", TLS: c.tls})
			if c.mx {
				s = by(Route{Pattern: "*", Host: "smart.test", MX: true, TLS: c.tls})
			}
			if c.observe {
				s.policy = func(o *policy.Options) { o.Observe = true }
			}
			w := newWorld(t, s)
			d := w.Domain("smart.test", c.o)
			if c.before != nil {
				c.before(d)
			}
			r := w.want(letter{domain: "a.test", waived: c.waived}, c.fate)
			if got := w.arrived("a@a.test"); got != c.arrived {
				t.Errorf("it arrived %q, want %q\n%s", got, c.arrived, tries(r))
			}
		})
	}
}

func TestATroubledSmartHostBouncesNothing(t *testing.T) {
	for name, set := range map[string]func(*world){
		"it does not exist": func(w *world) { w.DNS.SetZone("test", false) },
		"it takes no mail":  func(w *world) { w.DNS.SetZone("smart.test", false); w.DNS.SetMX("smart.test", testnet.MX{}) },
		"its best MX is this host": func(w *world) {
			w.DNS.SetZone("smart.test", false)
			w.DNS.SetMX("smart.test", testnet.MX{Preference: 1, Host: "relay.pawl.test"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, by(Route{Pattern: "*", Host: "smart.test", MX: true, TLS: RoutePolicy}))
			set(w)
			w.want(letter{domain: "a.test"}, "deferred")
		})
	}
}

// portal sends what is dialled at a port to another.
func portal(w *world, from, to string) {
	dial := w.out.opts.Dial
	w.out.opts.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || port != from {
			return nil, fmt.Errorf("nothing is at %s", addr)
		}
		return dial(ctx, network, net.JoinHostPort(host, to))
	}
}

func TestAnotherPortHasTLSARecordsOfItsOwn(t *testing.T) {
	w := newWorld(t, by(Route{Pattern: "*", Host: "mx.smart.test", Port: 587, TLS: RouteDANE}))
	d := w.Domain("smart.test", testnet.DomainOptions{DANE: testnet.DANEEE})
	portal(w, "587", "25")
	w.want(letter{domain: "a.test"}, "held") // those of port 25 say nothing of 587
	w.DNS.SetTLSA("_587._tcp.mx.smart.test", d.MX().EE())
	w.Clock.Advance(2 * testnet.DefaultTTL)
	r := w.want(letter{domain: "a.test"}, "delivered")
	if got := r.Story.Tries[0].Transport; got != outcome.Verified {
		t.Errorf("it went %s", got)
	}
}

// login makes a smart host that takes credentials over TLS.
func takesLogin(h *testnet.Host, offer, answer string) {
	h.Script(testnet.AtEHLOTLS, testnet.Action{Reply: "250-" + h.Name + "\n250-PIPELINING\n250 AUTH " + offer})
	if answer != "" {
		h.Script(testnet.AtAUTH, testnet.Action{Reply: answer})
	}
}

func TestRFC4954_4_CredentialsGoToAVerifiedHostOnly(t *testing.T) {
	route := Route{Pattern: "*", Host: "mx.smart.test", TLS: RoutePolicy, User: "me", Password: "open sesame"}
	const plain = "AUTH PLAIN AG1lAG9wZW4gc2VzYW1l"
	for _, c := range []struct {
		name, offer, answer string
		before              func(*testnet.Domain)
		fate, why           string
		given               bool
	}{
		{"a verified host that takes them", "PLAIN LOGIN", "235 2.7.0 welcome", nil, "delivered", "", true},
		{"a verified host that refuses them", "PLAIN", "535 5.7.8 who are you", nil, "deferred", "does not take the credentials of the route: 535 5.7.8 who are you", true},
		{"a host that offers no AUTH that pawl has", "CRAM-MD5", "", nil, "deferred", "offers no AUTH by PLAIN or LOGIN", false},
		{"an attacker with a certificate of his own", "PLAIN", "", func(d *testnet.Domain) { d.On(testnet.MITMSelfSigned) }, "held", "the route by which the mail goes does not allow", false},
		{"an attacker without TLS", "PLAIN", "", func(d *testnet.Domain) { d.On(testnet.StripSTARTTLS) }, "held", "the route by which the mail goes does not allow", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, by(route))
			d := w.Domain("smart.test", testnet.DomainOptions{})
			takesLogin(d.MX(), c.offer, c.answer)
			if c.before != nil {
				c.before(d)
			}
			r := w.want(letter{domain: "a.test"}, c.fate)
			if !strings.Contains(r.Story.Why, c.why) {
				t.Errorf("why: %s", r.Story.Why)
			}
			var given bool
			for _, s := range w.Sessions() {
				for _, l := range s.Lines() {
					given = given || strings.Contains(l.Text, plain)
					if strings.Contains(l.Text, "open") || strings.Contains(l.Text, plain) && !l.TLS {
						t.Errorf("said in clear: %+v", l)
					}
				}
			}
			if given != c.given {
				t.Errorf("credentials given: %v", given)
			}
			if strings.Contains(fmt.Sprintf("%+v", r.Story), "AG1l") {
				t.Errorf("the password stands in the story: %+v", r.Story)
			}
		})
	}
}

func TestConnectionsAreNotSharedBetweenRoutes(t *testing.T) {
	w := newWorld(t, by(Route{Pattern: "a.test", Host: "mx.smart.test", TLS: RoutePolicy}, Route{Pattern: "b.test", Host: "mx.smart.test", TLS: RoutePolicy}))
	w.Domain("smart.test", testnet.DomainOptions{})
	var reused []bool
	for _, domain := range []string{"a.test", "a.test", "b.test"} {
		reused = append(reused, w.want(letter{domain: domain}, "delivered").Story.Tries[0].Reused)
	}
	if !slices.Equal(reused, []bool{false, true, false}) {
		t.Errorf("reused: %v", reused)
	}
}

func TestARouteNeverAllowsPlaintextThatThePolicyDoesNot(t *testing.T) {
	for _, tls := range []RouteTLS{RoutePolicy, RouteEncrypt, RouteVerify, RouteDANE} {
		for _, user := range []string{"", "me"} {
			for _, level := range []verify.Level{verify.Opportunistic, verify.Encrypted, verify.Authenticated} {
				for _, observe := range []bool{false, true} {
					d := verify.Demand{Level: level, Observe: observe}
					before := d.PlaintextAllowed()
					r := &Route{TLS: tls, User: user}
					r.demand(&d)
					if after := d.PlaintextAllowed(); after && (!before || tls != RoutePolicy || user != "") {
						t.Errorf("tls %s, user %q, level %s, observe %v: plaintext is allowed", tls, user, level, observe)
					}
				}
			}
		}
	}
}
