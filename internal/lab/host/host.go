package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/rate"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

// DefaultWait is how long after the first mail the verdict is sent: a sender has
// tried again by then.
const DefaultWait = 30 * time.Minute

const (
	smtpPort  = 25
	httpsPort = 443
	stopTime  = 10 * time.Second

	// Connections to one address of the host at a time, and of them from one client.
	maxConnections = 500
	maxPerClient   = 30
)

// Options say what a host needs. All but Roots, Wait, Listen, Ready, Log and Now
// must be given.
type Options struct {
	Site
	Data         string // folder
	Relay        string // HOST:PORT that takes the answers, from the null sender
	Postmaster   string // who gets the mail for postmaster@ and abuse@
	Certificates Certificates
	Roots        *x509.CertPool // by which senders are thought to judge them; nil: the system's
	Resolver     Resolver
	Wait         time.Duration // 0: DefaultWait
	// Listen opens a listener, at port 25 or 443; nil: on this machine.
	Listen func(context.Context, netip.AddrPort) (net.Listener, error)
	Ready  func() // called when everything listens; nil: nobody is told
	Log    *slog.Logger
	Now    func() time.Time
}

// Host runs the receivers.
type Host struct {
	o      Options
	site   Site
	now    func() time.Time
	key    Key
	store  *store
	visits visits
	tests  map[string]Test  // by domain
	places map[string]place // by the host's name
	woken  chan struct{}
	claims chan struct{} // has one element for each return path being proven
	tidied time.Time     // post's own
	unlock func() error  // of the data folder

	perAddress, perDomain, perNetwork, inAll *rate.Table
}

// New returns a host, with the runs that its data folder has. The folder is the
// process's own until [Host.Run] returns.
func New(o Options) (*Host, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if _, port, err := net.SplitHostPort(o.Relay); err != nil || port == "" {
		return nil, fmt.Errorf("the relay %q is not of the form HOST:PORT", o.Relay)
	}
	postmaster, err := smtp.ParseMailbox(o.Postmaster, false)
	if err != nil || postmaster.Domain == "" {
		return nil, fmt.Errorf("the postmaster's address %q: %w", o.Postmaster, errors.Join(err, errNeeded))
	}
	if o.Wait <= 0 {
		o.Wait = DefaultWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Listen == nil {
		o.Listen = func(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr.String())
		}
	}
	h := &Host{
		o: o, site: o.Site, now: o.Now, places: o.places(), tests: make(map[string]Test), woken: make(chan struct{}, 1), claims: make(chan struct{}, maxClaims),
		perAddress: rate.New(perAddress(), o.Now), perDomain: rate.New(perDomain(), o.Now),
		perNetwork: rate.New(perNetwork(), o.Now), inAll: rate.New(inAll(), o.Now),
	}
	if h.ours(strings.ToLower(postmaster.Domain)) {
		return nil, fmt.Errorf("the postmaster's address %s is on the host itself; it must be elsewhere", o.Postmaster)
	}
	tests, _ := o.Tests()
	for _, t := range tests {
		h.tests[o.domainOf(t)] = t
	}
	if h.unlock, err = db.Lock(o.Data); err != nil {
		return nil, err
	}
	if h.key, err = OpenKey(o.Data); err == nil {
		h.store, err = openStore(o.Data, o.Log)
	}
	if err != nil {
		return nil, errors.Join(err, h.unlock())
	}
	for _, r := range h.store.all() {
		h.visits.watch(r)
	}
	return h, nil
}

var errNeeded = errors.New("an address with a domain is needed")

// Run runs the host until ctx ends, and returns what kept it from running. It is
// called once.
func (h *Host) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, h.unlock()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	shown, err := newFaces(h.site, h.key, h.o.Certificates, h.now())
	if err != nil {
		return err
	}
	var running []chan struct{}
	start := func(f func() error) {
		done := make(chan struct{})
		running = append(running, done)
		go func() {
			defer close(done)
			if err := f(); err != nil {
				cancel(err)
			}
		}()
	}
	defer func() {
		cancel(nil)
		for _, done := range running {
			<-done
		}
	}()
	for _, open := range []func(context.Context, *faces) ([]func() error, error){h.mailHosts, h.clearHosts, h.policyHosts} {
		serve, err := open(ctx, shown)
		for _, f := range serve {
			start(f)
		}
		if err != nil {
			return err
		}
	}
	if h.o.Ready != nil {
		h.o.Ready()
	}
	start(func() error {
		h.post(ctx)
		return nil
	})
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// mailHosts opens the hosts that offer STARTTLS.
func (h *Host) mailHosts(ctx context.Context, f *faces) ([]func() error, error) {
	o := h.serverOptions(false)
	o.TLS = f.mail(h.places, func(p place, hello *tls.ClientHelloInfo) {
		if addr, err := netip.ParseAddrPort(hello.Conn.RemoteAddr().String()); err == nil {
			h.visits.note(addr.Addr().Unmap(), p.test.Name, beganTLS, h.now())
		}
	})
	return h.serveMail(ctx, o, h.site.Addrs)
}

