package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/rate"
)

// Wrong passwords that are borne, from one client (an IPv4 address, an IPv6 /64)
// and for one submitter. A client from which a submitter has logged in lately
// is not kept out by what others do to that submitter.
func clientFailures() rate.Limit    { return rate.Limit{Burst: 10, Per: 10 * time.Minute} }
func submitterFailures() rate.Limit { return rate.Limit{Burst: 30, Per: 30 * time.Minute} }

const (
	// maxWaiting is how many logins wait at once for their turn to compute a hash.
	maxWaiting = 64
	// maxRecent caps what is remembered of logins that went well.
	maxRecent = 10_000
	// recentFor is how long that is remembered.
	recentFor = time.Hour
)

// The errors of a login.
var (
	// ErrCredentials: name or password is wrong, or the submitter is disabled. It
	// does not say which (RFC 4954 §6).
	ErrCredentials = errors.New("the credentials are not valid")
	// ErrThrottled: too many attempts failed; this one was not looked at.
	ErrThrottled = errors.New("too many failed logins")
	// ErrBusy: too many logins are under way; this one was not looked at.
	ErrBusy = errors.New("too many logins are under way")
)

// Logins checks passwords. It is safe for concurrent use.
type Logins struct {
	store *Store
	now   func() time.Time
	decoy phc // stands in for the hash of who does not exist

	clients, submitters *rate.Table   // failures
	turns               chan struct{} // a hash is being computed
	waiting             chan struct{} // or waits for that

	mu     sync.Mutex
	key    [sha256.Size]byte  // of the MACs
	recent map[string]success // by submitter
	seen   map[string]time.Time
	counts map[string]int64
}

// success is a password that was right, in a form that only this process can check.
type success struct {
	hash string // that it was right for
	mac  [sha256.Size]byte
	at   time.Time
}

// NewLogins returns a checker of the store's submitters.
func NewLogins(store *Store, now func() time.Time) (*Logins, error) {
	l := &Logins{
		store: store, now: now,
		clients: rate.New(clientFailures(), now), submitters: rate.New(submitterFailures(), now),
		// Half of the processors at most: mail goes on.
		turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), waiting: make(chan struct{}, maxWaiting),
		recent: map[string]success{}, seen: map[string]time.Time{}, counts: map[string]int64{},
	}
	if _, err := rand.Read(l.key[:]); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	l.decoy = phc{hashMemory, hashTime, hashThreads, make([]byte, saltLength), make([]byte, hashLength)}
	return l, nil
}

// Check returns the submitter of a name and password. Errors are [ErrCredentials],
// [ErrThrottled], [ErrBusy], or that the database could not be asked. Name,
// password and whether there is such a submitter do not show in how long a
// refusal takes.
func (l *Logins) Check(ctx context.Context, client netip.Addr, name, password string) (Submitter, error) {
	name = strings.ToLower(name)
	giveBack, err := l.admit(rate.Client(client), name)
	if err != nil {
		return Submitter{}, l.counted("throttled", err)
	}
	sub, err := l.store.Submitter(ctx, name)
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		giveBack()
		return sub, l.counted("error", err)
	}
	right, err := l.right(ctx, sub.hash, name, password)
	switch {
	case err != nil:
		giveBack()
		return Submitter{}, l.counted("busy", err)
	case !known || !right:
		return Submitter{}, l.counted("credentials", ErrCredentials)
	case sub.Disabled:
		return Submitter{}, l.counted("disabled", ErrCredentials)
	}
	giveBack()
	l.remember(rate.Client(client), sub, password)
	return sub, nil
}

// admit takes a failure from the limits in advance, so that attempts at the same
// time cannot be more than the limits say.
func (l *Logins) admit(client, name string) (giveBack func(), err error) {
	if wait, ok := l.clients.Take(client, 1); !ok {
		return nil, fmt.Errorf("%w from %s; the next is looked at in %s", ErrThrottled, client, wait.Round(time.Second))
	}
	if l.isSeen(client, name) {
		return func() { l.clients.GiveBack(client, 1) }, nil
	}
	if wait, ok := l.submitters.Take(name, 1); !ok {
		l.clients.GiveBack(client, 1)
		return nil, fmt.Errorf("%w for %q; the next is looked at in %s", ErrThrottled, name, wait.Round(time.Second))
	}
	return func() { l.clients.GiveBack(client, 1); l.submitters.GiveBack(name, 1) }, nil
}

// right reports whether the password is that of a stored hash; "" is that of
// nobody, and costs as much.
func (l *Logins) right(ctx context.Context, hash, name, password string) (bool, error) {
	if l.isRecent(hash, name, password) {
		return true, nil
	}
	h, err := parsePHC(hash)
	if err != nil {
		h = l.decoy
	}
	p, prepErr := prepared(password)
	if err := l.turn(ctx); err != nil {
		return false, err
	}
	defer func() { <-l.turns }()
	return h.matches(p) && err == nil && prepErr == nil, nil
}

// turn waits until a hash may be computed.
func (l *Logins) turn(ctx context.Context) error {
	select {
	case l.waiting <- struct{}{}:
		defer func() { <-l.waiting }()
	default:
		return ErrBusy
	}
	select {
	case l.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
}

func (l *Logins) mac(name, password string) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, l.key[:])
	m.Write([]byte(name + "\x00" + password))
	m.Sum(sum[:0])
	return sum
}

func (l *Logins) isRecent(hash, name, password string) bool {
	l.mu.Lock()
	s, ok := l.recent[name]
	l.mu.Unlock()
	if !ok || s.hash != hash || l.now().Sub(s.at) > recentFor {
		return false
	}
	mac := l.mac(name, password)
	return hmac.Equal(mac[:], s.mac[:])
}

func (l *Logins) isSeen(client, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.seen[client+" "+name]
	return ok && l.now().Sub(at) <= recentFor
}

// remember keeps that a login went well.
func (l *Logins) remember(client string, sub Submitter, password string) {
	s := success{hash: sub.hash, mac: l.mac(sub.Name, password), at: l.now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.recent) >= maxRecent {
		clear(l.recent)
	}
	if len(l.seen) >= maxRecent {
		clear(l.seen)
	}
	l.recent[sub.Name] = s
	l.seen[client+" "+sub.Name] = l.now()
}

// counted counts a failure by its kind.
func (l *Logins) counted(kind string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[kind]++
	return err
}

// Failures returns how many logins failed since the start: by "credentials",
// "disabled", "throttled", "busy" and "error".
func (l *Logins) Failures() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int64{"credentials": 0, "disabled": 0, "throttled": 0, "busy": 0, "error": 0}
	for kind, n := range l.counts {
		out[kind] = n
	}
	return out
}
