package mtasts

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxHostSize  = 253 // RFC 1035 §2.3.4, without the trailing dot
	maxLabelSize = 63
)

// Match reports whether the policy allows the MX host: whether one of its
// patterns matches it (RFC 8461 §4.1). The host is a name as in the MX record,
// in A-labels; case and one trailing dot do not matter. The policy's mode is not
// looked at.
func (p Policy) Match(mx string) bool {
	mx = strings.TrimSuffix(mx, ".")
	if !hostName(mx, true) {
		return false
	}
	for _, pattern := range p.MX {
		if match(pattern, mx) {
			return true
		}
	}
	return false
}

// MatchPattern reports whether one pattern matches the MX host, by the rules of
// [Policy.Match].
func MatchPattern(pattern, mx string) bool {
	mx = strings.TrimSuffix(mx, ".")
	return hostName(mx, true) && match(pattern, mx)
}

// match: "*" stands for exactly one whole label, the left-most (RFC 8461 §4.1).
// The host name is valid, so a pattern that is not can only fail to match.
func match(pattern, mx string) bool {
	suffix, wildcard := strings.CutPrefix(pattern, "*.")
	if wildcard {
		_, parent, ok := strings.Cut(mx, ".")
		return ok && equalFoldASCII(suffix, parent)
	}
	return equalFoldASCII(pattern, mx)
}

// hostName reports whether s is a Domain of RFC 5321 §4.1.2 of legal length.
// Names in MX records may have underscores, which that grammar lacks.
func hostName(s string, underscores bool) bool {
	if s == "" || len(s) > maxHostSize {
		return false
	}
	start := 0
	for i := range len(s) + 1 {
		if i == len(s) || s[i] == '.' {
			size := i - start
			if size == 0 || size > maxLabelSize || s[start] == '-' || s[i-1] == '-' {
				return false
			}
			start = i + 1
			continue
		}
		if c := s[i]; !isAlphanumeric(c) && c != '-' && (c != '_' || !underscores) {
			return false
		}
	}
	return true
}

// checkPattern holds the value of an mx field against sts-policy-mx-value of
// RFC 8461 §3.2. An empty code means that there is nothing to say.
func checkPattern(value string) (Code, string) {
	shown := excerpt(value)
	name, wildcard := strings.CutPrefix(value, "*.")
	switch {
	case value == "":
		return PolicyMXInvalid, "mx has no value"
	case strings.ContainsAny(value, ",; \t"):
		return severalNames(value)
	case strings.Contains(value, "/"):
		return PolicyMXInvalid, shown + " is a URL: mx takes a host name"
	case strings.ContainsAny(value, "[]:"):
		return PolicyMXInvalid, shown + " is an address: mx takes a host name"
	case strings.HasSuffix(value, ".") && len(name) > 1:
		return PolicyMXInvalid, shown + " ends in a dot: leave it out"
	case strings.Contains(name, "*") || name == "":
		return PolicyMXWildcard, shown + ": * is allowed only as the whole left label, as in *.example.com"
	case strings.HasPrefix(value, "."):
		return PolicyMXWildcard, shown + " begins with a dot: a wildcard is written as in *.example.com"
	case hostName(name, false) && len(value) <= maxHostSize:
		if _, err := netip.ParseAddr(name); err == nil && !wildcard {
			return PolicyMXAddress, shown + " is an address: mx takes a host name, and this will match none"
		}
		return "", ""
	case !isASCII(name) && hostName(asciiStandIn(name), false):
		// The grammar has A-labels only. One name that is not in them is no
		// reason to throw the policy away, which would turn enforcement off:
		// it is kept, and matches nothing.
		return PolicyMXULabel, shown + " is not in A-labels (xn--…), and will match no host"
	default:
		return PolicyMXInvalid, shown + " is not a host name"
	}
}

func severalNames(value string) (Code, string) {
	first, _, _ := strings.Cut(value, " ")
	if first != "" && strings.Trim(first, "0123456789") == "" {
		return PolicyMXInvalid, excerpt(value) + " has a preference: mx takes a host name and nothing else"
	}
	return PolicyMXSeveral, excerpt(value) + " is more than one name: each needs its own mx line"
}

// asciiStandIn puts an x for each character that a U-label may be made of.
func asciiStandIn(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r)) {
			return 'x'
		}
		return r
	}, name)
}
