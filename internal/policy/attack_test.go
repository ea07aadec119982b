package policy

import (
	"context"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// onNet is an engine with the real resolver and the real fetcher on the small
// Internet.
func onNet(t *testing.T) (*testnet.Net, *Engine, *told) {
	t.Helper()
	n := testnet.Start(t, testnet.Options{})
	r := resolve.New(resolve.Options{
		Upstreams: []string{n.DNSAddr()}, Validating: true, Timeout: 300 * time.Millisecond, Retries: -1, Now: n.Clock.Now,
	})
	t.Cleanup(r.Close)
	reported := &told{}
	e, err := New(Options{
		Resolver: r, DB: dbtest.SQLite(t), Now: n.Clock.Now, After: n.Clock.After, Outcomes: reported.add,
		Fetcher: &mtasts.Fetcher{Dial: n.Dial, Roots: n.Roots(), Now: n.Clock.Now, Timeout: time.Second},
		DANE:    true, DiscoveryHold: 4 * time.Hour, Jitter: func() float64 { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n, e, reported
}

// sight is what the relay and Postfix see of one domain.
type sight struct {
	Mode    string // of the policy that holds; "" is none, "hold" that mail waits
	Host    string // the cell of its first MX host; "" is none to look at
	Usable  bool   // that host may be tried
	Postfix verify.AnswerKind
}

func sightOf(t *testing.T, e *Engine, domain string) sight {
	t.Helper()
	d, err := e.Destination(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	s := sight{Postfix: e.Postfix(t.Context(), domain).Kind}
	if d.STS.Found {
		s.Mode = string(d.STS.Policy.Mode)
	}
	if d.Hold != nil {
		s.Mode = "hold"
		return s
	}
	h := e.Host(t.Context(), d, d.MX[0].Host)
	s.Host, s.Usable = h.Demand.Cell, h.Unreachable == ""
	return s
}

var (
	enforced  = sight{"enforce", "2/absent/enforce", true, verify.AnswerSecure}
	unguarded = sight{"", "2/absent/none", true, verify.AnswerNotFound}
	waiting   = sight{"hold", "", false, verify.AnswerTemp}
	forgedMX  = sight{"enforce", "2/absent/enforce/mx-mismatch", false, verify.AnswerSecure}
)

// The rows of the attack table that policy decides, for a domain in mode enforce
// at first contact and with a cached policy.
func TestAttacksOnDiscovery(t *testing.T) {
	for _, c := range []struct {
		attack        testnet.Attack
		first, cached sight
		reported      outcome.ResultType // at first contact
	}{
		{"", enforced, enforced, ""},
		{testnet.SpoofMX, forgedMX, forgedMX, ""},
		{testnet.RogueMX, forgedMX, forgedMX, ""}, // the first of them; the real one remains
		{testnet.HideTXT, unguarded, enforced, ""},
		{testnet.DropTXT, waiting, enforced, ""},
		{testnet.ServFailTXT, waiting, enforced, ""},
		{testnet.ReplayTXT, enforced, enforced, ""},
		{testnet.ServFailMX, waiting, waiting, ""},
		{testnet.BlockPolicyHost, unguarded, enforced, outcome.STSPolicyFetchError},
		{testnet.HidePolicyHost, unguarded, enforced, outcome.STSPolicyFetchError},
		{testnet.PolicySelfSigned, unguarded, enforced, outcome.STSWebPKIInvalid},
		{testnet.PolicyUntrusted, unguarded, enforced, outcome.STSWebPKIInvalid},
		{testnet.PolicyExpired, unguarded, enforced, outcome.STSWebPKIInvalid},
		{testnet.PolicyWrongName, unguarded, enforced, outcome.STSWebPKIInvalid},
		{testnet.PolicyCNOnly, unguarded, enforced, outcome.STSWebPKIInvalid},
		{testnet.PolicyRedirect, unguarded, enforced, outcome.STSPolicyFetchError},
		{testnet.PolicyNotFound, unguarded, enforced, outcome.STSPolicyFetchError},
		{testnet.PolicyHTML, unguarded, enforced, outcome.STSPolicyFetchError},
		{testnet.PolicyHuge, unguarded, enforced, outcome.STSPolicyFetchError},
		{testnet.PolicyHang, unguarded, enforced, outcome.STSPolicyFetchError},
	} {
		t.Run("first contact "+string(c.attack), func(t *testing.T) {
			n, e, reported := onNet(t)
			d := n.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
			if c.attack != "" {
				d.On(c.attack)
			}
			if got := sightOf(t, e, "a.test"); got != c.first {
				t.Errorf("got %+v, want %+v", got, c.first)
			}
			var result outcome.ResultType
			for _, a := range reported.take() {
				result = a.Policies[0].Failure.Result
			}
			if result != c.reported {
				t.Errorf("reported %q, want %q", result, c.reported)
			}
		})
		t.Run("cached "+string(c.attack), func(t *testing.T) {
			n, e, _ := onNet(t)
			d := n.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
			if got := sightOf(t, e, "a.test"); got != enforced {
				t.Fatalf("without an attack: %+v", got)
			}
			if c.attack != "" {
				d.BumpID()
				d.On(c.attack)
			}
			for range 2 { // the first answer starts the check behind, the second is after it
				n.Clock.Advance(2 * time.Hour)
				if got := sightOf(t, e, "a.test"); got != c.cached {
					t.Errorf("got %+v, want %+v", got, c.cached)
				}
				settle(e)
			}
		})
	}
}

// settle waits for the looks that are under way.
func settle(e *Engine) {
	for {
		e.mu.Lock()
		var f *flight
		for _, f = range e.flights {
			break
		}
		e.mu.Unlock()
		if f == nil {
			return
		}
		<-f.done
	}
}

func TestAttacksOnDANE(t *testing.T) {
	for _, c := range []struct {
		attack testnet.Attack
		want   sight
	}{
		{"", sight{"", "2/usable/none", true, verify.AnswerDANEOnly}},
		{testnet.SpoofMX, waiting}, // bogus: the MX hosts cannot be looked up
		// A forged denial is bogus in a signed zone: not known, and no matter where DANE holds the host.
		{testnet.HideTXT, sight{"", "2/usable/unknown", true, verify.AnswerDANEOnly}},
		{testnet.ServFailTLSA, sight{"", "2/failed/none", false, verify.AnswerTemp}},
		{testnet.BogusTLSA, sight{"", "2/failed/none", false, verify.AnswerTemp}},
		{testnet.DropTLSA, sight{"", "2/failed/none", false, verify.AnswerTemp}},
	} {
		t.Run(string(c.attack), func(t *testing.T) {
			n, e, _ := onNet(t)
			d := n.Domain("a.test", testnet.DomainOptions{DANE: testnet.DANEEE})
			if c.attack != "" {
				d.On(c.attack)
			}
			if got := sightOf(t, e, "a.test"); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestADroppedRecordIsHeldForFourHoursAndThenLetGo(t *testing.T) {
	n, e, _ := onNet(t)
	d := n.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	d.On(testnet.ServFailTXT)
	if got := sightOf(t, e, "a.test"); got != waiting {
		t.Fatalf("got %+v", got)
	}
	n.Clock.Advance(4*time.Hour - time.Minute)
	if got := sightOf(t, e, "a.test"); got != waiting {
		t.Errorf("a minute before the end: got %+v", got)
	}
	n.Clock.Advance(time.Minute)
	if got := sightOf(t, e, "a.test"); got != unguarded {
		t.Errorf("at the end: got %+v", got)
	}
	d.Off()
	n.Clock.Advance(time.Minute)
	if got := sightOf(t, e, "a.test"); got != enforced {
		t.Errorf("after the attack: got %+v", got)
	}
}

func TestAMovedMXIsHeldUntilTheNewIDIsSeen(t *testing.T) {
	n, e, _ := onNet(t)
	d := n.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	sightOf(t, e, "a.test")
	d.SetMX(testnet.MX{Preference: 10, Host: "new.a.test"})
	n.Clock.Advance(2 * time.Hour)
	if got := sightOf(t, e, "a.test"); got != forgedMX {
		t.Errorf("got %+v", got)
	}
	settle(e)
	d.SetPolicy(testnet.STS{Mode: "enforce"})
	// Before a bounce DNS is asked anew, whatever is cached.
	dest, err := e.DestinationFresh(t.Context(), "a.test")
	if err != nil || !dest.STS.Policy.Match("new.a.test") {
		t.Errorf("got %+v, %v", dest.STS, err)
	}
	if got := sightOf(t, e, "a.test"); got != enforced {
		t.Errorf("got %+v", got)
	}
}
