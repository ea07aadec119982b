package testnet

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	maxRequests  = 10_000   // remembered of one site
	maxBody      = 10 << 20 // kept of one request
	readHeadTime = 30 * time.Second
)

// Request is one HTTP request that a site got.
type Request struct {
	At     time.Time
	Method string
	Path   string
	Header http.Header
	Body   []byte
	TLS    uint16 // version
}

// Site is an HTTPS host: a policy host, a collector of reports, or whatever a
// test serves. Clients are told apart by SNI, so that a site has its own
// certificate even where sites share an address.
type Site struct {
	Name  string
	Addrs []netip.Addr

	n       *Net
	handler http.Handler
	key     *ecdsa.PrivateKey // nil: one that the CA keeps
	came    broadcast

	mu       sync.Mutex
	requests []Request
	count    int
	dials    int
	faults   []*SiteFault
	certs    certs
}

// Site makes an HTTPS host with its address in the DNS. An existing one gets
// the handler.
func (n *Net) Site(name string, h http.Handler) *Site {
	name = canonical(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sites[name]; s != nil {
		s.setHandler(h)
		return s
	}
	s := &Site{Name: name, Addrs: n.addrs.honest(false), n: n, handler: h}
	n.sites[name] = s
	for _, a := range s.Addrs {
		n.wire.serve(netip.AddrPortFrom(a, httpsPort), name, n.web.handler(n.site))
	}
	n.DNS.SetAddrs(name, s.Addrs...)
	return s
}

// site finds the site of a name.
func (n *Net) site(name string) *Site {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sites[canonical(name)]
}

// Requests returns the requests the site got.
func (s *Site) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count returns how many requests the site got.
func (s *Site) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Handshakes returns how many TLS handshakes with the site's name were begun.
func (s *Site) Handshakes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// WaitCount waits until the site got n requests in all.
func (s *Site) WaitCount(ctx context.Context, n int) error {
	for {
		came := s.came.wait()
		if s.Count() >= n {
			return nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Listen opens a loopback listener for the site, for programs that cannot be
// given [Net.Dial].
func (s *Site) Listen() (string, error) { return s.n.Expose(s.ports()[0]) }

func (s *Site) ports() []netip.AddrPort {
	ports := make([]netip.AddrPort, len(s.Addrs))
	for i, a := range s.Addrs {
		ports[i] = netip.AddrPortFrom(a, httpsPort)
	}
	return ports
}

func (s *Site) setHandler(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

// greet returns the configuration for one handshake.
func (s *Site) greet() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	var fault SiteFault
	if len(s.faults) > 0 {
		fault = *s.faults[len(s.faults)-1]
	}
	c := s.n.tlsConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.certs.get(string(fault.Flaw), s.n.Clock.Now(), fault.Flaw == NoFlaw, func() (tls.Certificate, error) {
			return s.n.flawed(s.Name, fault.Flaw, CertOptions{Key: s.key})
		})
	})
	c.MaxVersion = fault.MaxTLS
	return c
}

func (s *Site) record(r *http.Request) http.Handler {
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxBody))
	r.Body = io.NopCloser(bytes.NewReader(body)) // for the handler
	s.mu.Lock()
	s.count++
	s.requests = capped(append(s.requests, Request{
		At: s.n.Clock.Now(), Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header, Body: body, TLS: r.TLS.Version,
	}), maxRequests)
	h := s.handler
	if len(s.faults) > 0 {
		h = s.faults[len(s.faults)-1].handler(s.n, h)
	}
	s.mu.Unlock()
	s.came.send()
	return h
}

// webServer serves every site.
type webServer struct {
	n       *Net
	server  *http.Server
	conns   chan net.Conn
	done    chan struct{}
	serving sync.WaitGroup
	once    sync.Once
}

type sessionKey struct{}

func newWebServer(n *Net) *webServer {
	w := &webServer{n: n, conns: make(chan net.Conn), done: make(chan struct{})}
	w.server = &http.Server{
		Handler:           http.HandlerFunc(w.handle),
		ReadHeaderTimeout: readHeadTime,
		ErrorLog:          log.New(io.Discard, "", 0), // handshakes fail here by design
		BaseContext:       func(net.Listener) context.Context { return n.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				if v, ok := t.NetConn().(*visit); ok {
					return context.WithValue(ctx, sessionKey{}, v)
				}
			}
			return ctx
		},
	}
	w.serving.Go(func() { _ = w.server.Serve(w) })
	return w
}

// visit is a connection to a site, and the session it is part of.
type visit struct {
	net.Conn
	find   func(name string) *Site
	s      *Session
	closed chan struct{}
	once   sync.Once
}

func (v *visit) Close() error {
	defer v.once.Do(func() { close(v.closed) })
	return v.Conn.Close()
}

// handler serves connections to an address at which find knows the sites.
func (w *webServer) handler(find func(name string) *Site) handler {
	return func(_ context.Context, s *Session, c net.Conn) { w.serve(s, c, find) }
}

// serve gives a connection to the HTTP server and waits for its end.
func (w *webServer) serve(s *Session, c net.Conn, find func(name string) *Site) {
	v := &visit{Conn: c, find: find, s: s, closed: make(chan struct{})}
	config := w.n.tlsConfig(nil)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		s.say("sender", s.Host, false, "(hello for "+hello.ServerName+")")
		site := find(hello.ServerName)
		if site == nil { // without SNI, or for a name nobody has: the default certificate
			return w.n.tlsConfig(w.defaultCertificate), nil
		}
		return site.greet(), nil
	}
	select {
	case w.conns <- tls.Server(v, config):
		<-v.closed
	case <-w.done:
	}
}

func (w *webServer) defaultCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := w.n.flawed(wrongName, SNIDefault, CertOptions{})
	return &c, err
}

func (w *webServer) handle(rw http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	v, ok := r.Context().Value(sessionKey{}).(*visit)
	if !ok {
		http.NotFound(rw, r)
		return
	}
	v.s.say("sender", v.s.Host, true, r.Method+" https://"+host+r.URL.RequestURI())
	site := v.find(host)
	if site == nil {
		http.NotFound(rw, r)
		return
	}
	if h := site.record(r); h != nil {
		h.ServeHTTP(rw, r)
		return
	}
	http.NotFound(rw, r)
}

// Accept, Close and Addr make webServer the net.Listener of its HTTP server.
func (w *webServer) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (w *webServer) Close() error {
	w.once.Do(func() { close(w.done) })
	return nil
}

// Addr is nowhere: connections come from the wire.
func (w *webServer) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: httpsPort} }

func (w *webServer) close() {
	_ = w.server.Close()
	_ = w.Close()
	w.serving.Wait()
}
