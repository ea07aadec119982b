package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Certificate usages (RFC 6698 §2.1.1, named by RFC 7218 §2.1).
const (
	UsagePKIXTA uint8 = 0 // unusable for SMTP
	UsagePKIXEE uint8 = 1 // unusable for SMTP
	UsageDANETA uint8 = 2 // the record names a trust anchor that issued the server's certificate
	UsageDANEEE uint8 = 3 // the record names the server's certificate or key itself
)

// Selectors (RFC 6698 §2.1.2, named by RFC 7218 §2.2).
const (
	SelectorCert uint8 = 0 // the whole certificate
	SelectorSPKI uint8 = 1 // its public key (subjectPublicKeyInfo)
)

// Matching types (RFC 6698 §2.1.3, named by RFC 7218 §2.3).
const (
	MatchFull   uint8 = 0 // the data is the certificate or key itself
	MatchSHA256 uint8 = 1 // the data is its SHA-256 digest
	MatchSHA512 uint8 = 2 // the data is its SHA-512 digest
)

// What strangers may ask for at most.
const (
	// MaxDataSize is the most bytes of certificate association data a record
	// may have: room for any certificate seen in practice. A longer record
	// does not parse, and is not usable.
	MaxDataSize = 16 << 10
	// MaxRecords is the most TLSA records one host may have. [Find] and
	// [Verify] refuse more. A key rollover needs four.
	MaxRecords = 64

	maxTextSize = 4 * MaxDataSize // presentation text: two digits a byte, and blanks between them
	headerSize  = 3               // usage, selector and matching type
)

var (
	// ErrRecord is wrapped by the errors of [ParseRecord] and [ParseWire].
	ErrRecord = errors.New("not a TLSA record")
	// ErrUnusable is wrapped by the errors of [Record.Usable].
	ErrUnusable = errors.New("unusable TLSA record")
)

// Record is one TLSA record (RFC 6698 §2.1). As text, and so in JSON, it has the
// presentation format: "3 1 1 e3b0c442…".
type Record struct {
	Usage        uint8
	Selector     uint8
	MatchingType uint8
	Data         []byte // certificate association data: a digest, or what Selector selects
}

// NewRecord returns the record that names cert, or with [SelectorSPKI] its key.
// It is for those who publish records; usage can be any.
func NewRecord(cert *x509.Certificate, usage, selector, matchingType uint8) (Record, error) {
	data, ok := association(cert, selector, matchingType)
	if !ok {
		return Record{}, fmt.Errorf("no TLSA record can be made with selector %d and matching type %d", selector, matchingType)
	}
	return Record{Usage: usage, Selector: selector, MatchingType: matchingType, Data: bytes.Clone(data)}, nil
}

// ParseRecord reads a record in presentation format (RFC 6698 §2.2): three
// numbers and hexadecimal data, which may have blanks, line breaks and a pair of
// parentheses in it, as a zone file may. It does not ask whether the record is
// usable. Its error wraps [ErrRecord].
func ParseRecord(text string) (Record, error) {
	if len(text) > maxTextSize {
		return Record{}, fmt.Errorf("%w: text of %d bytes, more than %d", ErrRecord, len(text), maxTextSize)
	}
	if strings.Count(text, "(") > 1 || strings.Count(text, "(") != strings.Count(text, ")") ||
		strings.Index(text, "(") > strings.Index(text, ")") {
		return Record{}, fmt.Errorf("%w: parentheses that do not pair", ErrRecord)
	}
	fields := strings.FieldsFunc(text, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '(' || r == ')'
	})
	if len(fields) <= headerSize {
		return Record{}, fmt.Errorf("%w: %d fields, not usage, selector, matching type and data", ErrRecord, len(fields))
	}
	var header [headerSize]uint8
	for i, name := range []string{"usage", "selector", "matching type"} {
		n, err := strconv.ParseUint(fields[i], 10, 8)
		if err != nil {
			return Record{}, fmt.Errorf("%w: %s %.20q is not a number from 0 to 255", ErrRecord, name, fields[i])
		}
		header[i] = uint8(n)
	}
	data, err := hex.DecodeString(strings.Join(fields[headerSize:], ""))
	if err != nil {
		return Record{}, fmt.Errorf("%w: data is not hexadecimal: %w", ErrRecord, err)
	}
	return newRecord(header[0], header[1], header[2], data)
}

// ParseWire reads a record in wire format, the RDATA (RFC 6698 §2.1). It does
// not ask whether the record is usable. Its error wraps [ErrRecord].
func ParseWire(rdata []byte) (Record, error) {
	if len(rdata) < headerSize {
		return Record{}, fmt.Errorf("%w: %d bytes of data", ErrRecord, len(rdata))
	}
	return newRecord(rdata[0], rdata[1], rdata[2], bytes.Clone(rdata[headerSize:]))
}

func newRecord(usage, selector, matchingType uint8, data []byte) (Record, error) {
	if len(data) == 0 {
		return Record{}, fmt.Errorf("%w: no certificate association data", ErrRecord)
	}
	if len(data) > MaxDataSize {
		return Record{}, fmt.Errorf("%w: %d bytes of certificate association data, more than %d", ErrRecord, len(data), MaxDataSize)
	}
	return Record{Usage: usage, Selector: selector, MatchingType: matchingType, Data: data}, nil
}

// String returns the record in presentation format, on one line, in lower case.
func (r Record) String() string {
	return fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data)
}

