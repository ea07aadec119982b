package tlsrpt

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	// MaxRecordSize caps a TXT record's text. DNS cannot carry more.
	MaxRecordSize = 65535
	// MaxRUA caps the destinations of one record. Those beyond it are left out
	// with a warning: a sender must not be made to flood.
	MaxRUA = 16
	// MaxExtensions caps the unknown fields of a record that are kept.
	MaxExtensions = 64

	recordVersion = "v=TLSRPTv1"
	blanks        = " \t" // WSP of RFC 5234
	maxNameSize   = 32    // tlsrpt-ext-name
	maxExcerpt    = 80    // of foreign text in one of our sentences
)

// The schemes of a destination (RFC 8460 §3).
const (
	Mailto = "mailto"
	HTTPS  = "https"
)

// Destination is one place that a domain wants its reports sent to.
type Destination struct {
	URI     string `json:"uri"`               // as published
	Scheme  string `json:"scheme"`            // [Mailto] or [HTTPS]
	Mailbox string `json:"mailbox,omitempty"` // of a mailto URI, percent-decoded
	Host    string `json:"host"`              // the mailbox's domain or the URL's host name, in lower case
}

// Field is a field that RFC 8460 does not define.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Record is the TXT record at [RecordName].
type Record struct {
	RUA        []Destination // at least one
	Extensions []Field       // unknown fields in their order
}

// RecordName returns the name at which a domain has its TXT record.
func RecordName(domain string) string { return "_smtp._tls." + domain }

// The errors of [SelectRecord] for a domain that does not implement TLSRPT.
var (
	ErrNoRecord        = errors.New("no TXT record begins with v=TLSRPTv1;")
	ErrMultipleRecords = errors.New("more than one TXT record begins with v=TLSRPTv1;")
)

// RecordError says why a text is not a valid record.
type RecordError struct {
	Text   string // the record
	Reason string // for people
}

func (e *RecordError) Error() string { return "invalid TLSRPT record: " + e.Reason }

// SelectRecord returns the one record among the TXT records of [RecordName]
// that begins with the version. The strings of each TXT record must have been
// joined with nothing in between (RFC 8460 §3). The error is [ErrNoRecord],
// [ErrMultipleRecords] or a [*RecordError]; each means that no report is wanted.
func SelectRecord(txts []string) (Record, error) {
	selected, found := "", 0
	for _, txt := range txts {
		// RFC 8460 §3: records that do not begin with the version are discarded.
		if beginsWithVersion(txt) {
			selected = txt
			found++
		}
	}
	switch found {
	case 0:
		return Record{}, ErrNoRecord
	case 1:
		return ParseRecord(selected)
	default:
		// RFC 8460 §3: if the number is not one, senders MUST assume that the
		// domain does not implement TLSRPT.
		return Record{}, ErrMultipleRecords
	}
}

// beginsWithVersion says yes to "v=TLSRPTv1 ;" as well: the prose of RFC 8460 §3
// asks for "v=TLSRPTv1;", its grammar allows blanks before a delimiter.
func beginsWithVersion(txt string) bool {
	rest, ok := strings.CutPrefix(txt, recordVersion)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, blanks), ";")
}

// ParseRecord parses one TXT record. The error is a [*RecordError].
func ParseRecord(txt string) (Record, error) {
	r, _, err := InspectRecord(txt)
	return r, err
}

// InspectRecord does what [ParseRecord] does and also tells what is odd about
// the record: a destination of another scheme or that cannot be used is left
// out with a warning, as long as there is one that can.
func InspectRecord(txt string) (Record, []string, error) {
	if len(txt) > MaxRecordSize {
		return Record{}, nil, &RecordError{txt[:maxExcerpt], fmt.Sprintf("%d bytes, %d are allowed", len(txt), MaxRecordSize)}
	}
	p := recordParser{text: txt}
	err := p.parse()
	if err != nil {
		return Record{}, p.warnings, err
	}
	return p.record, p.warnings, nil
}

type recordParser struct {
	text     string
	record   Record
	hasRUA   bool
	warnings []string
}

// parse walks tlsrpt-record of RFC 8460 §3.
func (p *recordParser) parse() error {
	if !beginsWithVersion(p.text) {
		return p.fail("it begins with %s, not with v=TLSRPTv1;", excerpt(p.text))
	}
	rest := p.text[len(recordVersion):]
	for rest != "" {
		// field-delim = *WSP ";" *WSP
		after, ok := strings.CutPrefix(strings.TrimLeft(rest, blanks), ";")
		if !ok {
			return p.fail("%s stands where a semicolon should", excerpt(rest))
		}
		field := strings.TrimLeft(after, blanks)
		if field == "" {
			break // one delimiter may end the record
		}
		rest = ""
		if end := strings.IndexByte(field, ';'); end >= 0 {
			field, rest = field[:end], field[end:]
		}
		if err := p.field(strings.TrimRight(field, blanks)); err != nil {
			return err
		}
	}
	switch {
	case !p.hasRUA:
		return p.fail("it has no rua")
	case len(p.record.RUA) == 0:
		return p.fail("no destination in rua can be used: %s", strings.Join(p.warnings, "; "))
	}
	return nil
}

