package deliver

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/verify"
)

func enforce() testnet.DomainOptions { return testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}} }

// two is a domain with a primary and a backup MX host.
func two(o testnet.DomainOptions, name string) testnet.DomainOptions {
	o.MX = []testnet.MX{{Preference: 10, Host: "mx1." + name}, {Preference: 20, Host: "mx2." + name}}
	return o
}

// hosts are those of a story's tries.
func hosts(r queue.Result) []string {
	var names []string
	for _, t := range r.Story.Tries {
		names = append(names, t.MX)
	}
	return names
}

func TestOrderIsByPreferenceAndEqualOnesAreShuffled(t *testing.T) {
	mxs := []resolve.MX{{Preference: 20, Host: "c"}, {Preference: 10, Host: "a"}, {Preference: 10, Host: "b"}, {Preference: 30, Host: "d"}}
	first := map[string]int{}
	for range 200 {
		o := order(mxs, "relay.pawl.test")
		if o.self || o.more || len(o.hosts) != 4 || o.hosts[2] != "c" || o.hosts[3] != "d" {
			t.Fatalf("got %+v", o)
		}
		first[o.hosts[0]]++
	}
	if first["a"] < 50 || first["b"] < 50 || first["a"]+first["b"] != 200 {
		t.Errorf("who came first: %v", first)
	}
	if mxs[0].Host != "c" {
		t.Error("the list of the policy was changed")
	}
}

