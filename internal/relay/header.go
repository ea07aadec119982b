package relay

import (
	"bytes"
	"fmt"
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

// countReceived counts the Received lines in the header section at the
// beginning of a message in wire form.
func countReceived(head []byte) int {
	n := 0
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\r\n"))
		if len(line) == 0 {
			break // the body begins
		}
		if len(line) >= len("Received:") && bytes.EqualFold(line[:len("Received:")], []byte("Received:")) {
			n++
		}
		head = rest
	}
	return n
}
