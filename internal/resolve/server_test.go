package resolve

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a recursive resolver on loopback that answers from a script.
type server struct {
	addr string

	mu    sync.Mutex
	zone  map[string]reply  // by "name type"
	asked map[string]int    // how often, by "name type"
	seen  map[string]string // the questions as they came, by network
}

// reply is what the server says to one question.
type reply struct {
	rcode  int
	ad     bool
	answer []string // records in presentation format
	ns     []string
	edit   func(*dns.Msg)                             // the last word on the message
	raw    func(w dns.ResponseWriter, query *dns.Msg) // in place of all else
}

const soa = "example.com. 600 IN SOA ns.example.com. hostmaster.example.com. 1 3600 600 86400 60"

func serve(t *testing.T, zone map[string]reply) *server {
	t.Helper()
	s := &server{zone: zone, asked: map[string]int{}, seen: map[string]string{}}
	pc, l := listenBoth(t)
	s.addr = pc.LocalAddr().String()
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = srv.Shutdown()
			<-ended
		})
	}
	return s
}

// listenBoth returns sockets for UDP and TCP on the same port.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (s *server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	q := query.Question[0]
	key := strings.ToLower(q.Name) + " " + dns.TypeToString[q.Qtype]
	s.mu.Lock()
	s.asked[key]++
	s.seen[w.RemoteAddr().Network()] = query.String()
	rep, ok := s.zone[key]
	s.mu.Unlock()
	if !ok {
		rep = reply{rcode: dns.RcodeNameError, ns: []string{soa}}
	}
	if rep.raw != nil {
		rep.raw(w, query)
		return
	}
	m := rep.message(query)
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(int(query.IsEdns0().UDPSize()))
	}
	_ = w.WriteMsg(m)
}

func (rep reply) message(query *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, rep.rcode)
	m.RecursionAvailable, m.AuthenticatedData = true, rep.ad
	m.Answer, m.Ns = records(rep.answer...), records(rep.ns...)
	if rep.edit != nil {
		rep.edit(m)
	}
	return m
}

func records(texts ...string) []dns.RR {
	var rrs []dns.RR
	for _, text := range texts {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

func (s *server) set(key string, rep reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone[key] = rep
}

// times returns how often a question was asked.
func (s *server) times(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key]
}

// query returns the last question that came over a network.
func (s *server) query(network string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[network]
}

// clock is a clock that the test moves.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanos.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// ask returns a resolver that asks the servers, and is closed with the test.
func ask(t *testing.T, o Options, servers ...*server) *Resolver {
	t.Helper()
	for _, s := range servers {
		o.Upstreams = append(o.Upstreams, s.addr)
	}
	r := New(o)
	t.Cleanup(r.Close)
	return r
}

// wire is an upstream without sockets, for tests in a synctest bubble: it gets
// every query and writes as many messages in reply as it likes.
type wire func(ctx context.Context, network, addr string, query *dns.Msg) []*dns.Msg

// dial returns a connection to the wire, on which each Write is a message.
func (f wire) dial(_ context.Context, network, addr string) (net.Conn, error) {
	client, far := net.Pipe()
	go func() {
		defer far.Close()
		buf := make([]byte, 64<<10)
		n, err := far.Read(buf)
		if err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(buf[:n]) != nil {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		gone := make(chan struct{})
		go func() { // the client hangs up
			defer close(gone)
			_, _ = io.Copy(io.Discard, far)
			cancel()
		}()
		for _, m := range f(ctx, network, addr, query) {
			raw, err := m.Pack()
			if err != nil {
				break
			}
			_, _ = far.Write(raw)
		}
		<-gone
	}()
	return client, nil
}

// silent waits until the client hangs up.
func silent(ctx context.Context) []*dns.Msg {
	<-ctx.Done()
	return nil
}

func says(query *dns.Msg, answer ...string) []*dns.Msg {
	return []*dns.Msg{reply{answer: answer}.message(query)}
}
