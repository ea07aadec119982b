package verify

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
)

const (
	maxNames    = 20  // names of a certificate that are kept as evidence
	maxNamesSay = 4   // names that a sentence lists
	maxText     = 300 // bytes of one text that comes from the other side
)

// Certificate is what a report or a page says of a certificate. Its texts come
// from the other side; they are cut to a bearable length and have no control
// characters.
type Certificate struct {
	Subject   string    `json:"subject"` // RFC 4514 form, as "CN=mx.example.com"
	Names     []string  `json:"names"`   // DNS names of the subjectAltName, the first 20
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"`      // of the whole certificate, in hex
	SPKI      string    `json:"spki_sha256"` // of its public key, as TLSA "3 1 1" has it, in hex
}

// Describe returns the summary of a certificate.
func Describe(c *x509.Certificate) Certificate {
	whole, key := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	d := Certificate{
		Subject:   clean(c.Subject.String()),
		Issuer:    clean(c.Issuer.String()),
		NotBefore: c.NotBefore.UTC(),
		NotAfter:  c.NotAfter.UTC(),
		SHA256:    hex.EncodeToString(whole[:]),
		SPKI:      hex.EncodeToString(key[:]),
	}
	for _, name := range c.DNSNames[:min(len(c.DNSNames), maxNames)] {
		d.Names = append(d.Names, clean(name))
	}
	return d
}

// String returns the summary for people: subject, names, issuer and end.
func (c Certificate) String() string {
	names := "no DNS names"
	if n := len(c.Names); n > 0 {
		names = "names " + strings.Join(c.Names[:min(n, maxNamesSay)], ", ")
		if n > maxNamesSay {
			names += fmt.Sprintf(" and %d more", n-maxNamesSay)
		}
	}
	subject := c.Subject
	if subject == "" {
		subject = "empty"
	}
	return fmt.Sprintf("subject %s, %s, issuer %s, valid until %s", subject, names, c.Issuer, c.NotAfter.Format(time.RFC3339))
}

// Session is what a report or a page says of a TLS session.
type Session struct {
	Version     string       `json:"version"` // "TLS 1.3"
	Cipher      string       `json:"cipher"`  // "TLS_AES_128_GCM_SHA256"
	Resumed     bool         `json:"resumed,omitempty"`
	ServerName  string       `json:"server_name,omitempty"` // the SNI that was sent
	Certificate *Certificate `json:"certificate,omitempty"` // the server's own; nil: it showed none
	Chain       int          `json:"chain"`                 // how many certificates it showed
}

func describeSession(s *tls.ConnectionState) *Session {
	session := &Session{
		Version:    tls.VersionName(s.Version),
		Cipher:     tls.CipherSuiteName(s.CipherSuite),
		Resumed:    s.DidResume,
		ServerName: s.ServerName,
		Chain:      len(s.PeerCertificates),
	}
	if len(s.PeerCertificates) > 0 {
		leaf := Describe(s.PeerCertificates[0])
		session.Certificate = &leaf
	}
	return session
}

// clean makes a text of the other side fit to be shown: one line, cut to maxText.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
