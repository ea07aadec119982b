package dane

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

const (
	// maxKeyChecks is the most signatures that are checked against bare keys
	// of "2 1 0" records. crypto/x509 has a like bound for the paths it builds.
	maxKeyChecks = 50
	// maxRSABits is the longest RSA key taken from a record, the bound that
	// crypto/tls sets for certificates: longer ones cost too much to use.
	maxRSABits = 8192
)

// anchor is a certificate at which a path may end, and the record that says so.
type anchor struct {
	cert   *x509.Certificate
	record Record
	bare   bool // the trust anchor is the record's key, which signed cert
}

// anchored verifies the chain by the usage 2 records rs.
func (v *verifier) anchored(rs []Record) (Match, *Error) {
	if len(v.chain) > MaxChainLength {
		return Match{}, v.fail(certificateNotTrusted, ReasonChainTooLong,
			fmt.Errorf("the server showed %d certificates, more than %d", len(v.chain), MaxChainLength))
	}
	anchors := v.anchors(rs)
	if len(anchors) == 0 {
		return Match{}, v.noAnchor(rs)
	}
	path, failure := v.path(anchors)
	if failure != nil {
		return Match{}, failure
	}
	name, failure := v.name()
	if failure != nil {
		return Match{}, failure
	}
	m := Match{Path: path, Depth: len(path) - 1, Name: name}
	for _, a := range anchors {
		if a.cert.Equal(path[len(path)-1]) {
			m.Record = a.record
			if a.bare {
				m.Depth = len(path)
			}
			break
		}
	}
	return m, nil
}

// anchors finds where a path may end: at a certificate of the chain that a record
// names, at one that a record gives whole (RFC 7671 §5.2.2), or at one of the
// chain that a record's bare key signed (§5.2.3). The leaf is never its own trust
// anchor: a path has a certificate besides it (RFC 5280 §6.1).
func (v *verifier) anchors(rs []Record) []anchor {
	var found []anchor
	checks := 0
	for _, r := range rs {
		known := false
		for _, c := range v.chain[1:] {
			if parsed(c) && !c.Equal(v.leaf) && r.Matches(c) {
				found = append(found, anchor{cert: c, record: r})
				known = true
			}
		}
		switch {
		case known || r.MatchingType != MatchFull:
		case r.Selector == SelectorCert:
			if c, err := x509.ParseCertificate(r.Data); err == nil && !c.Equal(v.leaf) && !tooLong(c) {
				found = append(found, anchor{cert: c, record: r})
			}
		case r.Selector == SelectorSPKI:
			found = append(found, v.signedBy(r, &checks)...)
		}
	}
	return found
}

// signedBy finds the certificates of the chain that the key of a "2 1 0" record
// signed. Any of them can be the topmost of a path; above the leaf they must be
// CA certificates, since crypto/x509 is lenient about that at the end of a path.
func (v *verifier) signedBy(r Record, checks *int) []anchor {
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil // of an algorithm that is unknown here: it signed nothing that could be checked
	}
	signer := &x509.Certificate{PublicKey: key}
	if tooLong(signer) {
		return nil
	}
	var found []anchor
	for i, c := range v.chain {
		if !parsed(c) || weakSignature(c) || i > 0 && !(c.BasicConstraintsValid && c.IsCA) {
			continue
		}
		if *checks++; *checks > maxKeyChecks {
			return found
		}
		if signer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			found = append(found, anchor{cert: c, record: r, bare: true})
		}
	}
	return found
}

// weakSignature tells SHA-1 signatures, which CheckSignature takes; crypto/x509
// refuses them in paths.
func weakSignature(c *x509.Certificate) bool {
	return c.SignatureAlgorithm == x509.SHA1WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA1 ||
		c.SignatureAlgorithm == x509.DSAWithSHA1
}

func tooLong(c *x509.Certificate) bool {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	return ok && key.N.BitLen() > maxRSABits
}

// noAnchor explains why there is nowhere for a path to end.
func (v *verifier) noAnchor(rs []Record) *Error {
	for _, r := range rs {
		if r.Matches(v.leaf) {
			return v.fail(certificateNotTrusted, ReasonAnchorIsLeaf, errors.New(
				"a TLSA record names the server's own certificate as trust anchor (usage 2)"))
		}
	}
	return v.fail(certificateNotTrusted, ReasonAnchorMissing, fmt.Errorf(
		"none of the %d certificates that the server showed is the trust anchor of its TLSA records", len(v.chain)))
}

// path builds and verifies a path from the leaf to one of the anchors.
func (v *verifier) path(anchors []anchor) ([]*x509.Certificate, *Error) {
	asIs := func(c *x509.Certificate) *x509.Certificate { return c }
	paths, err := v.build(anchors, asIs)
	if err == nil {
		return paths[0], nil
	}
	// What is wrong with it? If it is good without its dates, they are.
	dateless := func(c *x509.Certificate) *x509.Certificate {
		d := *c
		d.NotBefore, d.NotAfter = v.now, v.now
		return &d
	}
	paths, other := v.build(anchors, dateless)
	if other != nil {
		return nil, v.fail(certificateNotTrusted, chainReason(other),
			fmt.Errorf("the chain does not lead to the trust anchor of the TLSA records: %w", other))
	}
	return nil, v.outOfDate(paths[0], err)
}

// build has crypto/x509 build and verify paths from the leaf to the anchors; each
// certificate goes through as first.
func (v *verifier) build(anchors []anchor, as func(*x509.Certificate) *x509.Certificate) ([][]*x509.Certificate, error) {
	ends, others := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range anchors {
		ends.AddCert(as(a.cert))
	}
	for _, c := range v.chain[1:] {
		if parsed(c) {
			others.AddCert(as(c))
		}
	}
	return as(v.leaf).Verify(x509.VerifyOptions{
		Roots:         ends,
		Intermediates: others,
		CurrentTime:   v.now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// outOfDate says which certificate of a path that is good otherwise is not valid
// now. The path's certificates have no dates of their own any more.
func (v *verifier) outOfDate(path []*x509.Certificate, err error) *Error {
	for _, dateless := range path {
		c, parseErr := x509.ParseCertificate(dateless.Raw)
		switch {
		case parseErr != nil:
		case v.now.After(c.NotAfter):
			return v.fail(certificateExpired, ReasonExpired,
				fmt.Errorf("the certificate of %q expired at %s: %w", c.Subject, c.NotAfter.UTC().Format(time.RFC3339), err))
		case v.now.Before(c.NotBefore):
			return v.fail(certificateNotTrusted, ReasonNotYetValid,
				fmt.Errorf("the certificate of %q is valid only from %s: %w", c.Subject, c.NotBefore.UTC().Format(time.RFC3339), err))
		}
	}
	return v.fail(certificateNotTrusted, ReasonChainInvalid, fmt.Errorf("the chain is not valid now: %w", err))
}

// chainReason is the reason code for what crypto/x509 has against a path.
func chainReason(err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.CANotAuthorizedForThisName:
			return ReasonNameConstraint
		case x509.IncompatibleUsage:
			return ReasonNotServerUse
		}
	}
	return ReasonChainInvalid
}
