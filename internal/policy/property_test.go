package policy

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// Whatever DNS and HTTPS do, through restarts, with room in memory or none: a
// live cached policy in mode enforce is never answered as none, for the relay or
// for Postfix.
func TestPropertyALiveEnforcePolicyIsNeverAnsweredAsNone(t *testing.T) {
	for name, o := range map[string]Options{
		"room in memory":    {DANE: true},
		"no room in memory": {DANE: true, Memory: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var clock atomic.Int64 // hours would go by in a bubble, and rapid goes by the time
			clock.Store(time.Date(2026, time.June, 1, 0, 0, 0, 0, time.UTC).UnixNano())
			o.Now = func() time.Time { return time.Unix(0, clock.Load()) }
			w := newWorld(t, dbtest.SQLite(t), o)
			w.dns.trust()
			n := 0
			rapid.Check(t, func(rt *rapid.T) {
				n++
				m := model{world: w, rt: rt, clock: &clock, domain: fmt.Sprintf("d%d.example", n)}
				m.walk()
			})
			t.Logf("%d questions with a live policy", w.lived)
			if w.lived < 200 {
				t.Error("the walks hardly ever had a live policy")
			}
		})
	}
}

// model knows which policy was last fetched, and that is the one that holds.
type model struct {
	*world
	rt      *rapid.T
	domain  string
	clock   *atomic.Int64
	ids     int
	policy  *mtasts.Policy // nil: none
	expires time.Time
}

func (m *model) walk() {
	m.world.mail(m.domain, rapid.Bool().Draw(m.rt, "signed"), "a."+m.domain, "b."+m.domain)
	m.publish(m.domain, "0", week("a."+m.domain))
	m.ask(m.rt)
	acts := map[string]func(*rapid.T){
		"pass":    m.pass,
		"record":  m.changeRecord,
		"policy":  m.changePolicy,
		"hosts":   m.changeHosts,
		"ask":     m.ask,
		"refresh": m.refreshNow,
		"restart": m.restart,
	}
	m.rt.Repeat(acts)
	m.ask(m.rt)
}

func (m *model) pass(rt *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, BackOff, time.Hour, 5 * time.Hour, 24 * time.Hour}).Draw(rt, "time")
	m.settle()
	m.clock.Add(int64(d))
}

func (m *model) changeRecord(rt *rapid.T) {
	key := "TXT _mta-sts." + m.domain
	switch rapid.SampledFrom([]string{"valid", "valid", "none", "two", "invalid", "fail", "nxdomain"}).Draw(rt, "record") {
	case "valid":
		m.ids += rapid.IntRange(0, 1).Draw(rt, "new id")
		m.dns.txt(m.domain, 5*time.Minute, fmt.Sprintf("v=STSv1; id=%d;", m.ids))
	case "none":
		m.dns.txt(m.domain, time.Minute)
	case "two":
		m.dns.txt(m.domain, time.Minute, "v=STSv1; id=a;", "v=STSv1; id=b;")
	case "invalid":
		m.dns.txt(m.domain, time.Minute, "v=STSv1; id=not valid;")
	case "fail":
		m.dns.fail(key)
	case "nxdomain":
		m.dns.set(key, &resolve.NotFound{NXDomain: true, Authentic: true, TTL: time.Minute})
	}
}

func (m *model) changePolicy(rt *rapid.T) {
	switch what := rapid.SampledFrom([]string{"enforce", "enforce", "testing", "none", "block", "invalid"}).Draw(rt, "policy"); what {
	case "block":
		m.web.block(m.domain)
	case "invalid":
		m.web.serve(m.domain, "<html>")
	default:
		age := rapid.SampledFrom([]string{"3600", "86400", "604800"}).Draw(rt, "max_age")
		m.web.serve(m.domain, policyText(what, age, "a."+m.domain))
	}
}

func (m *model) changeHosts(rt *rapid.T) {
	host := rapid.SampledFrom([]string{"a.", "b."}).Draw(rt, "host") + m.domain
	switch rapid.SampledFrom([]string{"usable", "absent", "fail", "dead", "alive", "mx fails", "mx"}).Draw(rt, "state") {
	case "usable":
		m.dns.tlsa(host, usableTLSA())
	case "absent":
		m.dns.set("TLSA _25._tcp."+host, &resolve.NotFound{})
	case "fail":
		m.dns.fail("TLSA _25._tcp." + host)
	case "dead":
		m.dns.set("A/AAAA "+host, &resolve.NotFound{NXDomain: true})
	case "alive":
		m.dns.addr(host, true, "192.0.2.7")
	case "mx fails":
		m.dns.fail("MX " + m.domain)
	case "mx":
		m.dns.mx(m.domain, rapid.Bool().Draw(rt, "signed"), "a."+m.domain, "b."+m.domain)
	}
}

// settle waits for what runs behind, and takes over what was fetched.
func (m *model) settle() {
	for m.busy() {
		runtime.Gosched()
	}
	if last := m.web.lastOf(m.domain); last != nil {
		m.policy, m.expires = last, m.now().Add(last.MaxAge)
	}
}

func (m *model) busy() bool {
	m.mu.Lock()
	flying := len(m.flights) > 0
	m.mu.Unlock()
	s, ok := m.memory.GetIfPresent(m.domain)
	return flying || ok && s.renewing.Load()
}

// ask asks as the relay and as Postfix do.
func (m *model) ask(rt *rapid.T) {
	m.settle()
	live := m.policy != nil && m.now().Before(m.expires) && m.policy.Mode == mtasts.Enforce
	d, err := m.Destination(m.Context(), m.domain)
	if err != nil && !errors.As(err, new(*resolve.NotFound)) {
		rt.Fatalf("destination: %v", err)
	}
	m.settle()
	a := m.Postfix(m.Context(), m.domain)
	m.settle()
	if !live || m.policy.Mode != mtasts.Enforce {
		return // none was due, or HTTPS took it back just now
	}
	m.lived++
	if err != nil || !d.STS.Found || d.STS.Policy.Mode != mtasts.Enforce {
		rt.Fatalf("a live policy was answered as %+v by %s", d.STS, d.STS.Cell)
	}
	switch a.Kind {
	case verify.AnswerSecure, verify.AnswerDANEOnly, verify.AnswerTemp:
	default:
		rt.Fatalf("Postfix was told %s by %s: %s", a.Kind, a.Cell, a.Reason)
	}
	for _, mx := range d.MX {
		if h := m.Host(m.Context(), d, mx.Host); h.Unreachable == "" && h.Demand.PlaintextAllowed() {
			rt.Fatalf("plaintext to %s by %s", h.Name, h.Demand.Cell)
		}
	}
}

func (m *model) refreshNow(*rapid.T) {
	if _, err := m.fly(m.Context(), m.domain, errand{refresh: true}); err != nil {
		m.rt.Fatalf("refresh: %v", err)
	}
	m.settle()
}

func (m *model) restart(*rapid.T) {
	m.settle()
	m.start()
}
