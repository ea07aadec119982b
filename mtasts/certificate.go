package mtasts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// presented returns the certificates that a refused handshake showed.
func presented(err error) []*x509.Certificate {
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) {
		return refused.UnverifiedCertificates
	}
	return nil
}

// certificateProblems finds everything that is wrong with a chain that was
// refused, worst first: what is not trusted proves nothing else. It only
// explains; crypto/tls has decided.
func certificateProblems(chain []*x509.Certificate, roots *x509.CertPool, host string, now time.Time) []Code {
	if len(chain) == 0 {
		return []Code{CertificateNotTrusted}
	}
	leaf := chain[0]
	var problems []Code
	for _, code := range [...]Code{trustProblem(chain, roots, now), validityProblem(leaf, now), nameProblem(leaf, host)} {
		if code != "" && !slices.Contains(problems, code) {
			problems = append(problems, code)
		}
	}
	if len(problems) == 0 {
		problems = append(problems, CertificateInvalid)
	}
	return problems
}

func validityProblem(c *x509.Certificate, now time.Time) Code {
	switch {
	case now.After(c.NotAfter):
		return CertificateExpired
	case now.Before(c.NotBefore):
		return CertificateNotYetValid
	}
	return ""
}

// nameProblem: only DNS-IDs count (RFC 8461 §3.3).
func nameProblem(leaf *x509.Certificate, host string) Code {
	switch {
	case leaf.VerifyHostname(host) == nil:
		return ""
	case len(leaf.DNSNames) == 0 && equalFoldASCII(leaf.Subject.CommonName, host):
		return CertificateCNOnly
	default:
		return CertificateHostMismatch
	}
}

// trustProblem verifies the chain at a time at which the leaf is valid, so that
// an expired certificate is not also called untrusted.
func trustProblem(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) Code {
	leaf, at := chain[0], now
	if now.After(leaf.NotAfter) {
		at = leaf.NotAfter
	} else if now.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at})
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &unknown):
		return unknownAuthority(chain)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired: // an issuer
		if invalid.Cert != nil && at.Before(invalid.Cert.NotBefore) {
			return CertificateNotYetValid
		}
		return CertificateExpired
	default:
		return CertificateInvalid
	}
}

// unknownAuthority tells why no chain to a root was found. A host that sends its
// own certificate alone, issued by another, has most likely forgotten the
// intermediate ones; that its issuer is a root nobody knows looks the same.
func unknownAuthority(chain []*x509.Certificate) Code {
	leaf := chain[0]
	if bytes.Equal(leaf.RawSubject, leaf.RawIssuer) {
		return CertificateSelfSigned
	}
	for _, c := range chain[1:] {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) {
			return CertificateNotTrusted
		}
	}
	return CertificateIncomplete
}
