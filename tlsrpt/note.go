package tlsrpt

import "fmt"

// Code names a thing that was off about a report. Codes are stable.
type Code string

// What can be off about a report that was read all the same.
const (
	NoteByteOrderMark   Code = "byte-order-mark"   // the JSON begins with a byte order mark
	NoteTrailingData    Code = "trailing-data"     // something follows the JSON, or the gzip data is damaged behind it
	NoteDuplicate       Code = "duplicate"         // a member is given more than once; the last counts
	NoteUnknown         Code = "unknown-member"    // RFC 8460 does not define the member; it is ignored
	NoteName            Code = "odd-name"          // a member's name is misspelt or in other case
	NoteMissing         Code = "missing"           // a member that RFC 8460 demands is not there
	NoteType            Code = "wrong-type"        // a value is of another JSON type than RFC 8460 says
	NoteStringForArray  Code = "string-for-array"  // one string stands where an array belongs, as in RFC 8460's own example
	NoteStringForNumber Code = "string-for-number" // a number is written as a string
	NoteNumber          Code = "bad-number"        // a count is negative, broken or beyond 2^53-1
	NoteDate            Code = "odd-date"          // a date is not of RFC 3339
	NoteRange           Code = "odd-range"         // the report does not end after it starts
	NoteAddress         Code = "bad-address"       // not an IP address; it is left out
	NoteContact         Code = "bad-contact"       // contact-info is not a mailbox
	NoteDomain          Code = "bad-domain"        // not a domain name in A-labels
	NotePolicyType      Code = "odd-policy-type"   // not one of the three
	NoteResultType      Code = "odd-result-type"   // not one of the eleven
	NoteText            Code = "bad-text"          // text that is not I-JSON: bytes were replaced
	NoteClipped         Code = "clipped"           // a text or a list is longer than is kept
)

// Note is one thing that was off.
type Note struct {
	Code Code   `json:"code"`
	Path string `json:"path,omitempty"` // as "policies[0].summary"
	Text string `json:"text"`           // one sentence
}

func (n Note) String() string {
	if n.Path == "" {
		return n.Text
	}
	return n.Path + ": " + n.Text
}

// notes gathers what was off.
type notes []Note

func (n *notes) add(code Code, path, format string, args ...any) {
	if len(*n) < maxNotes {
		*n = append(*n, Note{code, path, fmt.Sprintf(format, args...)})
	}
}
