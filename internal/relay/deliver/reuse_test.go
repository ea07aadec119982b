package deliver

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// sessions is how many connections a host had.
func (w *world) sessions(host string) int { return len(w.SessionsOf(host)) }

func TestTheNextMessageGoesOverTheSameConnection(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce())
	for i := range 5 {
		r := w.want(letter{domain: "a.test"}, "delivered")
		s := r.Story.Tries[0]
		if s.Reused != (i > 0) || s.Transport != "verified" || s.TLS == "" || s.Certificate == "" || len(s.Policies) != 1 || len(s.Lines) != 0 {
			t.Errorf("message %d: %+v", i, s)
		}
	}
	if got := w.sessions("mx.a.test"); got != 1 {
		t.Errorf("%d connections", got)
	}
	if told := w.heard("a.test"); len(told) != 1 || !told[0].Delivered || told[0].Helo != "mx.a.test" || told[0].SourceIP != testnet.SenderAddr {
		t.Errorf("the session was reported as %+v", told)
	}
	if notes := w.SessionsOf("mx.a.test")[0].Notes(); len(notes) != 0 {
		t.Errorf("noted %q", notes)
	}
}

func TestRecipientsThatAreRefusedDoNotEndTheConnection(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce()).MX().Script(testnet.AtRCPT, testnet.Action{Reply: "550 5.1.1 no", Only: about("no@a.test")})
	w.want(letter{domain: "a.test", to: []string{"no@a.test"}}, "failed")
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.sessions("mx.a.test"); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestAHostThatIsBusyIsNotKept(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce()).MX().Script(testnet.AtMAIL, testnet.Action{Reply: "451 4.3.0 enough for one connection", Times: 1})
	w.want(letter{domain: "a.test"}, "deferred")
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.sessions("mx.a.test"); got != 2 {
		t.Errorf("%d connections", got)
	}
}

func TestAKeptConnectionThatHasDiedIsReplacedWithoutAWord(t *testing.T) {
	for name, c := range map[string]struct {
		at testnet.Stage
		testnet.Action
	}{
		"it was reset":    {testnet.AtMAIL, testnet.Action{Drop: true, Times: 1}},
		"it has enough":   {testnet.AtMAIL, testnet.Action{Reply: "452 4.3.2 too many messages on this connection", Times: 1}},
		"it says goodbye": {testnet.AtMAIL, testnet.Action{Reply: "421 4.4.2 idle for too long", Times: 1}},
	} {
		w := newWorld(t, settings{})
		mx := w.Domain("a.test", enforce()).MX()
		w.want(letter{domain: "a.test"}, "delivered")
		mx.Script(c.at, c.Action)
		r := w.want(letter{domain: "a.test"}, "delivered")
		if len(r.Story.Tries) != 1 || r.Story.Tries[0].Reused || r.Throttled {
			t.Errorf("%s: %+v", name, r)
		}
		if got := w.sessions("mx.a.test"); got != 2 {
			t.Errorf("%s: %d connections", name, got)
		}
		if got := len(w.Delivered("a@a.test")); got != 2 {
			t.Errorf("%s: %d copies", name, got)
		}
		if told := w.heard("a.test"); len(told) != 2 {
			t.Errorf("%s: %d sessions reported", name, len(told))
		}
	}
}

