package postfix

import (
	"errors"
	"strconv"
)

// Caps of the socketmap protocol (socketmap_table(5): Postfix keeps to them).
const (
	maxQuery    = 10_000
	maxReply    = 100_000
	lengthChars = len("10000:") // the longest prefix of a query that is not refused
)

// errMalformed is a byte stream that is not a sequence of netstrings: there is
// no way back into step, so the connection ends.
var errMalformed = errors.New("not a netstring")

// splitQuery takes one netstring off the front of buf: "LEN:" payload ",".
// It returns the payload and how many bytes it took, or n == 0 if more bytes
// are needed. The payload is a part of buf.
func splitQuery(buf []byte) (payload []byte, n int, err error) {
	size := 0
	for i, c := range buf {
		switch {
		case c >= '0' && c <= '9':
			// A leading zero is allowed for the empty string only.
			if i > 0 && size == 0 {
				return nil, 0, errMalformed
			}
			if size = size*10 + int(c-'0'); size > maxQuery {
				return nil, 0, errMalformed
			}
		case c == ':' && i > 0:
			end := i + 1 + size
			if len(buf) <= end {
				return nil, 0, nil
			}
			if buf[end] != ',' {
				return nil, 0, errMalformed
			}
			return buf[i+1 : end], end + 1, nil
		default:
			return nil, 0, errMalformed
		}
	}
	return nil, 0, nil
}

// netstring frames a reply.
func netstring(text string) []byte {
	b := make([]byte, 0, len(text)+lengthChars+2)
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, ':')
	b = append(b, text...)
	return append(b, ',')
}
