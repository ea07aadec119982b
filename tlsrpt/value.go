package tlsrpt

import (
	"compress/flate"
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// names are the members of an object that RFC 8460 §4.4 defines, each with the
// spellings that are seen in the wild beside it.
type names map[string][]string

var (
	topNames     = names{"organization-name": {"organization"}, "date-range": nil, "contact-info": {"contact"}, "report-id": {"id"}, "policies": {"policy-results"}}
	rangeNames   = names{"start-datetime": {"start-date", "start", "begin"}, "end-datetime": {"end-date", "end"}}
	resultNames  = names{"policy": nil, "summary": nil, "failure-details": {"failure-detail", "failures"}}
	policyNames  = names{"policy-type": nil, "policy-string": {"policy-strings"}, "policy-domain": {"domain"}, "mx-host": {"mx-hosts", "mx-host-pattern"}}
	summaryNames = names{
		"total-successful-session-count": {"total-success-session-count", "success-count"},
		"total-failure-session-count":    {"total-failed-session-count", "failure-count"},
	}
	detailNames = names{
		"result-type": nil, "sending-mta-ip": {"sending-ip"}, "receiving-ip": nil,
		"receiving-mx-hostname": {"receiving-mx"}, "receiving-mx-helo": nil,
		"failed-session-count":   {"session-count", "failure-session-count"},
		"additional-information": {"additional-info-uri", "additional-info", "additional-information-uri"}, "failure-reason-code": {"failure-error-code", "failure-reason"},
	}
)

// find returns the right name of a member; "" if it is none of them.
func (n names) find(name string) string {
	if _, ok := n[name]; ok {
		return name
	}
	folded := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	for right, others := range n {
		if folded == right {
			return right
		}
		for _, other := range others {
			if folded == other {
				return right
			}
		}
	}
	return ""
}

// next reads the next token.
func (r *reader) next() (any, error) {
	t, err := r.scan.next()
	if err != nil {
		return nil, r.broken(err)
	}
	return t, nil
}

// members reads the members of an object whose brace has been read. Each known
// one is given to a function, which must read its value.
func (r *reader) members(path string, known, seen names, member func(name string) error) error {
	for {
		t, err := r.next()
		if err != nil {
			return err
		}
		got, isName := t.(string)
		if !isName { // the closing brace: the scanner lets nothing else pass
			return nil
		}
		name := known.find(got)
		at := strings.TrimPrefix(path+"."+got, ".")
		switch {
		case name == "":
			r.notes.add(NoteUnknown, clip(at), "RFC 8460 has no such member")
			if err := r.skip(); err != nil {
				return err
			}
			continue
		case name != got:
			r.notes.add(NoteName, clip(at), "it is taken for %s", name)
		}
		if _, again := seen[name]; again {
			r.notes.add(NoteDuplicate, clip(at), "it is given more than once")
		}
		seen[name] = nil
		if err := member(name); err != nil {
			return err
		}
	}
}

// object reads a value that should be an object.
func (r *reader) object(path string, known names, member func(name string) error) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	if t == delim('{') {
		return r.members(path, known, names{}, member)
	}
	r.wrong(path, "an object", t)
	return r.skipRest(t)
}

// list reads a value that should be an array; a single element may stand for
// one that has it alone.
func (r *reader) list(path string, element func(path string) error) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	if t == nil {
		return nil // null: none
	}
	if t != delim('[') {
		r.wrong(path, "an array", t)
		return r.skipRest(t)
	}
	for i := 0; r.scan.more(); i++ {
		if err := element(index(path, i)); err != nil {
			return err
		}
	}
	_, err = r.next() // the closing bracket
	return err
}

func (r *reader) wrong(path, want string, t any) {
	r.notes.add(NoteType, path, "%s stands where %s belongs", kind(t), want)
}

func kind(t any) string {
	switch t := t.(type) {
	case delim:
		if t == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return "a string"
	case number:
		return "a number"
	case bool:
		return "a boolean"
	}
	return "null"
}

// skip reads a value and forgets it.
func (r *reader) skip() error {
	t, err := r.next()
	if err != nil {
		return err
	}
	return r.skipRest(t)
}

// skipRest reads what is left of a value of which t was the first token.
func (r *reader) skipRest(t any) error {
	for open := 0; ; {
		switch t {
		case delim('{'), delim('['):
			open++
		case delim('}'), delim(']'):
			open--
		}
		if open == 0 {
			return nil
		}
		var err error
		if t, err = r.next(); err != nil {
			return err
		}
	}
}