func TestAKeptConnectionThatDiesLaterCountsAsAFailure(t *testing.T) {
	w := newWorld(t, settings{})
	mx := w.Domain("a.test", enforce()).MX()
	w.want(letter{domain: "a.test"}, "delivered")
	mx.Script(testnet.AtMessage, testnet.Action{Drop: true, Times: 1})
	r := w.want(letter{domain: "a.test"}, "deferred")
	if !strings.Contains(r.Why, "did not reply") || len(r.Story.Tries) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestConnectionsAreEndedInTime(t *testing.T) {
	for name, c := range map[string]struct {
		messages int
		pause    time.Duration
		want     int
	}{
		"one that is used":               {5, idleTime - 1, 1},
		"one that was idle":              {2, idleTime, 2},
		"one that has served a thousand": {maxUses + 1, 0, 2},
		"one that is old":                {int(maxAge/(idleTime-1)) + 2, idleTime - 1, 2},
	} {
		w := newWorld(t, settings{})
		w.Domain("a.test", enforce())
		for range c.messages {
			w.want(letter{domain: "a.test"}, "delivered")
			w.Clock.Advance(c.pause)
		}
		if got := w.sessions("mx.a.test"); got != c.want {
			t.Errorf("%s: %d connections, want %d", name, got, c.want)
		}
	}
}

func TestRFC5321_4_1_1_10_EveryConnectionEndsWithQuit(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("kept.test", enforce())
	w.Domain("refused.test", enforce()).On(testnet.MITMSelfSigned)
	w.want(letter{domain: "kept.test"}, "delivered")
	w.want(letter{domain: "refused.test"}, "held")
	w.out.Close()
	for _, host := range []string{"mx.kept.test", "mx.refused.test"} {
		if text := w.SessionsOf(host)[0].String(); !strings.Contains(text, "QUIT") {
			t.Errorf("%s:\n%s", host, text)
		}
	}
	// What comes after Close is delivered, and not kept.
	w.want(letter{domain: "kept.test"}, "delivered")
	w.want(letter{domain: "kept.test"}, "delivered")
	if got := w.sessions("mx.kept.test"); got != 3 {
		t.Errorf("%d connections", got)
	}
}

func TestForgetMakesEveryHostBeJudgedAnew(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", enforce())
	w.want(letter{domain: "a.test"}, "delivered")
	d.On(testnet.StripSTARTTLS)
	w.want(letter{domain: "a.test"}, "delivered") // over the good connection
	w.out.Forget()
	w.want(letter{domain: "a.test"}, "held")
}

// What is demanded of two messages differs in one thing: they never share a
// connection.
func TestConnectionsAreSharedByEqualDemandsOnly(t *testing.T) {
	w := newWorld(t, settings{policy: func(o *policy.Options) { o.ObserveOnly = []string{"observed.test"} }})
	shared := []testnet.MX{{Preference: 10, Host: "mx.host.test"}}
	sts := func(mode string) testnet.DomainOptions {
		return testnet.DomainOptions{MX: shared, STS: testnet.STS{Mode: mode}}
	}
	w.Domain("enforce.test", sts("enforce"))
	w.Domain("other.test", sts("enforce"))
	w.Domain("testing.test", sts("testing"))
	w.Domain("observed.test", sts("enforce"))
	w.Domain("none.test", sts(""))
	for _, l := range []letter{
		{domain: "enforce.test"},
		{domain: "enforce.test", requireTLS: true},
		{domain: "enforce.test", waived: true},
		{domain: "other.test"},
		{domain: "testing.test"},
		{domain: "observed.test"},
		{domain: "none.test"},
	} {
		before := w.sessions("mx.host.test")
		if r := w.want(l, "delivered"); r.Story.Tries[0].Reused || w.sessions("mx.host.test") != before+1 {
			t.Errorf("%+v went over a connection that something else was demanded of", l)
		}
		if r := w.want(l, "delivered"); !r.Story.Tries[0].Reused || w.sessions("mx.host.test") != before+1 {
			t.Errorf("%+v did not go over its own connection", l)
		}
	}
	// Where nothing is demanded there is nothing to tell apart; each domain has
	// the session counted as its own.
	w.Domain("another.test", sts(""))
	if r := w.want(letter{domain: "another.test"}, "delivered"); !r.Story.Tries[0].Reused {
		t.Error("domains without a policy do not share connections")
	}
	for _, domain := range []string{"none.test", "another.test"} {
		told := w.heard(domain)
		if len(told) != 1 || told[0].Policies[0].Domain != domain || !told[0].Delivered {
			t.Errorf("%s: reported %+v", domain, told)
		}
	}
}

func TestAPolicyThatChangedIsJudgedOnANewConnection(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}, TTL: time.Second})
	w.want(letter{domain: "a.test"}, "delivered")
	d.SetPolicy(testnet.STS{Mode: "enforce"})
	w.want(letter{domain: "a.test", last: true}, "delivered")
	if got := w.sessions("mx.a.test"); got != 2 {
		t.Errorf("%d connections", got)
	}
}

func TestAConnectionToAnAddressThatTheHostNoLongerHasIsNotUsed(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", testnet.DomainOptions{TTL: time.Second})
	w.want(letter{domain: "a.test"}, "delivered")
	other := w.Host("other.test", testnet.HostOptions{})
	w.DNS.SetAddrs("mx.a.test", other.Addrs...)
	w.want(letter{domain: "a.test", last: true}, "delivered")
	if got := w.sessions("other.test"); got != 1 {
		t.Errorf("%d connections to the new address", got)
	}
}

