package postfix_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a source with written-out answers; what it does not know is NOTFOUND.
type answers struct {
	mu     sync.Mutex
	known  map[string]*verify.Answer
	hosts  map[string]*verify.Answer
	asked  []string
	waitOn chan struct{} // a lookup blocks until this is closed, if set
}

func (a *answers) Cached(string) *verify.Answer { return nil }

func (a *answers) Postfix(_ context.Context, domain string) *verify.Answer {
	return a.look(a.known, domain)
}

func (a *answers) SmartHost(_ context.Context, host string) *verify.Answer {
	return a.look(a.hosts, host)
}

func (a *answers) NextHop(_ context.Context, name string, port uint16, isHost bool) *verify.Answer {
	if isHost {
		return a.look(a.hosts, fmt.Sprintf("%s:%d", name, port))
	}
	return a.look(a.known, fmt.Sprintf("%s:%d", name, port))
}

func (a *answers) look(in map[string]*verify.Answer, name string) *verify.Answer {
	a.mu.Lock()
	a.asked = append(a.asked, name)
	wait := a.waitOn
	a.mu.Unlock()
	if wait != nil {
		<-wait
	}
	if found := in[name]; found != nil {
		return found
	}
	return &verify.Answer{Domain: name}
}

var policyA = mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.a.test", "*.b.a.test"}, MaxAge: 604800 * time.Second}

func enforceA() *verify.Answer {
	return &verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure, Match: policyA.MX, Policy: &policyA}
}

func never(time.Duration) <-chan time.Time { return nil }

// start serves source on loopback until the test ends and returns a dialler.
func start(t *testing.T, source postfix.Source, after func(time.Duration) <-chan time.Time) (s *postfix.Server, dial func() net.Conn, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = postfix.New(postfix.Options{Source: source, Log: slog.New(slog.DiscardHandler), After: after})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c
	}, stop
}

func frame(query string) string { return fmt.Sprintf("%d:%s,", len(query), query) }

