package resolve

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestAQuestionAsksForAuthenticationAndRecursion(t *testing.T) {
	s := serve(t, map[string]reply{"example.com. TXT": {answer: []string{`example.com. 300 IN TXT "a"`}}})
	if _, err := ask(t, Options{}, s).TXT(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"flags: rd ad;", "flags: do; udp: 4096", "QUERY: 1"} {
		if q := s.query("udp"); !strings.Contains(q, want) {
			t.Errorf("the question has no %q:\n%s", want, q)
		}
	}
	if u := newUpstream("192.0.2.53:53"); u.udpSize != 1232 || u.loopback {
		t.Errorf("an upstream elsewhere is asked for %d bytes, loopback %v; want 1232, false", u.udpSize, u.loopback)
	}
}

func TestAnAnswerThatDoesNotFitIsFetchedByTCP(t *testing.T) {
	var answer []string
	for i := range 80 {
		answer = append(answer, fmt.Sprintf("example.com. 300 IN TXT %q", fmt.Sprintf("%03d %s", i, strings.Repeat("x", 200))))
	}
	s := serve(t, map[string]reply{"example.com. TXT": {answer: answer}})
	r := ask(t, Options{}, s)
	txt, err := r.TXT(t.Context(), "example.com")
	if err != nil || len(txt.Records) != 80 {
		t.Fatalf("got %d records, %v; want 80", len(txt.Records), err)
	}
	if st := r.Stats(); st.TCP != 1 || st.Queries != 1 {
		t.Errorf("%d questions, %d by TCP; want 1 and 1", st.Queries, st.TCP)
	}
}

func TestAnAnswerCutShortOverTCPIsNoAnswer(t *testing.T) {
	s := serve(t, map[string]reply{"example.com. TXT": {edit: func(m *dns.Msg) { m.Truncated = true }}})
	_, err := ask(t, Options{}, s).TXT(t.Context(), "example.com")
	if outcome(err) != "malformed" {
		t.Errorf("got %v, want malformed", err)
	}
}

// TestFalseAnswersArePassedOver sends false answers before the true one, as
// someone would who guesses at the question (RFC 5452 §9.1).
func TestFalseAnswersArePassedOver(t *testing.T) {
	lie := reply{answer: []string{"example.com. 300 IN MX 10 attacker.test."}}
	for name, edit := range map[string]func(*dns.Msg){
		"another id":         func(m *dns.Msg) { m.Id++ },
		"another name":       func(m *dns.Msg) { m.Question[0].Name = "example.net." },
		"a longer name":      func(m *dns.Msg) { m.Question[0].Name = "a.example.com." },
		"another type":       func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT },
		"another class":      func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"no question":        func(m *dns.Msg) { m.Question = nil },
		"two questions":      func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"a question as such": func(m *dns.Msg) { m.Response = false },
		"another opcode":     func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, map[string]reply{"example.com. MX": {raw: func(w dns.ResponseWriter, query *dns.Msg) {
				spoofed := lie.message(query)
				edit(spoofed)
				_ = w.WriteMsg(spoofed)
				_, _ = w.Write([]byte{0, 1, 2})
				_ = w.WriteMsg(reply{answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}.message(query))
			}}})
			r := ask(t, Options{}, s)
			mx, err := r.MX(t.Context(), "example.com")
			same(t, "MX", mx.Records, []MX{{10, "mx.example.com"}}, err)
			if st := r.Stats(); st.Strays != 2 || st.TCP != 0 {
				t.Errorf("%d false answers, %d by TCP; want 2, 0", st.Strays, st.TCP)
			}
		})
	}
}

