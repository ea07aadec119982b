package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// message is what an inbox took.
type message struct {
	mail     smtp.Mail
	rcpts    []smtp.Rcpt
	body     string
	whole    bool // it was there as a whole
	protocol string
	user     string
	helo     string
	client   string
}

// inbox is a backend that takes everything, unless told otherwise.
type inbox struct {
	onSession func(c *Conn) error
	onMail    func(ctx context.Context, m smtp.Mail) error
	onRcpt    func(r smtp.Rcpt) error
	onData    func(ctx context.Context, b *Body) (smtp.Reply, error)

	mu       sync.Mutex
	messages []message
	sessions int
	open     int
	resets   int
}

func (in *inbox) NewSession(_ context.Context, c *Conn) (Session, error) {
	if in.onSession != nil {
		if err := in.onSession(c); err != nil {
			return nil, err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sessions++
	in.open++
	return &inboxSession{in: in, c: c}, nil
}

func (in *inbox) taken() []message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]message(nil), in.messages...)
}

type inboxSession struct {
	in *inbox
	c  *Conn
	m  message
}

func (s *inboxSession) Mail(ctx context.Context, m smtp.Mail) error {
	if s.in.onMail != nil {
		if err := s.in.onMail(ctx, m); err != nil {
			return err
		}
	}
	s.m = message{mail: m, protocol: s.c.Protocol(m.UTF8), user: s.c.User(), helo: s.c.Hello(), client: s.c.Client().String()}
	return nil
}

func (s *inboxSession) Rcpt(_ context.Context, r smtp.Rcpt) error {
	if s.in.onRcpt != nil {
		if err := s.in.onRcpt(r); err != nil {
			return err
		}
	}
	s.m.rcpts = append(s.m.rcpts, r)
	return nil
}

func (s *inboxSession) Data(ctx context.Context, b *Body) (smtp.Reply, error) {
	if s.in.onData != nil {
		return s.in.onData(ctx, b)
	}
	var body bytes.Buffer
	if _, err := io.Copy(&body, b); err != nil {
		return smtp.Reply{}, err
	}
	s.m.body = body.String()
	_, s.m.whole = b.Bytes()
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.messages = append(s.in.messages, s.m)
	return smtp.Reply{}, nil
}

func (s *inboxSession) Reset() {
	s.m = message{}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.resets++
}

func (s *inboxSession) Close() {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.open--
}

// running is a server that a test started.
type running struct {
	*Server
	t    testing.TB
	addr string
	in   *inbox
}

// start runs a server on loopback until the test ends.
func start(t testing.TB, in *inbox, change func(*Options)) *running {
	t.Helper()
	return startBy(t, (*Server).Serve, in, change)
}

// startBy is start with the method that serves.
func startBy(t testing.TB, serve func(*Server, context.Context, net.Listener) error, in *inbox, change func(*Options)) *running {
	t.Helper()
	if in == nil {
		in = &inbox{}
	}
	o := Options{Hostname: "mx.example.com", Backend: in}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(s, ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.open != 0 {
			t.Errorf("%d sessions were not closed", in.open)
		}
	})
	return &running{Server: s, t: t, addr: l.Addr().String(), in: in}
}

func (r *running) dial() *smtptest.Client {
	r.t.Helper()
	return smtptest.Dial(r.t, r.addr)
}

// talk plays a transcript on a new connection; see [smtptest.Client.Talk].
func (r *running) talk(script string) *smtptest.Client {
	r.t.Helper()
	c := r.dial()
	c.Talk(script)
	return c
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "mx.example.com"},
		DNSNames:     []string{"mx.example.com"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func withTLS(o *Options) {
	o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}
}

// bodies returns the bodies that the server took.
func (r *running) bodies() []string {
	var all []string
	for _, m := range r.in.taken() {
		all = append(all, m.body)
	}
	return all
}
