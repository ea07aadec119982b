package dkim

import (
	"bytes"
	"fmt"
	"strings"
)

// maxNames caps the h= tag, in octets: a message that needs more has fields by
// the hundred that belong there once.
const maxNames = 1000

// oversigned are the fields that a signature covers as many times as they occur
// and once more, so that none can be added without breaking it (RFC 6376 §5.4.2,
// §8.15): those that say what the message is, and TLS-Required, which decides
// how it may travel (RFC 8689 §3).
var oversigned = []string{
	"From", "Subject", "Date", "To", "Cc", "Message-ID", "Reply-To", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "TLS-Required",
}

// signed are covered where they occur. A mailing list may add its own to a
// message without them, and leave the author's signature whole. Those of TLS
// reports SHOULD be covered (RFC 8460 §5.3).
var signed = []string{
	"TLS-Report-Domain", "TLS-Report-Submitter",
	"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
}

// field is one header field, as it stands in the message.
type field struct {
	name  string // in lower case
	value string // behind the colon, folded, with its CR LF
}

// head is a header section, in its order.
type head []field

// parseHead takes a header section apart. What is none has no one meaning, and
// is not signed.
func parseHead(text []byte) (head, error) {
	var all head
	for line := range bytes.Lines(text) {
		if line[0] == ' ' || line[0] == '\t' {
			if len(all) == 0 {
				return nil, fmt.Errorf("%w: its header begins with a continuation", ErrUnsigned)
			}
			all[len(all)-1].value += string(line)
			continue
		}
		name, value, ok := strings.Cut(string(line), ":")
		name = strings.ToLower(strings.TrimRight(name, " \t")) // RFC 5322 §4.5 lets blanks stand before the colon
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("%w: its header has a line that is no field", ErrUnsigned)
		}
		all = append(all, field{name, value})
	}
	return all, nil
}

// last returns the last field of a name and how many there are.
func (h head) last(name string) (value string, n int) {
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			value = f.value
			n++
		}
	}
	return value, n
}

// names is the h= tag.
func (h head) names() []string {
	var names []string
	add := func(name string, more int) {
		_, n := h.last(name)
		for range n + more {
			names = append(names, name)
		}
	}
	for _, name := range oversigned {
		add(name, 1)
	}
	for _, name := range signed {
		add(name, 0)
	}
	return names
}

// canonical is what is signed of the header: the fields of h=, from the bottom
// up where a name occurs more than once; what does not exist adds nothing
// (RFC 6376 §5.4.2).
func (h head) canonical(names []string) []byte {
	var out []byte
	below := map[string]int{} // of each name, where the search goes on
	for _, name := range names {
		name = strings.ToLower(name)
		i, begun := below[name]
		if !begun {
			i = len(h)
		}
		for i--; i >= 0 && h[i].name != name; i-- {
		}
		below[name] = max(i, 0)
		if i >= 0 {
			out = append(out, relaxed(name, h[i].value)...)
		}
	}
	return out
}

// relaxed is a field in relaxed form (RFC 6376 §3.4.2), with CR LF.
func relaxed(name, value string) []byte {
	words := strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' })
	return []byte(strings.ToLower(name) + ":" + strings.Join(words, " ") + crlf)
}
