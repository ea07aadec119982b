package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

const (
	retryEvery = time.Minute     // while the relay does not take a letter
	tidyEvery  = time.Hour       // what is old is dropped
	handTime   = 2 * time.Minute // for one letter
)

// errRefused is a letter that the relay will not take, now or later.
var errRefused = errors.New("the relay refuses it for good")

// post sends the letters that are due until ctx ends.
func (h *Host) post(ctx context.Context) {
	later := make(map[string]time.Time) // runs whose letter the relay did not take
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-h.woken:
		}
		next := h.now().Add(tidyEvery)
		for _, r := range h.store.all() {
			l, at := r.due(h.o.Wait, len(h.tests))
			if l == "" {
				continue
			}
			if t := later[r.Token]; t.After(at) {
				at = t
			}
			if !at.After(h.now()) {
				at = h.send(ctx, r, l)
				later[r.Token] = at
			}
			if !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		h.tidy(later)
		timer.Reset(max(0, next.Sub(h.now())))
	}
}

// send hands a letter to the relay. Where that is to be tried again it returns
// when, and where the run may have another letter due it looks at once.
func (h *Host) send(ctx context.Context, r Run, l letter) time.Time {
	log := h.o.Log.With("run", r.Token, "to", r.Sender, "letter", l)
	err := h.hand(ctx, r.Sender, h.write(r, l))
	switch {
	case ctx.Err() != nil:
		return h.now().Add(retryEvery)
	case errors.Is(err, errRefused):
		log.Error("lab host: an answer is lost, as the relay refuses it; see that it takes mail from here, with a null sender", "relay", h.o.Relay, "err", err)
	case err != nil:
		log.Warn("lab host: the relay does not take an answer; it is tried again", "relay", h.o.Relay, "err", err)
		return h.now().Add(retryEvery)
	default:
		log.Info("lab host: answered")
	}
	if _, err := h.store.change(r.Token, func(r *Run) { r.handed(l, h.now()) }); err != nil {
		log.Error("lab host: it cannot be kept that a run was answered", "err", err)
		return h.now().Add(retryEvery)
	}
	return h.now()
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

// tidy drops what is old.
func (h *Host) tidy(later map[string]time.Time) {
	before := h.now().Add(-Lifetime)
	if err := h.store.expire(before); err != nil {
		h.o.Log.Error("lab host: old runs cannot be dropped", "err", err)
	}
	h.visits.forget(before)
	for token := range later {
		if _, ok := h.store.get(token); !ok {
			delete(later, token)
		}
	}
}

// wake makes post look for what is due.
func (h *Host) wake() {
	select {
	case h.woken <- struct{}{}:
	default:
	}
}
