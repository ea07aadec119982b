package main

import (
	"bufio"
	"bytes"
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
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// The addresses that the domains of [relayWorld] have their MX hosts at, all on
// the same port.
const (
	sinkTLS    = "127.0.0.2"
	sinkPlain  = "127.0.0.3"
	refusing   = "127.0.0.4" // nobody listens
	blackHoled = "127.0.0.5" // no SYN is answered
)

// The domains. Those that cannot be reached are many: dNNNNN.refused.test.
const (
	domainTLS    = "tls.test" // MTA-STS in mode enforce
	domainPlain  = "plain.test"
	zoneRefused  = "refused.test"
	zoneHole     = "hole.test"
	relayPolicy  = "version: STSv1\r\nmode: enforce\r\nmx: mx." + domainTLS + "\r\nmax_age: 604800\r\n"
	sinkGreeting = "220 sink.test ESMTP\r\n"
)

// relayWorld is the Internet of the relay's benchmarks, in a process of its own:
// a DNS, the policy host of [domainTLS], a sink that takes mail over TLS, one
// that takes it in clear, and an address that swallows connections. It prints
// "DNS POLICY-HOST PORT" and puts ca.pem into the folder that it is given.
//
// "count" is answered with how many messages came; "wait N NANOSECONDS" with how
// many there are once there are N of them, or the time is over, and when the last
// one came.
type relayWorld struct {
	got arrivals
	tls *tls.Config
}

func relayWorldRole(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("relay-world FOLDER")
	}
	w := &relayWorld{}
	w.got.changed.L = &w.got.mu
	if err := w.certify(args[0]); err != nil {
		return err
	}
	var lc net.ListenConfig
	sink, err := lc.Listen(ctx, "tcp", sinkTLS+":0")
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(sink.Addr().String())
	plain, err := lc.Listen(ctx, "tcp", net.JoinHostPort(sinkPlain, port))
	if err != nil {
		return err
	}
	web, err := listenLoopback(ctx)
	if err != nil {
		return err
	}
	resolver, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fill, err := blackHole(net.JoinHostPort(blackHoled, port))
	if err != nil {
		return err
	}
	defer fill()
	go w.take(sink, w.tls)
	go w.take(plain, nil)
	go w.policyHost(web)
	go func() {
		_ = (&dns.Server{PacketConn: resolver, Handler: dns.HandlerFunc(answerRelayDNS)}).ActivateAndServe()
	}()
	return attend(fmt.Sprint(resolver.LocalAddr(), " ", web.Addr(), " ", port), func(line string) (string, error) {
		var n int64
		var patience time.Duration
		switch _, err := fmt.Sscanf(line, "wait %d %d", &n, (*int64)(&patience)); {
		case line == "count":
			return w.got.await(0, 0), nil
		case err == nil:
			return w.got.await(n, patience), nil
		}
		return nothing(line)
	})
}

// certify makes a CA and one certificate for every host there is.
func (w *relayWorld) certify(folder string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"mx." + domainTLS, "mta-sts." + domainTLS},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	if err != nil {
		return err
	}
	w.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return os.WriteFile(folder+"/ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600)
}

func (w *relayWorld) policyHost(l net.Listener) {
	s := &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(rw, relayPolicy)
		}),
	}
	_ = s.Serve(tls.NewListener(l, w.tls.Clone())) // until the process ends
}

// answerRelayDNS answers for every domain there is.
func answerRelayDNS(rw dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	name := strings.ToLower(q.Question[0].Name)
	head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 3600}
	host := strings.HasPrefix(name, "mx.")
	switch {
	case head.Rrtype == dns.TypeA && host:
		m.Answer = []dns.RR{&dns.A{Hdr: head, A: net.ParseIP(relayAddr(name))}}
	case head.Rrtype == dns.TypeA && name == "mta-sts."+domainTLS+".":
		m.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)}}
	case head.Rrtype == dns.TypeTXT && name == "_mta-sts."+domainTLS+".":
		m.Answer = []dns.RR{&dns.TXT{Hdr: head, Txt: []string{"v=STSv1; id=1;"}}}
	case head.Rrtype == dns.TypeMX && !host:
		m.Answer = []dns.RR{&dns.MX{Hdr: head, Preference: 10, Mx: "mx." + name}}
	default:
		if strings.HasPrefix(name, "_") || strings.HasPrefix(name, "mta-sts.") {
			m.Rcode = dns.RcodeNameError
		}
		m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 3600}, Ns: "ns.test.", Mbox: "h.test.", Minttl: 3600}}
	}
	_ = rw.WriteMsg(m) // who asked asks again
}