// Wire returns the record in wire format, the RDATA.
func (r Record) Wire() []byte {
	return append([]byte{r.Usage, r.Selector, r.MatchingType}, r.Data...)
}

// MarshalText returns what [Record.String] returns.
func (r Record) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what [ParseRecord] reads.
func (r *Record) UnmarshalText(text []byte) error {
	parsed, err := ParseRecord(string(text))
	if err == nil {
		*r = parsed
	}
	return err
}

// Equal reports whether two records say the same.
func (r Record) Equal(o Record) bool {
	return r.Usage == o.Usage && r.Selector == o.Selector && r.MatchingType == o.MatchingType && bytes.Equal(r.Data, o.Data)
}

// Usable returns nil if the record can authenticate an SMTP server, and
// otherwise an error that wraps [ErrUnusable] and says why not: a usage, selector
// or matching type that SMTP does not have, a digest of the wrong length, or data
// that is no certificate or key (RFC 7672 §2.2, RFC 7671 §9 and §10.3).
func (r Record) Usable() error {
	switch {
	case r.Usage == UsagePKIXTA || r.Usage == UsagePKIXEE: // RFC 7672 §3.1.3
		return fmt.Errorf("%w: usage %d asks for a public CA, which SMTP does not have; publish usage 3 or 2", ErrUnusable, r.Usage)
	case r.Usage > UsageDANEEE:
		return fmt.Errorf("%w: usage %d is unknown", ErrUnusable, r.Usage)
	case r.Selector > SelectorSPKI:
		return fmt.Errorf("%w: selector %d is unknown", ErrUnusable, r.Selector)
	case r.MatchingType > MatchSHA512:
		return fmt.Errorf("%w: matching type %d is unknown", ErrUnusable, r.MatchingType)
	case len(r.Data) > MaxDataSize:
		return fmt.Errorf("%w: %d bytes of data, more than %d", ErrUnusable, len(r.Data), MaxDataSize)
	case r.MatchingType == MatchSHA256 && len(r.Data) != sha256.Size:
		return fmt.Errorf("%w: a SHA-256 digest of %d bytes, not %d", ErrUnusable, len(r.Data), sha256.Size)
	case r.MatchingType == MatchSHA512 && len(r.Data) != sha512.Size:
		return fmt.Errorf("%w: a SHA-512 digest of %d bytes, not %d", ErrUnusable, len(r.Data), sha512.Size)
	case r.MatchingType == MatchFull && r.Selector == SelectorCert && !isCertificate(r.Data):
		return fmt.Errorf("%w: the data is not a certificate", ErrUnusable)
	case r.MatchingType == MatchFull && r.Selector == SelectorSPKI && !isPublicKey(r.Data):
		return fmt.Errorf("%w: the data is not a public key", ErrUnusable)
	}
	return nil
}

// isCertificate and isPublicKey ask for the outer form only. What has the form is
// usable, even if its algorithm is unknown here: it then matches by its bytes or
// not at all. Calling it unusable would drop the authentication that it demands.
func isCertificate(der []byte) bool {
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	rest, err := asn1.Unmarshal(der, &outer)
	return err == nil && len(rest) == 0 && outer.TBS.Class == asn1.ClassUniversal && outer.TBS.Tag == asn1.TagSequence
}

func isPublicKey(der []byte) bool {
	var outer struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	rest, err := asn1.Unmarshal(der, &outer)
	return err == nil && len(rest) == 0
}

// UsableRecords returns those of rs that are usable, in their order. If rs has
// records and none is usable, a host needs TLS but no authentication
// (RFC 7672 §2.2).
func UsableRecords(rs []Record) []Record {
	return slices.DeleteFunc(slices.Clone(rs), func(r Record) bool { return r.Usable() != nil })
}

// Strongest drops the records whose digest is weaker than the best that the same
// usage and selector have: digest algorithm agility (RFC 7671 §9). SHA-512 is
// preferred to SHA-256, and full values are always kept. Unusable records must
// have been dropped before; [Verify] does both.
func Strongest(usable []Record) []Record {
	type kind struct{ usage, selector uint8 }
	best := make(map[kind]uint8)
	for _, r := range usable {
		k := kind{r.Usage, r.Selector}
		best[k] = max(best[k], r.MatchingType) // SHA2-512(2) > SHA2-256(1) > Full(0)
	}
	return slices.DeleteFunc(slices.Clone(usable), func(r Record) bool {
		return r.MatchingType != MatchFull && r.MatchingType != best[kind{r.Usage, r.Selector}]
	})
}

// Matches reports whether the record names cert, or with [SelectorSPKI] its key.
// It looks at neither the usage nor anything else in the certificate.
func (r Record) Matches(cert *x509.Certificate) bool {
	data, ok := association(cert, r.Selector, r.MatchingType)
	return ok && bytes.Equal(data, r.Data)
}

// association is the certificate association data of cert (RFC 6698 §2.1.4);
// false if there is no such selector or matching type.
func association(cert *x509.Certificate, selector, matchingType uint8) ([]byte, bool) {
	var selected []byte
	switch selector {
	case SelectorCert:
		selected = cert.Raw
	case SelectorSPKI:
		selected = cert.RawSubjectPublicKeyInfo
	}
	if len(selected) == 0 {
		return nil, false
	}
	switch matchingType {
	case MatchFull:
		return selected, true
	case MatchSHA256:
		sum := sha256.Sum256(selected)
		return sum[:], true
	case MatchSHA512:
		sum := sha512.Sum512(selected)
		return sum[:], true
	}
	return nil, false
}