func (p *recordParser) field(field string) error {
	name, value, ok := strings.Cut(field, "=")
	if !ok || !extensionName(name) {
		return p.fail("%s is not a field: fields are name=value, with one semicolon between them", excerpt(field))
	}
	switch {
	case name == "rua" && !p.hasRUA:
		p.hasRUA = true
		p.destinations(value)
		return nil
	case name == "rua":
		p.warn("rua is given more than once, the first counts")
		return nil
	case !extensionValue(value):
		return p.fail("%s has an empty value, or one with a blank, an equals sign or a character that is not ASCII", excerpt(field))
	case len(p.record.Extensions) < MaxExtensions:
		// RFC 8460 §3: unknown fields SHALL be ignored.
		p.record.Extensions = append(p.record.Extensions, Field{strings.Clone(name), strings.Clone(value)})
	}
	return nil
}

// destinations reads tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri).
func (p *recordParser) destinations(value string) {
	for uri := range strings.SplitSeq(value, ",") {
		d, err := ParseDestination(strings.Trim(uri, blanks))
		switch {
		case err != nil:
			p.warn("%v", err)
		case len(p.record.RUA) == MaxRUA:
			p.warn("%s is left out: a record has at most %d destinations here", excerpt(uri), MaxRUA)
		default:
			p.record.RUA = append(p.record.RUA, d)
		}
	}
}

func (p *recordParser) fail(format string, args ...any) error {
	return &RecordError{p.text, fmt.Sprintf(format, args...)}
}

func (p *recordParser) warn(format string, args ...any) {
	if len(p.warnings) < MaxRUA {
		p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
	}
}

// ParseDestination reads one URI of a rua list.
func ParseDestination(uri string) (Destination, error) {
	for i := range len(uri) {
		switch c := uri[i]; {
		case c <= ' ' || c >= 0x7f:
			return Destination{}, fmt.Errorf("%s is not a URI: it has a blank or a character that is not ASCII", excerpt(uri))
		case c == ',' || c == '!' || c == ';':
			// RFC 8460 §3: these MUST be encoded.
			return Destination{}, fmt.Errorf("%s has a %q that is not percent-encoded", excerpt(uri), c)
		}
	}
	u, err := url.Parse(uri)
	if err != nil {
		return Destination{}, fmt.Errorf("%s is not a URI", excerpt(uri))
	}
	d := Destination{URI: strings.Clone(uri), Scheme: strings.ToLower(u.Scheme)}
	switch d.Scheme {
	case Mailto:
		// RFC 6068 §2: what follows a question mark are header fields, which are
		// not for us to set. The addresses before it may be several in a URI, but
		// a list of destinations is what rua itself is for.
		d.Mailbox, err = url.PathUnescape(u.Opaque)
		if err != nil || !IsMailbox(d.Mailbox) {
			return Destination{}, fmt.Errorf("%s does not name one mailbox", excerpt(uri))
		}
		d.Host = strings.ToLower(d.Mailbox[strings.LastIndexByte(d.Mailbox, '@')+1:])
	case HTTPS:
		if u.Opaque != "" || u.Hostname() == "" || u.User != nil {
			return Destination{}, fmt.Errorf("%s is not an address that a report can be posted to", excerpt(uri))
		}
		d.Host = strings.ToLower(u.Hostname())
	default:
		return Destination{}, fmt.Errorf("%s is neither mailto nor https", excerpt(uri))
	}
	return d, nil
}

// Text returns the record as it is published, such as
// "v=TLSRPTv1; rua=mailto:reports@example.com".
func (r Record) Text() string {
	var b strings.Builder
	b.WriteString(recordVersion + "; rua=")
	for i, d := range r.RUA {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(d.URI)
	}
	for _, f := range r.Extensions {
		b.WriteString("; " + f.Name + "=" + f.Value)
	}
	return b.String()
}

// MailtoURI returns the destination of a mailbox, percent-encoded as a record
// needs it.
func MailtoURI(mailbox string) (Destination, error) {
	if !IsMailbox(mailbox) {
		return Destination{}, fmt.Errorf("%s is not a mailbox", excerpt(mailbox))
	}
	var b strings.Builder
	b.WriteString(Mailto + ":")
	for i := range len(mailbox) {
		if c := mailbox[i]; isAlphanumeric(c) || strings.IndexByte("-._~+@=", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return ParseDestination(b.String())
}
