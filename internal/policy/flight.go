package policy

import (
	"context"

	"github.com/pawl-mail/pawl/internal/resolve"
)

// errand is why a domain is looked at.
type errand struct {
	mail    bool // someone waits for the answer, with mail for the domain
	fresh   bool // DNS is asked anew, past the resolver's cache
	refresh bool // HTTPS is asked even if the record's id is the cached one
	quiet   bool // a new policy is no news: many domains are being warmed
}

// flight is one look at a domain that is under way. All who ask for the domain
// meanwhile wait for it. It belongs to the engine and not to who asked first: a
// caller who leaves does not end it for the others.
type flight struct {
	errand errand
	done   chan struct{}
	state  *state // set when done is closed
	err    error
}

// fly joins the look at a domain that is under way, or starts one. A fresh one
// is not satisfied by one that is not.
func (e *Engine) fly(ctx context.Context, domain string, w errand) (*state, error) {
	for {
		f, started := e.depart(domain, w, nil)
		if f == nil {
			return nil, ErrClosed
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if started || f.errand.covers(w) && (f.state != nil || f.err != nil) {
			return f.state, f.err
		}
	}
}

// behind starts a look that nobody waits for, unless one is under way or too
// many are.
func (e *Engine) behind(domain string, w errand) {
	select {
	case e.looks <- struct{}{}:
		e.count.behind.Add(1)
		e.depart(domain, w, func() { <-e.looks })
	default:
	}
}

// covers reports whether a look for w's sake answers v as well.
func (w errand) covers(v errand) bool { return (w.fresh || !v.fresh) && (w.refresh || !v.refresh) }

// depart returns the flight of a domain and whether it was started here. A
// caller that has taken a place among those who look gives release.
func (e *Engine) depart(domain string, w errand, release func()) (*flight, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.flights[domain]
	if f != nil || e.closed {
		if release != nil {
			release()
		}
		return f, false
	}
	f = &flight{errand: w, done: make(chan struct{})}
	e.flights[domain] = f
	e.group.Add(1)
	go e.look(domain, f, release)
	return f, true
}

// look is a flight's goroutine.
func (e *Engine) look(domain string, f *flight, release func()) {
	defer e.group.Done()
	defer func() {
		e.mu.Lock()
		delete(e.flights, domain)
		e.mu.Unlock()
		close(f.done)
	}()
	if release == nil {
		select {
		case e.looks <- struct{}{}:
			release = func() { <-e.looks }
		case <-e.ctx.Done():
			f.err = ErrClosed
			return
		}
	}
	defer release()
	ctx, cancel := context.WithTimeout(resolve.Once(e.ctx), lookTimeout)
	defer cancel()
	if f.errand.fresh {
		ctx = resolve.Fresh(ctx)
	}
	f.state, f.err = e.discover(ctx, domain, f.errand)
}

// spawn runs f on a goroutine of the engine's. It is false after [Engine.Close].
func (e *Engine) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.group.Go(f)
	return true
}

// alone runs f while nobody looks at the domain.
func (e *Engine) alone(ctx context.Context, domain string, f func(context.Context) (*state, error)) (*state, error) {
	for {
		e.mu.Lock()
		other := e.flights[domain]
		if e.closed {
			e.mu.Unlock()
			return nil, ErrClosed
		}
		if other == nil {
			own := &flight{done: make(chan struct{})}
			e.flights[domain] = own
			e.mu.Unlock()
			st, err := f(ctx)
			e.mu.Lock()
			delete(e.flights, domain)
			e.mu.Unlock()
			close(own.done) // with nothing in it: who waited looks for themselves
			return st, err
		}
		e.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
