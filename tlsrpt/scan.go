package tlsrpt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// delim is one of the four characters that open and close objects and arrays.
type delim byte

// number is a number's text.
type number string

// scanner reads JSON (RFC 8259) token by token in constant memory and linear
// time, whatever it is given: encoding/json goes over a run of blanks again with
// each buffer that it reads, and keeps a text however long it is.
//
// A token is a delim, a string (which may be an object member's name), a number,
// a bool or nil. Of a string no more than maxText bytes and one are kept.
type scanner struct {
	in    *bufio.Reader
	at    int64  // offset
	open  []byte // what is open, '{' or '['
	state state
}

// state is what may come next.
type state byte

const (
	wantValue     state = iota
	wantFirst           // a value, or the end of the array that has just begun
	wantFirstName       // a name, or the end of the object that has just begun
	wantName
	wantMore // a comma, or the end of what is open; at the top nothing
)

// syntaxError is text that is not JSON.
type syntaxError struct {
	at   int64
	text string
}

func (e *syntaxError) Error() string { return e.text + " at byte " + strconv.FormatInt(e.at, 10) }

func (s *scanner) bad(format string, args ...any) error {
	return &syntaxError{s.at, fmt.Sprintf(format, args...)}
}

func (s *scanner) byte() (byte, error) {
	c, err := s.in.ReadByte()
	if err == nil {
		s.at++
	}
	return c, err
}

// solid reads the next byte that is no blank.
func (s *scanner) solid() (byte, error) {
	for {
		c, err := s.byte()
		if err != nil {
			return 0, err
		}
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c, nil
		}
	}
}

func (s *scanner) back() {
	// It follows a read, and never fails then.
	_ = s.in.UnreadByte()
	s.at--
}

// more reports whether what is open has another element. Where that cannot be
// told, next says why.
func (s *scanner) more() bool {
	c, err := s.solid()
	if err != nil {
		return true
	}
	s.back()
	return c != ']' && c != '}'
}

// next reads the next token. After the last it returns io.EOF.
func (s *scanner) next() (any, error) {
	c, err := s.solid()
	if errors.Is(err, io.EOF) && (s.state != wantMore || len(s.open) > 0) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if c == '}' || c == ']' {
		return s.close(c)
	}
	if s.state == wantMore {
		if c != ',' || len(s.open) == 0 {
			return nil, s.bad("%q stands where a comma should", c)
		}
		s.state = wantValue
		if s.open[len(s.open)-1] == '{' {
			s.state = wantName
		}
		if c, err = s.solid(); err != nil {
			return nil, unexpected(err)
		}
	}
	if s.state == wantName || s.state == wantFirstName {
		return s.name(c)
	}
	return s.value(c)
}

// close ends what is open.
func (s *scanner) close(c byte) (any, error) {
	n := len(s.open) - 1
	fits := n >= 0 && (c == '}') == (s.open[n] == '{') && (s.state == wantMore || s.state == wantFirst || s.state == wantFirstName)
	if !fits {
		return nil, s.bad("%q closes nothing", c)
	}
	s.open, s.state = s.open[:n], wantMore
	return delim(c), nil
}

func (s *scanner) name(c byte) (any, error) {
	if c != '"' {
		return nil, s.bad("%q stands where a name should", c)
	}
	name, err := s.text()
	if err != nil {
		return nil, unexpected(err)
	}
	if c, err = s.solid(); err != nil {
		return nil, unexpected(err)
	}
	if c != ':' {
		return nil, s.bad("%q stands where a colon should", c)
	}
	s.state = wantValue
	return name, nil
}

func (s *scanner) value(c byte) (any, error) {
	s.state = wantMore
	switch {
	case c == '{' || c == '[':
		if len(s.open) == maxDepth {
			return nil, ErrTooDeep
		}
		s.open, s.state = append(s.open, c), wantFirst
		if c == '{' {
			s.state = wantFirstName
		}
		return delim(c), nil
	case c == '"':
		text, err := s.text()
		return text, unexpected(err)
	case c == '-' || c >= '0' && c <= '9':
		text, err := s.word(c)
		return number(text), err
	}
	word, err := s.word(c)
	if err != nil {
		return nil, err
	}
	switch word {
	case "true", "false":
		return word == "true", nil
	case "null":
		return nil, nil //nolint:nilnil // JSON's null
	}
	return nil, s.bad("%s is not a value", excerpt(word))
}

// maxWord caps a number's length.
const maxWord = 64

// word reads a number or a literal.
func (s *scanner) word(c byte) (string, error) {
	word := []byte{c}
	for {
		c, err := s.byte()
		if errors.Is(err, io.EOF) {
			return string(word), nil
		}
		if err != nil {
			return "", err
		}
		if !isAlphanumeric(c) && c != '+' && c != '-' && c != '.' {
			s.back()
			return string(word), nil
		}
		if word = append(word, c); len(word) > maxWord {
			return "", s.bad("%s has no end", excerpt(string(word)))
		}
	}
}

// text reads a string behind its first quotation mark. What is no text becomes
// U+FFFD; line breaks and other control characters are among that, though
// RFC 8259 §7 would have the whole report refused for them.
func (s *scanner) text() (string, error) {
	var b strings.Builder
	keep := func(c byte) {
		if b.Len() <= maxText {
			b.WriteByte(c)
		}
	}
	for {
		c, err := s.byte()
		switch {
		case err != nil:
			return "", err
		case c == '"':
			return strings.ToValidUTF8(b.String(), string(utf8.RuneError)), nil
		case c == '\\':
			if err := s.escape(keep); err != nil {
				return "", err
			}
		case c < ' ':
			keep(0xff) // no UTF-8
		default:
			keep(c)
		}
	}
}

// escape reads what follows a backslash.
func (s *scanner) escape(keep func(byte)) error {
	c, err := s.byte()
	if err != nil {
		return err
	}
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		keep("\"\\/\b\f\n\r\t"[i])
		return nil
	}
	if c != 'u' {
		return s.bad("\\%c is no escape", c)
	}
	r, err := s.hex()
	if err != nil {
		return err
	}
	if utf16.IsSurrogate(r) {
		r, err = s.pair(r)
		if err != nil {
			return err
		}
	}
	for _, c := range utf8.AppendRune(nil, r) {
		keep(c)
	}
	return nil
}

// pair reads the second half of a surrogate pair; one alone is no character.
func (s *scanner) pair(first rune) (rune, error) {
	next, err := s.in.Peek(2)
	if err != nil || next[0] != '\\' || next[1] != 'u' {
		return utf8.RuneError, nil //nolint:nilerr // whoever reads on meets the error
	}
	_, _ = s.in.Discard(2) // they are there
	s.at += 2
	second, err := s.hex()
	return utf16.DecodeRune(first, second), err
}

func (s *scanner) hex() (rune, error) {
	var digits [4]byte
	for i := range digits {
		c, err := s.byte()
		if err != nil {
			return 0, err
		}
		digits[i] = c
	}
	n, err := strconv.ParseUint(string(digits[:]), 16, 16)
	if err != nil {
		return 0, s.bad("\\u%s is no escape", excerpt(string(digits[:])))
	}
	return rune(n), nil
}

// unexpected turns an end into one that comes too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
