package resolve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/pawl-mail/pawl/dane"
)

// Defaults of [Options].
const (
	DefaultTimeout    = 5 * time.Second
	DefaultRetries    = 1
	DefaultCacheBytes = 8 << 20
)

// Options says whom a [Resolver] asks, and how. The zero value of each field but
// Upstreams is good.
type Options struct {
	Upstreams []string      // recursive resolvers as "127.0.0.1:53", the preferred first; at most 8
	Timeout   time.Duration // for one lookup in all: every try, upstream and alias; 0: DefaultTimeout
	Retries   int           // how often upstreams that are silent are asked again; 0: DefaultRetries, negative: never
	// Validating is the operator's word that every upstream validates DNSSEC,
	// over a path that cannot be forged. Without it see CheckValidation.
	Validating bool
	CacheBytes uint64 // about how much memory the cache may take; 0: DefaultCacheBytes
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	Now        func() time.Time // the clock of TTLs; the wire runs by the real one
	Log        *slog.Logger
}

// Resolver asks the DNS. It is safe for concurrent use.
type Resolver struct {
	upstreams []*upstream // all of them
	timeout   time.Duration
	retries   int
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	now       func() time.Time
	log       *slog.Logger

	cache   *cache
	flights flights
	stats   counters
	buffers sync.Pool // of *[]byte, as large as an answer by UDP may be

	validating bool
	checking   sync.Mutex // one check at a time
	changing   sync.Mutex // of trust
	trust      atomic.Pointer[trust]
}

