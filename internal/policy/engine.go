package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/mtasts"
)

const (
	// BackOff is the least time between two tries at HTTPS for one id
	// (RFC 8461 §3.3).
	BackOff = 5 * time.Minute
	// RefreshEvery is how often a cached policy is fetched anew at the least
	// (RFC 8461 §3.3 suggests daily).
	RefreshEvery = 24 * time.Hour
	// MaxMX is how many MX hosts of a domain are looked at, best preference first.
	MaxMX = 50
	// MaxAddrs is how many addresses of one MX host are tried.
	MaxAddrs = 32

	defaultWarm     = 30 * 24 * time.Hour
	defaultMemory   = 64 << 20
	defaultWorkers  = 8
	defaultPort     = 25
	defaultTick     = time.Minute
	maxLooks        = 1024             // domains that are being looked at in one moment
	lookTimeout     = 90 * time.Second // one look: DNS, then HTTPS with its own 60 s
	minCheck        = 10 * time.Second // the record is not asked for more often, whatever its TTL
	maxCheck        = 24 * time.Hour
	maxNegative     = 3 * time.Hour // RFC 2308 §5
	retryLookup     = 30 * time.Second
	retryUnreadable = 5 * time.Second
	staleFailures   = 24 * time.Hour // failures further apart are not one run of failures
)

// Resolver is the DNS that policy asks. [resolve.Resolver] is one.
type Resolver interface {
	MX(ctx context.Context, name string) (resolve.Answer[resolve.MX], error)
	Addrs(ctx context.Context, host string) (resolve.Answer[netip.Addr], error)
	TXT(ctx context.Context, name string) (resolve.Answer[string], error)
	TLSA(ctx context.Context, name string) (resolve.Answer[dane.Record], error)
	CNAME(ctx context.Context, name string) (resolve.Answer[string], error)
	// Validation says whether authentic answers are to be believed (decision table 4).
	Validation() resolve.Validation
}

// Fetcher gets a domain's policy over HTTPS. [mtasts.Fetcher] is one.
type Fetcher interface {
	Fetch(ctx context.Context, domain string) (mtasts.Fetched, error)
}

// Options are what an [Engine] needs, and how it decides where the standards
// leave room.
type Options struct {
	Org      string // "": db.DefaultOrg
	Resolver Resolver
	Fetcher  Fetcher
	DB       *db.DB
	Now      func() time.Time                     // nil: time.Now
	After    func(time.Duration) <-chan time.Time // nil: time.After
	Log      *slog.Logger                         // nil: none
	Events   event.Sink                           // nil: none
	Outcomes func(outcome.Attempt)                // failures of discovery, for TLS-RPT; nil: not reported

	DANE          bool          // TLSA records are looked at, where the resolver is trusted
	DiscoveryHold time.Duration // table 1; 0: off. The configuration's default is 4 h
	Both          bool          // MTA-STS is demanded of hosts that DANE authenticated too
	Observe       bool          // decide and record, stop nothing
	ObserveOnly   []string      // the same, for these destinations

	Warm    time.Duration  // domains asked about within this time are kept warm; 0: 30 days
	Memory  int            // bytes that states in memory may take, about; 0: 64 MiB
	Workers int            // refreshes at once; 0: 8
	Port    uint16         // of the MX hosts, for TLSA records; 0: 25
	Jitter  func() float64 // 0 up to 1, spreads refreshes; nil: random

	tick time.Duration // how often the background looks for work at the least
}

var (
	// ErrClosed is returned by an [Engine] that was closed.
	ErrClosed = errors.New("the policy engine was closed")
	// ErrNotDomain is wrapped by the error for a destination that is not a
	// domain name: no policy can be found for an address literal (RFC 8461 §3.4).
	ErrNotDomain = errors.New("not a domain name")
)

// Engine finds, keeps and refreshes policies. Its methods are safe for
// concurrent use. [Engine.Run] does the work that nobody waits for;
// [Engine.Close] ends everything.
type Engine struct {
	o       Options
	now     func() time.Time
	log     *slog.Logger
	observe atomic.Pointer[observing]
	memory  *otter.Cache[string, *slot]
	rows    rows
	count   counters

	overrides overrides

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	group sync.WaitGroup // every goroutine of the engine

	mu      sync.Mutex
	flights map[string]*flight
	closed  bool
	looks   chan struct{} // a place each for those who look

	oldest atomic.Int64 // when the oldest live policy was fetched
	dane   atomic.Bool  // what table 4 last said
	epoch  atomic.Int64 // answers for Postfix of an earlier one are not used
	warned atomic.Bool  // that DANE is off was said
}

// New returns an engine. It reads nothing yet: what is stored is read domain by
// domain when it is asked for.
func New(o Options) (*Engine, error) {
	if o.Resolver == nil || o.Fetcher == nil || o.DB == nil {
		return nil, errors.New("policy: a resolver, a fetcher and a database are needed")
	}
	o = o.withDefaults()
	memory, err := otter.New(&otter.Options[string, *slot]{
		MaximumWeight: uint64(o.Memory),
		Weigher: func(domain string, s *slot) uint32 {
			if st := s.state.Load(); st != nil {
				return st.weight() + uint32(len(domain))
			}
			return (&state{}).weight()
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the policy cache: %w", err)
	}
	e := &Engine{
		o: o, now: o.Now, log: o.Log, memory: memory,
		flights: make(map[string]*flight),
		looks:   make(chan struct{}, maxLooks),
	}
	observe, err := e.PrepareObserve(o.Observe, o.ObserveOnly)
	if err != nil {
		return nil, err
	}
	observe()
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.rows = rows{db: o.DB, org: o.Org, log: o.Log, unsaved: make(map[string]*state), touched: make(map[string]int64), dirty: make(map[string]bool)}
	e.overrides.engine = e
	return e, nil
}

func (o Options) withDefaults() Options {
	if o.Org == "" {
		o.Org = db.DefaultOrg
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Outcomes == nil {
		o.Outcomes = func(outcome.Attempt) {}
	}
	if o.Warm == 0 {
		o.Warm = defaultWarm
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.Port == 0 {
		o.Port = defaultPort
	}
	if o.tick == 0 {
		o.tick = defaultTick
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return o
}

// Close ends everything that is under way and returns when it has ended and
// what was learnt is stored.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.group.Wait()
	return e.rows.flush(ctx)
}

// Flush waits until all that was learnt so far is stored.
func (e *Engine) Flush(ctx context.Context) error { return e.rows.flush(ctx) }

// domainOf is the form in which a destination is known here.
func domainOf(name string) (string, error) {
	domain, err := resolve.Name(name)
	if err != nil {
		return "", fmt.Errorf("%q: %w: %w", name, ErrNotDomain, err)
	}
	return domain, nil
}
