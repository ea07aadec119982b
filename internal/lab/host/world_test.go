package host

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/testnet"
)

// site is where the hosts of these tests are; they listen on loopback.
func site() Site {
	return Site{
		Domain: "lab.test", DNSSEC: true,
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.25")}, Clear: []netip.Addr{netip.MustParseAddr("192.0.2.26")},
	}
}

// answers is a resolver with a few answers.
type answers struct {
	txt map[string]string
	err error // for all else; nil: no such name
}

func (n answers) LookupTXT(_ context.Context, name string) ([]string, error) {
	if text, ok := n.txt[strings.TrimSuffix(name, ".")]; ok {
		return []string{text}, nil
	}
	if n.err != nil {
		return nil, n.err
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (n answers) LookupMX(context.Context, string) ([]*net.MX, error) { return nil, n.err }

func (n answers) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) { return nil, n.err }

func (n answers) LookupAddr(context.Context, string) ([]string, error) { return nil, n.err }

// world is a running host with a relay that takes its answers.
type world struct {
	testing.TB
	*Host
	net    *testnet.Net
	relay  *testnet.Host
	log    *bytes.Buffer
	at     map[netip.AddrPort]string // where what listens really
	cancel context.CancelFunc
	ended  chan error
}

// open starts a host; change may change its options.
func open(t testing.TB, change func(*Options)) *world {
	t.Helper()
	n := testnet.Start(t, testnet.Options{Clock: testnet.NewRealClock()})
	relay := n.Host("relay.test", testnet.HostOptions{})
	addr, err := n.Expose(netip.AddrPortFrom(relay.Addrs[0], smtpPort))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Site: site(), Data: t.TempDir(), Relay: addr, Postmaster: "me@elsewhere.test", Wait: time.Hour,
		Resolver: answers{txt: map[string]string{"sender.test": "v=spf1 ip4:127.0.0.1 -all"}},
	}
	if change != nil {
		change(&o)
	}
	return openIn(t, n, relay, o)
}

func openIn(t testing.TB, n *testnet.Net, relay *testnet.Host, o Options) *world {
	t.Helper()
	w := &world{TB: t, net: n, relay: relay, at: make(map[netip.AddrPort]string), ended: make(chan error, 1), log: new(bytes.Buffer)}
	var mu sync.Mutex
	pair, err := n.CA.Issue(testnet.CertOptions{Names: o.Names()})
	if err != nil {
		t.Fatal(err)
	}
	o.Certificates = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
	o.Log = slog.New(slog.NewTextHandler(&locked{mu: &mu, w: w.log}, nil))
	opened := make(chan struct{}, 10)
	o.Listen = func(ctx context.Context, want netip.AddrPort) (net.Listener, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err == nil {
			mu.Lock()
			w.at[want] = l.Addr().String()
			mu.Unlock()
		}
		opened <- struct{}{}
		return l, err
	}
	if w.Host, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { w.ended <- w.Run(ctx) }()
	for range 2*len(o.Addrs) + len(o.Clear) {
		<-opened
	}
	t.Cleanup(w.stop)
	return w
}

// stop ends the host, once.
func (w *world) stop() {
	w.cancel()
	if err, ok := <-w.ended; ok {
		close(w.ended)
		if err != nil {
			w.Error(err)
		}
	}
}

// locked is a writer for several goroutines.
type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// caller is a mail server that connects to a host of the lab.
type caller struct {
	*testnet.Caller
	w *world
}

// call connects to the hosts that offer STARTTLS, or to those that do not.
func (w *world) call(clear bool) *caller {
	w.Helper()
	addr := w.site.Addrs[0]
	if clear {
		addr = w.site.Clear[0]
	}
	conn, err := new(net.Dialer).DialContext(w.Context(), "tcp", w.at[netip.AddrPortFrom(addr, smtpPort)])
	if err != nil {
		w.Fatal(err)
	}
	c, _, err := testnet.NewCaller(conn)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	x := &caller{c, w}
	x.say("EHLO mail.sender.test")
	return x
}

func (c *caller) say(line string) string {
	c.w.Helper()
	reply, err := c.Say(line)
	if err != nil {
		c.w.Fatalf("%s: %v", line, err)
	}
	return reply
}

// startTLS runs the handshake with a host's name.
func (c *caller) startTLS(name string) (tls.ConnectionState, error) {
	c.w.Helper()
	state, err := c.Caller.StartTLS(c.w.Context(), &tls.Config{ServerName: name, RootCAs: c.w.net.Roots(), InsecureSkipVerify: name == "", MinVersion: tls.VersionTLS12})
	if err == nil {
		c.say("EHLO mail.sender.test")
	}
	return state, err
}

// send sends a message and returns the last reply.
func (c *caller) send(from string, to []string, header string) string {
	c.w.Helper()
	if reply := c.say("MAIL FROM:<" + from + ">"); reply[0] != '2' {
		return reply
	}
	for _, a := range to {
		if reply := c.say("RCPT TO:<" + a + ">"); reply[0] != '2' {
			return reply
		}
	}
	c.say("DATA")
	if err := c.Raw(header + "\r\nHello.\r\n"); err != nil {
		c.w.Fatal(err)
	}
	return c.say(".")
}

const somebody = "somebody@sender.test"

// begin begins a run and returns it, with the answer.
func (w *world) begin() (Run, *mail.Message) {
	w.Helper()
	if reply := w.call(false).send(somebody, []string{"start@lab.test"}, "From: <"+somebody+">\r\nTo: <start@lab.test>\r\n"); reply[0] != '2' {
		w.Fatal(reply)
	}
	m := w.letter("reply to this mail")
	list, err := m.Header.AddressList("Reply-To")
	if err != nil {
		w.Fatal(err)
	}
	token, _, _ := strings.Cut(list[0].Address, "@")
	r, ok := w.store.get(token)
	if !ok {
		w.Fatalf("there is no run %s", token)
	}
	return r, m
}

// letter waits for a mail with words in its subject.
func (w *world) letter(words string) *mail.Message {
	w.Helper()
	ctx, cancel := context.WithTimeoutCause(w.Context(), 20*time.Second, errors.New("no mail with "+words))
	defer cancel()
	d, err := w.net.Wait(ctx, func(d testnet.Delivery) bool {
		m, err := mail.ReadMessage(bytes.NewReader(d.Data))
		return d.Accepted && err == nil && strings.Contains(m.Header.Get("Subject"), words)
	})
	if err != nil {
		w.Fatalf("%v\n%s", err, w.log)
	}
	m, err := mail.ReadMessage(bytes.NewReader(d.Data))
	if err != nil {
		w.Fatal(err)
	}
	return m
}

func text(t testing.TB, m *mail.Message) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(m.Body); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(b.String(), "\r\n", "\n")
}
