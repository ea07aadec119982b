package smtp

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// AppendXtext appends s as xtext (RFC 3461 §4): "+" and two upper-case hex
// digits for "+", "=" and whatever is not printable ASCII.
func AppendXtext(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c <= '~' && c != '+' && c != '=' {
			b = append(b, c)
			continue
		}
		b = append(b, '+', hex[c>>4], hex[c&15])
	}
	return b
}

// DecodeXtext reads xtext (RFC 3461 §4); it reports false if s is none.
func DecodeXtext(s string) (string, bool) {
	if strings.IndexByte(s, '+') < 0 {
		return s, isXchar(s)
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c > '~' || c == '=' {
			return "", false
		}
		if c == '+' {
			if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
				return "", false
			}
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}

func isXchar(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '=' {
			return false
		}
	}
	return true
}

func isUpperHex(c byte) bool { return isDigit(c) || c >= 'A' && c <= 'F' }

func unhex(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c - 'A' + 10
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// ORcpt is an original recipient (RFC 3461 §4.2). The zero value means that
// none was given.
type ORcpt struct {
	Type string // address type in lower case: "rfc822", "utf-8", …
	Addr string // decoded
}

// ParseORcpt reads "rfc822;a+2Bb@c.example" or, of RFC 6533 §3,
// "utf-8;\x{FC}ber@c.example"; it reports false if s is neither.
func ParseORcpt(s string) (ORcpt, bool) {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok || len(s) > MaxORcpt || !isKeyword(kind) || addr == "" {
		return ORcpt{}, false
	}
	o := ORcpt{Type: strings.ToLower(kind)}
	if o.Type == "utf-8" {
		o.Addr, ok = decodeUnitext(addr)
	} else {
		o.Addr, ok = DecodeXtext(addr)
		ok = ok && isPrintableASCII(o.Addr)
	}
	if !ok || o.Addr == "" {
		return ORcpt{}, false
	}
	return o, true
}

// String returns the value as it can be sent without SMTPUTF8, "" if there is none.
func (o ORcpt) String() string {
	if o.Type == "" {
		return ""
	}
	return string(o.Append(nil, false))
}

// Append appends the value as sent. Characters beyond ASCII go as they are if
// utf8 is set, which needs SMTPUTF8, else as \x{HEX} (RFC 6533 §3).
func (o ORcpt) Append(b []byte, utf8 bool) []byte {
	b = append(append(b, o.Type...), ';')
	if o.Type != "utf-8" {
		return AppendXtext(b, o.Addr)
	}
	for _, r := range o.Addr {
		switch {
		case r > '~' && utf8, r > ' ' && r <= '~' && r != '+' && r != '=' && r != '\\':
			b = append(b, string(r)...)
		default:
			b = append(b, '\\', 'x', '{')
			b = append(b, strings.ToUpper(strconv.FormatInt(int64(r), 16))...)
			b = append(b, '}')
		}
	}
	return b
}

// decodeUnitext reads utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 §3).
func decodeUnitext(s string) (string, bool) {
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if r == '\\' {
			if r, n = decodeEmbedded(s); n == 0 {
				return "", false
			}
		} else if r <= ' ' || r == '+' || r == '=' || r == utf8.RuneError {
			return "", false
		}
		if isControl(r) {
			return "", false
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String(), true
}

// decodeEmbedded reads one \x{HEX}; its length is 0 if s begins with none.
func decodeEmbedded(s string) (rune, int) {
	hex, _, ok := strings.Cut(strings.TrimPrefix(s, `\x{`), "}")
	if !ok || !strings.HasPrefix(s, `\x{`) || len(hex) < 2 || len(hex) > 6 {
		return 0, 0
	}
	for i := range len(hex) {
		if !isUpperHex(hex[i]) {
			return 0, 0
		}
	}
	v, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || !utf8.ValidRune(rune(v)) || v == utf8.RuneError {
		return 0, 0
	}
	return rune(v), len(`\x{}`) + len(hex)
}
