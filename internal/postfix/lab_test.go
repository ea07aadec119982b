package postfix_test

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/postfix/postfixtest"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
	"github.com/pawl-mail/pawl/mtasts"
)

// mapAddr is where pawl's TLS policy map listens in the lab.
const mapAddr = "127.0.0.1:8461"

// inLab runs f in a network of its own that is the small Internet.
func inLab(t *testing.T, f func(l *lab)) {
	t.Helper()
	netns.Run(t, netns.Options{Resolver: netip.MustParseAddr("127.0.0.1")}, func() {
		l := &lab{T: t}
		l.Net = testnet.Start(t, testnet.Options{
			Clock: testnet.NewRealClock(), DNSListen: "127.0.0.1:53",
			Listen: func(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
				return new(net.ListenConfig).Listen(ctx, "tcp", addr.String())
			},
		})
		l.startPolicy()
		l.serve(l.engine)
		f(l)
	})
}

// lab is the small Internet with pawl's policy on it, and a Postfix that asks it.
type lab struct {
	*testing.T
	*testnet.Net
	postfix *postfixtest.Postfix
	engine  *policy.Engine
	server  *postfix.Server
	version postfix.Version
	heard   queries
	stop    func() // ends the TLS policy map
}

// startPolicy makes the real policy: its resolver, its fetcher, its database.
func (l *lab) startPolicy() {
	l.Helper()
	log := slog.New(slog.NewTextHandler(l.Output(), nil))
	r := resolve.New(resolve.Options{Upstreams: []string{l.DNSAddr()}, Now: l.Clock.Now, Log: log})
	l.Cleanup(r.Close)
	if v := r.CheckValidation(l.Context(), testnet.SignedName, testnet.BogusName); !v.Trusted {
		l.Fatalf("the resolver is not trusted: %+v", v)
	}
	e, err := policy.New(policy.Options{
		Resolver: r, Fetcher: &mtasts.Fetcher{Dial: l.Dial, Roots: l.Roots(), Now: l.Clock.Now},
		DB: dbtest.SQLite(l.T), Now: l.Clock.Now, After: l.Clock.After, Log: log, DANE: true, DiscoveryHold: 4 * time.Hour,
	})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := e.Close(context.WithoutCancel(l.Context())); err != nil {
			l.Error(err)
		}
	})
	l.engine = e
}

// serve starts the TLS policy map on what source says.
func (l *lab) serve(source postfix.Source) {
	l.Helper()
	listener, err := new(net.ListenConfig).Listen(l.Context(), "tcp", mapAddr)
	if err != nil {
		l.Fatal(err)
	}
	s := postfix.New(postfix.Options{Source: source, Log: slog.New(slog.NewTextHandler(l.Output(), nil)), After: time.After})
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, hearing{listener, &l.heard}) }()
	l.server = s
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.Errorf("Serve: %v", err)
		}
	})
	l.Cleanup(func() { l.stop() })
}

// start starts a Postfix with what main.cf needs according to pawl, and lines.
func (l *lab) start(s postfixtest.System, lines map[string]string) {
	l.Helper()
	l.version = version(l, s.Version)
	settings := map[string]string{}
	for _, s := range postfix.MainCF(l.version, mapAddr) {
		settings[s.Key] = s.Value
	}
	settings["smtp_tls_CAfile"] = "$config_directory/ca.pem"
	maps.Copy(settings, lines)
	l.postfix = postfixtest.Start(l.T, s, postfixtest.Options{Main: settings, Files: map[string][]byte{"ca.pem": l.RootsPEM()}})
}

// domain makes a mail domain whose hosts listen where real mail servers connect.
func (l *lab) domain(name string, o testnet.DomainOptions) *testnet.Domain {
	l.Helper()
	d := l.Domain(name, o)
	l.listen(d.Hosts()...)
	return d
}

func (l *lab) listen(hosts ...*testnet.Host) {
	l.Helper()
	for _, h := range hosts {
		if _, err := h.Listen(); err != nil {
			l.Fatal(err)
		}
	}
}

// listenFor makes the SMTP port of a name's addresses one that can be connected to.
func (l *lab) listenFor(name string) {
	l.Helper()
	addrs, err := net.DefaultResolver.LookupNetIP(l.Context(), "ip4", name)
	if err != nil {
		l.Fatal(err)
	}
	for _, a := range addrs {
		if _, err := l.Expose(netip.AddrPortFrom(a.Unmap(), 25)); err != nil {
			l.Fatal(err)
		}
	}
}

// queries is what Postfix asked the TLS policy map, in its words.
type queries struct {
	mu    sync.Mutex
	bytes strings.Builder
}

// asked reports whether a query was made.
func (q *queries) asked(query string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return strings.Contains(q.bytes.String(), frame(query))
}

// hearing is a listener whose connections are listened in on.
type hearing struct {
	net.Listener
	to *queries
}

func (h hearing) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return heardConn{c, h.to}, nil
}

type heardConn struct {
	net.Conn
	to *queries
}

func (c heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	c.to.bytes.Write(b[:n])
	return n, err
}
