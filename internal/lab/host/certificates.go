package host

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// LetsEncrypt is the directory of the CA that is asked if no other is named.
const LetsEncrypt = autocert.DefaultACMEDirectory

const (
	acmeName = "acme" // folder in the data folder
	acmeTime = time.Minute
)

// ACME is a CA that issues certificates by ACME (RFC 8555). It sees by
// tls-alpn-01 (RFC 8737) that the names are ours, at port 443 of the addresses.
type ACME struct {
	Directory string         // URL
	Contact   string         // an address of mail
	Roots     *x509.CertPool // of the directory's own certificate; nil: the system's
}

// Certificates gets certificates for the names of a site, and renews them. They
// are kept in the data folder.
func (a ACME) Certificates(s Site, data string) Certificates {
	web := &http.Client{Timeout: acmeTime, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: a.Roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	m := &autocert.Manager{
		Prompt: autocert.AcceptTOS, Email: a.Contact, Cache: autocert.DirCache(filepath.Join(data, acmeName)),
		HostPolicy: autocert.HostWhitelist(s.Names()...), Client: &acme.Client{DirectoryURL: a.Directory, HTTPClient: web},
	}
	return m.GetCertificate
}

// Files are a certificate with its chain, and its key, in PEM.
type Files struct{ Certificate, Key string }

// lookEvery is how often files are looked at for new certificates.
const lookEvery = time.Minute

// FromFiles gives the certificates of files. They are read again when they have
// changed; ones that cannot be read then leave the old ones in place, and are said.
// The error names what cannot be read, or the names that none of them is for.
func FromFiles(s Site, files []Files, now func() time.Time, log *slog.Logger) (Certificates, error) {
	k := &kept{files: files, now: now, log: log}
	if err := k.read(); err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range s.Names() {
		if k.find(name) == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no certificate is for %s", list(missing))
	}
	return k.get, nil
}

// kept is what was read of files.
type kept struct {
	files []Files
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex
	pairs  []*tls.Certificate
	stamps []time.Time
	looked time.Time
}

// get is a [Certificates].
func (k *kept) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); now.Sub(k.looked) >= lookEvery {
		k.looked = now
		if k.changed() {
			if err := k.read(); err != nil {
				k.log.Error("lab host: the new certificates cannot be read; the old ones are shown until they end", "err", err)
			}
		}
	}
	if c := k.find(hello.ServerName); c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no certificate is for %s", hello.ServerName)
}

func (k *kept) find(name string) *tls.Certificate {
	for _, c := range k.pairs {
		if c.Leaf.VerifyHostname(name) == nil {
			return c
		}
	}
	return nil
}

func (k *kept) changed() bool {
	for i, f := range k.files {
		if info, err := os.Stat(f.Certificate); err == nil && !info.ModTime().Equal(k.stamps[i]) {
			return true
		}
	}
	return false
}

// read reads all files, or changes nothing.
func (k *kept) read() error {
	var pairs []*tls.Certificate
	var stamps []time.Time
	for _, f := range k.files {
		info, err := os.Stat(f.Certificate)
		if err != nil {
			return err
		}
		c, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
		}
		pairs, stamps = append(pairs, &c), append(stamps, info.ModTime())
	}
	k.pairs, k.stamps, k.looked = pairs, stamps, k.now()
	return nil
}