// read takes one netstring off r.
func read(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	size, err := r.ReadString(':')
	if err != nil {
		t.Fatalf("reading a reply: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil || b[n] != ',' {
		t.Fatalf("reading a reply: %q, %v", b, err)
	}
	return string(b[:n])
}

func TestRepliesInBothForms(t *testing.T) {
	many := make([]string, 3000)
	for i := range many {
		many[i] = fmt.Sprintf("mx-with-a-rather-long-name-%04d.a.test", i)
	}
	huge := mtasts.Policy{Mode: mtasts.Enforce, MX: many, MaxAge: time.Hour}
	some := mtasts.Policy{Mode: mtasts.Enforce, MX: many[:1000], MaxAge: time.Hour}
	failing := enforceA()
	failing.Failure = &outcome.Failure{Result: outcome.STSPolicyFetchError}

	for name, tc := range map[string]struct {
		answer            *verify.Answer
		plain, attributes string
	}{
		"nothing is demanded":       {&verify.Answer{}, "NOTFOUND ", "NOTFOUND "},
		"all hosts have TLSA":       {&verify.Answer{Kind: verify.AnswerDANEOnly}, "OK dane-only", "OK dane-only"},
		"some hosts have TLSA":      {&verify.Answer{Kind: verify.AnswerDANE}, "OK dane", "OK dane"},
		"an override lifts all":     {&verify.Answer{Kind: verify.AnswerMay}, "OK may", "OK may"},
		"an override wants TLS":     {&verify.Answer{Kind: verify.AnswerEncrypt}, "OK encrypt", "OK encrypt"},
		"mail waits":                {&verify.Answer{Kind: verify.AnswerTemp, Reason: "DNS of a.test:\nSERVFAIL"}, "TEMP DNS of a.test: SERVFAIL", "TEMP DNS of a.test: SERVFAIL"},
		"mail waits without reason": {&verify.Answer{Kind: verify.AnswerTemp}, "TEMP pawl gave no reason; see its log", "TEMP pawl gave no reason; see its log"},
		"mail waits for a long reason": {
			&verify.Answer{Kind: verify.AnswerTemp, Reason: strings.Repeat("x", 201)},
			"TEMP " + strings.Repeat("x", 197) + "...", "TEMP " + strings.Repeat("x", 197) + "...",
		},
		"an enforced policy": {
			enforceA(),
			"OK secure match=mx.a.test:.b.a.test servername=hostname",
			"OK secure match=mx.a.test:.b.a.test servername=hostname policy_type=sts policy_domain=a.test mx_host_pattern=mx.a.test mx_host_pattern=*.b.a.test" +
				" { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.a.test } { policy_string = mx: *.b.a.test } { policy_string = max_age: 604800 }",
		},
		"an enforced policy whose refresh fails is applied all the same": {
			failing,
			"OK secure match=mx.a.test:.b.a.test servername=hostname",
			"OK secure match=mx.a.test:.b.a.test servername=hostname policy_type=sts policy_domain=a.test mx_host_pattern=mx.a.test mx_host_pattern=*.b.a.test" +
				" { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.a.test } { policy_string = mx: *.b.a.test } { policy_string = max_age: 604800 }",
		},
		"an override's list has no policy to report": {
			&verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure, Match: []string{"mx.a.test"}},
			"OK secure match=mx.a.test servername=hostname", "OK secure match=mx.a.test servername=hostname",
		},
		"a host must not be used": {
			&verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure, Match: []string{"mx.a.test"}, Policy: &policyA},
			"OK secure match=mx.a.test servername=hostname",
			"OK secure match=mx.a.test servername=hostname policy_type=sts policy_domain=a.test mx_host_pattern=mx.a.test" +
				" { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.a.test } { policy_string = mx: *.b.a.test } { policy_string = max_age: 604800 }",
		},
		"no host may be used": {
			&verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure},
			"TEMP no MX host of a.test may be used; look at `pawl explain a.test`",
			"TEMP no MX host of a.test may be used; look at `pawl explain a.test`",
		},
		"a name that would end the list": {
			&verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure, Match: []string{"mx.a.test:evil servername=x"}},
			`TEMP "mx.a.test:evil servername=x" is not a name that an MX host of a.test can have; correct the override or ask the owner of the policy`,
			`TEMP "mx.a.test:evil servername=x" is not a name that an MX host of a.test can have; correct the override or ask the owner of the policy`,
		},
		"a policy too long for its attributes is still enforced": {
			&verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure, Match: some.MX, Policy: &some},
			"OK secure match=" + strings.Join(some.MX, ":") + " servername=hostname",
			"OK secure match=" + strings.Join(some.MX, ":") + " servername=hostname",
		},
		"a policy too long for Postfix holds the mail": {
			&verify.Answer{Domain: "a.test", Kind: verify.AnswerSecure, Match: huge.MX, Policy: &huge},
			"TEMP the policy of a.test names more MX hosts than Postfix takes in one reply; ask its owner to publish fewer patterns",
			"TEMP the policy of a.test names more MX hosts than Postfix takes in one reply; ask its owner to publish fewer patterns",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, dial, _ := start(t, &answers{known: map[string]*verify.Answer{"a.test": tc.answer}}, never)
			c := dial()
			r := bufio.NewReader(c)
			for query, want := range map[string]string{"pawl a.test": tc.plain, "pawl-tlsrpt a.test": tc.attributes} {
				fmt.Fprint(c, frame(query))
				if got := read(t, r); got != want {
					t.Errorf("%s: got %.300q\nwant %.300q", query, got, want)
				}
			}
		})
	}
}

