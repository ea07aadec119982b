package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/smtp/server"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// sink is pawl's own SMTP server, which offers all it can and throws mail away.
type sink struct {
	addr  string
	ca    *testnet.CA
	cert  atomic.Pointer[tls.Certificate]
	conns atomic.Int64
	taken atomic.Int64
}

const sinkName = "mx.sink.test"

func newSink(tb testing.TB) *sink {
	tb.Helper()
	s := &sink{}
	var err error
	if s.ca, err = testnet.NewCA("Sink", time.Now); err != nil {
		tb.Fatal(err)
	}
	s.renew(tb)
	srv, err := server.New(server.Options{
		Hostname: sinkName, Backend: s, TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.cert.Load(), nil
		}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, l) }()
	tb.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			tb.Error(err)
		}
	})
	return s
}

// renew gives the sink another certificate, with another key.
func (s *sink) renew(tb testing.TB) {
	tb.Helper()
	cert, err := s.ca.Issue(testnet.CertOptions{Names: []string{sinkName}})
	if err != nil {
		tb.Fatal(err)
	}
	s.cert.Store(&cert)
}

func (s *sink) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.Root)
	return pool
}

func (s *sink) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.conns.Add(1)
	return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
}

func (s *sink) NewSession(context.Context, *server.Conn) (server.Session, error) { return s, nil }
func (s *sink) Mail(context.Context, smtp.Mail) error                            { return nil }
func (s *sink) Rcpt(context.Context, smtp.Rcpt) error                            { return nil }
func (s *sink) Reset()                                                           {}
func (s *sink) Close()                                                           {}
func (s *sink) Data(_ context.Context, b *server.Body) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, b)
	s.taken.Add(1)
	return smtp.Reply{}, err
}

// fixed is a policy that says the same of every destination: mode enforce, and
// one host.
type fixed struct {
	policy mtasts.Policy
	change func(*verify.Host)
}

func enforced() *fixed {
	return &fixed{policy: mtasts.Policy{Mode: mtasts.Enforce, MX: []string{sinkName, "*.backup.sink.test"}, MaxAge: 7 * 24 * time.Hour}}
}

func (f *fixed) Destination(_ context.Context, domain string) (verify.Destination, error) {
	return verify.Destination{
		Domain: domain, Source: verify.FromSTS, MX: []resolve.MX{{Preference: 10, Host: sinkName}},
		STS: verify.STS{Domain: domain, Found: true, Policy: f.policy},
	}, nil
}

func (f *fixed) DestinationFresh(ctx context.Context, domain string) (verify.Destination, error) {
	return f.Destination(ctx, domain)
}

func (f *fixed) Via(ctx context.Context, host string, port uint16, _, _ bool) (verify.Destination, error) {
	d, err := f.Destination(ctx, host)
	d.Port = port
	return d, err
}

func (f *fixed) Host(_ context.Context, d verify.Destination, mx string) verify.Host {
	h := verify.Host{
		Name: mx, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})},
		Demand: verify.Demand{
			Host: mx, Domain: d.Domain, Level: verify.Authenticated, EnforceSTS: true, MXSecure: true, Cell: "2/absent/enforce",
			STS: &verify.STSDemand{PolicyDomain: d.Domain, Policy: f.policy, Matched: true},
		},
	}
	if f.change != nil {
		f.change(&h)
	}
	return h
}

func (s *sink) deliverer(tb testing.TB, p Policies, told func(context.Context, outcome.Attempt)) *Deliverer {
	tb.Helper()
	d := New(Options{
		Policies: p, Dial: s.dial, Roots: s.roots(), Now: time.Now, Hostname: "relay.pawl.test", Port: 25,
		Log: slog.New(slog.DiscardHandler), Outcomes: told,
	})
	tb.Cleanup(d.Close)
	return d
}

