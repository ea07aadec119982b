package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a relay on loopback over a real queue that delivers nothing. Loopback
// is its load balancer's network, so that a transcript begins with the address
// that it comes from.
type world struct {
	testing.TB
	relay  *Relay
	queue  *queue.Queue
	db     *db.DB
	addr   string // in clear
	addrTL string // implicit TLS
	events *events
	clock  *clock
	ca     *testnet.CA
	disk   int64 // free
	waits  int64 // deliveries, beside those of the queue
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// events keeps what was told.
type events struct {
	mu   sync.Mutex
	list []event.Event
}

func (e *events) Record(_ context.Context, ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) kinds() (kinds []event.Kind) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		kinds = append(kinds, ev.Kind)
	}
	return kinds
}

// staff are the submitters of tests: ann may waive TLS, bob may not, and both
// send as example.com with the password "secret".
type staff struct{ gone string }

func (s *staff) Login(ctx context.Context, _ netip.Addr, name, password string) (Submitter, error) {
	switch {
	case name == "busy":
		return Submitter{}, ErrLoginWait
	case name == "broken":
		return Submitter{}, errors.New("no database at 192.0.2.99")
	case password != "secret":
		return Submitter{}, ErrNoLogin
	}
	return s.Submitter(ctx, name)
}

func (s *staff) Submitter(_ context.Context, name string) (Submitter, error) {
	if name == s.gone || name != "ann" && name != "bob" {
		return Submitter{}, ErrNoLogin
	}
	return Submitter{
		Org: db.DefaultOrg, Name: name, TLSOptional: name == "ann",
		MaySend: func(_, domain string) bool { return domain == "example.com" },
	}, nil
}