func TestOrder(t *testing.T) {
	var many []resolve.MX
	for i := range 50 {
		many = append(many, resolve.MX{Preference: uint16(i), Host: "mx" + string(rune('a'+i%26)) + string(rune('a'+i/26))})
	}
	for name, c := range map[string]struct {
		mxs  []resolve.MX
		want ordered
	}{
		"RFC 5321 §5.1: this host and what is behind it are left out": {
			[]resolve.MX{{Preference: 20, Host: "me"}, {Preference: 10, Host: "a"}, {Preference: 20, Host: "b"}, {Preference: 30, Host: "c"}},
			ordered{hosts: []string{"a"}, self: true},
		},
		"this host alone":              {[]resolve.MX{{Preference: 20, Host: "me"}}, ordered{self: true}},
		"the best of its several":      {[]resolve.MX{{Preference: 20, Host: "me"}, {Preference: 5, Host: "me"}, {Preference: 9, Host: "a"}}, ordered{self: true}},
		"a host is tried once":         {[]resolve.MX{{Preference: 1, Host: "a"}, {Preference: 2, Host: "b"}, {Preference: 3, Host: "a"}}, ordered{hosts: []string{"a", "b"}}},
		"exactly as many as are tried": {many[:maxHosts], ordered{hosts: names(many[:maxHosts])}},
		"more than are tried":          {many, ordered{hosts: names(many[:maxHosts]), more: true}},
		"none":                         {nil, ordered{}},
	} {
		if diff := cmp.Diff(c.want, order(c.mxs, "me"), cmp.AllowUnexported(ordered{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func names(mxs []resolve.MX) []string {
	var list []string
	for _, mx := range mxs {
		list = append(list, mx.Host)
	}
	return list
}

func TestAddressesOfBothFamiliesAreTriedInTurn(t *testing.T) {
	parse := func(s string) []netip.Addr {
		var list []netip.Addr
		for f := range strings.FieldsSeq(s) {
			list = append(list, netip.MustParseAddr(f))
		}
		return list
	}
	for name, c := range map[string]struct{ all, want string }{
		"none":                 {"", ""},
		"one":                  {"192.0.2.1", "192.0.2.1"},
		"one family":           {"192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"},
		"many":                 {"192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5", "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4"},
		"IPv6 behind":          {"192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1 2001:db8::2", "192.0.2.1 2001:db8::1 192.0.2.2 2001:db8::2"},
		"one IPv4 behind":      {"2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 192.0.2.1", "2001:db8::1 192.0.2.1 2001:db8::2 2001:db8::3"},
		"more of the second":   {"2001:db8::1 192.0.2.1 192.0.2.2", "2001:db8::1 192.0.2.1 192.0.2.2"},
		"mapped ones are IPv4": {"::ffff:192.0.2.1 192.0.2.2 2001:db8::1", "::ffff:192.0.2.1 2001:db8::1 192.0.2.2"},
	} {
		if got := addresses(parse(c.all)); !slices.Equal(got, parse(c.want)) {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

func TestRFC8461_5_1_AHostThatFailsThePolicyIsAsIfUnreachable(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", two(enforce(), "a.test"))
	d.Hosts()[0].SetOptions(testnet.HostOptions{Flaw: testnet.SelfSigned})
	r := w.want(letter{domain: "a.test"}, "delivered")
	if got := w.Delivered("a@a.test"); len(got) != 1 || got[0].Host != "mx2.a.test" {
		t.Errorf("it went to %v", got)
	}
	if got := hosts(r); !slices.Equal(got, []string{"mx1.a.test", "mx2.a.test"}) {
		t.Errorf("tried %q", got)
	}
	if got := results(w.heard("a.test")); !slices.Equal(got, []string{"sts certificate-not-trusted", "sts ok"}) {
		t.Errorf("reported %q", got)
	}
	bad := r.Story.Tries[0]
	if bad.Section != "RFC 8461 §4.2" || bad.Transport != outcome.NotSent || !strings.Contains(bad.Certificate, "CN=") || bad.Do == "" || len(bad.Lines) == 0 {
		t.Errorf("the first try does not explain itself: %+v", bad)
	}
	if why := r.Story.Why; !strings.Contains(why, "mx2.a.test matches the MTA-STS policy of a.test (mode enforce)") || !strings.HasSuffix(why, "it took the mail: 250 2.0.0 Taken") {
		t.Errorf("why: %q", why)
	}
}

func TestRFC7672_2_2_PreferenceOutranksSecurity(t *testing.T) {
	w := newWorld(t, settings{})
	// Of two hosts only the second has TLSA records: mail still goes to the first.
	d := w.Domain("a.test", two(testnet.DomainOptions{Signed: true}, "a.test"))
	backup := d.Hosts()[1]
	w.DNS.SetTLSA(backup.TLSABase(), backup.EE())
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.Delivered("a@a.test"); len(got) != 1 || got[0].Host != "mx1.a.test" {
		t.Errorf("it went to %v", got)
	}
}

func TestAnUncoveredBackupIsUsedUnderNoEnforcedPolicy(t *testing.T) {
	for mode, want := range map[string]string{"": "delivered", "testing": "delivered", "enforce": "held"} {
		w := newWorld(t, settings{})
		w.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: mode}}).On(testnet.UncoveredBackup)
		r := w.want(letter{domain: "a.test"}, want)
		if mode == "enforce" && !r.DestinationDown {
			t.Error("no host could be used, and the destination is not called down")
		}
	}
}

func TestAnMXThatIsNotInThePolicyIsNotConnectedTo(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", enforce())
	d.On(testnet.SpoofMX)
	r := w.want(letter{domain: "a.test"}, "held")
	if n := len(w.SessionsOf(testnet.AttackerMX)); n != 0 {
		t.Errorf("%d connections to the attacker", n)
	}
	want := testnet.AttackerMX + " is not among the MX hosts that the MTA-STS policy of a.test allows: mx.a.test"
	if r.Why != want || r.Story.Tries[0].Section != "RFC 8461 §4.1" || !strings.Contains(r.Do, "list the host in the policy") {
		t.Errorf("%q, %q, %q", r.Why, r.Story.Tries[0].Section, r.Do)
	}
	told := w.heard("a.test")
	if got := results(told); !slices.Equal(got, []string{"sts validation-failure"}) || told[0].Policies[0].Failure.Reason != "mx-mismatch" || told[0].MX != testnet.AttackerMX {
		t.Errorf("reported %+v", told)
	}
}

func TestRFC7672_2_1_2_AFailedTLSALookupMakesTheHostUnreachable(t *testing.T) {
	for _, attack := range []testnet.Attack{testnet.ServFailTLSA, testnet.BogusTLSA, testnet.DropTLSA} {
		w := newWorld(t, settings{})
		w.Domain("a.test", testnet.DomainOptions{DANE: testnet.DANEEE}).On(attack)
		r := w.want(letter{domain: "a.test"}, "held")
		if n := len(w.SessionsOf("mx.a.test")); n != 0 {
			t.Errorf("%s: %d connections", attack, n)
		}
		if r.Story.Tries[0].Section != "RFC 7672 §2.1.2" || !strings.Contains(r.Do, "DNSSEC") {
			t.Errorf("%s: %+v", attack, r.Story.Tries[0])
		}
		if got := results(w.heard("a.test")); !slices.Equal(got, []string{"tlsa dnssec-invalid"}) {
			t.Errorf("%s: reported %q", attack, got)
		}
	}
}

func TestTheSecondAddressIsTriedWhenTheFirstIsDead(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", testnet.DomainOptions{Host: testnet.HostOptions{IPv6: true}, STS: testnet.STS{Mode: "enforce"}})
	mx := d.MX()
	up := w.Unreach(netip.AddrPortFrom(mx.Addrs[0], 25), testnet.Refuse)
	r := w.want(letter{domain: "a.test"}, "delivered")
	if len(r.Story.Tries) != 2 || r.Story.Tries[0].Addr == r.Story.Tries[1].Addr {
		t.Errorf("tries:\n%s", tries(r))
	}
	if want := "mx.a.test [" + mx.Addrs[0].String() + "] cannot be reached: connect: connection refused"; r.Story.Tries[0].Why != want {
		t.Errorf("why: %q, want %q", r.Story.Tries[0].Why, want)
	}
	up()
	w.out.Forget()
	w.Unreach(netip.AddrPortFrom(mx.Addrs[1], 25), testnet.Refuse)
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.arrived("a@a.test"); got != "verified, verified" {
		t.Errorf("arrived %s", got)
	}
}

func TestADeadHostDefersWithoutBlamingThePolicy(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce()).On(testnet.DeadMX)
	r := w.want(letter{domain: "a.test"}, "deferred")
	if !r.DestinationDown || len(w.heard("a.test")) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestHugeMXListsAreCapped(t *testing.T) {
	w := newWorld(t, settings{})
	var mxs []testnet.MX
	for i := range 40 {
		mxs = append(mxs, testnet.MX{Preference: uint16(i), Host: "mx" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".a.test"})
	}
	d := w.Domain("a.test", testnet.DomainOptions{MX: mxs})
	d.On(testnet.ForgeGreeting)
	r := w.want(letter{domain: "a.test"}, "deferred") // not bounced: not every host said so
	if got := hosts(r); len(got) != maxHosts {
		t.Errorf("%d hosts were tried", len(got))
	}
}

func TestNoFurtherHostIsTriedAfterTenMinutes(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", two(testnet.DomainOptions{}, "a.test"))
	d.Hosts()[0].Script(testnet.AtConnect, testnet.Action{Reply: "554 no", Only: func(string) bool {
		w.Clock.Advance(attemptTime + 1)
		return true
	}})
	r := w.want(letter{domain: "a.test"}, "deferred")
	if got := hosts(r); !slices.Equal(got, []string{"mx1.a.test"}) {
		t.Errorf("tried %q", got)
	}
}

func TestTheBestMXIsThisHost(t *testing.T) {
	w := newWorld(t, settings{})
	mx := []testnet.MX{{Preference: 10, Host: "relay.pawl.test"}, {Preference: 20, Host: "mx.a.test"}}
	w.Domain("a.test", testnet.DomainOptions{MX: mx})
	r := w.want(letter{domain: "a.test"}, "failed")
	if !strings.HasPrefix(r.Recipients[0].Reply, "5.4.6 the best MX host of a.test is this host itself") {
		t.Errorf("reply %q", r.Recipients[0].Reply)
	}
	w.Domain("b.test", testnet.DomainOptions{MX: mx, STS: testnet.STS{Mode: "enforce"}})
	w.want(letter{domain: "b.test"}, "held")
}

// slowly is a policy for which it takes long to find out what is demanded.
type slowly struct {
	Policies
	clock *testnet.Clock
}

func (s slowly) Destination(ctx context.Context, domain string) (verify.Destination, error) {
	s.clock.Advance(2 * attemptTime)
	return s.Policies.Destination(ctx, domain)
}

func TestTheTimeThatPolicyTakesIsNotTheHosts(t *testing.T) {
	w := newWorld(t, settings{})
	w.out.opts.Policies = slowly{w.policy, w.Clock}
	w.Domain("a.test", enforce())
	w.want(letter{domain: "a.test"}, "delivered")
}
