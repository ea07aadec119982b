package testnet

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
)

const (
	smtpPort  = 25
	httpsPort = 443
)

// HostOptions are what an MX host may be told. The zero value is an honest
// host that takes everything, over STARTTLS, with REQUIRETLS.
type HostOptions struct {
	IPv6         bool // an IPv6 address beside the IPv4 one
	NoSTARTTLS   bool
	NoRequireTLS bool
	Flaw         Flaw // of its certificate
}

// Host is an MX host. Its certificate is renewed in time with the same key, so
// that its TLSA records stay right.
type Host struct {
	Name  string
	Addrs []netip.Addr

	n      *Net
	script script

	mu      sync.Mutex
	key     *ecdsa.PrivateKey
	certs   *certs // of the key
	options HostOptions
}

// Host returns the MX host of a name, and makes it with its addresses in the
// DNS if there is none yet; of an existing one the options stay as they are.
func (n *Net) Host(name string, o HostOptions) *Host {
	name = canonical(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[name]; h != nil {
		return h
	}
	h := &Host{Name: name, Addrs: n.addrs.honest(o.IPv6), n: n, options: o}
	h.RollKey()
	n.hosts[name] = h
	for _, a := range h.Addrs {
		n.wire.serve(netip.AddrPortFrom(a, smtpPort), name, func(ctx context.Context, s *Session, c net.Conn) {
			h.receiver().serve(ctx, s, c)
		})
	}
	n.DNS.SetAddrs(name, h.Addrs...)
	return h
}

// SetOptions changes what the host is, for sessions from now on; its addresses
// stay.
func (h *Host) SetOptions(o HostOptions) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.options = o
}

// Options returns what the host is.
func (h *Host) Options() HostOptions {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.options
}

// Down makes the host's addresses refuse connections, or not answer.
func (h *Host) Down(how Unreachable) (up func()) {
	var ups undo
	for _, a := range h.ports() {
		ups = append(ups, h.n.Unreach(a, how))
	}
	return ups.all
}

// ports returns the host's addresses with the SMTP port.
func (h *Host) ports() []netip.AddrPort {
	ports := make([]netip.AddrPort, len(h.Addrs))
	for i, a := range h.Addrs {
		ports[i] = netip.AddrPortFrom(a, smtpPort)
	}
	return ports
}

// Listen opens a loopback listener for the host's SMTP port, for programs that
// cannot be given [Net.Dial], and returns its address.
func (h *Host) Listen() (string, error) { return h.n.Expose(h.ports()[0]) }

// TLSABase is the name at which the host's TLSA records stand.
func (h *Host) TLSABase() string { return "_25._tcp." + h.Name }

// EE is the TLSA record "3 1 1" of the host's key (RFC 7672 §3.1.1).
func (h *Host) EE() TLSA {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n.keyRecord(3, &h.key.PublicKey)
}

// TA is the TLSA record "2 1 1" of the CA's intermediate, which the host sends
// (RFC 7672 §3.1.2).
func (h *Host) TA() TLSA { return h.n.keyRecord(2, h.n.CA.Intermediate.PublicKey) }

// RollKey gives the host a new key, as a renewal without forethought does: its
// TLSA records no longer match. The function returned brings the old one back.
func (h *Host) RollKey() (restore func()) {
	key, err := newKey()
	if err != nil {
		h.n.trouble(fmt.Errorf("roll key of %s: %w", h.Name, err))
		return func() {}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	oldKey, oldCerts := h.key, h.certs
	h.key, h.certs = key, new(certs)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.key, h.certs = oldKey, oldCerts
	}
}

func (h *Host) receiver() receiver {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := receiver{n: h.n, name: h.Name, trueKey: h.key, require: !h.options.NoRequireTLS, script: &h.script}
	if !h.options.NoSTARTTLS {
		r.config = h.tls(h.options.Flaw)
	}
	return r
}

// flawedTLS is the host's TLS configuration with a flawed certificate for its
// true key.
func (h *Host) flawedTLS(f Flaw) *tls.Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tls(f)
}

// tls is flawedTLS with the lock held.
func (h *Host) tls(f Flaw) *tls.Config {
	n, name, key, cache := h.n, h.Name, h.key, h.certs
	return n.tlsConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return cache.get(string(f), n.Clock.Now(), f == NoFlaw, func() (tls.Certificate, error) {
			return n.flawed(name, f, CertOptions{Key: key})
		})
	})
}

// tlsConfig is the configuration of every server here. Sessions are not
// resumed: each handshake shows its certificate.
func (n *Net) tlsConfig(pick func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{GetCertificate: pick, Time: n.Clock.Now, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS10}
}

func (n *Net) keyRecord(usage uint8, pub any) TLSA {
	sum, err := digest(pub)
	n.trouble(err)
	return TLSA{Usage: usage, Selector: 1, MatchingType: 1, Data: sum}
}

// undo is a list of what takes things back.
type undo []func()

// all takes everything back, the last first.
func (u undo) all() {
	for i := len(u) - 1; i >= 0; i-- {
		u[i]()
	}
}

// below reports whether name is at or below zone.
func below(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }
