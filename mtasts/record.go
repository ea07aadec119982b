package mtasts

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// MaxRecordSize caps a TXT record's text. DNS cannot carry more.
	MaxRecordSize = 65535
	// MaxExtensions caps how many unknown fields of a record or a policy are
	// kept. Those beyond it are ignored, as all unknown fields may be.
	MaxExtensions = 64

	maxIDSize   = 32 // RFC 8461 §3.1, sts-id
	maxNameSize = 32 // sts-ext-name and sts-policy-ext-name

	recordVersion = "v=STSv1"
	blanks        = " \t" // WSP of RFC 5234
	txtStringSize = 255   // one string of a TXT record, RFC 1035 §3.3
)

// Field is a field that RFC 8461 does not define.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Record is the TXT record at [RecordName]: it says that the domain has a
// policy, and by its ID, which.
type Record struct {
	ID         string  // 1 to 32 letters and digits; no order among ids
	Extensions []Field // unknown fields in their order, the first of each name
}

// RecordName returns the name at which a domain has its TXT record. It must be
// followed if it is a CNAME (RFC 8461 §3.1).
func RecordName(domain string) string { return "_mta-sts." + domain }

// ErrNoRecord is returned by [SelectRecord] if no TXT record begins with the
// version: the domain has no available policy, which takes nothing away from a
// cached one (RFC 8461 §3.1).
var ErrNoRecord error = &selectError{RecordNone, ResultFetchError, "no TXT record begins with v=STSv1;"}

// ErrMultipleRecords is returned by [SelectRecord] if more than one TXT record
// begins with the version. It means the same as [ErrNoRecord].
var ErrMultipleRecords error = &selectError{RecordSeveral, ResultPolicyInvalid, "more than one TXT record begins with v=STSv1;"}

type selectError struct {
	code       Code
	resultType string
	text       string
}

func (e *selectError) Error() string         { return e.text }
func (e *selectError) ResultType() string    { return e.resultType }
func (e *selectError) FailureReason() string { return string(e.code) }

// RecordError says why a text is not a valid record.
type RecordError struct {
	Text   string // the record
	Code   Code
	Reason string // for people
}

func (e *RecordError) Error() string { return "invalid MTA-STS record: " + e.Reason }

// ResultType returns [ResultPolicyInvalid].
func (e *RecordError) ResultType() string { return ResultPolicyInvalid }

// FailureReason returns the code.
func (e *RecordError) FailureReason() string { return string(e.Code) }

// SelectRecord returns the one record among the TXT records of [RecordName]
// that begins with the version. The strings of each TXT record must have been
// joined, with nothing in between (RFC 8461 §3.1). The error is [ErrNoRecord],
// [ErrMultipleRecords] or a [*RecordError]; each means that the domain has no
// available policy.
func SelectRecord(txts []string) (Record, error) {
	selected, found := "", 0
	for _, txt := range txts {
		// RFC 8461 §3.1: records that do not begin with the version are discarded.
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
		return Record{}, ErrMultipleRecords
	}
}

// beginsWithVersion says yes to "v=STSv1 ;" as well: the prose of RFC 8461 §3.1
// asks for "v=STSv1;", its grammar allows blanks before a delimiter.
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
// the record.
func InspectRecord(txt string) (Record, []Warning, error) {
	if len(txt) > MaxRecordSize {
		return Record{}, nil, &RecordError{txt, RecordTooLarge, fmt.Sprintf("%d bytes, %d are allowed", len(txt), MaxRecordSize)}
	}
	p := recordParser{text: txt}
	if err := p.parse(); err != nil {
		return Record{}, p.warnings, err
	}
	return p.record, p.warnings, nil
}

type recordParser struct {
	text     string
	record   Record
	hasID    bool
	warnings []Warning
}

// parse walks sts-text-record of RFC 8461 §3.1.
func (p *recordParser) parse() error {
	rest, ok := strings.CutPrefix(p.text, recordVersion)
	if !ok || rest != "" && !strings.ContainsRune(blanks+";", rune(rest[0])) {
		return p.fail(RecordVersion, "it begins with %s, not with v=STSv1;", excerpt(p.text))
	}
	if beginsWithVersion(p.text) && rest[0] != ';' {
		p.warn(RecordBlankBeforeDelimiter, "there is a blank before the first semicolon, and some senders discard the record for it")
	}
	for rest != "" {
		// sts-field-delim = *WSP ";" *WSP
		after, ok := strings.CutPrefix(strings.TrimLeft(rest, blanks), ";")
		if !ok {
			return p.fail(RecordFieldInvalid, "%s stands where a semicolon should", excerpt(rest))
		}
		rest = strings.TrimLeft(after, blanks)
		if rest == "" {
			break // one delimiter may end the record
		}
		field := rest
		if end := strings.IndexByte(rest, ';'); end >= 0 {
			field = strings.TrimRight(rest[:end], blanks)
			rest = rest[end:]
		} else {
			rest = ""
		}
		if err := p.field(field); err != nil {
			return err
		}
	}
	if !p.hasID {
		return p.fail(RecordIDMissing, "it has no id")
	}
	return nil
}

func (p *recordParser) field(field string) error {
	name, value, ok := strings.Cut(field, "=")
	if !ok || !extensionName(name) {
		return p.fail(RecordFieldInvalid, "%s is not a field: fields are name=value, with one semicolon between them", excerpt(field))
	}
	if name == "id" && !p.hasID {
		if !alphanumeric(value) || len(value) > maxIDSize {
			return p.fail(RecordIDInvalid, "the id %s is not 1 to 32 letters and digits", excerpt(value))
		}
		p.record.ID, p.hasID = strings.Clone(value), true
		return nil
	}
	if !recordValue(value) {
		return p.fail(RecordFieldInvalid, "%s has an empty value, or one with a blank, an equals sign or a character that is not ASCII", excerpt(field))
	}
	// RFC 8461 §3.2: of a duplicated field all entries but the first are ignored.
	if name == "id" || name == "v" {
		p.warn(RecordFieldDuplicate, "%q is given more than once, the first counts", name)
		return nil
	}
	extensions, duplicate := appendFirst(p.record.Extensions, name, value)
	if duplicate {
		p.warn(RecordFieldDuplicate, "%q is given more than once, the first counts", name)
	}
	p.record.Extensions = extensions
	return nil
}

func (p *recordParser) fail(code Code, format string, args ...any) error {
	return &RecordError{p.text, code, fmt.Sprintf(format, args...)}
}

func (p *recordParser) warn(code Code, format string, args ...any) {
	p.warnings = appendWarning(p.warnings, Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

// Text returns the record as it is published, such as
// "v=STSv1; id=20160831085700Z;".
func (r Record) Text() string {
	var b strings.Builder
	b.WriteString(recordVersion + "; id=" + r.ID + ";")
	for _, f := range r.Extensions {
		b.WriteString(" " + f.Name + "=" + f.Value + ";")
	}
	return b.String()
}

// Strings returns the record cut into the strings of at most 255 bytes that a
// TXT record is made of.
func (r Record) Strings() []string {
	var parts []string
	text := r.Text()
	for len(text) > txtStringSize {
		parts = append(parts, text[:txtStringSize])
		text = text[txtStringSize:]
	}
	return append(parts, text)
}

// Validate reports whether [Record.Text] is a valid record that parses to r.
// The error is a [*RecordError].
func (r Record) Validate() error {
	text := r.Text()
	parsed, err := ParseRecord(text)
	if err != nil {
		return err
	}
	if parsed.ID != r.ID || !slices.Equal(parsed.Extensions, r.Extensions) {
		return &RecordError{text, RecordFieldInvalid, "it would be read as another record"}
	}
	return nil
}
