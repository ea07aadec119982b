package dane_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/pawl-mail/pawl/dane"
)

// program returns the path of a program that a test needs. Without it the test is
// skipped, but in CI a real-server test that is skipped has failed.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/bin", "/usr/local/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed; install bind9, bind9-utils and unbound", name)
	}
	t.Skipf("%s is not installed; install bind9, bind9-utils and unbound", name)
	return ""
}

// lockedBuffer collects what a server logs while it runs.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// freePort returns a loopback port that is free for UDP and TCP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		p, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			p.Close()
			return port
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return 0
}

// serve starts a DNS server that listens on a port of its own, waits until it
// answers probe with a success, and ends it with the test. A port may be taken
// between its choice and its use; then another is tried.
func serve(t *testing.T, probe dns.Question, command func(port int) *exec.Cmd) (addr string, log *lockedBuffer) {
	t.Helper()
	for range 5 {
		port := freePort(t)
		addr, log = fmt.Sprintf("127.0.0.1:%d", port), new(lockedBuffer)
		cmd := command(port)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait() // its end is what counts
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			<-ended
		})
		if answers(t, addr, probe, ended) {
			return addr, log
		}
	}
	t.Fatalf("the server does not start:\n%s", log)
	return "", nil
}

// answers polls a server until it answers, or has ended. The wait is bounded.
func answers(t *testing.T, addr string, probe dns.Question, ended <-chan struct{}) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	m := new(dns.Msg)
	m.Question = []dns.Question{probe}
	m.RecursionDesired = true
	client := dns.Client{Timeout: time.Second}
	for {
		m.Id = dns.Id()
		if reply, _, err := client.ExchangeContext(ctx, m, addr); err == nil && reply.Rcode == dns.RcodeSuccess && len(reply.Answer) > 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// stub is a dane.Resolver that asks a validating resolver and takes its word,
// the AD bit.
type stub struct{ addr string }

// lookup asks for one type, and returns the answer of that type (the CNAMEs that
// led there left out), the name that has it, and whether it is authentic.
func (s stub) lookup(ctx context.Context, name string, qtype uint16) (rrs []dns.RR, owner string, authentic bool, err error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	m.AuthenticatedData = true // RFC 6840 §5.7: tell us
	client := dns.Client{Timeout: 20 * time.Second}
	reply, _, err := client.ExchangeContext(ctx, m, s.addr)
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, m, s.addr)
	}
	if err != nil {
		return nil, "", false, err
	}
	authentic = reply.AuthenticatedData
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, "", false, fmt.Errorf("%s %s: %s", name, dns.TypeToString[qtype], dns.RcodeToString[reply.Rcode])
	}
	rrs = slices.DeleteFunc(reply.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype != qtype })
	if len(rrs) == 0 {
		return nil, "", authentic, &dane.NotFound{Authentic: authentic, TTL: time.Minute}
	}
	return rrs, rrs[0].Header().Name, authentic, nil
}

func (s stub) LookupAddr(ctx context.Context, host string) (dane.AddrAnswer, error) {
	answer := dane.AddrAnswer{Authentic: true, TTL: time.Minute}
	var none error
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		rrs, owner, authentic, err := s.lookup(ctx, host, qtype)
		answer.Authentic = answer.Authentic && authentic
		if nf := new(dane.NotFound); errors.As(err, &nf) {
			none = err
			continue
		}
		if err != nil {
			return dane.AddrAnswer{}, err
		}
		answer.Canonical = owner
		for _, rr := range rrs {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if a, ok := netip.AddrFromSlice(ip); ok {
				answer.Addrs = append(answer.Addrs, a.Unmap())
			}
		}
	}
	if len(answer.Addrs) == 0 {
		return dane.AddrAnswer{}, none
	}
	return answer, nil
}

func (s stub) LookupTLSA(ctx context.Context, name string) (dane.TLSAAnswer, error) {
	rrs, _, authentic, err := s.lookup(ctx, name, dns.TypeTLSA)
	if err != nil {
		return dane.TLSAAnswer{}, err
	}
	answer := dane.TLSAAnswer{Authentic: authentic, TTL: time.Minute}
	for _, rr := range rrs {
		tlsa := rr.(*dns.TLSA)
		r, err := dane.ParseRecord(fmt.Sprintf("%d %d %d %s", tlsa.Usage, tlsa.Selector, tlsa.MatchingType, tlsa.Certificate))
		if err != nil {
			return dane.TLSAAnswer{}, err
		}
		answer.Records = append(answer.Records, r)
	}
	return answer, nil
}

func (s stub) LookupCNAME(ctx context.Context, name string) (dane.CNAMEAnswer, error) {
	rrs, _, authentic, err := s.lookup(ctx, name, dns.TypeCNAME)
	if err != nil {
		return dane.CNAMEAnswer{}, err
	}
	return dane.CNAMEAnswer{Target: rrs[0].(*dns.CNAME).Target, Authentic: authentic, TTL: time.Minute}, nil
}
