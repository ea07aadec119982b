package testnet

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// The attacker's own names. He has good certificates for them.
const (
	AttackerMX  = "mx.attacker.test"
	AttackerWeb = "pages.attacker.test"
)

// attacker is who wants the mail: an MX host and a web host of his own, and a
// key that is none of anyone else's.
type attacker struct {
	n     *Net
	key   *ecdsa.PrivateKey
	certs certs

	mu    sync.Mutex
	names []string         // he has good certificates for
	sites map[string]*Site // his policy hosts, by the victim's name
}

func newAttacker(n *Net) (*attacker, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	f := &attacker{n: n, key: key, names: []string{AttackerMX}, sites: make(map[string]*Site)}
	n.DNS.SetZone("attacker.test", false)
	n.DNS.SetAddrs(AttackerMX, hostileMX)
	n.DNS.SetAddrs(AttackerWeb, hostileWeb)
	n.wire.serve(netip.AddrPortFrom(hostileMX, smtpPort), AttackerMX, f.receive)
	n.wire.serve(netip.AddrPortFrom(hostileWeb, httpsPort), AttackerWeb, n.web.handler(f.site))
	return f, nil
}

// receive takes mail at the attacker's own address, under whichever of his
// names the sender asks for.
func (f *attacker) receive(ctx context.Context, s *Session, c net.Conn) {
	config := f.n.tlsConfig(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name := canonical(hello.ServerName)
		f.mu.Lock()
		owned := slices.Contains(f.names, name)
		f.mu.Unlock()
		if !owned {
			name = AttackerMX
		}
		return f.certificate(name, NoFlaw)
	})
	receiver{n: f.n, name: AttackerMX, attacker: true, config: config, require: true, bySNI: true}.serve(ctx, s, c)
}

// own gives the attacker a name, with good certificates for it.
func (f *attacker) own(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.names, name) {
		f.names = append(f.names, name)
	}
}

// certificate is one of the attacker's: always his key.
func (f *attacker) certificate(name string, flaw Flaw) (*tls.Certificate, error) {
	return f.certs.get(name+"/"+string(flaw), f.n.Clock.Now(), flaw != Expired, func() (tls.Certificate, error) {
		return f.n.flawed(name, flaw, CertOptions{Key: f.key})
	})
}

// impersonate ends the session in the host's place, and takes the mail.
func (f *attacker) impersonate(h *Host, certName string, flaw Flaw, maxTLS uint16) Interceptor {
	return func(ctx context.Context, s *Session, down net.Conn, _ func() (net.Conn, error)) {
		config := f.n.tlsConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return f.certificate(certName, flaw)
		})
		config.MaxVersion = maxTLS
		f.as(h, config, nil).serve(ctx, s, down)
	}
}

// refuse speaks for the host and turns the sender away by a script.
func (f *attacker) refuse(h *Host, at Stage, reply string) Interceptor {
	return func(ctx context.Context, s *Session, down net.Conn, _ func() (net.Conn, error)) {
		lie := &script{actions: map[Stage][]*scripted{at: {{Action: Action{Reply: reply}}}}}
		f.as(h, nil, lie).serve(ctx, s, down)
	}
}

func (f *attacker) as(h *Host, config *tls.Config, lie *script) receiver {
	r := h.receiver()
	r.attacker, r.config, r.script, r.require = true, config, lie, true
	return r
}

// alter lets the host itself answer, with another TLS configuration.
func alter(h *Host, change func(h *Host, c *tls.Config) *tls.Config) Interceptor {
	return func(ctx context.Context, s *Session, down net.Conn, _ func() (net.Conn, error)) {
		r := h.receiver()
		if r.config != nil {
			r.config = change(h, r.config)
		}
		r.serve(ctx, s, down)
	}
}

// show lets the host itself answer with a flawed certificate for its own key.
func show(flaw Flaw) func(*Host) Interceptor {
	return func(h *Host) Interceptor {
		return alter(h, func(h *Host, _ *tls.Config) *tls.Config { return h.flawedTLS(flaw) })
	}
}

// site finds the attacker's policy host for a victim's name.
func (f *attacker) site(name string) *Site {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sites[canonical(name)]
}

// policySite makes the attacker's policy host for a victim, with a certificate
// of his key that has a flaw.
func (f *attacker) policySite(d *Domain, flaw Flaw) {
	name := "mta-sts." + d.Name
	text := writePolicy(STS{Mode: "enforce", MaxAge: DefaultMaxAge, Patterns: []string{AttackerMX}})
	s := &Site{Name: name, Addrs: []netip.Addr{hostileWeb}, n: f.n, key: f.key, handler: plainText(func() string { return text })}
	s.faults = []*SiteFault{{Flaw: flaw}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sites[name] = s
}

// servePolicy stands in for a policy host.
func (f *attacker) servePolicy(ctx context.Context, s *Session, down net.Conn, _ func() (net.Conn, error)) {
	f.n.web.handler(f.site)(ctx, s, down)
}

// splice passes octets both ways until both ends are done.
func splice(down, up io.ReadWriteCloser) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, down)
		up.Close()
	})
	_, _ = io.Copy(down, up)
	down.Close()
	wg.Wait()
}

// answerTo answers a verb in the host's place.
func answerTo(verb, answer string) func(string) (string, bool) {
	return func(v string) (string, bool) { return answer, v == verb }
}

// replyTo changes the host's good replies to a verb.
func replyTo(verb string, change func(reply string) string) func(verb, reply string) string {
	return func(v, reply string) string {
		if v != verb || !strings.HasPrefix(reply, "2") {
			return reply
		}
		return change(reply)
	}
}

// cutSTARTTLS takes STARTTLS out of an EHLO reply.
func cutSTARTTLS(reply string) string {
	texts := slices.DeleteFunc(replyTexts(reply), func(l string) bool { return strings.EqualFold(l, "STARTTLS") })
	return multiline("250", texts)
}

// fakeCapabilities puts REQUIRETLS and a tiny SIZE into an EHLO reply.
func fakeCapabilities(reply string) string {
	texts := slices.DeleteFunc(replyTexts(reply), func(l string) bool { return strings.HasPrefix(l, "SIZE") })
	return multiline("250", append(texts, "SIZE 10", "REQUIRETLS"))
}

// replyTexts returns a reply's lines without their codes.
func replyTexts(reply string) []string {
	lines := strings.Split(reply, "\n")
	for i, l := range lines {
		lines[i] = l[min(len(l), 4):]
	}
	return lines
}
