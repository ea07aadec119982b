package host

import (
	"net/netip"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/rate"
)

// step is how far a client went at a host before it left.
type step string

const (
	sawNoTLS  step = "was not offered STARTTLS"
	beganTLS  step = "broke off the TLS handshake"
	endedTLS  step = "ended the TLS handshake"
	gotPolicy step = "fetched the policy"
)

// maxVisits is how many networks at how many tests are remembered. They are what
// shows that held mail was tried, and are forgotten when the host ends.
const maxVisits = 100_000

// quiet is after how long without a visit the count begins anew: senders retry
// within a few hours (RFC 5321 §4.5.4.1).
const quiet = 6 * time.Hour

// visit is what one network did at one test, the last time.
type visit struct {
	count  int // of connections
	last   time.Time
	step   step
	policy time.Time // when it fetched the policy
}

type visitKey struct{ network, test string }

// visits remembers who of those who are being tested came and left. It is safe for
// concurrent use.
type visits struct {
	mu      sync.Mutex
	m       map[visitKey]visit
	watched map[string]bool // networks of the runs
}

// watch makes the visits of a run's networks be noted from now on.
func (v *visits) watch(r Run) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.watched == nil {
		v.watched = make(map[string]bool)
	}
	for _, a := range append([]netip.Addr{r.From}, r.Also...) {
		v.watched[network(a)] = true
	}
}

// note notes a step of a client at a test.
func (v *visits) note(client netip.Addr, test string, s step, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := visitKey{network(client), test}
	if !v.watched[k.network] {
		return
	}
	seen, ok := v.m[k]
	if !ok && len(v.m) >= maxVisits {
		return
	}
	switch s {
	case gotPolicy:
		seen.policy = at
	case endedTLS:
		seen.last, seen.step = at, s // the handshake that began has been counted
	default:
		if at.Sub(seen.last) > quiet {
			seen.count = 0 // another message, maybe of another of its users
		}
		seen.count, seen.last, seen.step = seen.count+1, at, s
	}
	if v.m == nil {
		v.m = make(map[visitKey]visit)
	}
	v.m[k] = seen
}

// of returns what is known of a run's networks at a test, since the run began.
func (v *visits) of(r Run, test string) visit {
	v.mu.Lock()
	defer v.mu.Unlock()
	var sum visit
	done := make(map[string]bool)
	for _, a := range append([]netip.Addr{r.From}, r.Also...) {
		n := network(a)
		if done[n] {
			continue
		}
		done[n] = true
		seen := v.m[visitKey{n, test}]
		if !seen.last.Before(r.Began) {
			sum.count += seen.count
			if seen.last.After(sum.last) {
				sum.last, sum.step = seen.last, seen.step
			}
		}
		if !seen.policy.Before(r.Began) && seen.policy.After(sum.policy) {
			sum.policy = seen.policy
		}
	}
	return sum
}

// forget drops what is of none of these runs, or from before them.
func (v *visits) forget(runs []Run, before time.Time) {
	v.mu.Lock()
	v.watched = nil
	v.mu.Unlock()
	for _, r := range runs {
		v.watch(r)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for k, seen := range v.m {
		if !v.watched[k.network] || seen.last.Before(before) && seen.policy.Before(before) {
			delete(v.m, k)
		}
	}
}

// network is what an address is remembered by: a sender's hosts are neighbours.
func network(a netip.Addr) string {
	a = a.Unmap()
	if a.Is4() {
		if p, err := a.Prefix(24); err == nil {
			return p.String()
		}
	}
	return rate.Client(a)
}