// text reads a value that should be a string.
func (r *reader) text(path string, into *string) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case string:
		*into = r.kept(path, t)
	case number:
		r.wrong(path, "a string", t)
		*into = r.kept(path, string(t))
	case nil:
	default:
		r.wrong(path, "a string", t)
		return r.skipRest(t)
	}
	return nil
}

// texts reads a value that should be an array of strings.
func (r *reader) texts(path string, into *[]string) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	var list []string
	switch {
	case t == delim('['):
		for i := 0; r.scan.more(); i++ {
			var s string
			if err := r.text(index(path, i), &s); err != nil {
				return err
			}
			if i == maxStrings {
				r.notes.add(NoteClipped, path, "of more than %d texts the first are kept", maxStrings)
			}
			if i < maxStrings {
				list = append(list, s)
			}
		}
		if _, err := r.next(); err != nil { // the closing bracket
			return err
		}
	case t == nil:
	default:
		s, ok := t.(string)
		if !ok {
			r.wrong(path, "an array", t)
			return r.skipRest(t)
		}
		r.notes.add(NoteStringForArray, path, "a string stands where an array belongs")
		if s != "" {
			list = []string{r.kept(path, s)}
		}
	}
	*into = list
	return nil
}

// kept makes a text fit to be kept: of limited length, and I-JSON.
func (r *reader) kept(path, s string) string {
	if strings.ContainsRune(s, utf8.RuneError) || strings.ContainsRune(s, 0) {
		r.notes.add(NoteText, path, "the text has characters that no text has")
		s = strings.ReplaceAll(s, "\x00", string(utf8.RuneError))
	}
	if len(s) > maxText {
		r.notes.add(NoteClipped, path, "of a text of %d bytes the first %d are kept", len(s), maxText)
	}
	return clip(s)
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}

// number reads a value that should be a count.
func (r *reader) number(path string, into *int64) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	var text string
	switch t := t.(type) {
	case number:
		text = string(t)
	case string:
		r.notes.add(NoteStringForNumber, path, "a string stands where a number belongs")
		text = strings.TrimSpace(t)
	default:
		r.wrong(path, "a number", t)
		return r.skipRest(t)
	}
	n, ok := whole(text)
	if !ok {
		r.notes.add(NoteNumber, path, "%s is not a count", excerpt(text))
		return nil
	}
	if n < 0 || n > maxSafe {
		r.notes.add(NoteNumber, path, "%d is not within 0 and 2^53-1", n)
		n = min(max(n, 0), maxSafe)
	}
	*into = n
	return nil
}

// whole reads an integer; 3.0 and 3e2 are whole as well.
func whole(text string) (int64, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(text, 64)
	return int64(f), err == nil && f == math.Trunc(f) && math.Abs(f) <= maxSafe
}

func (r *reader) address(path string, into *netip.Addr) error {
	var s string
	if err := r.text(path, &s); err != nil || s == "" {
		return err
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[] ")); err == nil && addr.Zone() == "" {
		*into = addr
	} else {
		r.notes.add(NoteAddress, path, "%s is not an IP address", excerpt(s))
	}
	return nil
}

// dateLayouts are the forms of dates that are seen beside that of RFC 3339.
var dateLayouts = []string{
	"2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00",
	"2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05 MST", "2006-01-02", time.RFC1123Z, time.RFC1123,
}

func (r *reader) date(path string, into *time.Time) error {
	var s string
	if err := r.text(path, &s); err != nil || s == "" {
		return err
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		*into = at.UTC()
		return nil
	}
	s = strings.TrimSpace(s)
	for _, layout := range append([]string{time.RFC3339}, dateLayouts...) {
		if at, err := time.Parse(layout, s); err == nil {
			r.notes.add(NoteDate, path, "%s is not a date of RFC 3339; it is taken for %s", excerpt(s), at.UTC().Format(time.RFC3339))
			*into = at.UTC()
			return nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && n < 1<<34 {
		*into = time.Unix(n, 0).UTC()
		r.notes.add(NoteDate, path, "%s is not a date of RFC 3339; it is taken for seconds since 1970", s)
		return nil
	}
	r.notes.add(NoteDate, path, "%s is not a date", excerpt(s))
	return nil
}

// isFlate reports whether an error is that of data which gzip did not write.
func isFlate(err error) bool {
	var corrupt flate.CorruptInputError
	var internal flate.InternalError
	return errors.As(err, &corrupt) || errors.As(err, &internal)
}
