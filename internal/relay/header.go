package relay

import (
	"bytes"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"time"
)

// maxHeader is how much of a message's beginning is looked at for its header
// section, in bytes.
const maxHeader = 256 << 10

// trace is the Received line that each host adds (RFC 5321 §4.4).
type trace struct {
	Helo     string
	Client   netip.Addr
	Hostname string
	Protocol string // "ESMTP", "ESMTPS", "UTF8SMTP", … (RFC 3848, RFC 6531 §4.3)
	TLS      string // version and cipher; empty without TLS
	ID       string
	For      string // the recipient, if there is just one
	At       time.Time
}

// line writes the header field, folded, with its CR LF.
func (t trace) line() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from %s (%s)\r\n\tby %s (pawl) with %s", word(t.Helo), literal(t.Client), t.Hostname, t.Protocol)
	if t.TLS != "" {
		fmt.Fprintf(&b, " (%s)", t.TLS)
	}
	fmt.Fprintf(&b, "\r\n\tid %s", t.ID)
	if t.For != "" {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", t.For)
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", t.At.Format(time.RFC1123Z))
	return []byte(b.String())
}

// word keeps a name that the client chose from breaking out of its place.
func word(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"`, r) && r != ':' {
			return -1
		}
		return r
	}, s)
	if clean == "" {
		return "unknown"
	}
	return clean
}

func literal(a netip.Addr) string {
	switch {
	case a.Is4():
		return "[" + a.String() + "]"
	case a.IsValid():
		return "[IPv6:" + a.String() + "]"
	default:
		return "local"
	}
}

// header is the header section of a message in wire form, without the empty line
// that ends it.
type header struct {
	text  []byte
	whole bool // its end was seen
}

// cutHeader returns the header section at the beginning of a message: up to the
// empty line, or to a line that is none of a header field (RFC 5322 §2.2), which
// others take for the beginning of the body. At most [maxHeader] is looked at.
func cutHeader(message []byte) header {
	end := 0
	for end < len(message) && end < maxHeader {
		n := bytes.IndexByte(message[end:], '\n') + 1
		if n == 0 {
			return header{text: message[:end]}
		}
		line := message[end : end+n]
		folded := end > 0 && (line[0] == ' ' || line[0] == '\t')
		if !folded && !isField(line) {
			return header{text: message[:end], whole: true}
		}
		end += n
	}
	return header{text: message[:end], whole: end == len(message) && end < maxHeader}
}

// isField reports whether a line begins a header field.
func isField(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	for _, c := range line[:max(colon, 0)] {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return colon > 0
}

// values yields what stands behind the colon of each field of a name, folds
// included, without the CR LF at the end.
func (h header) values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest := h.text
		for len(rest) > 0 {
			end := fieldEnd(rest)
			field := bytes.TrimSuffix(rest[:end], []byte("\r\n"))
			rest = rest[end:]
			if len(field) > len(name) && field[len(name)] == ':' && strings.EqualFold(string(field[:len(name)]), name) && !yield(field[len(name)+1:]) {
				return
			}
		}
	}
}

// fieldEnd is where the first field of a header ends, its folded lines included.
func fieldEnd(text []byte) int {
	end := 0
	for {
		n := bytes.IndexByte(text[end:], '\n') + 1
		if n == 0 {
			return len(text)
		}
		end += n
		if end == len(text) || text[end] != ' ' && text[end] != '\t' {
			return end
		}
	}
}

// received counts the Received lines.
func (h header) received() (n int) {
	for range h.values("Received") {
		n++
	}
	return n
}

// tlsRequiredNo reports whether the header has the field "TLS-Required: No", as
// RFC 8689 §3 writes it, and has it once: more than one must not appear, and what
// breaks that rule waives nothing. Nor does a header whose end was not seen.
func (h header) tlsRequiredNo() bool {
	fields, no := 0, 0
	for v := range h.values("TLS-Required") {
		fields++
		if strings.EqualFold(string(trimFWS(v)), "No") {
			no++
		}
	}
	return h.whole && fields == 1 && no == 1
}

// bulk reports whether the header says that the message is one of many: to a list
// (RFC 2919, RFC 2369), or by the word of its sender in the field "Precedence",
// which no standard defines and everybody knows (RFC 3834 §3.1.8).
func (h header) bulk() bool {
	for v := range h.values("Precedence") {
		switch strings.ToLower(string(bytes.TrimSpace(v))) {
		case "bulk", "list", "junk":
			return true
		}
	}
	for _, name := range []string{"List-Id", "List-Unsubscribe"} {
		for range h.values(name) {
			return true
		}
	}
	return false
}

// trimFWS takes the folding white space off that may stand in front of a value
// (RFC 5322 §3.2.2).
func trimFWS(v []byte) []byte { return bytes.TrimLeft(v, " \t\r\n") }
