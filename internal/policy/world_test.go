package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/mtasts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is everything around an engine: DNS, policy hosts, a database, a clock
// that is the test's (synctest).
type world struct {
	*testing.T
	dns    *fakeDNS
	web    *fakeWeb
	db     *db.DB
	events *sink
	told   *told
	o      Options
	lived  int // of the property test
	*Engine
}

// inWorld runs f in a bubble of fake time with an engine that nobody runs.
func inWorld(t *testing.T, o Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(newWorld(t, dbtest.SQLite(t), o))
	})
}

func newWorld(t *testing.T, d *db.DB, o Options) *world {
	t.Helper()
	w := &world{T: t, dns: newDNS(), web: newWeb(), db: d, events: &sink{}, told: &told{}}
	o.Resolver, o.Fetcher, o.DB, o.Events, o.Outcomes = w.dns, w.web, d, w.events, w.told.add
	if o.DiscoveryHold == 0 {
		o.DiscoveryHold = 4 * time.Hour
	}
	if o.Jitter == nil {
		o.Jitter = func() float64 { return 0 }
	}
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.o = o
	w.start()
	t.Cleanup(w.end)
	return w
}

// start makes the engine, or another one on the same database: a restart.
func (w *world) start() {
	w.Helper()
	if w.Engine != nil {
		w.end()
	}
	e, err := New(w.o)
	if err != nil {
		w.Fatal(err)
	}
	w.Engine = e
}

func (w *world) end() {
	if err := w.Close(context.Background()); err != nil {
		w.Error("close:", err)
	}
}

// pass lets d go by in the bubble, with all that happens meanwhile.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// sts asks for the policy of a domain.
func (w *world) sts(domain string) Discovery {
	w.Helper()
	d, err := w.STS(w.Context(), domain)
	if err != nil {
		w.Fatalf("STS of %s: %v", domain, err)
	}
	return d
}

// ask is sts for a goroutine of its own.
func (w *world) ask(domain string, got chan<- Discovery) {
	d, err := w.STS(w.Context(), domain)
	if err != nil {
		w.Errorf("STS of %s: %v", domain, err)
	}
	got <- d
}

// want holds an answer against a mode ("" is no policy, "hold" is that mail
// waits) and a cell of table 1.
func (w *world) want(domain, mode, cell string) Discovery {
	w.Helper()
	d := w.sts(domain)
	got := ""
	switch {
	case d.Hold != nil:
		got = "hold"
	case d.STS.Found:
		got = string(d.STS.Policy.Mode)
	}
	if got != mode || d.STS.Cell != cell {
		w.Errorf("%s: got %q by %s, want %q by %s", domain, got, d.STS.Cell, mode, cell)
	}
	return d
}

func policyText(mode string, maxAge string, mx ...string) string {
	var b strings.Builder
	b.WriteString("version: STSv1\nmode: " + mode + "\n")
	for _, pattern := range mx {
		b.WriteString("mx: " + pattern + "\n")
	}
	b.WriteString("max_age: " + maxAge + "\n")
	return b.String()
}

// week is a policy in mode enforce with the usual max_age.
func week(mx ...string) string { return policyText("enforce", "604800", mx...) }

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// publish gives a domain a policy, with the record first in nobody's cache.
func (w *world) publish(domain, id, text string) {
	w.web.serve(domain, text)
	w.dns.txt(domain, time.Hour, "v=STSv1; id="+id+";")
}

// fakeDNS is a resolver without a cache: what is asked is counted.
type fakeDNS struct {
	mu         sync.Mutex
	answers    map[string]any // by type and name: an answer, an error
	asked      map[string]int
	validation resolve.Validation
	gate       chan struct{} // nil, or what lookups wait for
}

func newDNS() *fakeDNS {
	return &fakeDNS{
		answers: map[string]any{}, asked: map[string]int{},
		validation: resolve.Validation{Why: "nobody checked"},
	}
}

func (d *fakeDNS) set(key string, v any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[key] = v
}

// count returns how often a question like "TXT _mta-sts.example.com" came.
func (d *fakeDNS) count(key string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[key]
}

func (d *fakeDNS) trust() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.validation = resolve.Validation{Trusted: true, Why: "it validates"}
}

// txt publishes records at _mta-sts and the domain; none: there is none.
func (d *fakeDNS) txt(domain string, ttl time.Duration, records ...string) {
	name := "_mta-sts." + domain
	if len(records) == 0 {
		d.set("TXT "+name, &resolve.NotFound{Name: name, Type: "TXT", TTL: ttl})
		return
	}
	d.set("TXT "+name, resolve.Answer[string]{Name: name, Canonical: name, Records: records, TTL: ttl})
}

// fail makes a question like "MX example.com" fail.
func (d *fakeDNS) fail(key string) {
	qtype, name, _ := strings.Cut(key, " ")
	d.set(key, &resolve.Failure{Name: name, Type: qtype, Kind: resolve.ServFail, Err: errors.New("SERVFAIL")})
}

func (d *fakeDNS) mx(domain string, authentic bool, hosts ...string) {
	answer := resolve.Answer[resolve.MX]{Name: domain, Canonical: domain, TTL: time.Hour, Authentic: authentic}
	for i, host := range hosts {
		answer.Records = append(answer.Records, resolve.MX{Preference: uint16(10 * (i + 1)), Host: host})
	}
	d.set("MX "+domain, answer)
}