// start runs a relay until the test ends. 192.0.2.0/24 and 2001:db8::/32 may
// relay, 192.0.2.128/25 may waive TLS.
func start(t testing.TB, change func(*Options)) *world {
	t.Helper()
	w := &world{TB: t, db: dbtest.SQLite(t), events: &events{}, clock: &clock{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}, disk: 1 << 40}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	w.queue, err = queue.New(t.Context(), queue.Options{
		DB: w.db, Spool: t.TempDir(), Node: "test", Now: w.clock.Now, After: time.After, Log: log,
		Lifetime: 5 * 24 * time.Hour, RetryFirst: time.Minute, RetryMax: time.Hour, Concurrency: 1, Destination: 1, History: 24 * time.Hour,
	})
	w.must(err)
	w.ca, err = testnet.NewCA("relay", w.clock.Now)
	w.must(err)
	dir := t.TempDir()
	o := Options{
		Queue: w.queue, Hostname: "relay.example.org", Now: w.clock.Now, After: time.After, Log: log, Events: w.events,
		Networks:    []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		TLSOptional: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")},
		Proxy:       []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Files:       Files{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")},
		Submitters:  &staff{}, MaxSize: 1 << 20, MaxRecipients: 100, Connections: 100, PerClient: 100,
		Limits:     Limits{NullRecipients: 2},
		Watermarks: Watermarks{MinFree: 1 << 30, MaxQueued: 1000},
		Gauge: Gauge{
			Free:   func() (int64, error) { return w.disk, nil },
			Queued: func(ctx context.Context) (int64, error) { return w.waits, nil },
			Bytes:  w.queue.Bytes,
		},
	}
	w.certificate(o.Files, "relay.example.org")
	if change != nil {
		change(&o)
	}
	w.relay, err = New(o)
	w.must(err)
	w.relay.Look(t.Context())
	w.serve()
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// serve runs both listeners and ends them with the test.
func (w *world) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	listen := func(serve func(context.Context, net.Listener) error) (string, chan error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		w.must(err)
		done := make(chan error, 1)
		go func() { done <- serve(ctx, l) }()
		return l.Addr().String(), done
	}
	var clear, implicit chan error
	w.addr, clear = listen(w.relay.Serve)
	if w.relay.identity.Load() != nil {
		w.addrTL, implicit = listen(w.relay.ServeTLS)
	}
	w.Cleanup(func() {
		cancel()
		for _, done := range []chan error{clear, implicit} {
			if done == nil {
				continue
			}
			if err := <-done; err != nil {
				w.Errorf("Serve: %v", err)
			}
		}
	})
}

// certificate writes the relay's certificate and key.
func (w *world) certificate(f Files, name string) {
	w.Helper()
	pair, err := w.ca.Issue(testnet.CertOptions{Names: []string{name}})
	w.must(err)
	w.must(testnet.WriteFiles(pair, f.Certificate, f.Key))
}

// Where clients of transcripts come from.
const (
	ours    = "C: PROXY TCP4 192.0.2.1 192.0.2.99 5000 25\n"
	waiver  = "C: PROXY TCP4 192.0.2.200 192.0.2.99 5000 25\n"
	foreign = "C: PROXY TCP4 203.0.113.1 192.0.2.99 5000 25\n"
)

const hello = `
	S: 220 relay.example.org ESMTP
	C: EHLO client.example
	S: 250-relay.example.org
	S: 250-PIPELINING
	S: 250-8BITMIME
	S: 250-SMTPUTF8
	S: 250-CHUNKING
	S: 250-ENHANCEDSTATUSCODES
	S: 250-DSN
	S: 250-SIZE 1048576
	S: 250 STARTTLS
`

const underTLS = hello + `
	C: STARTTLS
	S: 220 2.0.0 begin TLS
	TLS
	C: EHLO client.example
	S: 250-relay.example.org
	S: 250-PIPELINING
	S: 250-8BITMIME
	S: 250-SMTPUTF8
	S: 250-CHUNKING
	S: 250-ENHANCEDSTATUSCODES
	S: 250-DSN
	S: 250-SIZE 1048576
	S: 250-REQUIRETLS
	S: 250 AUTH PLAIN LOGIN
`

// handIn is a whole message; its header fields may be put in front of it.
const handIn = `
	C: MAIL FROM:<app@example.com>
	S: 250 2.1.0 go on
	C: RCPT TO:<bob@example.net>
	S: 250 2.1.5 go on
	C: DATA
	S: 354 …
	C: Subject: hello
	C:
	C: text
	C: .
	S: 250 2.0.0 queued as …
`

// talk plays a transcript on a new connection.
func (w *world) talk(script string) *smtptest.Client {
	w.Helper()
	c := smtptest.Dial(w, w.addr)
	c.Talk(script)
	return c
}

// mail is a message as the queue has it.
type mail struct {
	queue.Message
	deliveries []queue.Delivery
	body       string // without the Received line that the relay put in front
	received   string // that line, unfolded
}

// taken returns what the queue has, in the order in which it came.
func (w *world) taken() (all []mail) {
	w.Helper()
	list, err := w.queue.List(w.Context(), queue.Filter{Limit: 1000})
	w.must(err)
	for _, d := range list {
		if n := len(all); n > 0 && all[n-1].ID == d.Message.ID {
			all[n-1].deliveries = append(all[n-1].deliveries, d)
			continue
		}
		m := mail{Message: d.Message, deliveries: []queue.Delivery{d}}
		var text []byte
		w.must(w.db.Read().QueryRowContext(w.Context(), `SELECT data FROM body WHERE message = $1 AND part = 0`, d.Message.ID).Scan(&text))
		lines := strings.SplitAfter(string(text), "\r\n")
		n := 1
		for n < len(lines) && strings.HasPrefix(lines[n], "\t") {
			n++
		}
		m.received = strings.ReplaceAll(strings.Join(lines[:n], ""), "\r\n", "")
		m.body = strings.Join(lines[n:], "")
		all = append(all, m)
	}
	return all
}

// one returns the only message in the queue.
func (w *world) one() mail {
	w.Helper()
	all := w.taken()
	if len(all) != 1 {
		w.Fatalf("the queue has %d messages, want 1", len(all))
	}
	return all[0]
}

// none fails if anything is in the queue.
func (w *world) none() {
	w.Helper()
	if all := w.taken(); len(all) != 0 {
		w.Fatalf("the queue has %d messages, the first from %q", len(all), all[0].From)
	}
}

// refused checks the counters of refusals: only this one may not be 0.
func (w *world) refused(why Reason, n int64) {
	w.Helper()
	for reason, got := range w.relay.Stats().Refused {
		want := int64(0)
		if reason == why {
			want = n
		}
		if got != want {
			w.Errorf("refused for %q: %d, want %d", reason, got, want)
		}
	}
}
