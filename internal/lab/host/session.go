package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net/mail"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/rate"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

const (
	// MaxSize is how large a message may be, in octets.
	MaxSize = 1 << 20
	// maxRcpts is of one transaction: each test has a domain of its own.
	maxRcpts = 100
	// maxHello is how much of a client's name is kept.
	maxHello = 255
)

// How many runs may be begun.
func perAddress() rate.Limit { return rate.Limit{Burst: 10, Per: 24 * time.Hour} }
func perDomain() rate.Limit  { return rate.Limit{Burst: 100, Per: 24 * time.Hour} }
func perNetwork() rate.Limit { return rate.Limit{Burst: 50, Per: time.Hour} }
func inAll() rate.Limit      { return rate.Limit{Burst: 1000, Per: time.Hour} }

// kind is what a transaction's recipients are.
type kind int

const (
	unknown kind = iota
	starts
	tests
	people // postmaster and abuse (RFC 5321 §4.5.1, RFC 2142 §4)
)

// backend takes the connections of the hosts that offer STARTTLS, or of those that
// do not.
type backend struct {
	h     *Host
	clear bool
}

// NewSession implements [server.Backend].
func (b *backend) NewSession(_ context.Context, c *server.Conn) (server.Session, error) {
	s := &session{h: b.h, conn: c, client: c.Client().Addr().Unmap(), clear: b.clear}
	if state := c.TLS(); state != nil {
		if p, ok := b.h.places[strings.ToLower(state.ServerName)]; ok {
			s.place = p
			b.h.visits.note(s.client, p.test.Name, endedTLS, b.h.now())
		}
	}
	return s, nil
}

// session is one connection, before TLS or under it.
type session struct {
	h      *Host
	conn   *server.Conn
	client netip.Addr
	clear  bool
	place  place // of the name in the handshake, if it is one of ours

	mailed bool // a transaction was begun
	mail   smtp.Mail
	kind   kind
	token  string
	rcpts  []Test
}

// Mail implements [server.Session].
func (s *session) Mail(_ context.Context, m smtp.Mail) error {
	s.mail, s.mailed = m, true
	return nil
}

// Rcpt implements [server.Session].
func (s *session) Rcpt(_ context.Context, r smtp.Rcpt) error {
	local, domain := strings.ToLower(r.To.Local), strings.ToLower(r.To.Domain)
	switch {
	case local == "start" && domain == s.h.site.Domain:
		return s.start()
	case (local == "postmaster" || local == "abuse") && (domain == "" || s.h.ours(domain)):
		return s.be(people)
	}
	t, ok := s.h.tests[domain]
	if !ok {
		if s.h.ours(domain) {
			return smtp.Errorf(550, smtp.Enhanced{5, 1, 1}, "no such address: a test begins with a mail to %s", s.h.site.Start())
		}
		return smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "mail for %s is not taken here", printable(domain))
	}
	if _, ok := s.h.store.get(local); !ok {
		return smtp.Errorf(550, smtp.Enhanced{5, 1, 1}, "that test is over, or never was: a new one begins with a mail to %s", s.h.site.Start())
	}
	if s.kind == tests && s.token != local {
		return errOneAtATime()
	}
	if err := s.be(tests); err != nil {
		return err
	}
	s.token, s.rcpts = local, append(s.rcpts, t)
	return nil
}

// start takes a recipient that begins a test.
func (s *session) start() error {
	switch {
	case s.mail.From.IsNull():
		return smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "mail without a return path cannot be answered")
	case !s.mail.From.IsASCII():
		return smtp.Errorf(550, smtp.Enhanced{5, 6, 7}, "a return path beyond ASCII cannot be answered here")
	case s.h.ours(strings.ToLower(s.mail.From.Domain)):
		return smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "this host does not test itself")
	}
	return s.be(starts)
}

// be makes all recipients of a transaction be of one kind, so that it has one end.
func (s *session) be(k kind) error {
	if s.kind != unknown && s.kind != k {
		return errOneAtATime()
	}
	s.kind = k
	return nil
}

func errOneAtATime() *smtp.Error {
	return smtp.Errorf(452, smtp.Enhanced{4, 5, 3}, "this recipient needs a transaction of its own")
}

// Data implements [server.Session].
func (s *session) Data(ctx context.Context, body *server.Body) (smtp.Reply, error) {
	message, err := io.ReadAll(io.LimitReader(body, MaxSize+1))
	if err != nil {
		return smtp.Reply{}, err
	}
	switch s.kind {
	case starts:
		return s.begin(ctx, message)
	case tests:
		return smtp.Reply{}, s.arrive(message)
	default:
		return smtp.Reply{}, s.h.forward(ctx, s.client, message)
	}
}

