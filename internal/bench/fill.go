package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/mtasts"
)

const (
	fillDomains = 2000 // of one round
	fillRounds  = 5
	fillConns   = 16
)

// work is what a round came to: how many a second, and the processor time of each,
// both ends of the connections counted.
type work struct{ rate, cpu float64 }

// fill measures how fast an empty cache fills: discovery over DNS and HTTPS of
// domains with MTA-STS, against bare GETs of the same files over fresh TLS
// sessions from the same server, round by round in turn.
func fill(ctx context.Context, out *report) error {
	world, err := newFillWorld(fillDomains)
	if err != nil {
		return err
	}
	defer world.close()
	var fills, gets series
	for i := range fillRounds + 1 {
		sides := []func() error{
			func() error { return fills.add(world.fillOnce(ctx)) },
			func() error { return gets.add(world.getOnce(ctx)) },
		}
		if i%2 == 1 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			if err := side(); err != nil {
				return err
			}
		}
		if i == 0 { // the first warms everything up
			fills, gets = series{}, series{}
		}
	}
	out.figure("fill/16/rate", median(fills.rates), "domains/s", medianRatio(fills.rates, gets.rates),
		fmt.Sprintf("bare fresh-TLS GETs of the same files: %.0f", median(gets.rates)))
	out.figure("fill/16/cpu", median(fills.cpus), "µs/domain", medianRatio(fills.cpus, gets.cpus),
		fmt.Sprintf("a bare GET's %.0f, servers included", median(gets.cpus)))
	return nil
}

func (s *series) add(w work, err error) error {
	s.rates, s.cpus = append(s.rates, w.rate), append(s.cpus, w.cpu)
	return err
}

// fillWorld is a resolver and a policy host for many domains.
type fillWorld struct {
	domains []string
	dns     *dns.Server
	dnsAddr string
	https   *http.Server
	webAddr string
	roots   *x509.CertPool
	rootPEM []byte
	served  atomic.Int64
}

func newFillWorld(n int) (*fillWorld, error) {
	w := &fillWorld{roots: x509.NewCertPool()}
	for i := range n {
		w.domains = append(w.domains, fmt.Sprintf("d%05d.test", i))
	}
	if err := w.serveDNS(); err != nil {
		return nil, err
	}
	if err := w.serveHTTPS(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *fillWorld) close() {
	// Both end with the process in any case.
	_ = w.dns.Shutdown()
	if w.https != nil {
		_ = w.https.Close()
	}
}

// serveDNS answers a record for each _mta-sts name and an address for each
// policy host.
func (w *fillWorld) serveDNS() error {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.dnsAddr = pc.LocalAddr().String()
	w.dns = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 300}
		switch {
		case head.Rrtype == dns.TypeTXT && strings.HasPrefix(head.Name, "_mta-sts."):
			m.Answer = []dns.RR{&dns.TXT{Hdr: head, Txt: []string{"v=STSv1; id=20260601;"}}}
		case head.Rrtype == dns.TypeA && strings.HasPrefix(head.Name, "mta-sts."):
			m.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)}}
		default:
			m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300}, Ns: "ns.test.", Mbox: "h.test.", Minttl: 300}}
		}
		_ = rw.WriteMsg(m) // who asked asks again
	})}
	go func() { _ = w.dns.ActivateAndServe() }()
	return nil
}

// serveHTTPS serves each domain's policy under a certificate of its own, all of
// one ECDSA key, issued ahead.
func (w *fillWorld) serveHTTPS() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	w.roots.AddCert(root)
	w.rootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certs := map[string]*tls.Certificate{}
	for i, d := range w.domains {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), DNSNames: []string{mtasts.PolicyHost(d)},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if der, err = x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key); err != nil {
			return err
		}
		certs[mtasts.PolicyHost(d)] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return certs[h.ServerName], nil },
	})
	if err != nil {
		return err
	}
	w.webAddr = l.Addr().String()
	w.https = &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.served.Add(1)
			rw.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(rw, "version: STSv1\r\nmode: enforce\r\nmx: mx."+strings.TrimPrefix(r.Host, "mta-sts.")+"\r\nmax_age: 604800\r\n")
		}),
	}
	go func() { _ = w.https.Serve(l) }()
	return nil
}

// dial takes every policy host to the one server.
func (w *fillWorld) dial(r *resolve.Resolver) func(context.Context, string, string) (net.Conn, error) {
	var d net.Dialer
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if r != nil {
			host, _, _ := net.SplitHostPort(addr)
			if _, err := r.Addrs(ctx, host); err != nil {
				return nil, err
			}
		}
		return d.DialContext(ctx, network, w.webAddr)
	}
}

// each calls one for every domain, from as many goroutines as Postfix would
// have connections, and returns how many a second there were.
func (w *fillWorld) each(one func(domain string) error, last func() error) (work, error) {
	runtime.GC()
	used, err := processor()
	if err != nil {
		return work{}, err
	}
	w.served.Store(0)
	next := atomic.Int64{}
	var wait sync.WaitGroup
	errs := make([]error, fillConns)
	start := time.Now()
	for i := range fillConns {
		wait.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(w.domains) {
					return
				}
				errs[i] = one(w.domains[n])
			}
		})
	}
	wait.Wait()
	errs = append(errs, last())
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return work{}, err
	}
	if n := w.served.Load(); n != int64(len(w.domains)) {
		return work{}, fmt.Errorf("fill: %d policies were served for %d domains", n, len(w.domains))
	}
	after, err := processor()
	n := float64(len(w.domains))
	return work{n / took.Seconds(), float64((after - used).Microseconds()) / n}, err
}

// fillOnce fills an empty cache over an empty database, until all is stored.
func (w *fillWorld) fillOnce(ctx context.Context) (work, error) {
	dir, err := os.MkdirTemp("", "pawl-bench-")
	if err != nil {
		return work{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := db.Open(ctx, db.Options{DataDir: dir, Now: time.Now})
	if err != nil {
		return work{}, err
	}
	defer func() { _ = store.Close() }()
	r := resolve.New(resolve.Options{Upstreams: []string{w.dnsAddr}, Now: time.Now})
	defer r.Close()
	e, err := policy.New(policy.Options{
		Resolver: r, Fetcher: &mtasts.Fetcher{Dial: w.dial(r), Roots: w.roots}, DB: store, DiscoveryHold: 4 * time.Hour,
	})
	if err != nil {
		return work{}, err
	}
	defer func() { _ = e.Close(ctx) }()
	return w.each(func(domain string) error {
		a, err := e.STS(ctx, domain)
		if err == nil && !a.STS.Found {
			err = fmt.Errorf("fill: no policy was found for %s", domain)
		}
		return err
	}, func() error { return e.Flush(ctx) })
}

// getOnce fetches the same files and does nothing with them.
func (w *fillWorld) getOnce(ctx context.Context) (work, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: w.dial(nil), TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableKeepAlives: true,
	}}
	return w.each(func(domain string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, mtasts.PolicyURL(domain), http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}, func() error { return nil })
}