func (d *fakeDNS) addr(host string, authentic bool, addrs ...string) {
	answer := resolve.Answer[netip.Addr]{Name: host, Canonical: host, TTL: time.Hour, Authentic: authentic}
	for _, a := range addrs {
		answer.Records = append(answer.Records, netip.MustParseAddr(a))
	}
	d.set("A/AAAA "+host, answer)
}

// usableTLSA is a record that could authenticate a host.
func usableTLSA() dane.Record {
	return dane.Record{Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 32)}
}

func (d *fakeDNS) tlsa(host string, records ...dane.Record) {
	name := "_25._tcp." + host
	d.set("TLSA "+name, resolve.Answer[dane.Record]{Name: name, Canonical: name, Records: records, TTL: time.Hour, Authentic: true})
}

func answerTo[T any](ctx context.Context, d *fakeDNS, qtype, name string) (resolve.Answer[T], error) {
	key := qtype + " " + name
	d.mu.Lock()
	d.asked[key]++
	if strings.Contains(fmt.Sprint(ctx), "freshKey") { // made by resolve.Fresh
		d.asked["fresh "+key]++
	}
	gate := d.gate
	d.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return resolve.Answer[T]{}, &resolve.Failure{Name: name, Type: qtype, Kind: resolve.Timeout, Err: ctx.Err()}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch v := d.answers[key].(type) {
	case resolve.Answer[T]:
		v.Records = slices.Clone(v.Records)
		return v, nil
	case error:
		return resolve.Answer[T]{}, v
	default:
		return resolve.Answer[T]{}, &resolve.NotFound{Name: name, Type: qtype, TTL: time.Hour}
	}
}

func (d *fakeDNS) MX(ctx context.Context, name string) (resolve.Answer[resolve.MX], error) {
	return answerTo[resolve.MX](ctx, d, "MX", name)
}

func (d *fakeDNS) Addrs(ctx context.Context, name string) (resolve.Answer[netip.Addr], error) {
	return answerTo[netip.Addr](ctx, d, "A/AAAA", name)
}

func (d *fakeDNS) TXT(ctx context.Context, name string) (resolve.Answer[string], error) {
	return answerTo[string](ctx, d, "TXT", name)
}

func (d *fakeDNS) TLSA(ctx context.Context, name string) (resolve.Answer[dane.Record], error) {
	return answerTo[dane.Record](ctx, d, "TLSA", name)
}

func (d *fakeDNS) CNAME(ctx context.Context, name string) (resolve.Answer[string], error) {
	return answerTo[string](ctx, d, "CNAME", name)
}

func (d *fakeDNS) Validation() resolve.Validation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.validation
}

// fakeWeb is the policy hosts.
type fakeWeb struct {
	mu      sync.Mutex
	texts   map[string]string
	down    map[string]error
	fetched map[string]int
	last    map[string]*mtasts.Policy
	gate    chan struct{}
}

func newWeb() *fakeWeb {
	return &fakeWeb{texts: map[string]string{}, down: map[string]error{}, fetched: map[string]int{}, last: map[string]*mtasts.Policy{}}
}

func (f *fakeWeb) serve(domain, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.texts[domain] = text
	delete(f.down, domain)
}

func (f *fakeWeb) block(domain string) { f.fail(domain, errors.New("connection refused")) }

func (f *fakeWeb) fail(domain string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[domain] = &mtasts.FetchError{Domain: domain, URL: mtasts.PolicyURL(domain), Stage: mtasts.StageConnect, Code: mtasts.ConnectRefused, Err: err}
}

func (f *fakeWeb) count(domain string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetched[domain]
}

func (f *fakeWeb) Fetch(ctx context.Context, domain string) (mtasts.Fetched, error) {
	f.mu.Lock()
	f.fetched[domain]++
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return mtasts.Fetched{}, &mtasts.FetchError{Domain: domain, Stage: mtasts.StageConnect, Code: mtasts.ConnectTimeout, Err: ctx.Err()}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.down[domain]; err != nil {
		return mtasts.Fetched{}, err
	}
	policy, err := mtasts.ParsePolicy([]byte(f.texts[domain]))
	if err != nil {
		return mtasts.Fetched{}, &mtasts.FetchError{Domain: domain, URL: mtasts.PolicyURL(domain), Stage: mtasts.StagePolicy, Err: err}
	}
	f.last[domain] = &policy
	return mtasts.Fetched{Policy: policy, Body: []byte(f.texts[domain]), URL: mtasts.PolicyURL(domain)}, nil
}

// sink keeps events.
type sink struct {
	mu  sync.Mutex
	all []event.Event
}

func (s *sink) Record(_ context.Context, e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, e)
}

// take returns the kinds of the events since the last take.
func (s *sink) take() []event.Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kinds []event.Kind
	for _, e := range s.all {
		kinds = append(kinds, e.Kind)
	}
	s.all = nil
	return kinds
}

// wantEvents holds the events since the last time against what they must be.
func (w *world) wantEvents(want ...event.Kind) {
	w.Helper()
	if got := w.events.take(); !slices.Equal(got, want) {
		w.Errorf("events %q, want %q", got, want)
	}
}

// told keeps what goes into TLS-RPT.
type told struct {
	mu  sync.Mutex
	all []outcome.Attempt
}

func (t *told) add(a outcome.Attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, a)
}

func (t *told) take() []outcome.Attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.all
	t.all = nil
	return all
}

// lastOf returns the policy that a domain's last fetch brought, since the last
// time that this was asked; nil if there was none.
func (f *fakeWeb) lastOf(domain string) *mtasts.Policy {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.last[domain]
	delete(f.last, domain)
	return last
}
