package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Path is a reverse path or forward path (RFC 5321 §4.1.2) without its source
// route. The zero value is the null reverse path "<>".
type Path struct {
	// Local is the local part as sent: a quoted one keeps its quotes.
	Local string
	// Domain is the domain or bracketed address literal as sent. It is empty
	// for "<Postmaster>" and the null path.
	Domain string
}

// ErrAddress is wrapped by every error about a path or mailbox; ErrNonASCII,
// which wraps it, says that the address needs SMTPUTF8.
var (
	ErrAddress  = errors.New("malformed address")
	ErrNonASCII = fmt.Errorf("%w: it holds characters beyond ASCII, which need SMTPUTF8", ErrAddress)
)

func addressError(reason string) error { return fmt.Errorf("%w: %s", ErrAddress, reason) }

// IsNull reports whether the path is the null reverse path.
func (p Path) IsNull() bool { return p == Path{} }

// String returns the mailbox without brackets, "" for the null path.
func (p Path) String() string {
	if p.Domain == "" {
		return p.Local
	}
	return p.Local + "@" + p.Domain
}

// IsASCII reports whether the path can be sent without SMTPUTF8.
func (p Path) IsASCII() bool { return isASCII(p.Local) && isASCII(p.Domain) }

// Literal returns the address if the domain is an address literal
// (RFC 5321 §4.1.3).
func (p Path) Literal() (netip.Addr, bool) {
	if !strings.HasPrefix(p.Domain, "[") {
		return netip.Addr{}, false
	}
	addr, err := parseLiteral(p.Domain)
	return addr, err == nil
}

// ParsePath reads a whole path with its angle brackets. A source route is
// checked and dropped (RFC 5321 §4.1.1.3). Characters beyond ASCII are taken
// if utf8 is set (RFC 6531 §3.3).
func ParsePath(s string, utf8 bool) (Path, error) {
	p, rest, err := cutPath(s, utf8)
	if err != nil {
		return Path{}, err
	}
	if rest != "" {
		return Path{}, addressError("text after the closing bracket")
	}
	return p, nil
}

// ParseMailbox reads a mailbox without brackets, as [Path.String] writes it.
// "" is the null path, "postmaster" needs no domain.
func ParseMailbox(s string, utf8 bool) (Path, error) {
	if s == "" {
		return Path{}, nil
	}
	p, rest, err := cutMailbox(s, utf8)
	if err != nil {
		return Path{}, err
	}
	if rest != "" {
		return Path{}, addressError("text after the domain")
	}
	return p, nil
}

// cutPath takes a path off the front of s.
func cutPath(s string, utf8 bool) (p Path, rest string, err error) {
	if s == "" || s[0] != '<' {
		return Path{}, "", addressError("no opening bracket")
	}
	s = s[1:]
	if strings.HasPrefix(s, ">") {
		return Path{}, s[1:], nil
	}
	if s, err = skipRoute(s, utf8); err != nil {
		return Path{}, "", err
	}
	if p, s, err = cutMailbox(s, utf8); err != nil {
		return Path{}, "", err
	}
	if s == "" || s[0] != '>' {
		return Path{}, "", addressError("no closing bracket where the domain ends")
	}
	return p, s[1:], nil
}

// skipRoute passes over "@a.example,@b.example:" (A-d-l, RFC 5321 §4.1.2),
// which must be accepted and should be ignored.
func skipRoute(s string, utf8 bool) (string, error) {
	if s == "" || s[0] != '@' {
		return s, nil
	}
	for {
		if s == "" || s[0] != '@' {
			return "", addressError("a malformed source route")
		}
		n, err := scanDomain(s[1:], utf8)
		if err != nil {
			return "", err
		}
		s = s[1+n:]
		if s == "" {
			return "", addressError("a malformed source route")
		}
		switch s[0] {
		case ':':
			return s[1:], nil
		case ',':
			s = s[1:]
		default:
			return "", addressError("a malformed source route")
		}
	}
}

// cutMailbox takes Local-part "@" ( Domain / address-literal ) off the front.
func cutMailbox(s string, utf8 bool) (p Path, rest string, err error) {
	n, err := scanLocal(s, utf8)
	if err != nil {
		return Path{}, "", err
	}
	p.Local, s = s[:n], s[n:]
	if s == "" || s[0] != '@' {
		// RFC 5321 §4.5.1: postmaster is valid without a domain.
		if strings.EqualFold(p.Local, "postmaster") {
			return p, s, nil
		}
		return Path{}, "", addressError("no @ after the local part")
	}
	s = s[1:]
	if strings.HasPrefix(s, "[") {
		n = strings.IndexByte(s, ']') + 1
		if _, err := parseLiteral(s[:n]); err != nil {
			return Path{}, "", err
		}
	} else if n, err = scanDomain(s, utf8); err != nil {
		return Path{}, "", err
	}
	p.Domain = s[:n]
	return p, s[n:], nil
}

