package testnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxLines      = 400 // of one session's transcript
	maxLineLength = 500
	maxSessions   = 5_000 // remembered by a Net; the oldest go first
	maxDeliveries = 20_000
	maxKept       = 256 << 20 // octets of messages
)

// Line is one thing that was said on a connection.
type Line struct {
	At       time.Time
	From, To string // "sender", a host's name, or "attacker"
	TLS      bool
	Text     string
}

// Session is one connection that the system under test opened: what was said
// at each leg of it, and which attacks lay in its path.
type Session struct {
	Number int // counts from 1
	At     time.Time
	Addr   netip.AddrPort // that was dialled
	Host   string         // whose address that is

	now   func() time.Time
	mu    sync.Mutex
	lines []Line
	via   []Attack
	notes []string
}

// Lines returns what was said so far.
func (s *Session) Lines() []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// Via returns the attacks in the path of the session.
func (s *Session) Via() []Attack {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.via)
}

// Notes returns what the receiving end found odd in the client's conduct, as
// commands before a reply that the extensions in force do not allow.
func (s *Session) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// String is the session's transcript, one line each.
func (s *Session) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s (%s)", s.Number, s.Addr, s.Host)
	for _, v := range s.Via() {
		fmt.Fprintf(&b, " via %s", v)
	}
	b.WriteByte('\n')
	for _, l := range s.Lines() {
		lock := ""
		if l.TLS {
			lock = " (TLS)"
		}
		fmt.Fprintf(&b, "  %s > %s%s: %s\n", l.From, l.To, lock, l.Text)
	}
	return b.String()
}

func (s *Session) say(from, to string, secure bool, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) >= maxLines {
		return
	}
	if len(text) > maxLineLength {
		text = text[:maxLineLength] + "…"
	}
	s.lines = append(s.lines, Line{s.now(), from, to, secure, text})
}

func (s *Session) pass(a Attack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a != "" && !slices.Contains(s.via, a) {
		s.via = append(s.via, a)
	}
}

func (s *Session) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.notes) < maxLines {
		s.notes = append(s.notes, fmt.Sprintf(format, args...))
	}
}

// Delivery is one message whose data arrived at a receiving end, as that end
// saw it.
type Delivery struct {
	At         time.Time
	Host       string   // the name of the MX host, or of the host the attacker plays
	ByAttacker bool     // the attacker took it
	Via        []Attack // attacks in the path, those that passed it on among them
	Session    *Session

	Helo       string
	From       string // reverse path without brackets; "" is the null one
	To         []string
	MailParams []string   // ESMTP parameters of MAIL as sent: "SIZE=123"
	RcptParams [][]string // of each RCPT, in the order of To
	RequireTLS bool       // MAIL had REQUIRETLS
	Data       []byte     // as sent, dots unstuffed

	Accepted bool   // the reply to the data was a 2xx
	Reply    string // that reply; empty if none was given

	TLS         *tls.ConnectionState // nil: the message came in clear
	Certificate *x509.Certificate    // the leaf that was shown
	Trusted     bool                 // it verifies against [Net.Roots] for Host now, by DNS-ID
	TrueKey     bool                 // its key is the real host's own
}

// Clear reports whether the message came without TLS.
func (d Delivery) Clear() bool { return d.TLS == nil }

// For reports whether the message is for a recipient, in any case.
func (d Delivery) For(rcpt string) bool {
	return slices.ContainsFunc(d.To, func(to string) bool { return strings.EqualFold(to, rcpt) })
}

// String says in a few words who received what and how.
func (d Delivery) String() string {
	who := d.Host
	if d.ByAttacker {
		who = "the attacker as " + d.Host
	}
	how := "in clear"
	if d.TLS != nil {
		how = "over " + tls.VersionName(d.TLS.Version)
		if !d.Trusted {
			how += " with an untrusted certificate"
		}
	}
	return fmt.Sprintf("<%s> to %s by %s %s: %s", d.From, strings.Join(d.To, ","), who, how, d.Reply)
}

// witness remembers what arrived and who connected.
type witness struct {
	now     func() time.Time
	arrived broadcast

	mu         sync.Mutex
	sessions   []*Session
	opened     int
	deliveries []Delivery // the last ones of those received
	received   int
	kept       int // octets of the messages in deliveries
	watch      func(Delivery)
}

