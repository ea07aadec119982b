package smtp

import (
	"slices"
	"strconv"
	"strings"
)

// Keywords of the extensions that pawl knows.
const (
	Pipelining          = "PIPELINING"          // RFC 2920
	Size                = "SIZE"                // RFC 1870
	EightBitMIME        = "8BITMIME"            // RFC 6152
	SMTPUTF8            = "SMTPUTF8"            // RFC 6531
	Chunking            = "CHUNKING"            // RFC 3030
	EnhancedStatusCodes = "ENHANCEDSTATUSCODES" // RFC 2034
	DSN                 = "DSN"                 // RFC 3461
	RequireTLS          = "REQUIRETLS"          // RFC 8689
	StartTLS            = "STARTTLS"            // RFC 3207
	Auth                = "AUTH"                // RFC 4954
)

// Extensions are the service extensions of an EHLO reply: upper-case keyword
// to parameters, separated by single blanks.
type Extensions map[string]string

// ParseExtensions reads the reply to EHLO (RFC 5321 §4.1.1.1). Its first line
// is the server's name; a line whose keyword breaks the grammar is passed over,
// and of a repeated keyword the first counts.
func ParseExtensions(r Reply) Extensions {
	e := make(Extensions, len(r.Lines))
	for _, line := range r.Lines[min(1, len(r.Lines)):] {
		keyword, params, _ := strings.Cut(line, " ")
		keyword = strings.ToUpper(keyword)
		if _, known := e[keyword]; known || !isKeyword(keyword) {
			continue
		}
		e[keyword] = strings.Join(strings.Fields(params), " ")
	}
	return e
}

// Has reports whether the extension is offered.
func (e Extensions) Has(keyword string) bool {
	_, ok := e[keyword]
	return ok
}

// MaxSize returns the largest message that the server takes, and 0 if it
// names none (RFC 1870 §4).
func (e Extensions) MaxSize() int64 {
	n, err := strconv.ParseInt(e[Size], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// HasAuth reports whether AUTH is offered with the mechanism.
func (e Extensions) HasAuth(mechanism string) bool {
	return slices.ContainsFunc(strings.Fields(e[Auth]), func(m string) bool { return strings.EqualFold(m, mechanism) })
}

// Offer returns what parameters of MAIL and RCPT the extensions allow.
func (e Extensions) Offer() Offer {
	return Offer{
		Size:       e.Has(Size),
		EightBit:   e.Has(EightBitMIME),
		UTF8:       e.Has(SMTPUTF8),
		DSN:        e.Has(DSN),
		RequireTLS: e.Has(RequireTLS),
		Auth:       e.Has(Auth),
	}
}

// Offer says which extensions of MAIL and RCPT hold on a connection.
type Offer struct {
	Size, EightBit, UTF8, DSN, RequireTLS, Auth bool
}
