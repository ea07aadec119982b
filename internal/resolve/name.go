package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Sizes of names without the trailing dot (RFC 1035 §2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// ErrName is wrapped by the errors of [Name].
var ErrName = errors.New("not a domain name")

// errTooLong is the one fault that is an answer: no such name can exist.
var errTooLong = fmt.Errorf("%w: longer than DNS allows", ErrName)

// lookupProfile is UTS 46 without transitional mapping, as RFC 5891 has it. What
// letters are left is checked here, for the sake of the underscore.
var lookupProfile = idna.New(idna.MapForLookup(), idna.ValidateLabels(true), idna.BidiRule(), idna.StrictDomainName(false))

// Name brings a domain name into its one form inside pawl: lower-case A-labels
// without trailing dot. Addresses, empty labels, over-long names and letters that
// no host name has are errors that wrap [ErrName]; underscores are allowed.
func Name(s string) (string, error) {
	if plain(s) {
		return s, nil
	}
	name := strings.TrimSuffix(s, ".")
	if len(name) > 4*maxName { // even U-labels are no longer than that
		return "", errTooLong
	}
	switch {
	case isASCII(name):
		name = strings.ToLower(name)
	case !utf8.ValidString(name):
		return "", fmt.Errorf("%w: %.100q is not UTF-8", ErrName, s)
	default:
		ascii, err := lookupProfile.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%w: %.100q: %w", ErrName, s, err)
		}
		name = strings.TrimSuffix(ascii, ".")
	}
	if err := check(name); err != nil {
		return "", err
	}
	return name, nil
}

// check says what is wrong with a lower-case name.
func check(name string) error {
	if name == "" {
		return fmt.Errorf("%w: it is empty", ErrName)
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return fmt.Errorf("%w: %.100q is an address", ErrName, name)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return fmt.Errorf("%w: %.100q has an empty label", ErrName, name)
		}
		for _, c := range []byte(label) {
			if !isNameByte(c) {
				return fmt.Errorf("%w: %.100q contains %q", ErrName, name, c)
			}
		}
		if len(label) > maxLabel {
			return errTooLong
		}
	}
	if len(name) > maxName {
		return errTooLong
	}
	if numeric(name[strings.LastIndexByte(name, '.')+1:]) { // RFC 3696 §2
		return fmt.Errorf("%w: %.100q ends in a number, as addresses do", ErrName, name)
	}
	return nil
}

// plain reports whether a name is in its one form already, as nearly all are.
// It is the hot path of a cached lookup.
func plain(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	start, digits := 0, true
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '.' {
			if i == start || i-start > maxLabel {
				return false
			}
			start, digits = i+1, true
			continue
		}
		if !isNameByte(c) {
			return false
		}
		digits = digits && c >= '0' && c <= '9'
	}
	return start < len(name) && len(name)-start <= maxLabel && !digits
}

// isNameByte tells the letters of a lower-case host name, and the underscore of
// service labels as in _25._tcp (RFC 8552).
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func numeric(label string) bool {
	for i := 0; i < len(label); i++ {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// wireName brings a name out of a message into the form of [Name], and reports
// whether it has one. Names in DNS are any bytes; those of mail hosts are not.
func wireName(presentation string) (string, bool) {
	name := strings.ToLower(strings.TrimSuffix(presentation, "."))
	if name == "" || len(name) > maxName {
		return "", false
	}
	for i := 0; i < len(name); i++ {
		if name[i] != '.' && !isNameByte(name[i]) {
			return "", false
		}
	}
	return name, true
}
