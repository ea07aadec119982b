package verify

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
)

// maxIntermediates caps the certificates that a chain is built from.
const maxIntermediates = 16

// fault is one thing that is wrong with a certificate: "a certificate that …".
type fault struct {
	result outcome.ResultType
	reason string
	that   string
	do     string
}

// pkix holds what the server showed against the rules of RFC 8461 §4.2, which
// RFC 8689 §4.2.1 has too: not expired, a chain to a trusted root, a DNS-ID that
// matches the host. What is reported, when several of them are broken, is the
// first in the order trust, dates, name: of a certificate that nobody vouches
// for, dates and names say nothing. The others stand in the text beside it.
func pkix(s *tls.ConnectionState, host string, roots *x509.CertPool, now time.Time) *flaw {
	if len(s.PeerCertificates) == 0 {
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonNoCertificate, text: "showed no certificate",
			section: "RFC 8461 §4.2", do: "Ask the host's operator to install a certificate.",
		}
	}
	leaf, rest := s.PeerCertificates[0], s.PeerCertificates[1:]
	rest = rest[:min(len(rest), maxIntermediates)]
	var faults []fault
	for _, f := range []*fault{chainFault(leaf, rest, roots, now), nameFault(leaf, host)} {
		if f != nil {
			faults = append(faults, *f)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	var that []string
	for _, f := range faults {
		that = append(that, f.that)
	}
	return &flaw{
		result: faults[0].result, reason: faults[0].reason, section: "RFC 8461 §4.2", do: faults[0].do,
		text: fmt.Sprintf("showed a certificate that %s (%s)", strings.Join(that, " and "), Describe(leaf)),
	}
}

// chainFault looks for a path to a trusted root that is valid now.
func chainFault(leaf *x509.Certificate, rest []*x509.Certificate, roots *x509.CertPool, now time.Time) *fault {
	err := buildChain(leaf, rest, roots, now, asIs)
	if err == nil {
		return nil
	}
	// crypto/x509 looks at the leaf's dates before it looks for its issuer. If
	// the chain holds once nobody asks for dates, they are what is wrong.
	dateless := func(c *x509.Certificate) *x509.Certificate {
		d := *c
		d.NotBefore, d.NotAfter = now, now
		return &d
	}
	if other := buildChain(leaf, rest, roots, now, dateless); other != nil {
		return trustFault(other, leaf, rest)
	}
	return dateFault(leaf, rest, now)
}

func asIs(c *x509.Certificate) *x509.Certificate { return c }

func buildChain(leaf *x509.Certificate, rest []*x509.Certificate, roots *x509.CertPool, now time.Time, as func(*x509.Certificate) *x509.Certificate) error {
	intermediates := x509.NewCertPool()
	for _, c := range rest {
		intermediates.AddCert(as(c))
	}
	_, err := as(leaf).Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// dateFault says which certificate of a chain that is good otherwise has the
// wrong dates.
func dateFault(leaf *x509.Certificate, rest []*x509.Certificate, now time.Time) *fault {
	for i, c := range append([]*x509.Certificate{leaf}, rest...) {
		whose := ""
		if i > 0 {
			whose = fmt.Sprintf("depends on %s, which ", clean(c.Subject.String()))
		}
		switch {
		case now.After(c.NotAfter):
			return &fault{
				outcome.CertificateExpired, ReasonExpired, whose + "expired on " + c.NotAfter.UTC().Format(time.RFC3339),
				"Ask the host's operator to renew the certificate.",
			}
		case now.Before(c.NotBefore):
			return &fault{
				outcome.CertificateNotTrusted, ReasonNotYetValid, whose + "is valid only from " + c.NotBefore.UTC().Format(time.RFC3339),
				"Check this machine's clock, or ask the host's operator about the certificate's start date.",
			}
		}
	}
	return &fault{outcome.CertificateExpired, ReasonExpired, "is issued under a root that has expired", "Ask the host's operator to renew the certificate."}
}

// trustFault says why no path leads to a trusted root.
func trustFault(err error, leaf *x509.Certificate, rest []*x509.Certificate) *fault {
	f := &fault{
		outcome.CertificateNotTrusted, ReasonInvalid, "is not valid for a server: " + clean(err.Error()),
		"Ask the host's operator to install a server certificate of a public authority, with its whole chain.",
	}
	var unknown x509.UnknownAuthorityError
	var roots x509.SystemRootsError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &roots):
		f.reason, f.that = ReasonNoRoots, "cannot be verified, as this machine has no trusted roots"
		f.do = "Install the package ca-certificates on this machine."
	case errors.As(err, &unknown):
		f.reason, f.that = untrusted(leaf, rest)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		// The dates of what was shown do not count here: it is the root's.
		f.result, f.reason, f.that = outcome.CertificateExpired, ReasonExpired, "is issued under a root that has expired"
	}
	return f
}

// untrusted walks from the leaf up the names of the issuers, to see where the
// chain ends: at a self-signed leaf, at an issuer that was not sent along, or at
// a root that is not trusted.
func untrusted(leaf *x509.Certificate, rest []*x509.Certificate) (reason, that string) {
	at := leaf
	for range len(rest) + 1 {
		if bytes.Equal(at.RawIssuer, at.RawSubject) {
			break
		}
		next := issuerAmong(rest, at)
		if next == nil {
			return ReasonIncomplete, fmt.Sprintf("leads to %s, which is no trusted root and was not sent along", clean(at.Issuer.String()))
		}
		at = next
	}
	if at == leaf {
		return ReasonSelfSigned, "is self-signed"
	}
	return ReasonNotTrusted, fmt.Sprintf("leads to %s, which is not trusted", clean(at.Subject.String()))
}

func issuerAmong(certs []*x509.Certificate, of *x509.Certificate) *x509.Certificate {
	for _, c := range certs {
		if bytes.Equal(c.RawSubject, of.RawIssuer) {
			return c
		}
	}
	return nil
}

// nameFault looks for a DNS-ID that matches the host. A common name does not
// count, and neither does an address (RFC 8461 §4.2: MUST have a SAN with a DNS-ID).
func nameFault(leaf *x509.Certificate, host string) *fault {
	_, noAddress := netip.ParseAddr(strings.Trim(host, "[]"))
	if noAddress != nil && leaf.VerifyHostname(host) == nil {
		return nil
	}
	f := &fault{
		outcome.CertificateHostMismatch, ReasonHostMismatch, "is not for " + clean(host),
		"Ask the host's operator for a certificate with the MX name among its DNS names (subjectAltName).",
	}
	if len(leaf.DNSNames) == 0 && strings.EqualFold(leaf.Subject.CommonName, host) {
		f.reason, f.that = ReasonCommonNameAlone, "names "+clean(host)+" in its common name only, which does not count"
	}
	return f
}
