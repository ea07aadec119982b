package smtp

import "bytes"

// Fault says what is wrong with the lines of a message.
type Fault uint8

// The faults of content, as bits. Each of them can make another server see a
// message end where there is none.
const (
	BareCR Fault = 1 << iota // a CR that no LF follows
	BareLF                   // an LF that follows no CR
	NUL                      // a NUL octet
)

// Err returns nil if there is no fault, else the refusal of the message.
func (f Fault) Err() error {
	switch {
	case f == 0:
		return nil
	case f&BareLF != 0:
		return Errorf(550, Enhanced{5, 6, 11}, "the message holds a bare LF: end every line in CR LF")
	case f&BareCR != 0:
		return Errorf(550, Enhanced{5, 6, 11}, "the message holds a bare CR: end every line in CR LF")
	}
	return Errorf(550, Enhanced{5, 6, 11}, "the message holds a NUL octet: encode binary content")
}

// Decoder takes the content of DATA apart (RFC 5321 §4.5.2): it finds the one
// true end, CR LF dot CR LF, undoes dot-stuffing, and notes faults. Only a
// proper CR LF begins a line, so neither "\n.\r\n" nor "\r.\r\n" nor
// "\r\n.\n" ends anything.
//
// The zero value is ready for a message. With Raw set it takes the content of
// BDAT (RFC 3030 §2): dots mean nothing and the end is the caller's to find.
type Decoder struct {
	Raw   bool
	state place
	fault Fault
}

// place is where in a line the decoder stands.
type place uint8

const (
	lineStart  place = iota
	inLine           // past the first character of a line
	afterCR          // after a CR that LF must follow
	afterDot         // after a dot that begins a line
	afterDotCR       // after such a dot and CR
)

// Fault returns what was found so far.
func (d *Decoder) Fault() Fault { return d.fault }

// Decode decodes src in place. The first n octets of it are taken in, the
// first k are then content. With end set the message ended at n; before that n
// is all of src.
func (d *Decoder) Decode(src []byte) (k, n int, end bool) {
	for n < len(src) {
		switch c := src[n]; {
		case d.state == lineStart && c == '.' && !d.Raw:
			n++ // stuffing, or the beginning of the end
			d.state = afterDot
			continue
		case d.state == afterDot && c == '\r':
			n++
			d.state = afterDotCR
			continue
		case d.state == afterDotCR && c == '\n':
			d.state = lineStart
			return k, n + 1, true
		case d.state == afterDotCR:
			d.fault |= BareCR
		}
		start := n
		n = d.run(src, n)
		if k != start {
			copy(src[k:], src[start:n])
		}
		k += n - start
	}
	return k, n, false
}

// Finish ends content that has no end of its own (BDAT). It reports whether
// the last line lacks its CR LF.
func (d *Decoder) Finish() (open bool) {
	if d.state == afterCR {
		d.fault |= BareCR
	}
	return d.state != lineStart
}

// run looks through src from n up to the next dot that begins a line, or to
// the end, and returns where that is. Lines are found by their LF; what lies
// between is looked at in bulk.
func (d *Decoder) run(src []byte, n int) int {
	start, pairs := n, 0
	carried := d.state == afterCR
	if carried && src[n] != '\n' {
		d.fault |= BareCR
	}
	d.state = inLine
	for {
		i := bytes.IndexByte(src[n:], '\n')
		if i < 0 {
			n = len(src)
			break
		}
		n += i + 1
		switch {
		case n-2 >= start && src[n-2] == '\r':
			pairs++
		case n-1 == start && carried: // its CR ended what came before
		default:
			d.fault |= BareLF // and begins no line
			continue
		}
		if n == len(src) || src[n] == '.' && !d.Raw {
			d.state = lineStart
			break
		}
	}
	run := src[start:n]
	crs := bytes.Count(run, cr)
	if d.state == inLine && run[len(run)-1] == '\r' {
		d.state = afterCR
		crs--
	}
	if crs != pairs {
		d.fault |= BareCR
	}
	if bytes.IndexByte(run, 0) >= 0 {
		d.fault |= NUL
	}
	return n
}

var cr = []byte{'\r'}
