package dane

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// MaxChainLength is the most certificates that [Verify] takes from a server when
// it looks for a trust anchor. Usage 3 looks at the first only.
const MaxChainLength = 10

// Match says what authenticated a server.
type Match struct {
	// Record is the TLSA record that did.
	Record Record
	// Depth is where in Path the certificate is that Record names: 0 for the
	// server's own (usage 3), len(Path) for a trust anchor of which only the
	// key is known (a "2 1 0" record).
	Depth int
	// Path leads from the server's certificate to the trust anchor. With usage
	// 3 it is the server's certificate alone.
	Path []*x509.Certificate
	// Name is the reference identifier that the certificate carries. It is
	// empty with usage 3, where names do not count.
	Name string
}

// Verify authenticates an SMTP server by its TLSA records. Chain is what it
// showed in the handshake, its own certificate first; rs is its secure TLSA
// RRset, as [Set.Records] has it: unusable records and weaker digests are left
// out of account here (RFC 7671 §9). One record that matches is enough.
//
// With usage 3 the server's certificate or key must be the one of the record, and
// nothing else about it counts: not its names, not its dates (RFC 7672 §3.1.1).
//
// With usage 2 the record names a trust anchor above the server's certificate. It
// must be in chain, or be given whole by the record: a certificate ("2 0 0",
// RFC 7671 §5.2.2) or a key ("2 1 0", §5.2.3). Signatures, dates at now,
// constraints and key usage are checked up to it, and a DNS name of the server's
// certificate must match ref (RFC 7672 §3.2.2). A zero now is the present.
//
// The error is an [*Error]. Its result types are
//   - tlsa-invalid: no record is usable, or there are more than [MaxRecords];
//   - certificate-not-trusted: no usable record names a certificate of the chain,
//     or the chain does not lead to it;
//   - certificate-expired: the chain leads to a trust anchor, but has expired;
//   - certificate-host-mismatch: it is valid, but for another name;
//   - validation-failure: the server showed no certificate;
//   - dane-required: rs is empty.
func Verify(chain []*x509.Certificate, rs []Record, ref Reference, now time.Time) (Match, error) {
	v := verifier{ref: ref, now: now}
	if now.IsZero() {
		v.now = time.Now()
	}
	switch {
	case len(rs) == 0:
		return Match{}, v.fail(daneRequired, ReasonNoRecords, errors.New("there are no TLSA records to verify by"))
	case len(rs) > MaxRecords:
		return Match{}, v.fail(tlsaInvalid, ReasonTooManyRecords, fmt.Errorf("%d TLSA records, more than %d", len(rs), MaxRecords))
	}
	usable := Strongest(UsableRecords(rs))
	if len(usable) == 0 {
		return Match{}, v.fail(tlsaInvalid, ReasonUnusable, fmt.Errorf("none of %d TLSA records is usable: %w", len(rs), rs[0].Usable()))
	}
	if len(chain) == 0 || !parsed(chain[0]) {
		return Match{}, v.fail(validationFailure, ReasonNoCertificate, errors.New("the server showed no certificate"))
	}
	v.chain, v.leaf = chain, chain[0]

	var anchors []Record
	for _, r := range usable {
		if r.Usage == UsageDANETA {
			anchors = append(anchors, r)
			continue
		}
		// RFC 7672 §3.1.1: nothing but the leaf and the record count. §3.2.1:
		// the client MUST NOT perform name checks.
		if r.Matches(v.leaf) {
			return Match{Record: r, Path: chain[:1:1]}, nil
		}
	}
	if len(anchors) == 0 {
		return Match{}, v.mismatch(len(usable))
	}
	m, err := v.anchored(anchors)
	if err == nil {
		return m, nil
	}
	if err.Reason == ReasonAnchorMissing && len(anchors) < len(usable) {
		err = v.mismatch(len(usable))
	}
	return Match{}, err
}

// verifier is one call of [Verify].
type verifier struct {
	chain []*x509.Certificate
	leaf  *x509.Certificate
	ref   Reference
	now   time.Time
}

func (v *verifier) fail(result, reason string, err error) *Error {
	return &Error{Host: v.ref.BaseDomain, Result: result, Reason: reason, Err: err}
}

// mismatch is the failure of usage 3. RFC 8460 has no type for "not the key of
// the record"; tlsa-invalid says that the record is wrong, and the mismatch may
// as well be an attacker's certificate: it is one that is not trusted.
func (v *verifier) mismatch(records int) *Error {
	return v.fail(certificateNotTrusted, ReasonMismatch, fmt.Errorf(
		"the certificate (SHA-256 of its public key %x, of the whole %x) matches none of %d TLSA records",
		sha256.Sum256(v.leaf.RawSubjectPublicKeyInfo), sha256.Sum256(v.leaf.Raw), records))
}

// parsed reports whether c is a certificate that crypto/x509 has read.
func parsed(c *x509.Certificate) bool {
	return c != nil && len(c.Raw) > 0 && len(c.RawSubjectPublicKeyInfo) > 0
}