// clearHosts opens those that do not.
func (h *Host) clearHosts(ctx context.Context, _ *faces) ([]func() error, error) {
	return h.serveMail(ctx, h.serverOptions(true), h.site.Clear)
}

func (h *Host) serverOptions(clear bool) server.Options {
	return server.Options{
		Hostname: h.site.mail(), Backend: &backend{h: h, clear: clear}, Log: h.o.Log,
		Limits: server.Limits{Size: MaxSize, Recipients: maxRcpts, Connections: maxConnections, PerClient: maxPerClient},
	}
}

func (h *Host) serveMail(ctx context.Context, o server.Options, addrs []netip.Addr) (serve []func() error, err error) {
	for _, a := range addrs {
		l, err := h.o.Listen(ctx, netip.AddrPortFrom(a, smtpPort))
		if err != nil {
			return serve, fmt.Errorf("opening the mail host: %w", err)
		}
		s, err := server.New(o)
		if err != nil {
			l.Close()
			return serve, err
		}
		serve = append(serve, func() error { return s.Serve(ctx, l) })
	}
	return serve, nil
}

// policyHosts opens the policy hosts, at every address that a certificate may have
// to be proven at.
func (h *Host) policyHosts(ctx context.Context, f *faces) (serve []func() error, err error) {
	config, err := f.web(h.site, h.key, h.o.Certificates, h.now())
	if err != nil {
		return nil, err
	}
	for _, a := range h.site.Addrs {
		l, err := h.o.Listen(ctx, netip.AddrPortFrom(a, httpsPort))
		if err != nil {
			return serve, fmt.Errorf("opening the policy host: %w", err)
		}
		w := &http.Server{
			Handler: h.web(), TLSConfig: config.Clone(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(h.o.Log.Handler(), slog.LevelDebug),
		}
		serve = append(serve, func() error { return serveWeb(ctx, w, l) })
	}
	return serve, nil
}

// serveWeb serves until ctx ends.
func serveWeb(ctx context.Context, w *http.Server, l net.Listener) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if w.Shutdown(end) != nil {
			_ = w.Close()
		}
	})
	err := w.ServeTLS(l, "", "")
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// warmAtOnce is how many certificates are got at a time.
const warmAtOnce = 8

// Warm gets every certificate, so that no sender waits for one, and says of each
// that it cannot get, or that this machine's CAs do not vouch for, why. It returns
// how many these are, or when ctx ends, even if a CA does not answer.
func (h *Host) Warm(ctx context.Context) (bad int) {
	var failed atomic.Int32
	var g errgroup.Group
	g.SetLimit(warmAtOnce)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range h.site.Names() {
			g.Go(func() error {
				if ctx.Err() == nil && !h.warm(ctx, name) {
					failed.Add(1)
				}
				return nil
			})
		}
		_ = g.Wait() // what went wrong was said
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return int(failed.Load())
}

func (h *Host) warm(ctx context.Context, name string) bool {
	c, err := certificateFor(h.o.Certificates, name)
	if err == nil {
		err = vouched(c, name, h.o.Roots, h.now())
	}
	if err != nil && ctx.Err() == nil {
		h.o.Log.Error("lab host: a host has no certificate that senders will accept; its tests say nothing of them", "host", name, "err", err)
	}
	return err == nil
}

// vouched reports whether a CA vouches for a certificate.
func vouched(c *tls.Certificate, name string, roots *x509.CertPool, now time.Time) error {
	between := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		link, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(link)
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// MakeData makes the data folder.
func MakeData(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("the lab's data folder: %w", err)
	}
	return nil
}
