package lab

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

const (
	chaosChecks     = 1_000 // random networks in a normal run
	chaosSoakChecks = 10_000
	// chaosWorlds run beside one another, more of them than there are processors:
	// most of a network's time goes by in waiting for hosts that do not answer.
	chaosWorlds = 8
	// stormStall and stormNudge let time fly while hosts do not answer.
	stormStall = 15 * time.Millisecond
	stormNudge = 130 * time.Second
	stormFetch = time.Second // cap of a policy fetch, by the machine's clock
	// maxWarmings is how often a policy may be looked for in calm weather.
	maxWarmings = 30
)

// Whatever the network does and whoever is on it, no message for a domain with
// an enforced policy leaves in clear, or to a host that is not proven to be the
// domain's; and none is given up.
func TestNoNetworkMakesMailUnderAnEnforcedPolicyLeak(t *testing.T) {
	chaos(t, chaosChecks/chaosShare)
}

func TestSoakNoNetworkMakesMailUnderAnEnforcedPolicyLeak(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("PAWL_SOAK is not set")
	}
	checks := chaosSoakChecks
	if n, err := strconv.Atoi(os.Getenv("PAWL_SOAK_NETWORKS")); err == nil && n > 0 {
		checks = n
	}
	chaos(t, checks)
}

func chaos(t *testing.T, checks int) {
	t.Helper()
	setFlag(t, "rapid.checks", strconv.Itoa(checks/chaosWorlds))
	setFlag(t, "rapid.nofailfile", "true")
	began := time.Now()
	var worlds sync.WaitGroup
	for i := range chaosWorlds {
		// Not t.Parallel, which runs as many as there are processors.
		worlds.Go(func() {
			t.Run(fmt.Sprintf("world %d", i+1), func(t *testing.T) {
				s := newStorm(t)
				rapid.Check(t, s.check)
			})
		})
	}
	worlds.Wait()
	t.Logf("%d random networks in %s", checks, time.Since(began))
}

// setFlag sets a flag of package rapid for a test.
func setFlag(t *testing.T, name, value string) {
	t.Helper()
	f := flag.Lookup(name)
	if f == nil {
		t.Fatalf("package rapid has no flag %s", name)
	}
	before := f.Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(name, before) })
}

// storm is a world in which one random network comes after the other.
type storm struct {
	w   *world
	ctx context.Context
	n   int
}

