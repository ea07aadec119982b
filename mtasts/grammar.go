package mtasts

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// What record and policy have in common: characters, extension fields, and how
// a piece of hostile text is shown.

const (
	maxWarnings    = 64 // told of one record or policy
	maxExcerptSize = 80 // of foreign text in one of our sentences
)

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// alphanumeric reports whether s is 1*(ALPHA / DIGIT).
func alphanumeric(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) {
			return false
		}
	}
	return s != ""
}

// extensionName reports whether s is an sts-ext-name, which is also what an
// sts-policy-ext-name is.
func extensionName(s string) bool {
	if s == "" || len(s) > maxNameSize || !isAlphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// recordValue reports whether s is an sts-ext-value: 1*(%x21-3A / %x3C / %x3E-7E).
func recordValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == ';' || c == '=' {
			return false
		}
	}
	return s != ""
}

// policyValue reports whether s, which is UTF-8 without blanks at its ends, is
// an sts-policy-ext-value: no controls, not empty.
func policyValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return false
		}
	}
	return s != ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// lowerASCII leaves Unicode alone: strings.ToLower would make the Kelvin sign a k.
func lowerASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				b[j] = lowerByte(b[j])
			}
			return string(b)
		}
	}
	return s
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

// appendFirst appends a field unless there is one of that name, or enough.
func appendFirst(fields []Field, name, value string) (_ []Field, duplicate bool) {
	for _, f := range fields {
		if f.Name == name {
			return fields, true
		}
	}
	if len(fields) == MaxExtensions {
		return fields, false
	}
	return append(fields, Field{strings.Clone(name), strings.Clone(value)}), false
}

func appendWarning(warnings []Warning, w Warning) []Warning {
	if len(warnings) == maxWarnings {
		return warnings
	}
	return append(warnings, w)
}

// excerpt quotes text from outside, so that it can neither flood a log nor
// steer a terminal.
func excerpt(s string) string {
	if len(s) > maxExcerptSize {
		cut := strings.ToValidUTF8(s[:maxExcerptSize], "")
		return strconv.QuoteToASCII(cut) + "…"
	}
	return strconv.QuoteToASCII(s)
}
