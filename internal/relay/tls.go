package relay

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// maxClientCAs caps the authorities whose clients may relay. A file with more is
// a bundle of public ones, and would relay for the world.
const maxClientCAs = 10

// errPublicCAs says that a file of authorities is not the operator's own.
var errPublicCAs = fmt.Errorf("it holds more than %d authorities; name your own only: whoever has a certificate of one of them may relay", maxClientCAs)

// Files are the PEM files of TLS.
type Files struct {
	Certificate string // with the chain; "": there is no TLS
	Key         string
	ClientCA    string // authorities whose clients may relay; "": none
	// Fingerprints are the SHA-256 of certificates that may relay, whoever issued
	// them and however old they are.
	Fingerprints map[[sha256.Size]byte]bool
}

// identity is what the files held when they were last read.
type identity struct {
	files   [3][]byte
	config  *tls.Config
	expires time.Time
	clients *x509.CertPool // nil: none may relay
	pins    map[[sha256.Size]byte]bool
}

// Read reads the files once, to see whether they can be used, and returns when
// the certificate ends.
func (f Files) Read() (expires time.Time, err error) {
	id, err := f.read(nil)
	if err != nil || id == nil {
		return time.Time{}, err
	}
	return id.expires, nil
}

// read reads the files; it returns old if nothing changed, nil if there are none.
func (f Files) read(old *identity) (*identity, error) {
	if f.Certificate == "" {
		return nil, nil
	}
	id := &identity{pins: f.Fingerprints}
	for i, path := range []string{f.Certificate, f.Key, f.ClientCA} {
		if path == "" {
			continue
		}
		var err error
		if id.files[i], err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("reading the relay's certificates: %w", err)
		}
	}
	if old != nil && bytes.Equal(old.files[0], id.files[0]) && bytes.Equal(old.files[1], id.files[1]) && bytes.Equal(old.files[2], id.files[2]) {
		return old, nil
	}
	pair, err := tls.X509KeyPair(id.files[0], id.files[1])
	if err != nil {
		return nil, fmt.Errorf("the certificate %s with the key %s: %w", f.Certificate, f.Key, err)
	}
	id.expires = pair.Leaf.NotAfter
	if f.ClientCA != "" {
		if id.clients, err = authorities(id.files[2]); err != nil {
			return nil, fmt.Errorf("the authorities of clients in %s: %w", f.ClientCA, err)
		}
	}
	// RFC 8996; RFC 9325 §3.1.1.
	id.config = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if id.clients != nil || len(id.pins) > 0 {
		// One that does not convince is no reason to break the connection off: the
		// client may relay for another reason.
		id.config.ClientAuth = tls.RequestClientCert
	}
	if len(id.pins) == 0 {
		id.config.ClientCAs = id.clients // a hint which certificate to show; a pinned one is of any authority
	}
	return id, nil
}

// authorities reads a file of the operator's own authorities.
func authorities(text []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if n++; n > maxClientCAs {
			return nil, errPublicCAs
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return pool, nil
}

// trusts reports whether a client's certificate lets it relay. The handshake has
// shown that the client has its key.
func (id *identity) trusts(state *tls.ConnectionState, now time.Time) bool {
	if id == nil || state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	leaf := state.PeerCertificates[0]
	if id.pins[sha256.Sum256(leaf.Raw)] {
		return true
	}
	if id.clients == nil {
		return false
	}
	o := x509.VerifyOptions{
		Roots: id.clients, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(o)
	return err == nil
}

// tlsConfig is the server's; it follows what [Relay.Reload] reads.
func (r *Relay) tlsConfig() *tls.Config {
	if r.identity.Load() == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.identity.Load().config, nil },
	}
}

// Reload reads the certificate, its key and the clients' authorities again. If
// they cannot be used, those from before stay, and [Relay.Certificate] says so
// until they can.
func (r *Relay) Reload() error {
	id, err := r.opts.Files.read(r.identity.Load())
	r.mu.Lock()
	r.reloadErr = err
	r.mu.Unlock()
	if err == nil && id != r.identity.Swap(id) {
		r.opts.Log.Info("the relay's certificate was read again", "file", r.opts.Files.Certificate, "expires", id.expires)
	}
	return err
}

// Certificate returns until when the relay's certificate holds, zero if it has
// none, and the error of the last [Relay.Reload].
func (r *Relay) Certificate() (expires time.Time, err error) {
	if id := r.identity.Load(); id != nil {
		expires = id.expires
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return expires, r.reloadErr
}