func relayAddr(host string) string {
	switch {
	case strings.HasSuffix(host, "."+domainTLS+"."):
		return sinkTLS
	case strings.HasSuffix(host, "."+zoneRefused+"."):
		return refusing
	case strings.HasSuffix(host, "."+zoneHole+"."):
		return blackHoled
	default:
		return sinkPlain
	}
}

// blackHole makes an address at which no connection comes about: the kernel
// drops what exceeds a full queue of connections that nobody accepts.
func blackHole(addr string) (end func(), err error) {
	to, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	at := &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	if err := errors.Join(syscall.Bind(fd, at), syscall.Listen(fd, 0)); err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	var open []net.Conn
	end = func() {
		for _, c := range open {
			c.Close()
		}
		_ = syscall.Close(fd)
	}
	for { // until one is not answered
		c, err := net.DialTimeout("tcp", addr, time.Second/2)
		if err != nil {
			return end, nil //nolint:nilerr // that is what is wanted
		}
		open = append(open, c)
	}
}

// arrivals counts messages.
type arrivals struct {
	mu      sync.Mutex
	changed sync.Cond
	n       int64
	last    time.Time
}

func (a *arrivals) add() {
	a.mu.Lock()
	a.n++
	a.last = time.Now()
	a.mu.Unlock()
	a.changed.Broadcast()
}

// await waits until n messages have come, or for a time.
func (a *arrivals) await(n int64, patience time.Duration) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	over := false
	timer := time.AfterFunc(patience, func() {
		a.mu.Lock()
		over = true
		a.mu.Unlock()
		a.changed.Broadcast()
	})
	defer timer.Stop()
	for a.n < n && !over {
		a.changed.Wait()
	}
	return fmt.Sprint(a.n, a.last.UnixNano())
}

// take is the sink: it takes every message and keeps none.
func (w *relayWorld) take(l net.Listener, secure *tls.Config) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			s := &sink{conn: c, secure: secure, got: &w.got}
			defer func() { s.conn.Close() }()
			s.speak()
		}()
	}
}

// sink is one connection to it.
type sink struct {
	conn   net.Conn
	secure *tls.Config // nil: TLS is not offered, or has begun
	got    *arrivals
	r      *bufio.Reader
	w      *bufio.Writer
}

func (s *sink) renew() {
	s.r, s.w = bufio.NewReaderSize(s.conn, 32<<10), bufio.NewWriter(s.conn)
}

// speak answers commands, those of a pipeline with one write.
func (s *sink) speak() {
	s.renew()
	_, _ = s.w.WriteString(sinkGreeting)
	for {
		if s.r.Buffered() == 0 && s.w.Flush() != nil {
			return
		}
		line, err := s.r.ReadSlice('\n')
		if err != nil || len(line) < 6 {
			return
		}
		if !s.answer(strings.ToUpper(string(line[:4]))) {
			_ = s.w.Flush()
			return
		}
	}
}

func (s *sink) answer(verb string) bool {
	reply := "250 2.0.0 ok\r\n"
	switch verb {
	case "EHLO":
		reply = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n"
		if s.secure != nil {
			reply += "250-STARTTLS\r\n"
		}
		reply += "250 SIZE 52428800\r\n"
	case "STAR":
		_, _ = s.w.WriteString("220 2.0.0 go ahead\r\n")
		if s.w.Flush() != nil || s.secure == nil {
			return false
		}
		secure := tls.Server(s.conn, s.secure)
		s.conn, s.secure = secure, nil
		s.renew()
		return true
	case "DATA":
		_, _ = s.w.WriteString("354 go ahead\r\n")
		if s.w.Flush() != nil || !s.content() {
			return false
		}
		s.got.add()
	case "QUIT":
		reply = "221 2.0.0 bye\r\n"
	}
	_, _ = s.w.WriteString(reply)
	return verb != "QUIT"
}

// content reads up to the line with the dot.
func (s *sink) content() bool {
	for {
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return false
		}
		if len(line) == 3 && bytes.Equal(line, []byte(".\r\n")) {
			return true
		}
	}
}