func TestKeysAsPostfixWritesThem(t *testing.T) {
	source := &answers{
		known: map[string]*verify.Answer{"a.test": {Kind: verify.AnswerDANEOnly}, "xn--bcher-kva.test": {Kind: verify.AnswerDANEOnly}},
		hosts: map[string]*verify.Answer{"relay.a.test": {Kind: verify.AnswerDANE}, "relay.a.test:587": {Kind: verify.AnswerEncrypt}},
	}
	source.known["a.test:25"] = source.known["a.test"]
	_, dial, _ := start(t, source, never)
	c := dial()
	r := bufio.NewReader(c)
	for key, want := range map[string]string{
		"a.test":                           "OK dane-only",
		"A.Test":                           "OK dane-only",
		"a.test:25":                        "OK dane-only",
		"bücher.test":                      "OK dane-only",
		"[relay.a.test]":                   "OK dane",
		"[relay.a.test]:587":               "OK encrypt",
		"[relay.a.test]:submission":        "OK encrypt",
		"[relay.a.test]:25":                "NOTFOUND ",
		"[relay.a.test]:no-such-service":   "OK dane",
		"[relay.a.test]:":                  "OK dane",
		"[relay.a.test]:99999":             "OK dane",
		"a.test:587":                       "NOTFOUND ",
		"sub.a.test":                       "NOTFOUND ",
		".a.test":                          "NOTFOUND ",
		".test":                            "NOTFOUND ",
		"":                                 "NOTFOUND ",
		"192.0.2.1":                        "NOTFOUND ",
		"[192.0.2.1]":                      "NOTFOUND ",
		"[192.0.2.1]:25":                   "NOTFOUND ",
		"[ipv6:2001:db8::1]":               "NOTFOUND ",
		"[IPv6:2001:db8::1]:25":            "NOTFOUND ",
		"2001:db8::1":                      "NOTFOUND ",
		"[relay.a.test":                    "NOTFOUND ",
		"[relay.a.test]x":                  "NOTFOUND ",
		strings.Repeat("a", 300) + ".test": "NOTFOUND ",
	} {
		fmt.Fprint(c, frame("pawl "+key))
		if got := read(t, r); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
	for _, asked := range source.asked {
		if strings.HasPrefix(asked, ".") {
			t.Errorf("policy was asked about %q", asked)
		}
	}
}

func TestAnUnknownMapNameSaysWhichThereAre(t *testing.T) {
	_, dial, _ := start(t, &answers{}, never)
	c := dial()
	fmt.Fprint(c, frame("tlspol a.test"))
	if got := read(t, bufio.NewReader(c)); got != "PERM pawl has no map of this name; use pawl, or pawl-tlsrpt from Postfix 3.10 on" {
		t.Errorf("got %q", got)
	}
}

func TestQueriesArriveInAnyPieces(t *testing.T) {
	_, dial, _ := start(t, &answers{known: map[string]*verify.Answer{"a.test": enforceA()}}, never)
	c := dial()
	r := bufio.NewReader(c)
	long := strings.Repeat("x", 9000) // longer than the first buffer
	all := frame("pawl a.test") + frame("pawl "+long) + frame("pawl a.test")
	for i := range len(all) {
		if i < 40 || i > 9000 { // byte by byte at the edges
			fmt.Fprint(c, all[i:i+1])
		} else if i == 40 {
			fmt.Fprint(c, all[40:9001])
		}
	}
	const secure = "OK secure match=mx.a.test:.b.a.test servername=hostname"
	for i, want := range []string{secure, "NOTFOUND ", secure} {
		if got := read(t, r); got != want {
			t.Errorf("reply %d is %q", i, got)
		}
	}
}

func TestWhatIsNotSocketmapEndsTheConnectionAndIsCounted(t *testing.T) {
	for name, bytes := range map[string]string{
		"a negative length":      "-1:x,",
		"an endless length":      "99999999999999999999",
		"a length over the cap":  "10001:",
		"a length of nothing":    ":pawl a.test,",
		"a leading zero":         "011:pawl a.test,",
		"no comma at the end":    "11:pawl a.testX",
		"HTTP":                   "GET / HTTP/1.1\r\n\r\n",
		"a TLS handshake":        "\x16\x03\x01\x02\x00\x01",
		"a second, broken query": frame("pawl a.test") + "x",
	} {
		t.Run(name, func(t *testing.T) {
			s, dial, _ := start(t, &answers{}, never)
			c := dial()
			fmt.Fprint(c, bytes)
			io.Copy(io.Discard, c) // ends when the server closes
			if got := s.Stats().Malformed; got != 1 {
				t.Errorf("%d connections counted as malformed, want 1", got)
			}
		})
	}
}

func TestHalfAQueryIsCountedAndCostsNothingElse(t *testing.T) {
	s, dial, stop := start(t, &answers{known: map[string]*verify.Answer{"a.test": {Kind: verify.AnswerDANE}}}, never)
	half := dial()
	fmt.Fprint(half, "11:pawl a.")
	half.Close()
	c := dial()
	fmt.Fprint(c, frame("pawl a.test"))
	if got := read(t, bufio.NewReader(c)); got != "OK dane" {
		t.Errorf("got %q", got)
	}
	stop()
	if got := s.Stats().Malformed; got != 1 {
		t.Errorf("%d counted, want 1", got)
	}
}

func TestAQueryUnderWayIsAnsweredBeforeTheServerStops(t *testing.T) {
	source := &answers{known: map[string]*verify.Answer{"a.test": {Kind: verify.AnswerDANE}}, waitOn: make(chan struct{})}
	s, dial, stop := start(t, source, never)
	c, idle := dial(), dial()
	fmt.Fprint(c, frame("pawl a.test"))
	waitFor(t, func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		return len(source.asked) == 1 && s.Stats().Connections == 2
	})
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	io.Copy(io.Discard, idle) // the idle connection is closed at once
	close(source.waitOn)
	r := bufio.NewReader(c)
	if got := read(t, r); got != "OK dane" {
		t.Errorf("got %q", got)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the answer: %v, want the end of the connection", err)
	}
	<-stopped
}