// Each field of a demand is part of what a connection was judged by. One that is
// added is noticed here.
func TestSameLooksAtEveryField(t *testing.T) {
	full := func() verify.Demand {
		return verify.Demand{
			Host: "mx.a.test", Domain: "a.test",
			STS: &verify.STSDemand{PolicyDomain: "a.test", Policy: mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.a.test"}}},
			DANE: &verify.DANEDemand{
				Set:       dane.Set{State: dane.Usable, BaseDomain: "mx.a.test", Records: []dane.Record{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1}}}},
				Reference: dane.Reference{BaseDomain: "mx.a.test", Names: []string{"a.test"}},
			},
		}
	}
	if !same(full(), full()) {
		t.Fatal("equal demands are not the same")
	}
	changed := 0
	// What only tells how a TLSA set came about makes no difference.
	idle := []string{"DANE.Set.Host", "DANE.Set.Addrs", "DANE.Set.TTL", "DANE.Set.Err", "DANE.Set.Steps", "STS.Policy.Extensions"}
	var walk func(path string, get func(*verify.Demand) reflect.Value)
	walk = func(path string, get func(*verify.Demand) reflect.Value) {
		if slices.Contains(idle, path) {
			return
		}
		d := full()
		v := get(&d)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), func(d *verify.Demand) reflect.Value { return get(d).Field(i) })
			}
			return
		case reflect.Pointer:
			walk(path, func(d *verify.Demand) reflect.Value { return get(d).Elem() })
			v.SetZero()
		case reflect.Slice:
			if v.Type().Elem().Kind() != reflect.String && v.Type().Elem().Kind() != reflect.Uint8 {
				walk(path+"[0]", func(d *verify.Demand) reflect.Value { return get(d).Index(0) })
			}
			v.SetZero()
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Uint8:
			v.SetUint(v.Uint() + 1)
		default:
			t.Fatalf("%s is of kind %s", path, v.Kind())
		}
		changed++
		if same(full(), d) || same(d, full()) {
			t.Errorf("a change of %s is not seen", path)
		}
	}
	walk("", func(d *verify.Demand) reflect.Value { return reflect.ValueOf(d).Elem() })
	if changed < 25 {
		t.Errorf("only %d fields were looked at", changed)
	}
}

func TestSourceAddressesReachTheDialler(t *testing.T) {
	for name, c := range map[string]struct {
		source4, source6 string
		want             map[string]string // by the family dialled
	}{
		"none":      {"", "", map[string]string{"192.0.2.1": "", "2001:db8:1::1": ""}},
		"IPv4 only": {"192.0.2.99", "", map[string]string{"192.0.2.1": "192.0.2.99", "2001:db8:1::1": ""}},
		"both":      {"192.0.2.99", "2001:db8::99", map[string]string{"192.0.2.1": "192.0.2.99", "2001:db8:1::1": "2001:db8::99"}},
	} {
		got := map[string]string{}
		w := newWorld(t, settings{deliver: func(o *Options) {
			if c.source4 != "" {
				o.Source4 = netip.MustParseAddr(c.source4)
			}
			if c.source6 != "" {
				o.Source6 = netip.MustParseAddr(c.source6)
			}
			dial := o.Dial
			o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				to := netip.MustParseAddrPort(addr).Addr().String()
				if got[to] = ""; Source(ctx).IsValid() {
					got[to] = Source(ctx).String()
				}
				return dial(ctx, network, addr)
			}
		}})
		w.Domain("a.test", testnet.DomainOptions{Host: testnet.HostOptions{IPv6: true}}).On(testnet.DeadMX)
		w.want(letter{domain: "a.test"}, "deferred")
		if len(got) != 2 {
			t.Errorf("%s: dialled %v", name, got)
		}
		for to, from := range got {
			if want, ok := c.want[to]; !ok || from != want {
				t.Errorf("%s: %s was dialled from %q, want %q", name, to, from, want)
			}
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, settings{})
	var domains []string
	for i := range 4 {
		domains = append(domains, "d"+strconv.Itoa(i)+".test")
		w.Domain(domains[i], enforce())
	}
	var all sync.WaitGroup
	results := make(chan queue.Result, 200)
	for i := range 16 {
		all.Go(func() {
			for j := range 10 {
				results <- w.out.deliver(t.Context(), letter{domain: domains[(i+j)%len(domains)]}.mail())
			}
		})
	}
	all.Wait()
	close(results)
	for r := range results {
		if r.Recipients[0].State != queue.Delivered {
			t.Errorf("%+v", r)
		}
	}
	if got := len(w.Deliveries()); got != 160 {
		t.Errorf("%d messages arrived", got)
	}
}