// New returns a resolver. Whoever calls it calls [Resolver.Close] in the end.
func New(o Options) *Resolver {
	r := &Resolver{
		timeout: o.Timeout, retries: o.Retries, dial: o.Dial, now: o.Now, log: o.Log, validating: o.Validating,
		flights: flights{byKey: make(map[question]*flight)},
	}
	if r.timeout <= 0 {
		r.timeout = DefaultTimeout
	}
	switch {
	case r.retries == 0:
		r.retries = DefaultRetries
	case r.retries < 0:
		r.retries = 0
	}
	if r.dial == nil {
		r.dial = new(net.Dialer).DialContext
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	r.cache = newCache(o.CacheBytes)
	r.buffers.New = func() any { b := make([]byte, udpSizeLoopback); return &b }
	for _, addr := range o.Upstreams[:min(len(o.Upstreams), maxUpstreams)] {
		r.upstreams = append(r.upstreams, newUpstream(addr))
	}
	r.trust.Store(r.initialTrust())
	return r
}

// Close ends all lookups under way and waits until they have. Later ones fail
// with [ErrClosed].
func (r *Resolver) Close() {
	r.flights.close()
	for _, u := range r.upstreams {
		u.close()
	}
}

// freshKey marks a context made by [Fresh].
type freshKey struct{}

// Fresh returns a context whose lookups are not answered from the cache, but fill
// it: before a bounce the DNS must be asked again (RFC 8461 §5.1). What the
// upstreams have in their caches is beyond reach.
func Fresh(ctx context.Context) context.Context { return context.WithValue(ctx, freshKey{}, true) }

func isFresh(ctx context.Context) bool { return ctx.Value(freshKey{}) != nil }

// onceKey marks a context made by [Once].
type onceKey struct{}

// Once returns a context whose lookups do not fill the cache: for who keeps what
// comes of an answer for as long as the answer is good, so that it takes no room
// twice.
func Once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

func isOnce(ctx context.Context) bool { return ctx.Value(onceKey{}) != nil }

// MX returns a domain's mail exchangers, best preference first. A single one with
// an empty Host is the null MX (RFC 7505). Errors are [*NotFound] or [*Failure],
// here and in all that follow.
func (r *Resolver) MX(ctx context.Context, name string) (Answer[MX], error) {
	return lookup[MX](ctx, r, name, dns.TypeMX)
}

// TXT returns the TXT records at a name, the strings of each joined.
func (r *Resolver) TXT(ctx context.Context, name string) (Answer[string], error) {
	return lookup[string](ctx, r, name, dns.TypeTXT)
}

// TLSA returns the TLSA records at a name such as "_25._tcp.mx.example.com". The
// data of the records is shared and must not be changed.
func (r *Resolver) TLSA(ctx context.Context, name string) (Answer[dane.Record], error) {
	return lookup[dane.Record](ctx, r, name, dns.TypeTLSA)
}

// CNAME returns what a name is an alias of, without following it, so that it can
// be told whether the first alias of a chain is authentic (RFC 7672 §2.1.3).
func (r *Resolver) CNAME(ctx context.Context, name string) (Answer[string], error) {
	return lookup[string](ctx, r, name, dns.TypeCNAME)
}

// lookup is one lookup, from name to answer.
func lookup[T any](ctx context.Context, r *Resolver, name string, qtype uint16) (Answer[T], error) {
	name, bad := r.name(name, typeName(qtype))
	if bad != nil {
		return Answer[T]{}, bad
	}
	q := question{name, qtype}
	f, res := r.begin(ctx, q)
	if f != nil {
		res = r.flights.wait(ctx, q, f)
	}
	return asAnswer[T](res, r.now())
}

// name brings a name into its one form. One that is too long for DNS cannot
// exist, as happens when a prefix such as "_mta-sts." is put before a long
// domain: that is an answer. Anything else that is no name is a mistake of
// whoever asks, and finds nothing out.
func (r *Resolver) name(s, qtype string) (string, error) {
	name, err := Name(s)
	switch {
	case err == nil:
		return name, nil
	case errors.Is(err, errTooLong):
		return "", &NotFound{Name: s, Type: qtype, NXDomain: true, At: r.now()}
	}
	r.stats.fail(BadName)
	return "", &Failure{Name: s, Type: qtype, Kind: BadName, Err: err}
}

// begin returns the cached result for q, or else the flight that will bring one.
func (r *Resolver) begin(ctx context.Context, q question) (*flight, *result) {
	fresh, keep := isFresh(ctx), !isOnce(ctx)
	if !fresh {
		if res := r.cached(q); res != nil {
			r.stats.hits.Add(1)
			return nil, res
		}
	}
	if ctx.Err() != nil {
		return nil, &result{question: q, failure: q.canceled(ctx)}
	}
	return r.flights.join(q, //nolint:contextcheck // the work outlives any one caller
		func() *result {
			if fresh {
				return nil
			}
			return r.cached(q)
		},
		func(ctx context.Context) *result { return r.resolve(ctx, q, keep) })
}

func (r *Resolver) cached(q question) *result {
	return r.cache.get(q, r.trust.Load().generation, r.now())
}

// resolve asks the upstreams for q, follows its aliases, and caches what came of
// it, if it is to be kept or takes the place of what is there.
func (r *Resolver) resolve(ctx context.Context, q question, keep bool) *result {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, errSilent)
	defer cancel()
	r.stats.lookups.Add(1)
	trust := r.trust.Load()
	res, f := r.walk(ctx, trust.ask, q)
	if f != nil {
		r.stats.fail(f.Kind)
		res = &result{question: q, failure: f, ttl: failureTTL, upstream: f.Upstream}
	}
	res.authentic = res.authentic && trust.trusted
	res.generation = trust.generation
	res.at = r.now().UnixNano()
	if res.dropped > 0 {
		r.stats.dropped.Add(uint64(res.dropped))
	}
	switch {
	case f != nil && f.Kind == Canceled:
	case keep:
		r.cache.put(q, res)
	default:
		r.cache.replace(q, res)
	}
	return res
}

// walk asks and follows until there is nothing more to ask.
func (r *Resolver) walk(ctx context.Context, upstreams []*upstream, q question) (*result, *Failure) {
	w := newWalk(q)
	for {
		resp, u, f := r.exchange(ctx, upstreams, w.next())
		if f != nil { // at any stage it fails the whole (RFC 7672 §2.1.3)
			return nil, f.of(q)
		}
		more, f := w.take(resp)
		if f == nil && more {
			continue
		}
		var res *result
		if f == nil {
			res, f = w.result()
		}
		if f != nil {
			f.Upstream = u.addr
			return nil, f
		}
		res.upstream = u.addr
		return res, nil
	}
}

// of turns the failure to look up an alias of q into one to look up q.
func (e *Failure) of(q question) *Failure {
	if e.Name != q.name {
		e.Err = fmt.Errorf("it is an alias of %s: %w", e.Name, e.Err)
		e.Name = q.name
	}
	return e
}
