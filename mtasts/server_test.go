package mtasts_test

import (
	"bufio"
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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/mtasts"
)

// today is the day on which the tests' fetches take place.
var today = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return today }

const policyHost = "mta-sts.example.com"

// authority is a certificate authority of a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	template := authorityTemplate(name)
	key := newKey(t)
	return &authority{t, sign(t, template, template, &key.PublicKey, key), key}
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: today.AddDate(-5, 0, 0), NotAfter: today.AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// intermediate returns an authority below this one.
func (a *authority) intermediate(name string, change func(*x509.Certificate)) *authority {
	a.t.Helper()
	template := authorityTemplate(name)
	change(template)
	key := newKey(a.t)
	return &authority{a.t, sign(a.t, template, a.cert, &key.PublicKey, a.key), key}
}

// issue returns a server's certificate, valid for the policy host unless the
// change makes it otherwise, and sends the given authorities' along.
func (a *authority) issue(change func(*x509.Certificate), along ...*authority) tls.Certificate {
	a.t.Helper()
	template := serverTemplate()
	change(template)
	key := newKey(a.t)
	chain := [][]byte{sign(a.t, template, a.cert, &key.PublicKey, a.key).Raw}
	for _, other := range along {
		chain = append(chain, other.cert.Raw)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key}
}

func serverTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a server"}, DNSNames: []string{policyHost},
		NotBefore: today.AddDate(0, -1, 0), NotAfter: today.AddDate(0, 1, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func unchanged(*x509.Certificate) {}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// host is a policy host on loopback.
type host struct {
	addr string

	mu          sync.Mutex
	requests    []string // as they came
	serverNames []string // of SNI
}

func (h *host) seen() (requests, serverNames []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests, h.serverNames
}

// serve starts a policy host that reads a request and hands the connection to
// respond, which is closed after it. It ends with the test.
func serve(t testing.TB, config *tls.Config, respond func(conn *tls.Conn)) *host {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{addr: listener.Addr().String()}
	config = config.Clone()
	config.Time = clock
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.serverNames = append(h.serverNames, hello.ServerName)
		return nil, nil
	}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				conn := tls.Server(raw, config)
				defer conn.Close()
				request, err := readRequest(conn)
				if err != nil {
					return
				}
				h.mu.Lock()
				h.requests = append(h.requests, request)
				h.mu.Unlock()
				respond(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		connections.Wait()
	})
	return h
}

func readRequest(r io.Reader) (string, error) {
	lines := bufio.NewReader(r)
	var request strings.Builder
	for {
		line, err := lines.ReadString('\n')
		request.WriteString(line)
		if err != nil || line == "\r\n" {
			return request.String(), err
		}
	}
}

// says returns a respond function that writes a text.
func says(text string) func(*tls.Conn) {
	return func(conn *tls.Conn) { io.WriteString(conn, text) }
}

const (
	okPolicy = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"
	okHeader = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 68\r\n"
	okAnswer = okHeader + "\r\n" + okPolicy
)

// dialTo returns a dialler that leads to the host, whatever the name.
func dialTo(h *host) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, h.addr)
	}
}

func (a *authority) fetcher(h *host) *mtasts.Fetcher {
	return &mtasts.Fetcher{Dial: dialTo(h), Roots: a.pool(), Now: clock}
}

// answering returns a host with a good certificate and a Fetcher that leads to it.
func answering(t testing.TB, respond func(*tls.Conn)) (*host, *mtasts.Fetcher) {
	t.Helper()
	ca := newAuthority(t, "test root")
	h := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(unchanged)}}, respond)
	return h, ca.fetcher(h)
}
