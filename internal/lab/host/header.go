package host

import (
	"bytes"
	"errors"
	"strings"
)

// What of a message's header is taken, where something is concluded from it.
const (
	maxHeader    = 64 << 10 // octets
	maxFields    = 500
	maxSigned    = 100 // field names that one DKIM signature may list
	maxSignature = 5   // DKIM signatures
)

var (
	errHeader    = errors.New("the message's header cannot be read: each line must be a field, or go on with one (RFC 5322 section 2.2)")
	errTooMuch   = errors.New("the message's header is larger than is taken here")
	errSignature = errors.New("the message has more DKIM signatures, or longer ones, than are looked at here")
)

// field is a field of a header: its name in lower case, its value as it came.
type field struct{ name, value string }

// readHeader reads the fields of a message's header. It is strict, since what
// others read in it otherwise could be used against them: a blank before the
// colon is an error, and so is a line that is no field.
func readHeader(message []byte) ([]field, error) {
	header, _, found := bytes.Cut(message[:min(len(message), maxHeader)], []byte("\r\n\r\n"))
	if !found && len(message) > maxHeader {
		return nil, errTooMuch
	}
	if bytes.HasPrefix(message, []byte("\r\n")) {
		return nil, nil // there is none
	}
	var fields []field
	for line := range strings.SplitSeq(strings.TrimSuffix(string(header), "\r\n"), "\r\n") {
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			if len(fields) == 0 {
				return nil, errHeader
			}
			fields[len(fields)-1].value += "\r\n" + line
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' }) {
			return nil, errHeader
		}
		if len(fields) == maxFields {
			return nil, errTooMuch
		}
		fields = append(fields, field{strings.ToLower(name), value})
	}
	return fields, nil
}

// values returns the values of all fields of a name, unfolded.
func values(fields []field, name string) []string {
	var list []string
	for _, f := range fields {
		if f.name == name {
			list = append(list, strings.TrimSpace(strings.ReplaceAll(f.value, "\r\n", "")))
		}
	}
	return list
}

// signable says why the signatures of a header are not looked at, or nil: to look
// at one costs its names times the header's fields, whoever wrote it.
func signable(fields []field) error {
	signatures := values(fields, "dkim-signature")
	if len(signatures) > maxSignature {
		return errSignature
	}
	for _, s := range signatures {
		if strings.Count(s, ":") > maxSigned {
			return errSignature
		}
	}
	return nil
}

// automatic reports whether a program or a list sent a message, which is then not
// answered (RFC 3834 §2).
func automatic(fields []field) bool {
	for _, v := range values(fields, "auto-submitted") {
		if word, _, _ := strings.Cut(v, ";"); !strings.EqualFold(strings.TrimSpace(word), "no") {
			return true
		}
	}
	for _, v := range values(fields, "precedence") {
		switch strings.ToLower(v) {
		case "bulk", "list", "junk":
			return true
		}
	}
	return len(values(fields, "list-id")) > 0
}
