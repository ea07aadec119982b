package smtp

import "strconv"

// Enhanced is an enhanced status code (RFC 3463 §2): class, subject, detail.
// The zero value means that there is none.
type Enhanced [3]int

// String returns the code as "5.7.1", or "" if there is none.
func (e Enhanced) String() string {
	if e == (Enhanced{}) {
		return ""
	}
	return string(e.append(nil))
}

func (e Enhanced) append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(e[0]), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(e[1]), 10)
	b = append(b, '.')
	return strconv.AppendInt(b, int64(e[2]), 10)
}

// cutEnhanced takes an enhanced code of the given class off the front of a
// reply's text. Without one it returns the zero code and the whole text.
func cutEnhanced(class int, text string) (Enhanced, string) {
	// status-code = class "." subject "." detail, the latter two of one to
	// three digits (RFC 3463 §2); it must agree with the reply (RFC 2034 §4).
	if len(text) < 5 || text[1] != '.' || int(text[0]-'0') != class {
		return Enhanced{}, text
	}
	subject, rest, ok := cutNumber(text[2:])
	if !ok || rest == "" || rest[0] != '.' {
		return Enhanced{}, text
	}
	detail, rest, ok := cutNumber(rest[1:])
	if !ok {
		return Enhanced{}, text
	}
	if rest != "" {
		if rest[0] != ' ' {
			return Enhanced{}, text
		}
		rest = rest[1:]
	}
	return Enhanced{class, subject, detail}, rest
}

// cutNumber takes a number of one to three digits off the front of s.
func cutNumber(s string) (n int, rest string, ok bool) {
	i := 0
	for i < len(s) && i < 3 && isDigit(s[i]) {
		n = n*10 + int(s[i]-'0')
		i++
	}
	return n, s[i:], i > 0
}