// begin begins a run.
func (s *session) begin(ctx context.Context, message []byte) (smtp.Reply, error) {
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return smtp.Reply{}, smtp.Errorf(550, smtp.Enhanced{5, 6, 0}, "the message's header cannot be read")
	}
	if automatic(m) {
		return smtp.Reply{}, smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "a message that a program sent is not answered (RFC 3834)")
	}
	c := claim{from: s.mail.From, client: s.client, hello: s.conn.Hello(), start: s.h.site.Start(), message: message}
	proof, err := c.prove(ctx, s.h.o.Resolver)
	if err != nil {
		return smtp.Reply{}, err
	}
	if err := s.h.admit(c); err != nil {
		return smtp.Reply{}, err
	}
	r := Run{Token: strings.ToLower(rand.Text()), Sender: c.from.String(), Proof: proof, From: s.client, Began: s.h.now()}
	if err := s.h.store.begin(r); err != nil {
		if errors.Is(err, errFull) {
			return smtp.Reply{}, smtp.Errorf(452, smtp.Enhanced{4, 3, 2}, "%v", err)
		}
		return smtp.Reply{}, err
	}
	s.h.o.Log.Info("lab host: a test begins", "run", r.Token, "sender", r.Sender, "proof", proof, "client", s.client)
	s.h.wake()
	return smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{"the addresses of the tests go to " + r.Sender}}, nil
}

// arrive notes a message at tests.
func (s *session) arrive(message []byte) error {
	var arrivals []Arrival
	hello := s.conn.Hello()
	for _, t := range s.rcpts {
		a := Arrival{Test: t.Name, At: s.h.now(), Client: s.client, Hello: printable(hello[:min(len(hello), maxHello)])}
		if state := s.conn.TLS(); state != nil {
			a.Host, a.Version, a.Cipher = printable(strings.ToLower(state.ServerName)), tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
		}
		arrivals = append(arrivals, a)
	}
	named := s.h.site.addressed(message, s.token)
	found, err := s.h.store.change(s.token, func(r *Run) {
		r.arrived(arrivals, named)
		if !r.Told.IsZero() && s.h.site.leaked(*r, r.Told) {
			r.Late = true
		}
	})
	if err == nil && !found {
		return smtp.Errorf(550, smtp.Enhanced{5, 1, 1}, "that test is over: a new one begins with a mail to %s", s.h.site.Start())
	}
	s.h.wake()
	return err
}

// Reset implements [server.Session].
func (s *session) Reset() { s.kind, s.token, s.rcpts = unknown, "", nil }

// Close implements [server.Session].
func (s *session) Close() {
	if !s.clear || s.mailed {
		return
	}
	// Which of the tests without STARTTLS it came for, it did not say.
	for _, t := range s.h.tests {
		if t.needsClear() {
			s.h.visits.note(s.client, t.Name, sawNoTLS, s.h.now())
		}
	}
}

// admit counts a run against the limits.
func (h *Host) admit(c claim) error {
	for _, l := range []struct {
		table *rate.Table
		party string
	}{
		{h.perAddress, strings.ToLower(c.from.String())},
		{h.perDomain, strings.ToLower(c.from.Domain)},
		{h.perNetwork, network(c.client)},
		{h.inAll, ""},
	} {
		if wait, ok := l.table.Take(l.party, 1); !ok {
			return smtp.Errorf(451, smtp.Enhanced{4, 7, 1}, "too many tests were begun; try again in %s", wait.Round(time.Second))
		}
	}
	return nil
}

// ours reports whether a domain is the host's or one below.
func (h *Host) ours(domain string) bool {
	return domain == h.site.Domain || strings.HasSuffix(domain, "."+h.site.Domain)
}

// printable is text of a client in a form that can stand in a line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// forward hands mail for the postmaster on before it is answered for, so that none
// is lost here.
func (h *Host) forward(ctx context.Context, client netip.Addr, message []byte) error {
	if wait, ok := h.perNetwork.Take(network(client), 1); !ok {
		return smtp.Errorf(451, smtp.Enhanced{4, 7, 1}, "too much mail; try again in %s", wait.Round(time.Second))
	}
	if err := h.hand(ctx, h.o.Postmaster, message); err != nil {
		h.o.Log.Warn("lab host: mail for the postmaster could not be handed on", "err", err)
		return smtp.Errorf(451, smtp.Enhanced{4, 4, 1}, "it cannot be handed on now")
	}
	return nil
}
