package dane

import (
	"fmt"
	"strings"
)

// Reference is the names by which a server may be known, for usage 2
// (RFC 7672 §3.2.2). [Set.Reference] makes it. Names are A-labels; case and a
// final dot do not count.
type Reference struct {
	// BaseDomain is the TLSA base domain: the primary reference identifier,
	// and the name to send as SNI (RFC 7672 §8.1).
	BaseDomain string
	// Names are further acceptable names: the next-hop domain and its
	// CNAME-expanded name, if they are known securely.
	Names []string
	// AllowCommonName also accepts a certificate without any DNS name as
	// subjectAltName by the common name of its subject. RFC 7672 §3.2.3 has
	// clients consider that; RFC 7671 §10.2 calls it deprecated, RFC 8461 §4.2
	// has no such rule for the same servers, and RFC 9525, which replaced the
	// RFC 6125 that it rests on, has done away with it. So it must be asked for.
	AllowCommonName bool
}

// name returns the reference identifier that the server's certificate carries.
func (v *verifier) name() (string, *Error) {
	presented := v.leaf.DNSNames
	commonName := v.leaf.Subject.CommonName
	// RFC 7672 §3.2.3: the CN-ID is only considered when there are no DNS-IDs.
	cnAlone := len(presented) == 0 && commonName != ""
	if cnAlone && v.ref.AllowCommonName {
		presented = []string{commonName}
	}
	// RFC 7672 §3.2.2: the TLSA base domain is the primary reference identifier.
	wanted := append([]string{v.ref.BaseDomain}, v.ref.Names...)
	for _, name := range wanted {
		for _, p := range presented {
			if matchName(p, name) {
				return name, nil
			}
		}
	}
	if cnAlone && !v.ref.AllowCommonName {
		return "", v.fail(certificateHostMismatch, ReasonCommonNameAlone, fmt.Errorf(
			"the certificate has no DNS name, only the common name %.100q, and must have one of %.500q", commonName, wanted))
	}
	return "", v.fail(certificateHostMismatch, ReasonNameMismatch, fmt.Errorf(
		"the certificate is for %.500q, and not for any of %.500q", first(presented, 10), wanted))
}

// matchName reports whether a presented identifier matches a reference
// identifier (RFC 7672 §3.2.3): equal, or with "*" as its entire first label,
// which then stands for exactly one label.
func matchName(presented, name string) bool {
	presented, name = canonical(presented), canonical(name)
	if name == "" || strings.Contains(name, "*") {
		return false
	}
	if presented == name {
		return true
	}
	parent, wildcard := strings.CutPrefix(presented, "*.")
	label, rest, _ := strings.Cut(name, ".")
	return wildcard && label != "" && rest != "" && parent == rest
}

// canonical is the form in which names are compared and asked for: lower case
// (ASCII), without the final dot.
func canonical(name string) string {
	return strings.TrimSuffix(lower(name), ".")
}

func lower(s string) string {
	for _, r := range s {
		if r >= 0x80 {
			return s // not an A-label: it equals nothing but itself
		}
	}
	return strings.ToLower(s)
}

func first(names []string, n int) []string { return names[:min(n, len(names))] }