func (w *witness) open(addr netip.AddrPort, host string) *Session {
	w.mu.Lock()
	w.opened++
	s := &Session{Number: w.opened, At: w.now(), Addr: addr, Host: host, now: w.now}
	w.sessions = capped(append(w.sessions, s), maxSessions)
	w.mu.Unlock()
	w.arrived.send()
	return s
}

func (w *witness) deliver(d Delivery) {
	w.mu.Lock()
	w.received++
	w.deliveries = append(w.deliveries, d)
	if w.kept += len(d.Data); w.kept > maxKept || len(w.deliveries) > maxDeliveries {
		half := len(w.deliveries) / 2
		for _, old := range w.deliveries[:half] {
			w.kept -= len(old.Data)
		}
		w.deliveries = slices.Clone(w.deliveries[half:])
	}
	watch := w.watch
	w.mu.Unlock()
	w.arrived.send()
	if watch != nil {
		watch(d)
	}
}

// since returns the deliveries from the nth received on, as far as they are
// remembered, and how many were received.
func (w *witness) since(nth int) ([]Delivery, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.received - len(w.deliveries)
	return slices.Clone(w.deliveries[min(max(0, nth-first), len(w.deliveries)):]), w.received
}

// capped drops the older half of what is too long.
func capped[T any](list []T, limit int) []T {
	if len(list) <= limit {
		return list
	}
	return slices.Clone(list[len(list)/2:])
}

// Deliveries returns every message whose data arrived anywhere, accepted or
// not, the oldest first.
func (n *Net) Deliveries() []Delivery {
	list, _ := n.seen.since(0)
	return list
}

// Received returns how many messages' data arrived, those included that are no
// longer remembered: a Net keeps the last ten thousand at least, unless they
// are large.
func (n *Net) Received() int {
	n.seen.mu.Lock()
	defer n.seen.mu.Unlock()
	return n.seen.received
}

// Delivered returns the accepted messages for a recipient, wherever they
// ended up.
func (n *Net) Delivered(rcpt string) []Delivery {
	return slices.DeleteFunc(n.Deliveries(), func(d Delivery) bool { return !d.Accepted || !d.For(rcpt) })
}

// Wait waits for a message that match accepts, one that has come already
// included, and returns the first.
func (n *Net) Wait(ctx context.Context, match func(Delivery) bool) (Delivery, error) {
	var list []Delivery
	looked := 0
	for {
		arrived := n.seen.arrived.wait()
		list, looked = n.seen.since(looked)
		if i := slices.IndexFunc(list, match); i >= 0 {
			return list[i], nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return Delivery{}, fmt.Errorf("wait for a delivery: %w", context.Cause(ctx))
		case <-n.ctx.Done():
			return Delivery{}, ErrClosed
		}
	}
}

// WaitDelivered waits until a message for a recipient was accepted somewhere.
func (n *Net) WaitDelivered(ctx context.Context, rcpt string) (Delivery, error) {
	return n.Wait(ctx, func(d Delivery) bool { return d.Accepted && d.For(rcpt) })
}

// Sessions returns the connections that were opened, the oldest first.
func (n *Net) Sessions() []*Session {
	n.seen.mu.Lock()
	defer n.seen.mu.Unlock()
	return slices.Clone(n.seen.sessions)
}

// SessionsOf returns the connections to a host's addresses.
func (n *Net) SessionsOf(host string) []*Session {
	return slices.DeleteFunc(n.Sessions(), func(s *Session) bool { return s.Host != canonical(host) })
}

// WaitSessions waits until a host was connected to count times in all.
func (n *Net) WaitSessions(ctx context.Context, host string, count int) error {
	for {
		arrived := n.seen.arrived.wait()
		if len(n.SessionsOf(host)) >= count {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return fmt.Errorf("wait for a session with %s: %w", host, context.Cause(ctx))
		case <-n.ctx.Done():
			return ErrClosed
		}
	}
}

// Forget drops what was remembered of sessions and deliveries.
func (n *Net) Forget() {
	n.seen.mu.Lock()
	defer n.seen.mu.Unlock()
	n.seen.sessions, n.seen.deliveries, n.seen.kept = nil, nil, 0
}