func TestATicketOfAnOldCertificateIsNotHeldAgainstTheHost(t *testing.T) {
	s := newSink(t)
	// What is wrong with the first certificate is in the past once it is renewed.
	good := s.cert.Load()
	bad, err := s.ca.Issue(testnet.CertOptions{Names: []string{"other.sink.test"}})
	if err != nil {
		t.Fatal(err)
	}
	s.cert.Store(&bad)
	var told []outcome.Attempt
	testing1 := &fixed{policy: mtasts.Policy{Mode: mtasts.Testing, MX: []string{sinkName}}, change: func(h *verify.Host) {
		h.Demand.Level, h.Demand.EnforceSTS = verify.Opportunistic, false
	}}
	d := s.deliverer(t, testing1, func(_ context.Context, a outcome.Attempt) { told = append(told, a) })
	send := func() queue.Try {
		t.Helper()
		r := d.deliver(t.Context(), letter{domain: "a.test"}.mail())
		if r.Recipients[0].State != queue.Delivered {
			t.Fatalf("%+v", r)
		}
		d.Forget()
		return r.Story.Tries[0]
	}
	send()
	s.cert.Store(good)
	send()
	if got := results(told); !slices.Equal(got, []string{"sts certificate-host-mismatch", "sts ok"}) {
		t.Errorf("reported %q", got)
	}
	// The connection that resumed the old session was one more.
	if n := s.conns.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestChunkingSendsAMessageInOneRoundTrip(t *testing.T) {
	s := newSink(t)
	d := s.deliverer(t, enforced(), func(context.Context, outcome.Attempt) {})
	for i := range 3 {
		r := d.deliver(t.Context(), letter{domain: "a.test"}.mail())
		if try := r.Story.Tries[0]; r.Recipients[0].State != queue.Delivered || try.Reused != (i > 0) || try.Transport != outcome.Verified {
			t.Errorf("message %d: %+v", i, r)
		}
	}
	if s.taken.Load() != 3 || s.conns.Load() != 1 {
		t.Errorf("%d messages over %d connections", s.taken.Load(), s.conns.Load())
	}
}

// The last gate before mail goes out does not trust what led to it.
func TestNoMailGoesOverAConnectionInClearWhereTLSIsDemanded(t *testing.T) {
	s := newSink(t)
	p := enforced()
	d := s.deliverer(t, p, func(context.Context, outcome.Attempt) {})
	conn, err := s.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(conn, client.Options{Hello: "relay.pawl.test"})
	if err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	dest, _ := p.Destination(t.Context(), "a.test")
	h := p.Host(t.Context(), dest, sinkName)
	d.pool.give(&session{c: c, demand: h.Demand, addr: h.Addrs[0], opened: time.Now(), verdict: verify.Verdict{Pass: true}})
	r := d.deliver(t.Context(), letter{domain: "a.test"}.mail())
	if got := fate(letter{domain: "a.test"}, r); got != "deferred" || s.taken.Load() != 0 {
		t.Errorf("%s: %+v, %d taken", got, r, s.taken.Load())
	}
	if !strings.Contains(r.Why, "without TLS") || r.DestinationDown {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsKeptIsEndedWithoutFurtherMail(t *testing.T) {
	s := newSink(t)
	d := s.deliverer(t, enforced(), func(context.Context, outcome.Attempt) {})
	now := time.Now()
	d.pool.now = func() time.Time { return now }
	d.deliver(t.Context(), letter{domain: "a.test"}.mail())
	if d.pool.kept != 1 || d.pool.tidy == nil {
		t.Fatalf("%d kept", d.pool.kept)
	}
	d.pool.sweep()
	if d.pool.kept != 1 || d.pool.tidy == nil {
		t.Errorf("%d kept after a look in time", d.pool.kept)
	}
	now = now.Add(idleTime)
	d.pool.sweep()
	if d.pool.kept != 0 || len(d.pool.idle) != 0 || d.pool.tidy != nil {
		t.Errorf("%d kept after their time", d.pool.kept)
	}
}

func TestOnlySoManyConnectionsAreKept(t *testing.T) {
	s := newSink(t)
	d := s.deliverer(t, enforced(), func(context.Context, outcome.Attempt) {})
	for range maxIdle + 5 {
		near, far := net.Pipe()
		defer far.Close()
		near.Close()
		d.pool.give(&session{c: client.New(near, client.Options{}), demand: verify.Demand{Host: "a"}, opened: time.Now()})
	}
	if d.pool.kept != maxIdle {
		t.Errorf("%d kept", d.pool.kept)
	}
}

// unsure is a policy that cannot say anything.
type unsure struct {
	*fixed
	err error
	mx  []resolve.MX
}

func (u unsure) Destination(context.Context, string) (verify.Destination, error) {
	return verify.Destination{Domain: "a.test", MX: u.mx}, u.err
}

func TestWhatPolicyCannotSayIsTriedAgain(t *testing.T) {
	s := newSink(t)
	bare := enforced()
	bare.change = func(h *verify.Host) { h.Addrs = nil }
	for name, c := range map[string]struct {
		p   Policies
		why string
	}{
		"an error":              {unsure{enforced(), errors.New("the policy engine was closed"), nil}, "the policy engine was closed"},
		"no host":               {unsure{enforced(), nil, nil}, "a.test has no MX host that could be tried"},
		"a host and no address": {bare, sinkName + " has no address"},
	} {
		d := s.deliverer(t, c.p, func(context.Context, outcome.Attempt) {})
		r := d.deliver(t.Context(), letter{domain: "a.test"}.mail())
		if got := fate(letter{domain: "a.test"}, r); got != "deferred" || r.Why != c.why || r.Do == "" || !r.DestinationDown {
			t.Errorf("%s: %s, %+v", name, got, r)
		}
	}
}