// scanLocal returns the length of the local part that s begins with.
func scanLocal(s string, utf8 bool) (int, error) {
	n, err := scanDotString(s, utf8)
	if strings.HasPrefix(s, `"`) {
		n, err = scanQuoted(s, utf8)
	}
	if err == nil && n > MaxLocalPart {
		err = addressError("the local part is too long")
	}
	return n, err
}

// scanDotString scans Atom *("." Atom).
func scanDotString(s string, utf8 bool) (int, error) {
	i := 0
	for {
		start := i
		for i < len(s) {
			if isAtext(s[i]) {
				i++
				continue
			}
			n, err := scanRune(s[i:], utf8)
			if err != nil {
				return 0, err
			}
			if n == 0 {
				break
			}
			i += n
		}
		if i == start {
			return 0, addressError("the local part is empty, or lacks text beside a dot")
		}
		if i == len(s) || s[i] != '.' {
			return i, nil
		}
		i++
	}
}

// scanQuoted scans Quoted-string, with its quotes.
func scanQuoted(s string, utf8 bool) (int, error) {
	for i := 1; i < len(s); {
		switch c := s[i]; {
		case c == '"':
			return i + 1, nil
		case c == '\\':
			// quoted-pairSMTP = "\" %d32-126
			if i+1 == len(s) || s[i+1] < ' ' || s[i+1] > '~' {
				return 0, addressError("a backslash that quotes no printable character")
			}
			i += 2
		case c >= ' ' && c <= '~':
			i++
		default:
			n, err := scanRune(s[i:], utf8)
			if err != nil {
				return 0, err
			}
			if n == 0 {
				return 0, addressError("a control character")
			}
			i += n
		}
	}
	return 0, addressError("a quoted local part without its closing quote")
}

// scanRune returns the length of the character beyond ASCII that s begins
// with, 0 if there is none.
func scanRune(s string, utf8Allowed bool) (int, error) {
	if s[0] < utf8.RuneSelf {
		return 0, nil
	}
	if !utf8Allowed {
		return 0, ErrNonASCII
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError {
		return 0, addressError("it is not UTF-8")
	}
	if isControl(r) {
		return 0, addressError("a control character")
	}
	return n, nil
}

// scanDomain returns the length of the domain that s begins with:
// sub-domain *("." sub-domain), of letters, digits and inner hyphens, or
// U-labels (RFC 6531 §3.3).
func scanDomain(s string, utf8 bool) (int, error) {
	i := 0
	for {
		start, digits := i, true
		for i < len(s) {
			c := s[i]
			if isAlnum(c) || c == '-' {
				digits = digits && isDigit(c)
				i++
				continue
			}
			n, err := scanRune(s[i:], utf8)
			if err != nil {
				return 0, err
			}
			if n == 0 {
				break
			}
			if !isLabelRune(s[i : i+n]) {
				return 0, addressError("a character that a domain cannot hold")
			}
			digits = false
			i += n
		}
		label := s[start:i]
		switch {
		case label == "":
			return 0, addressError("the domain is empty, or lacks text beside a dot")
		case label[0] == '-' || label[len(label)-1] == '-':
			return 0, addressError("a label of the domain begins or ends with a hyphen")
		case len(label) > maxLabel && isASCII(label), i > MaxDomain:
			return 0, addressError("the domain is too long")
		}
		if i == len(s) || s[i] != '.' {
			if digits {
				return 0, addressError("an IP address needs brackets")
			}
			return i, nil
		}
		i++
	}
}

// isLabelRune reports whether a character beyond ASCII can be part of a
// U-label: letters, marks and digits, and the two joiners (RFC 5892 §2, in
// outline). Dots of other scripts are none, so that no one sees a label break
// that another does not.
func isLabelRune(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number) ||
		r == 0x200c || r == 0x200d || r == 0xb7 || r == 0x30fb || r == 0x375 || r == 0x5f3 || r == 0x5f4
}

// parseLiteral reads "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 §4.1.3).
func parseLiteral(s string) (netip.Addr, error) {
	bad := addressError("a malformed address literal")
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, bad
	}
	s = s[1 : len(s)-1]
	const tag = "IPv6:"
	if len(s) > len(tag) && strings.EqualFold(s[:len(tag)], tag) {
		addr, err := netip.ParseAddr(s[len(tag):])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return netip.Addr{}, bad
		}
		return addr, nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, bad
	}
	return addr, nil
}

// ParseHello reads the argument of EHLO or HELO: a domain or an address
// literal (RFC 5321 §4.1.1.1). Since real clients send the names that they
// find, underscores and a last dot are taken too; it is for the log and the
// trace, never for a decision.
func ParseHello(s string) (string, error) {
	if s == "" || len(s) > MaxDomain {
		return "", addressError("the name is empty or too long")
	}
	for i := range len(s) {
		switch c := s[i]; {
		case isAlnum(c), c == '.', c == '-', c == '_', c == '[', c == ']', c == ':':
		default:
			return "", addressError("the name holds a character that none can hold")
		}
	}
	return s, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
