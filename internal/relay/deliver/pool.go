package deliver

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/verify"
)

const (
	// idleTime is how long a connection is kept for the next message: under load
	// there is one at once, and nobody's server is kept waiting for more.
	idleTime = 2 * time.Second
	// maxUses and maxAge end a connection that is reused: the peer is judged anew
	// at least so often.
	maxUses = 1000
	maxAge  = 5 * time.Minute
	// maxIdle and maxIdleAll cap the connections that are kept for one host and
	// in all.
	maxIdle    = 64
	maxIdleAll = 2000
)

// pool keeps connections whose mail has been taken, for messages of which the
// same is demanded.
type pool struct {
	now func() time.Time

	mu     sync.Mutex
	idle   map[string][]*session // by MX host, the one used last at the end
	kept   int
	tidy   *time.Timer // nil: nothing is kept
	closed bool
	ending sync.WaitGroup // what is said goodbye to
}

func newPool(now func() time.Time) *pool { return &pool{now: now, idle: map[string][]*session{}} }

// take returns a connection that serves a host's demand, opened for the same
// route, to an address that the host still has; nil if none is kept.
func (p *pool) take(h verify.Host, route *Route) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := h.Demand.Host
	kept := p.idle[host]
	for i := len(kept) - 1; i >= 0; i-- {
		s := kept[i]
		if !p.fresh(s) || s.route != route || !same(s.demand, h.Demand) || !slices.Contains(h.Addrs, s.addr) {
			continue
		}
		p.keep(host, slices.Delete(kept, i, i+1))
		p.kept--
		return s
	}
	return nil
}

// keep sets what is kept for a host.
func (p *pool) keep(host string, sessions []*session) {
	if len(sessions) == 0 {
		delete(p.idle, host)
		return
	}
	p.idle[host] = sessions
}

func (p *pool) fresh(s *session) bool {
	now := p.now()
	return now.Sub(s.used) < idleTime && now.Sub(s.opened) < maxAge && s.uses < maxUses
}

// give keeps a connection, or ends it where it has served enough.
func (p *pool) give(s *session) {
	s.used = p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	host := s.demand.Host
	if p.closed || !p.fresh(s) || len(p.idle[host]) >= maxIdle || p.kept >= maxIdleAll {
		p.end(s)
		return
	}
	p.idle[host] = append(p.idle[host], s)
	p.kept++
	if p.tidy == nil {
		p.tidy = time.AfterFunc(idleTime, p.sweep)
	}
}

// sweep ends what nobody took in time, and comes again while something is kept.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.drop(func(s *session) bool { return !p.fresh(s) })
	p.tidy = nil
	if p.kept > 0 {
		p.tidy = time.AfterFunc(idleTime, p.sweep)
	}
}

// drop ends what is kept and meant. The caller holds the lock.
func (p *pool) drop(meant func(*session) bool) {
	for host, kept := range p.idle {
		p.keep(host, slices.DeleteFunc(kept, func(s *session) bool {
			if !meant(s) {
				return false
			}
			p.kept--
			p.end(s)
			return true
		}))
	}
}

// retire ends a connection that is of no more use.
func (p *pool) retire(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(s)
}

// end says QUIT (RFC 5321 §4.1.1.10), for which nobody waits. The caller holds
// the lock.
func (p *pool) end(s *session) {
	if s.c.Err() != nil {
		return // it has ended
	}
	if p.closed {
		_ = s.c.Close() // nothing is lost by it
		return
	}
	p.ending.Go(func() { s.c.Quit(context.Background()) })
}

func (p *pool) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(func(*session) bool { return true })
}

// close ends everything, and waits for it.
func (p *pool) close() {
	p.mu.Lock()
	p.drop(func(*session) bool { return true })
	p.closed = true
	if p.tidy != nil {
		p.tidy.Stop() // a sweep that runs already finds nothing
	}
	p.mu.Unlock()
	p.ending.Wait()
}
