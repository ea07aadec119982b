package tlsrpt

import (
	"strconv"
	"strings"
)

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// extensionName reports whether s is a tlsrpt-ext-name.
func extensionName(s string) bool {
	if s == "" || len(s) > maxNameSize || !isAlphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// extensionValue reports whether s is a tlsrpt-ext-value.
func extensionValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == ';' || c == '=' {
			return false
		}
	}
	return s != ""
}

const (
	maxLocal  = 64  // RFC 5321 §4.5.3.1.1
	maxDomain = 253 // of a name, without its last dot
)

// IsMailbox reports whether s is a mailbox that a report can be sent to or come
// from: an unquoted local part (dot-atom, RFC 5322 §3.2.3) and a domain of
// A-labels. Quoted local parts are refused; nobody publishes one.
func IsMailbox(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at > maxLocal || !IsDomain(s[at+1:]) {
		return false
	}
	local := s[:at]
	for i := range len(local) {
		c := local[i]
		switch {
		case isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
		case c == '.' && i > 0 && i < len(local)-1 && local[i-1] != '.':
		default:
			return false
		}
	}
	return true
}

// IsDomain reports whether s is a domain name of letters, digits, hyphens and
// underscores, without a last dot: internationalized names must be in A-labels
// (RFC 8460 §4.4).
func IsDomain(s string) bool {
	if s == "" || len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// isPattern reports whether s is an mx-host-pattern: a name, or one below "*.".
func isPattern(s string) bool { return IsDomain(strings.TrimPrefix(s, "*.")) }

// excerpt quotes text from outside, so that it can neither flood a log nor
// steer a terminal.
func excerpt(s string) string {
	if len(s) > maxExcerpt {
		return strconv.QuoteToASCII(strings.ToValidUTF8(s[:maxExcerpt], "")) + "…"
	}
	return strconv.QuoteToASCII(s)
}
