package dkim

import (
	"crypto/sha256"
	"hash"
)

// bodyHash is the hash of a body in relaxed form (RFC 6376 §3.4.4): blanks at
// the end of lines are left out, others become one, and empty lines at the end
// of the body are left out. What is not decided yet is kept as counts, so that a
// body of nothing but line ends costs no memory.
type bodyHash struct {
	hash hash.Hash
	out  []byte // what waits to be hashed
	cr   bool   // a CR, of which it is not known whether LF follows
	wsp  bool   // blanks since the last octet of this line
	ends int64  // line ends since the last octet
	any  bool   // there was an octet
}

var lineEnd, space = []byte(crlf), []byte{' '}

// hashBlock is how much is hashed at once.
const hashBlock = 4 << 10

func newBodyHash() bodyHash {
	return bodyHash{hash: sha256.New(), out: make([]byte, 0, hashBlock)}
}

func (b *bodyHash) write(p []byte) {
	for i := 0; i < len(p); {
		switch c := p[i]; {
		case c == '\n' && b.cr:
			b.cr, b.wsp = false, false
			b.ends++
			i++
		case b.cr:
			b.cr = false
			b.octets(lineEnd[:1]) // a bare one; none comes in over SMTP
		case c == '\r':
			b.cr = true
			i++
		case c == ' ' || c == '\t':
			b.wsp = true
			i++
		default:
			end := i + 1
			for end < len(p) && p[end] > ' ' {
				end++
			}
			b.octets(p[i:end])
			i = end
		}
	}
}

// octets takes octets that are kept, and what was waiting for them.
func (b *bodyHash) octets(p []byte) {
	b.any = true
	for ; b.ends > 0; b.ends-- {
		b.put(lineEnd)
	}
	if b.wsp {
		b.wsp = false
		b.put(space)
	}
	b.put(p)
}

func (b *bodyHash) put(p []byte) {
	if len(b.out)+len(p) > hashBlock {
		b.hash.Write(b.out) // which never fails
		b.out = b.out[:0]
	}
	if len(p) > hashBlock {
		b.hash.Write(p)
		return
	}
	b.out = append(b.out, p...)
}

func (b *bodyHash) sum() []byte {
	if b.cr {
		b.cr = false
		b.octets(lineEnd[:1])
	}
	if b.any { // §3.4.4: an empty body stays empty
		b.put(lineEnd)
	}
	b.hash.Write(b.out)
	return b.hash.Sum(nil)
}
