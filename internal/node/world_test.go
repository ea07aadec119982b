package node_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// settings are a node's on free ports, in a folder of its own, that asks the
// small Internet's resolver and tries again soon.
func settings(t *testing.T, dns string) config.Config {
	t.Helper()
	c := config.Default()
	c.Hostname = "relay.pawl.test"
	c.Data = t.TempDir()
	c.DNS.Upstreams = []string{dns}
	c.DNS.Signed, c.DNS.Bogus = testnet.SignedName, testnet.BogusName
	c.Postfix.Listen, c.Web.Listen, c.Relay.Listen = "127.0.0.1:0", "127.0.0.1:0", []string{"127.0.0.1:0"}
	c.Relay.RetryFirst, c.Relay.RetryMax = config.Duration(time.Second), config.Duration(time.Second)
	return c
}

// start runs a node until the test ends, or stop is called.
func start(t *testing.T, c config.Config, w node.Wiring) (n *node.Node, stop func()) {
	t.Helper()
	if w.Log == nil {
		w.Log = slog.New(slog.DiscardHandler)
	}
	n, err := node.New(t.Context(), c, w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the node stopped with: %v", err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

// world is a small Internet in real time, with its wiring for a node.
func world(t *testing.T) (*testnet.Net, node.Wiring) {
	t.Helper()
	tn := testnet.Start(t, testnet.Options{Clock: testnet.NewRealClock()})
	return tn, node.Wiring{Dial: tn.Dial, Roots: tn.Roots(), Now: tn.Clock.Now, After: tn.Clock.After}
}

// verified reports whether a message reached the real host over TLS that proves it.
func verified(d testnet.Delivery) bool {
	return !d.Clear() && !d.ByAttacker && d.Trusted && d.TrueKey
}

// submit hands one message in and returns the server's last reply.
func submit(ctx context.Context, addr, from, to, subject string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(conn)
	said, err := reply(r)
	for _, line := range []string{"EHLO client.test", "MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA", "Subject: " + subject + "\r\n\r\nhello\r\n."} {
		if err != nil {
			return "", err
		}
		if said[0] != '2' && said[0] != '3' {
			return said, fmt.Errorf("refused: %s", said)
		}
		if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
			return "", err
		}
		said, err = reply(r)
	}
	if err == nil && said[0] != '2' {
		err = fmt.Errorf("refused: %s", said)
	}
	return said, err
}

func reply(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSpace(line), nil
		}
	}
}

// get fetches a page of the node.
func get(t *testing.T, n *node.Node, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + n.Addrs().Web + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// call asks the node over its control socket.
func call[R any](t *testing.T, n *node.Node, method string, params any) R {
	t.Helper()
	var result R
	if err := control.NewClient(n.Addrs().Control).Call(t.Context(), method, params, &result); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return result
}

// eventually polls for what another goroutine or process brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// exposed is the small Internet for another process: where each of its
// addresses is to be found on loopback.
type exposed struct {
	DNS   string
	Addrs map[string]string
	Roots []byte
}

func expose(t *testing.T, tn *testnet.Net) string {
	t.Helper()
	e := exposed{DNS: tn.DNSAddr(), Addrs: map[string]string{}, Roots: tn.RootsPEM()}
	for _, a := range tn.Served() {
		at, err := tn.Expose(a)
		if err != nil {
			t.Fatal(err)
		}
		e.Addrs[a.String()] = at
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wiring is the other process's side of expose.
func (e exposed) wiring() node.Wiring {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.Roots)
	return node.Wiring{Roots: roots, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := netip.MustParseAddrPort(addr)
		at, ok := e.Addrs[to.String()]
		switch {
		case to.Addr().IsLoopback(): // the resolver
			at = addr
		case !ok:
			return nil, fmt.Errorf("connecting to %s: nobody is there", addr)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, at)
	}}
}