func TestOnlyAConnectionIdleForAWholeIntervalIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := oneConn{conns: make(chan net.Conn, 2), gone: make(chan struct{})}
		var ends []net.Conn
		for range 2 {
			client, server := net.Pipe()
			ends = append(ends, client)
			l.conns <- server
		}
		s := postfix.New(postfix.Options{Source: &answers{}, Log: slog.New(slog.DiscardHandler), After: time.After})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		idle, active := ends[0], ends[1]
		r := bufio.NewReader(active)
		for begin := time.Now(); time.Since(begin) < 20*time.Minute; <-time.After(4 * time.Minute) {
			go fmt.Fprint(active, frame("pawl a.test"))
			if got := read(t, r); got != "NOTFOUND " {
				t.Errorf("the active connection: %q", got)
			}
		}
		if n, err := idle.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the idle connection: %v, want its end", err)
		}
		if got := s.Stats().Connections; got != 1 {
			t.Errorf("%d connections, want the active one", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A client that asks and never reads holds its own connection only: neither the
// sweep nor the end of the server waits for it.
func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	for name, stop := range map[string]bool{"by the sweep": false, "when the server stops": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe() // its Write ends only when the other end has read
				l := oneConn{conns: make(chan net.Conn, 1), gone: make(chan struct{})}
				l.conns <- server
				s := postfix.New(postfix.Options{Source: &answers{}, Log: slog.New(slog.DiscardHandler), After: time.After})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- s.Serve(ctx, l) }()
				fmt.Fprint(client, frame("pawl a.test"))
				synctest.Wait()
				if got := s.Stats().Connections; got != 1 {
					t.Fatalf("%d connections, want 1", got)
				}
				begin := time.Now()
				if stop {
					cancel()
				}
				io.Copy(io.Discard, slow{client, 20 * time.Minute})
				synctest.Wait()
				if got := s.Stats().Connections; got != 0 {
					t.Errorf("%d connections %s later, want 0", got, time.Since(begin))
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// slow is a client that looks at its connection only after a time.
type slow struct {
	net.Conn
	after time.Duration
}

func (c slow) Read(b []byte) (int, error) {
	<-time.After(c.after)
	return c.Conn.Read(b)
}

func TestTheServerOutlivesAShortageOfFileDescriptors(t *testing.T) {
	l := oneConn{conns: make(chan net.Conn, 1), gone: make(chan struct{}), errs: make(chan error, 2)}
	l.errs <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	l.errs <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ECONNABORTED)}
	now := make(chan time.Time)
	close(now)
	after := func(d time.Duration) <-chan time.Time {
		if d > time.Minute {
			return nil
		}
		return now
	}
	s := postfix.New(postfix.Options{Source: &answers{}, Log: slog.New(slog.DiscardHandler), After: after})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	client, server := net.Pipe()
	defer client.Close()
	waitFor(t, func() bool { return len(l.errs) == 0 })
	l.conns <- server
	go fmt.Fprint(client, frame("pawl a.test"))
	if got := read(t, bufio.NewReader(client)); got != "NOTFOUND " {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitFor polls a condition that another goroutine brings about.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(10 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("waited in vain")
		}
	}
}

func FuzzServer(f *testing.F) {
	f.Add([]byte(frame("pawl a.test")))
	f.Add([]byte("0:,1: ,2:a ,"))
	f.Add([]byte("9999:pawl ["))
	f.Add([]byte(frame("pawl-tlsrpt [a.test]:1") + "7:"))
	f.Fuzz(func(t *testing.T, input []byte) {
		client, server := net.Pipe()
		l := oneConn{conns: make(chan net.Conn, 1), gone: make(chan struct{})}
		l.conns <- server
		s := postfix.New(postfix.Options{Source: &answers{known: map[string]*verify.Answer{"a.test": enforceA()}}, Log: slog.New(slog.DiscardHandler), After: never})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		go func() { client.Write(input); client.Close() }()
		out, _ := io.ReadAll(client)
		cancel()
		<-done
		for r := bufio.NewReader(strings.NewReader(string(out))); ; {
			if _, err := r.Peek(1); err == io.EOF {
				break
			}
			if reply := read(t, r); !strings.HasPrefix(reply, "OK ") && !strings.HasPrefix(reply, "NOTFOUND ") && !strings.HasPrefix(reply, "PERM ") {
				t.Errorf("an odd reply: %q", reply)
			}
		}
	})
}

// oneConn is a listener of ready-made connections.
type oneConn struct {
	conns chan net.Conn
	errs  chan error // given first
	gone  chan struct{}
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

func (l oneConn) Close() error {
	select {
	case <-l.gone:
	default:
		close(l.gone)
	}
	return nil
}
func (l oneConn) Addr() net.Addr { return &net.TCPAddr{} }