func newStorm(t *testing.T) *storm {
	t.Helper()
	s := &storm{ctx: t.Context()}
	var err error
	if s.w, err = newWorld(s.ctx, worldOptions{Seed: seed(t), Fetch: stormFetch}); err != nil {
		t.Fatal(err)
	}
	s.w.stall = stormStall
	t.Logf("%s=%d, with rapid's own seed, repeats this run", testnet.SeedVariable, s.w.net.Seed)
	t.Cleanup(func() {
		if err := s.w.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// beyond are the attacks that an enforced MTA-STS policy cannot stop by design:
// rows 18, 19 and 34 of the table.
func beyond() []testnet.Attack {
	return []testnet.Attack{testnet.MITMMisissued, testnet.PoisonPolicy, testnet.TakeOverPolicyHost}
}

// shelter is a domain with an enforced policy, and mail for it.
type shelter struct {
	domain *testnet.Domain
	dane   bool
	sts    bool
	stage  []testnet.Attack
	letter letter
}

func probability(most float64) *rapid.Generator[float64] {
	return rapid.Custom(func(t *rapid.T) float64 {
		if rapid.Bool().Draw(t, "calm") {
			return 0
		}
		return rapid.Float64Range(0, most).Draw(t, "p")
	})
}

// shelter draws a domain.
func (s *storm) shelter(t *rapid.T) shelter {
	s.n++
	name := fmt.Sprintf("d%d.test", s.n)
	base := rapid.SampledFrom([]string{"sts", "dane-ee", "dane-ta", "both"}).Draw(t, "policy")
	o := testnet.DomainOptions{Host: testnet.HostOptions{
		IPv6: rapid.Bool().Draw(t, "IPv6"), NoSTARTTLS: rapid.IntRange(0, 9).Draw(t, "no STARTTLS") == 0,
	}}
	if base == "sts" || base == "both" {
		o.STS = testnet.STS{Mode: "enforce"}
	}
	switch base {
	case "dane-ee", "both":
		o.DANE = testnet.DANEEE
	case "dane-ta":
		o.DANE = testnet.DANETA
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "MX hosts") {
		preference := rapid.Uint16Range(0, 2).Draw(t, "preference")
		o.MX = append(o.MX, testnet.MX{Preference: preference, Host: fmt.Sprintf("mx%d.%s", i+1, name)})
	}
	// A host that falls silent is waited for by the machine's clock, for minutes.
	all := slices.DeleteFunc(testnet.Attacks(), func(a testnet.Attack) bool { return a == testnet.Smother })
	if base == "sts" {
		all = slices.DeleteFunc(all, func(a testnet.Attack) bool { return slices.Contains(beyond(), a) })
	}
	return shelter{
		domain: s.w.net.Domain(name, o), dane: o.DANE != testnet.NoDANE, sts: o.STS.Mode != "",
		stage:  rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 4, rapid.ID).Draw(t, "attacks"),
		letter: letter{from: "x" + name + "@" + SenderZone, to: "victim@" + name},
	}
}

// check makes one random network.
func (s *storm) check(t *rapid.T) {
	weather := testnet.Chaos{
		LoseQuery: probability(0.4).Draw(t, "lost queries"), Refuse: probability(0.3).Draw(t, "refused"),
		BlackHole: probability(0.1).Draw(t, "black holes"), Reset: probability(0.3).Draw(t, "resets"),
		Truncate: probability(0.3).Draw(t, "truncations"), Delay: probability(0.2).Draw(t, "delays"),
		MaxOctets: rapid.IntRange(1, 8<<10).Draw(t, "octets"),
	}
	x := s.shelter(t)
	good := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	// What MTA-STS gives it gives from the second message on.
	good(s.warm(x))
	s.w.clock.Advance(settle)
	s.w.net.SetChaos(weather)
	x.domain.On(x.stage...)
	good(s.w.send(s.ctx, x.letter))
	good(s.tried(x, 1))
	if s.waiting(x) {
		s.w.clock.Advance(step)
		good(s.tried(x, 2))
	}
	s.w.net.SetChaos(testnet.Chaos{})
	s.look(t, x)
	x.domain.Off()
	if s.waiting(x) {
		_, err := s.w.node.Queue().Do(s.ctx, queue.Drop, queue.Filter{Org: db.DefaultOrg, Domain: x.domain.Name}, "the test", "")
		good(err)
	}
	good(s.w.net.Err())
	s.w.net.Forget()
}

// warm has the relay find a domain's policy while the weather is calm. A fetch
// that the machine was too busy for is done again: the property is about a
// policy that was found.
func (s *storm) warm(x shelter) error {
	for range maxWarmings {
		var e policy.Explanation
		err := control.NewClient(s.w.node.Addrs().Control).Call(s.ctx, "policy", node.PolicyParams{Domain: x.domain.Name, Refresh: true}, &e)
		if err != nil {
			return err
		}
		if !x.sts || e.Destination.STS.Found {
			return nil
		}
		s.w.clock.Advance(2 * policy.BackOff)
	}
	return fmt.Errorf("the policy of %s is not found in calm weather", x.domain.Name)
}

// waiting reports whether the relay still has the message.
func (s *storm) waiting(x shelter) bool {
	tries := s.w.tries.at(x.letter.to)
	return len(tries) == 0 || tries[len(tries)-1].State == Held
}

// tried waits until the relay has tried the message so often, or is done with it.
func (s *storm) tried(x shelter, times int) error {
	return s.w.await(s.ctx, stormNudge, func() bool { return len(s.w.tries.at(x.letter.to)) >= times || !s.waiting(x) })
}

// look fails where a message leaked or was given up.
func (s *storm) look(t *rapid.T, x shelter) {
	for _, d := range s.w.net.Deliveries() {
		if !d.For(x.letter.to) {
			continue
		}
		if how := leak(d, x.dane); how != "" {
			t.Errorf("%s under %v leaked: %s\n%s%s", x.letter.to, x.stage, how, d.Session, s.decisions(x))
		}
	}
	tries := s.w.tries.at(x.letter.to)
	if last := tries[len(tries)-1]; last.State == Bounced {
		t.Errorf("%s under %v bounced: %s", x.letter.to, x.stage, last.Result.Why)
	}
}

// decisions tells what the relay decided at each attempt.
func (s *storm) decisions(x shelter) string {
	var b strings.Builder
	for _, try := range s.w.tries.at(x.letter.to) {
		fmt.Fprintf(&b, "%s: %s\n", try.At, try.Result.Why)
		if d := try.Result.Story.Destination; d != nil {
			fmt.Fprintf(&b, "  %s, fetched %s, expires %s\n", d.STS.Cell, d.STS.Fetched, d.STS.Expires)
			for _, step := range d.Steps {
				fmt.Fprintf(&b, "  %+v\n", step)
			}
		}
	}
	return b.String()
}