func TestAFloodOfFalseAnswersSendsTheQuestionToTCP(t *testing.T) {
	s := serve(t, map[string]reply{"example.com. MX": {raw: func(w dns.ResponseWriter, query *dns.Msg) {
		if w.RemoteAddr().Network() == "udp" {
			for i := range 200 {
				m := reply{answer: []string{"example.com. 300 IN MX 10 attacker.test."}}.message(query)
				m.Id += uint16(i) + 1
				_ = w.WriteMsg(m)
			}
			return
		}
		_ = w.WriteMsg(reply{answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}.message(query))
	}}})
	r := ask(t, Options{}, s)
	mx, err := r.MX(t.Context(), "example.com")
	same(t, "MX", mx.Records, []MX{{10, "mx.example.com"}}, err)
	if st := r.Stats(); st.Strays != maxStray+1 || st.TCP != 1 {
		t.Errorf("%d false answers, %d by TCP; want %d, 1", st.Strays, st.TCP, maxStray+1)
	}
}

func TestTheNextUpstreamIsAskedWhereOneDoesNotHelp(t *testing.T) {
	for name, first := range map[string]reply{
		"SERVFAIL": {rcode: dns.RcodeServerFailure},
		"REFUSED":  {rcode: dns.RcodeRefused},
		"unreadable": {raw: func(w dns.ResponseWriter, q *dns.Msg) {
			raw, _ := q.Pack()
			raw[2] |= 0x80
			_, _ = w.Write(append(raw[:len(raw)-11], 1))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := serve(t, map[string]reply{"example.com. MX": first})
			b := serve(t, map[string]reply{"example.com. MX": {answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}})
			r := ask(t, Options{}, a, b)
			mx, err := r.MX(t.Context(), "example.com")
			same(t, "MX", mx.Records, []MX{{10, "mx.example.com"}}, err)
			if mx.Upstream != b.addr {
				t.Errorf("the answer is from %s, want %s", mx.Upstream, b.addr)
			}
			if st := r.Stats(); st.Queries != 2 || st.Retries != 1 {
				t.Errorf("%d questions, %d of them retries; want 2, 1", st.Queries, st.Retries)
			}
		})
	}
}

func TestOfSeveralFailuresTheMostTellingIsShown(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := pc.LocalAddr().String()
	pc.Close()
	s := serve(t, map[string]reply{"example.com. MX": {rcode: dns.RcodeServerFailure}})
	r := ask(t, Options{Upstreams: []string{closed}}, s)
	_, err = r.MX(t.Context(), "example.com")
	if outcome(err) != "servfail" || !strings.Contains(err.Error(), s.addr) {
		t.Errorf("got %v, want SERVFAIL of %s", err, s.addr)
	}
	if n := s.times("example.com. MX"); n != 1 {
		t.Errorf("the upstream that answered SERVFAIL was asked %d times, want once", n)
	}
	if n := r.Stats().Failures[ServFail]; n != 1 {
		t.Errorf("%d failures are counted as servfail, want 1", n)
	}
}

func TestASilentUpstreamCostsItsShareOfTheTimeAndIsThenAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Int32
		w := wire(func(ctx context.Context, _, addr string, query *dns.Msg) []*dns.Msg {
			if addr == "dead" {
				dead.Add(1)
				return silent(ctx)
			}
			return says(query, query.Question[0].Name+" 300 IN MX 10 mx.example.com.")
		})
		c := newClock()
		r := New(Options{Upstreams: []string{"dead", "alive"}, Dial: w.dial, Timeout: 4 * time.Second, Now: c.now})
		defer r.Close()
		for i := range 5 {
			start := time.Now()
			if _, err := r.MX(t.Context(), fmt.Sprintf("d%d.test", i)); err != nil {
				t.Fatal(err)
			}
			want := time.Second // a quarter: two upstreams, two rounds
			if i >= unwellAfter {
				want = 0
			}
			if took := time.Since(start); took != want {
				t.Errorf("lookup %d took %v, want %v", i, took, want)
			}
		}
		if n := dead.Load(); n != unwellAfter {
			t.Errorf("the silent upstream was asked %d times, want %d", n, unwellAfter)
		}
		c.advance(unwellFor) // it gets another chance
		if _, err := r.MX(t.Context(), "later.test"); err != nil || dead.Load() != unwellAfter+1 {
			t.Errorf("later the silent upstream was asked %d times (%v), want %d", dead.Load(), err, unwellAfter+1)
		}
	})
}

