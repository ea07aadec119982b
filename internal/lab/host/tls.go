package host

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

// Certificates gives the certificates that a CA signed, as the field of
// [tls.Config] of that name. It is asked for [Site.Names] only.
type Certificates func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// errBroken is what breaks the handshake of the test that wants it broken.
var errBroken = errors.New("this host breaks its handshakes, on purpose")

// place is one host of one test.
type place struct {
	test     Test
	receiver receiver
}

// places returns the hosts by name.
func (s Site) places() map[string]place {
	m := make(map[string]place)
	tests, _ := s.Tests()
	for _, t := range tests {
		for _, r := range t.receivers {
			m[s.hostOf(t, r)] = place{test: t, receiver: r}
		}
	}
	return m
}

// faces makes the TLS configuration of each host, and that of clients that do not
// say which they mean.
type faces struct {
	byName   map[string]*tls.Config
	fallback *tls.Config
}

// newFaces makes them. A host's certificate is that of [receiver]; the name that
// is asked of certificates is the host's, whatever the client said.
func newFaces(s Site, key Key, certificates Certificates, now time.Time) (*faces, error) {
	named := func(name string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			asked := *hello
			asked.ServerName = name
			return certificates(&asked)
		}
	}
	f := &faces{byName: make(map[string]*tls.Config), fallback: &tls.Config{GetCertificate: named(s.mail()), MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}}
	for name, p := range s.places() {
		// A ticket of one host must not open another, whose certificate would then not
		// be shown (RFC 6066 §3).
		config := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
		switch p.receiver.shows {
		case trusted:
			config.GetCertificate = named(name)
		case other:
			config.GetCertificate = named(s.mail())
		case selfSigned, expired:
			c, err := key.certificate(name, now.Add(-selfSignedFor), now.Add(selfSignedFor))
			if p.receiver.shows == expired {
				c, err = key.certificate("", now.Add(-selfSignedFor), now.Add(-selfSignedFor/2))
			}
			if err != nil {
				return nil, err
			}
			config.Certificates = []tls.Certificate{*c}
		}
		if p.receiver.fault == oldOnly {
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}
		f.byName[name] = config
	}
	return f, nil
}

// mail is the TLS configuration of the hosts that take mail. Told is called with
// the host whose name a client says, when it begins the handshake.
func (f *faces) mail(places map[string]place, told func(place, *tls.ClientHelloInfo)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS10, SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			name := strings.ToLower(hello.ServerName)
			p, ok := places[name]
			if !ok {
				return f.fallback, nil // RFC 8461 §7.1: a chain of our choice
			}
			told(p, hello)
			if p.receiver.fault == broken {
				return nil, errBroken
			}
			return f.byName[name], nil
		},
	}
}

// web is the TLS configuration of the policy hosts.
func (f *faces) web(s Site, key Key, certificates Certificates, now time.Time) (*tls.Config, error) {
	bad := make(map[string]*tls.Certificate)
	tests, _ := s.Tests()
	for _, t := range tests {
		if t.policy != nil && t.policy.web == badWebserver {
			name := "mta-sts." + s.domainOf(t)
			c, err := key.certificate(name, now.Add(-selfSignedFor), now.Add(selfSignedFor))
			if err != nil {
				return nil, err
			}
			bad[name] = c
		}
	}
	known := make(map[string]bool)
	for _, name := range s.Names() {
		known[name] = true
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1", acme.ALPNProto}, // the last is how a CA sees that we are here (RFC 8737)
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := strings.ToLower(hello.ServerName)
			if c := bad[name]; c != nil {
				return c, nil
			}
			if !known[name] {
				return nil, fmt.Errorf("no host of the lab is called %q", name)
			}
			return certificates(hello)
		},
	}, nil
}

// certificateFor asks for a certificate as a client would that takes ECDSA keys.
func certificateFor(certificates Certificates, name string) (*tls.Certificate, error) {
	return certificates(&tls.ClientHelloInfo{
		ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		CipherSuites:     []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256},
		SupportedCurves:  []tls.CurveID{tls.CurveP256},
		SupportedPoints:  []uint8{0},
	})
}
