package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

const (
	retryFirst = time.Minute // after a first failure of the relay; it doubles
	retryMax   = time.Hour
	tidyEvery  = time.Hour       // what is old is dropped
	handTime   = 2 * time.Minute // for one letter
	atOnce     = 8               // letters, at a time
)

// errRefused is a letter that the relay will not take, now or later.
var errRefused = errors.New("the relay refuses it for good")

// errand is what is known of a run's next letter, beside the run.
type errand struct {
	letter letter
	busy   bool
	tries  int
	again  time.Time
	sent   bool // it was handed over, and that could not be noted
	knew   int  // of how many arrivals it knew
}

// post sends the letters that are due until ctx ends, and waits for those that are
// being sent.
func (h *Host) post(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	p := &postman{h: h, errands: make(map[string]*errand)}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-h.woken:
		}
		due, next := p.due()
		for _, r := range due {
			sending.Go(func() {
				p.send(ctx, r)
				h.wake()
			})
		}
		h.tidy()
		timer.Reset(max(0, next.Sub(h.now())))
	}
}

// postman knows what became of the letters so far. It is safe for concurrent use.
type postman struct {
	h *Host

	mu      sync.Mutex
	errands map[string]*errand // by token
	busy    int
}

// due returns the runs whose letters are to be sent now, and marks them as busy:
// first those that have not been tried. Next is when to look again.
func (p *postman) due() (due []Run, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.h.now()
	next = now.Add(tidyEvery)
	runs := p.h.store.all()
	live := make(map[string]bool, len(runs))
	for _, r := range runs {
		live[r.Token] = true
		l, at := p.h.site.due(r, p.h.o.Wait)
		if l == "" {
			continue
		}
		e := p.errands[r.Token]
		if e == nil || e.letter != l && !e.busy {
			e = &errand{letter: l}
			p.errands[r.Token] = e
		}
		if e.again.After(at) {
			at = e.again
		}
		switch {
		case e.busy:
		case at.After(now):
			next = earlier(next, at)
		default:
			due = append(due, r)
		}
	}
	for token, e := range p.errands {
		if !live[token] && !e.busy {
			delete(p.errands, token)
		}
	}
	slices.SortStableFunc(due, func(a, b Run) int { return p.errands[a.Token].tries - p.errands[b.Token].tries })
	due = due[:min(len(due), atOnce-p.busy)] // who ends wakes the loop
	for _, r := range due {
		p.errands[r.Token].busy = true
		p.busy++
	}
	return due, next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// send hands a run's letter to the relay and notes that.
func (p *postman) send(ctx context.Context, r Run) {
	p.mu.Lock()
	e := p.errands[r.Token]
	p.mu.Unlock()
	ok := p.deliver(ctx, r.Token, e)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	e.busy = false
	if ok {
		delete(p.errands, r.Token)
		return
	}
	e.again = p.h.now().Add(min(retryFirst<<min(e.tries, 10), retryMax))
	e.tries++
}

// deliver reports whether nothing is left to do. A letter that was handed over is
// not handed over again because that cannot be noted.
func (p *postman) deliver(ctx context.Context, token string, e *errand) bool {
	h := p.h
	r, ok := h.store.get(token)
	if !ok {
		return true
	}
	log := h.o.Log.With("run", token, "to", r.Sender, "letter", e.letter)
	if !e.sent {
		e.knew = len(r.Arrivals)
		err := h.hand(ctx, r.Sender, h.write(r, e.letter))
		switch {
		case ctx.Err() != nil:
			return false
		case errors.Is(err, errRefused):
			log.Error("lab host: an answer is lost, as the relay refuses it; see that it takes mail from here, with a null sender", "relay", h.o.Relay, "err", err)
		case err != nil:
			log.Warn("lab host: the relay does not take an answer; it is tried again", "relay", h.o.Relay, "err", err)
			return false
		default:
			log.Info("lab host: answered")
		}
		e.sent = true
	}
	if _, err := h.store.change(token, func(r *Run) { r.handed(e.letter, e.knew, h.now()) }); err != nil {
		log.Error("lab host: it cannot be kept that a run was answered; that is tried again", "err", err)
		return false
	}
	return true
}

// hand gives a message to the relay, from the null sender: nothing that comes of
// it is answered (RFC 3834 §3.3).
func (h *Host) hand(ctx context.Context, to string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, handTime)
	defer cancel()
	rcpt, err := smtp.ParseMailbox(to, false)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.o.Relay)
	if err != nil {
		return fmt.Errorf("the relay: %w", err)
	}
	c := client.New(conn, client.Options{Hello: h.site.mail()})
	defer func() { _ = c.Close() }()
	if err := c.Hello(ctx); err != nil {
		return fmt.Errorf("the relay: %w", err)
	}
	if err := h.secure(ctx, c); err != nil {
		return fmt.Errorf("the relay: %w", err)
	}
	sent, err := c.Send(ctx, client.Envelope{Mail: smtp.Mail{Size: int64(len(message)), Body: smtp.Body8Bit}, Rcpts: []smtp.Rcpt{{To: rcpt}}}, client.Bytes(message))
	if err != nil {
		return fmt.Errorf("the relay: %w", err)
	}
	defer c.Quit(ctx)
	if r := sent.Rcpts[0]; !r.Delivered {
		err := fmt.Errorf("the relay says %s", r.Reply)
		if r.Reply.Code/100 == 5 {
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return err
	}
	return nil
}

// secure demands verified TLS of a relay on another machine.
func (h *Host) secure(ctx context.Context, c *client.Client) error {
	name, _, err := net.SplitHostPort(h.o.Relay)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.IsLoopback() || name == "localhost" {
		return nil
	}
	if err := c.StartTLS(ctx, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}); err != nil {
		return err
	}
	return c.Hello(ctx)
}

// tidy drops what is old, now and then.
func (h *Host) tidy() {
	now := h.now()
	if now.Sub(h.tidied) < tidyEvery {
		return
	}
	h.tidied = now
	if err := h.store.expire(now); err != nil {
		h.o.Log.Error("lab host: what is old cannot be dropped", "err", err)
	}
	h.visits.forget(h.store.all(), now.Add(-Lifetime))
}

// wake makes post look for what is due.
func (h *Host) wake() {
	select {
	case h.woken <- struct{}{}:
	default:
	}
}