func TestALookupTakesNoLongerThanItsTimeoutInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		w := wire(func(ctx context.Context, _, _ string, query *dns.Msg) []*dns.Msg {
			// Each answer is one alias more, and takes its time.
			n := asked.Add(1)
			select {
			case <-time.After(700 * time.Millisecond):
			case <-ctx.Done():
			}
			return says(query, fmt.Sprintf("%s 300 IN CNAME n%d.test.", query.Question[0].Name, n))
		})
		r := New(Options{Upstreams: []string{"slow"}, Dial: w.dial, Timeout: 3 * time.Second, Retries: -1})
		defer r.Close()
		start := time.Now()
		_, err := r.MX(t.Context(), "start.test")
		if outcome(err) != "timeout" || time.Since(start) != 3*time.Second {
			t.Errorf("ended after %v with %v, want a timeout after 3s", time.Since(start), err)
		}
		if !strings.Contains(err.Error(), "MX start.test could not be looked up at slow: it is an alias of n4.test: no answer in time") {
			t.Errorf("the error is %q", err)
		}
	})
}

func TestASilentUpstreamIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		w := wire(func(ctx context.Context, _, _ string, query *dns.Msg) []*dns.Msg {
			if asked.Add(1) < 3 {
				return silent(ctx) // lost on the way
			}
			return says(query, "example.com. 300 IN MX 10 mx.example.com.")
		})
		r := New(Options{Upstreams: []string{"lossy"}, Dial: w.dial, Timeout: 3 * time.Second, Retries: 2})
		defer r.Close()
		start := time.Now()
		mx, err := r.MX(t.Context(), "example.com")
		same(t, "MX", mx.Records, []MX{{10, "mx.example.com"}}, err)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("it took %v, want 2s", took)
		}
	})
}

func BenchmarkUncachedMX(b *testing.B) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	raw, err := reply{answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}.message(new(dns.Msg).SetQuestion("example.com.", dns.TypeMX)).Pack()
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // the leanest upstream there can be
		defer close(ended)
		buf := make([]byte, 512)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(append(buf[:2:2], raw[2:]...), from)
		}
	}()
	r := New(Options{Upstreams: []string{pc.LocalAddr().String()}})
	ctx := Fresh(b.Context())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.MX(ctx, "example.com"); err != nil {
			b.Fatal(err)
		}
	}
	r.Close()
	pc.Close()
	<-ended
}

func TestSocketsAreUsedAgainOnLoopbackOnly(t *testing.T) {
	s := serve(t, map[string]reply{"example.com. MX": {answer: []string{"example.com. 300 IN MX 10 mx.example.com."}}})
	for addr, want := range map[string]int32{s.addr: 1, "192.0.2.53:53": 3} {
		var dials atomic.Int32
		dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, s.addr)
		}
		r := ask(t, Options{Upstreams: []string{addr}, Dial: dial})
		for range 3 {
			if _, err := r.MX(Fresh(t.Context()), "example.com"); err != nil {
				t.Fatal(err)
			}
		}
		if n := dials.Load(); n != want {
			t.Errorf("three questions to %s took %d sockets, want %d", addr, n, want)
		}
	}
}

func TestAnAnswerThatComesTwiceIsNotTakenForTheNext(t *testing.T) {
	twice := func(host string) reply {
		return reply{raw: func(w dns.ResponseWriter, query *dns.Msg) {
			m := reply{answer: []string{query.Question[0].Name + " 300 IN MX 10 " + host}}.message(query)
			_ = w.WriteMsg(m)
			_ = w.WriteMsg(m)
		}}
	}
	s := serve(t, map[string]reply{"a.test. MX": twice("mx.a.test."), "b.test. MX": twice("mx.b.test.")})
	r := ask(t, Options{}, s)
	for i := range 10 {
		name := []string{"a.test", "b.test"}[i%2]
		mx, err := r.MX(Fresh(t.Context()), name)
		same(t, name, mx.Records, []MX{{10, "mx." + name}}, err)
	}
	if r.Stats().Strays == 0 {
		t.Error("no second answer was seen")
	}
}
