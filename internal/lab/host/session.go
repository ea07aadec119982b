package host

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/rate"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

const (
	// MaxSize is how large a message may be, in octets.
	MaxSize = 512 << 10
	// maxRcpts is of one transaction: each test has a domain of its own.
	maxRcpts = 100
	// maxHello is how much of a client's name is kept.
	maxHello = 255
	// maxHops is how many hosts mail for the postmaster may have passed.
	maxHops = 50
	// maxClaims is how many return paths are being proven at a time, and claimTime
	// how long one may take: most of it is others' name servers.
	maxClaims = 16
	claimTime = 30 * time.Second
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
	limit := int64(MaxSize)
	if s.kind == tests {
		limit = maxHeader // no more of it is looked at
	}
	message, err := io.ReadAll(io.LimitReader(body, limit))
	if err == nil {
		_, err = body.WriteTo(io.Discard)
	}
	if err != nil {
		return smtp.Reply{}, err
	}
	switch s.kind {
	case starts:
		return s.begin(ctx, message)
	case tests:
		return smtp.Reply{}, s.arrive(message)
	default:
		return smtp.Reply{}, s.forward(ctx, message)
	}
}

// begin begins a run.
func (s *session) begin(ctx context.Context, message []byte) (smtp.Reply, error) {
	header, err := readHeader(message)
	if err != nil {
		return smtp.Reply{}, smtp.Errorf(550, smtp.Enhanced{5, 6, 0}, "%v", err)
	}
	if automatic(header) {
		return smtp.Reply{}, smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "a message that a program or a list sent is not answered (RFC 3834)")
	}
	c := claim{from: s.mail.From, client: s.client, hello: s.conn.Hello(), start: s.h.site.Start(), header: header, message: message}
	proof, err := s.h.prove(ctx, c)
	if err != nil {
		return smtp.Reply{}, err
	}
	r := Run{Token: strings.ToLower(rand.Text()), Sender: c.from.String(), Proof: proof, From: s.client, Began: s.h.now()}
	if err := s.h.store.begin(r); err != nil {
		if errors.Is(err, errFull) {
			return smtp.Reply{}, smtp.Errorf(452, smtp.Enhanced{4, 3, 2}, "%v", err)
		}
		return smtp.Reply{}, err
	}
	s.h.visits.watch(r)
	s.h.o.Log.Info("lab host: a test begins", "run", r.Token, "sender", r.Sender, "proof", proof, "client", s.client)
	s.h.wake()
	return smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{"the addresses of the tests go to " + r.Sender}}, nil
}

// arrive notes a message at tests.
func (s *session) arrive(message []byte) error {
	var arrivals []Arrival
	hello := s.conn.Hello()
	for _, t := range s.rcpts {
		a := Arrival{Test: t.Name, At: s.h.now(), Client: s.client, Hello: printable(cut(hello))}
		if state := s.conn.TLS(); state != nil {
			a.Host, a.Version, a.Cipher = s.named(state.ServerName), tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
		}
		arrivals = append(arrivals, a)
	}
	named := s.h.site.addressed(message, s.token)
	found, err := s.h.store.change(s.token, func(r *Run) {
		r.arrived(arrivals, named, s.h.site.leaks)
		s.h.visits.watch(*r)
	})
	if err == nil && !found {
		return smtp.Errorf(550, smtp.Enhanced{5, 1, 1}, "that test is over: a new one begins with a mail to %s", s.h.site.Start())
	}
	s.h.wake()
	return err
}

// named is the name that a client asked a certificate for, as it is kept: what is
// no host of ours can be anything, of any length.
func (s *session) named(sni string) string {
	sni = strings.ToLower(sni)
	if _, ours := s.h.places[sni]; ours || sni == "" {
		return sni
	}
	return "another"
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

// prove proves a claim, if its network has not made too many, and counts the run
// that it is for.
func (h *Host) prove(ctx context.Context, c claim) (string, error) {
	if err := take(h.perNetwork, crowd(c.client)); err != nil {
		return "", err
	}
	select {
	case h.claims <- struct{}{}:
		defer func() { <-h.claims }()
	default:
		return "", smtp.Errorf(451, smtp.Enhanced{4, 3, 2}, "too many tests are being begun; try again in a minute")
	}
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	proof, err := c.prove(ctx, h.o.Resolver)
	if err != nil {
		return "", err
	}
	for _, l := range []struct {
		table *rate.Table
		party string
	}{
		{h.perAddress, strings.ToLower(c.from.String())},
		{h.perDomain, strings.ToLower(c.from.Domain)},
		{h.inAll, ""},
	} {
		if err := take(l.table, l.party); err != nil {
			return "", err
		}
	}
	return proof, nil
}

// take counts against a limit.
func take(table *rate.Table, party string) error {
	if wait, ok := table.Take(party, 1); !ok {
		return smtp.Errorf(451, smtp.Enhanced{4, 7, 1}, "there were too many; try again in %s", wait.Round(time.Second))
	}
	return nil
}

// crowd is what an address is limited by: what one party can have many of.
func crowd(a netip.Addr) string {
	if a = a.Unmap(); a.Is6() {
		if p, err := a.Prefix(48); err == nil {
			return p.String()
		}
	}
	return network(a)
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
func (s *session) forward(ctx context.Context, message []byte) error {
	if err := take(s.h.perNetwork, crowd(s.client)); err != nil {
		return err
	}
	header, err := readHeader(message)
	if err != nil {
		return smtp.Errorf(550, smtp.Enhanced{5, 6, 0}, "%v", err)
	}
	if len(values(header, "received")) > maxHops {
		return smtp.Errorf(554, smtp.Enhanced{5, 4, 6}, "it goes round in circles: more than %d hosts have passed it on", maxHops)
	}
	var m letterText
	m.line("Received: from %s ([%s])", printable(cut(s.conn.Hello())), s.client)
	m.line("\tby %s with %s; %s", s.h.site.mail(), s.conn.Protocol(false), s.h.now().UTC().Format(time.RFC1123Z))
	err = s.h.hand(ctx, s.h.o.Postmaster, append([]byte(m.String()), message...))
	switch {
	case errors.Is(err, errRefused):
		s.h.o.Log.Warn("lab host: the relay refuses mail for the postmaster", "err", err)
		return smtp.Errorf(550, smtp.Enhanced{5, 3, 0}, "the postmaster's server refuses it")
	case err != nil:
		s.h.o.Log.Warn("lab host: mail for the postmaster could not be handed on", "err", err)
		return smtp.Errorf(451, smtp.Enhanced{4, 4, 1}, "it cannot be handed on now")
	default:
		return nil
	}
}

// cut is what is kept of a client's name.
func cut(hello string) string { return hello[:min(len(hello), maxHello)] }
