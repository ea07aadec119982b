package server

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
)

func behindProxy(o *Options) { o.ProxyNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

const v2TCP4 = proxySignature + "\x21\x11\x00\x0f" + "\xc0\x00\x02\x01" + "\xc0\x00\x02\x02" + "\x13\x88\x00\x19" + "\x04\x00\x00"

func TestAProxyHeaderNamesTheClient(t *testing.T) {
	v6 := "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	for _, tt := range []struct{ name, header, client, local string }{
		{"version 1, IPv4", "PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n", "192.0.2.1:5000", "192.0.2.2:25"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 5000 25\r\n", "[2001:db8::1]:5000", "[2001:db8::2]:25"},
		{"version 1, the load balancer itself", "PROXY UNKNOWN\r\n", "127.0.0.1", "127.0.0.1"},
		{"version 1, unknown with addresses", "PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n", "127.0.0.1", "127.0.0.1"},
		{"version 2, IPv4, with a field", v2TCP4, "192.0.2.1:5000", "192.0.2.2:25"},
		{"version 2, IPv6", proxySignature + "\x21\x21\x00\x24" + v6 + v6 + "\x13\x88\x00\x19", "[2001:db8::1]:5000", "[2001:db8::1]:25"},
		{"version 2, the load balancer itself", proxySignature + "\x20\x00\x00\x00", "127.0.0.1", "127.0.0.1"},
		{"version 2, unspecified", proxySignature + "\x21\x00\x00\x00", "127.0.0.1", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var client, local string
			in := &inbox{onSession: func(c *Conn) error {
				client, local = c.Client().String(), c.Local().String()
				return nil
			}}
			c := start(t, in, behindProxy).dial()
			c.Send([]byte(tt.header))
			c.Talk(hello)
			if !strings.HasPrefix(client, tt.client) || !strings.HasPrefix(local, tt.local) {
				t.Errorf("client %s, local %s; want %s, %s", client, local, tt.client, tt.local)
			}
		})
	}
}

func TestAConnectionOfALoadBalancerMustBeginWithAGoodHeader(t *testing.T) {
	for name, header := range map[string]string{
		"none":                         "EHLO client.example\r\n",
		"a word too few":               "PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
		"a family that does not fit":   "PROXY TCP4 2001:db8::1 2001:db8::2 5000 25\r\n",
		"a zone":                       "PROXY TCP6 fe80::1%eth0 2001:db8::2 5000 25\r\n",
		"a port too high":              "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
		"an unknown family":            "PROXY UDP4 192.0.2.1 192.0.2.2 5000 25\r\n",
		"LF alone":                     "PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\n",
		"a line too long":              "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n",
		"version 2, a false signature": strings.Replace(v2TCP4, "QUIT", "QUIX", 1),
		"version 2, version 1":         strings.Replace(v2TCP4, "\x21\x11", "\x11\x11", 1),
		"version 2, UDP":               strings.Replace(v2TCP4, "\x21\x11", "\x21\x12", 1),
		"version 2, too short":         strings.Replace(v2TCP4, "\x11\x00\x0f", "\x11\x00\x0b", 1),
		"version 2, too long":          strings.Replace(v2TCP4, "\x11\x00\x0f", "\x11\xff\xff", 1) + strings.Repeat("x", 70_000),
	} {
		t.Run(name, func(t *testing.T) {
			in := &inbox{onSession: func(*Conn) error { return errors.New("a session was opened") }}
			c := start(t, in, behindProxy).dial()
			_, _ = c.Conn.Write([]byte(header)) // the server may close before all is sent
			c.ExpectEnd()
		})
	}
}

func TestNobodyElsesWordIsTakenForAnAddress(t *testing.T) {
	elsewhere := func(o *Options) { o.ProxyNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
	start(t, nil, elsewhere).talk(`
		S: 220 …
		C: PROXY TCP4 192.0.2.1 192.0.2.2 5000 25
		S: 500 5.5.1 unknown command
	`)
}

func TestAProxyHeaderMayShareItsPacketWithTheHandshake(t *testing.T) {
	var client string
	in := &inbox{onSession: func(c *Conn) error {
		client = c.Client().String()
		return nil
	}}
	r := startBy(t, (*Server).ServeTLS, in, func(o *Options) { behindProxy(o); withTLS(o) })
	for name, header := range map[string]string{"1": "PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n", "2": v2TCP4} {
		client = ""
		conn := tls.Client(&headed{Conn: r.dial().Raw, header: header}, &tls.Config{InsecureSkipVerify: true})
		smtptest.New(t, conn).Talk(hello)
		if client != "192.0.2.1:5000" {
			t.Errorf("version %s: client %q", name, client)
		}
	}
}

// headed sends a header in one write with what is written first.
type headed struct {
	net.Conn
	header string
}

func (h *headed) Write(p []byte) (int, error) {
	b := append([]byte(h.header), p...)
	n, err := h.Conn.Write(b)
	n -= len(h.header)
	h.header = ""
	return max(n, 0), err
}

func FuzzProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2TCP4))
	f.Fuzz(func(t *testing.T, header []byte) {
		client, local, err := readProxy(smtp.NewReader(strings.NewReader(string(header))))
		if err == nil && client.IsValid() != local.IsValid() {
			t.Fatalf("%q: client %v, local %v", header, client, local)
		}
		if client.Addr().Is4In6() || client.Addr().Zone() != "" {
			t.Fatalf("%q: client %v", header, client)
		}
	})
}
