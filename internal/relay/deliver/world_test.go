package deliver

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/mtasts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(withDB{m}) }

// withDB runs the tests on one database, on which each world has an organisation
// of its own: to make one takes longer than most tests.
type withDB struct{ m *testing.M }

var shared *db.DB

func (w withDB) Run() int {
	dir, err := os.MkdirTemp("", "deliver")
	if err == nil {
		defer os.RemoveAll(dir)
		shared, err = db.Open(context.Background(), db.Options{DataDir: dir})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Close()
	return w.m.Run()
}

// world is a small Internet with the real policy and a deliverer on it.
type world struct {
	*testing.T
	*testnet.Net
	resolver *resolve.Resolver
	policy   *policy.Engine
	out      *Deliverer

	mu   sync.Mutex
	told []outcome.Attempt
}

// settings are what a world may be told.
type settings struct {
	policy  func(*policy.Options)
	deliver func(*Options)
}

func newWorld(t *testing.T, s settings) *world {
	t.Helper()
	w := &world{T: t, Net: testnet.Start(t, testnet.Options{})}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	w.resolver = resolve.New(resolve.Options{Upstreams: []string{w.DNSAddr()}, Dial: w.Net.Dial, Now: w.Clock.Now, Log: log})
	t.Cleanup(w.resolver.Close)
	if v := w.resolver.CheckValidation(t.Context(), testnet.SignedName, testnet.BogusName); !v.Trusted {
		t.Fatalf("the resolver is not trusted: %+v", v)
	}
	po := policy.Options{
		Resolver: w.resolver, Fetcher: &mtasts.Fetcher{Dial: w.Net.Dial, Roots: w.Roots(), Now: w.Clock.Now},
		DB: shared, Org: db.NewID(), Now: w.Clock.Now, After: w.Clock.After, Log: log, DANE: true, DiscoveryHold: 4 * time.Hour,
	}
	if s.policy != nil {
		s.policy(&po)
	}
	var err error
	if w.policy, err = policy.New(po); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.policy.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	do := Options{
		Policies: w.policy, Dial: w.Net.Dial, Roots: w.Roots(), Now: w.Clock.Now, Hostname: "relay.pawl.test", Port: 25, Log: log,
		Outcomes: w.tell,
	}
	if s.deliver != nil {
		s.deliver(&do)
	}
	w.out = New(do)
	t.Cleanup(w.out.Close)
	return w
}

func (w *world) tell(_ context.Context, a outcome.Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, a)
}

// heard returns the outcomes that were told about a domain, and forgets them.
func (w *world) heard(domain string) []outcome.Attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []outcome.Attempt
	w.told = slices.DeleteFunc(w.told, func(a outcome.Attempt) bool {
		if a.Domain != domain {
			return false
		}
		found = append(found, a)
		return true
	})
	return found
}

const text = "From: <x@sender.test>\r\nSubject: the harbour\r\n\r\nMeet me at noon.\r\n"

// letter is a message to a@domain.
type letter struct {
	domain     string
	to         []string // a@domain, if there are none
	from       string   // x@sender.test, or null where it is "<>"
	requireTLS bool
	waived     bool // TLS-Required: No, granted
	last       bool
	text       string
	change     func(*queue.Delivery)
}

func (l letter) mail() *mail {
	if len(l.to) == 0 {
		l.to = []string{"a@" + l.domain}
	}
	switch l.from {
	case "":
		l.from = "x@sender.test"
	case "<>":
		l.from = ""
	}
	if l.text == "" {
		l.text = text
	}
	d := &queue.Delivery{
		Message: queue.Message{
			Org: "org", ID: "message", From: l.from, Size: int64(len(l.text)), RequireTLS: l.requireTLS, TLSOptional: l.waived,
		},
		ID: "delivery", Domain: l.domain, State: queue.Queued,
	}
	for _, to := range l.to {
		d.Recipients = append(d.Recipients, queue.Recipient{Addr: to, State: queue.Pending})
	}
	if l.change != nil {
		l.change(d)
	}
	return &mail{Delivery: d, last: l.last, content: client.Bytes(l.text)}
}

// send makes one attempt.
func (w *world) send(l letter) queue.Result {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	return w.out.deliver(ctx, l.mail())
}

// fate is what a result says of its recipients: "delivered", "failed", "held"
// (by a policy), "deferred", or a list where they differ.
func fate(l letter, r queue.Result) string {
	states := map[string]bool{}
	for i := range l.mail().Recipients {
		switch rcpt := r.Recipients[i]; {
		case rcpt.State == queue.Delivered:
			states["delivered"] = true
		case rcpt.State == queue.Failed:
			states["failed"] = true
		case r.ByPolicy:
			states["held"] = true
		default:
			states["deferred"] = true
		}
	}
	var all []string
	for s := range states {
		all = append(all, s)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// want sends a letter and holds what became of it against a fate.
func (w *world) want(l letter, want string) queue.Result {
	w.Helper()
	r := w.send(l)
	if got := fate(l, r); got != want {
		w.Errorf("to %s: %s, want %s: %s (%s)\n%s", l.domain, got, want, r.Story.Why, r.Story.Do, tries(r))
	}
	if r.Story.Why == "" || strings.Contains(r.Story.Why, "\n") {
		w.Errorf("to %s: not one sentence: %q", l.domain, r.Story.Why)
	}
	if left := fate(l, r); left != "delivered" && (r.Why == "" || r.Do == "" || r.Story.Do == "") {
		w.Errorf("to %s: it is not said why, or what to do: %+v", l.domain, r)
	}
	return r
}

// tries is a story in a few words.
func tries(r queue.Result) string {
	var b strings.Builder
	for _, t := range r.Story.Tries {
		fmt.Fprintf(&b, "  %s [%s] %s, %s: %s %q\n", t.MX, t.Addr, t.Demand, t.Transport, t.Why, t.Lines)
	}
	return b.String()
}

// arrived is where a message for a recipient ended: "verified", "encrypted",
// "clear", with "attacker" before it where he has it, "" if nowhere.
func (w *world) arrived(rcpt string) string {
	var list []string
	for _, d := range w.Delivered(rcpt) {
		how := "encrypted"
		switch {
		case d.Clear():
			how = "clear"
		case d.Trusted && d.TrueKey && d.TLS.Version >= tls.VersionTLS12:
			how = "verified"
		}
		if d.ByAttacker {
			how = "attacker " + how
		}
		list = append(list, how)
	}
	return strings.Join(list, ", ")
}

// results are the result types told, with the policy's type: "sts
// certificate-expired", "no-policy-found ok".
func results(told []outcome.Attempt) []string {
	var list []string
	for _, a := range told {
		for _, p := range a.Policies {
			result := "ok"
			if p.Failure != nil {
				result = string(p.Failure.Result)
			}
			list = append(list, string(p.Type)+" "+result)
		}
	}
	return list
}
