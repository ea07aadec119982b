package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reply is an SMTP reply (RFC 5321 §4.2). Lines are its texts without the
// enhanced code; a reply may have none.
type Reply struct {
	Code     int
	Enhanced Enhanced
	Lines    []string
}

// ReplyError says how a reply breaks RFC 5321 §4.2.
type ReplyError struct {
	Reason string
	Line   string // the start of the line in question, fit for a log
}

func (e *ReplyError) Error() string {
	return fmt.Sprintf("malformed reply %q: %s", e.Line, e.Reason)
}

// maxQuoted is how much of a malformed line is quoted in an error.
const maxQuoted = 80

// ReadReply reads one reply. It returns a [*ReplyError] for anything but lines
// that end in CR LF, carry one code throughout, and keep to [MaxReplyLine] and
// [MaxReplyLines]; after one the connection is of no more use. At the end of
// the input before a whole reply it returns [io.ErrUnexpectedEOF], or
// [io.EOF] if there was nothing at all.
//
// Control characters in a text become "?".
func ReadReply(r *bufio.Reader) (Reply, error) {
	var reply Reply
	for {
		line, err := readReplyLine(r)
		if err != nil {
			if errors.Is(err, io.EOF) && len(reply.Lines) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, err
		}
		code, last, text, err := splitReplyLine(line)
		if err != nil {
			return Reply{}, err
		}
		if len(reply.Lines) == 0 {
			reply.Code = code
			reply.Enhanced, text = cutEnhanced(code/100, text)
		} else {
			// RFC 5321 §4.2.1: every line begins with the same code.
			if code != reply.Code {
				return Reply{}, replyError("the lines carry different codes", line)
			}
			if e, rest := cutEnhanced(code/100, text); e == reply.Enhanced {
				text = rest
			}
		}
		reply.Lines = append(reply.Lines, text)
		if last {
			return reply, nil
		}
		if len(reply.Lines) == MaxReplyLines {
			return Reply{}, replyError(fmt.Sprintf("more than %d lines", MaxReplyLines), line)
		}
	}
}

// readReplyLine returns one line without its CR LF. It is valid until the next
// read.
func readReplyLine(r *bufio.Reader) ([]byte, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(long)+len(part) > MaxReplyLine {
			return nil, replyError(fmt.Sprintf("longer than %d octets", MaxReplyLine), append(long, part...))
		}
		switch {
		case err == nil:
			if long != nil {
				part = append(long, part...)
			}
			return cutCRLF(part)
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
		case errors.Is(err, io.EOF) && len(long)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// cutCRLF takes the CR LF off a line that ends in LF.
func cutCRLF(line []byte) ([]byte, error) {
	text := line[:len(line)-1]
	if len(text) == 0 || text[len(text)-1] != '\r' {
		return nil, replyError("a line ends in LF without CR", line)
	}
	text = text[:len(text)-1]
	if bytes.IndexByte(text, '\r') >= 0 {
		return nil, replyError("a CR without LF", line)
	}
	return text, nil
}

// splitReplyLine takes a reply line apart (RFC 5321 §4.2).
func splitReplyLine(line []byte) (code int, last bool, text string, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, "", replyError("it does not begin with a code from 200 to 599", line)
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, true, "", nil
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, "", replyError("neither blank nor hyphen follows the code", line)
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return 0, false, "", replyError("a NUL", line)
	}
	return code, line[3] == ' ', printable(string(line[4:])), nil
}

func replyError(reason string, line []byte) *ReplyError {
	return &ReplyError{Reason: reason, Line: printable(string(line[:min(len(line), maxQuoted)]))}
}

// printable replaces control characters and broken UTF-8 by "?".
func printable(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		if isControl(r) && r != '\t' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// String returns the reply on one line: "550 5.7.1 first line, second line".
func (r Reply) String() string {
	b := strconv.AppendInt(nil, int64(r.Code), 10)
	if r.Enhanced != (Enhanced{}) {
		b = r.Enhanced.append(append(b, ' '))
	}
	for i, line := range r.Lines {
		if line == "" {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, ' '), line...)
	}
	return string(b)
}

// Class returns the first digit of the code: 2 done, 3 go on, 4 not now, 5 no.
func (r Reply) Class() int { return r.Code / 100 }

// Err returns nil for 2yz and 3yz, else an [*Error] that says what the reply says.
func (r Reply) Err() error {
	if c := r.Class(); c == 2 || c == 3 {
		return nil
	}
	return &Error{Code: r.Code, Enhanced: r.Enhanced, Text: strings.Join(r.Lines, ", ")}
}

// Append appends the reply in wire form: each line with code, enhanced code
// and CR LF, at most 512 octets long, in printable ASCII. Longer texts are
// broken at a blank, anything else becomes "?".
func (r Reply) Append(b []byte) []byte {
	if len(r.Lines) == 0 {
		return r.appendLine(b, "", true)
	}
	limit := writtenReplyLine - len("250 5.123.123 \r\n")
	for i, text := range r.Lines {
		lastText := i == len(r.Lines)-1
		for len(text) > limit {
			cut := limit
			if blank := strings.LastIndexByte(text[:limit], ' '); blank > 0 {
				cut = blank
			}
			b = r.appendLine(b, text[:cut], false)
			text = strings.TrimPrefix(text[cut:], " ")
		}
		b = r.appendLine(b, text, lastText)
	}
	return b
}

func (r Reply) appendLine(b []byte, text string, last bool) []byte {
	b = strconv.AppendInt(b, int64(r.Code), 10)
	if last {
		b = append(b, ' ')
	} else {
		b = append(b, '-')
	}
	// RFC 2034 §4: the code stands on every line of a 2yz, 4yz or 5yz reply.
	if r.Enhanced != (Enhanced{}) {
		b = append(r.Enhanced.append(b), ' ')
	}
	for i := range len(text) {
		c := text[i]
		if c < ' ' || c > '~' {
			c = '?'
		}
		b = append(b, c)
	}
	return append(b, '\r', '\n')
}
