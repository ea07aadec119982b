package smtp

import (
	"bytes"
	"errors"
	"io"
)

// What is wrong with a command line. After any of these the connection is of
// no more use: what follows may have been meant as part of the line.
var (
	ErrBareLine    = errors.New("a command line with a bare CR or LF")
	ErrLineTooLong = errors.New("a command line that is too long")
)

const (
	idleBuffer  = 512   // of a connection that waits; most commands fit
	batchBuffer = 4_096 // of one that sends many commands at once
	emptyReads  = 100   // reads in a row that bring neither octet nor error
)

// Reader reads commands and content from a connection. While it waits for a
// command it holds 512 octets.
type Reader struct {
	src  io.Reader
	base []byte // buf is this unless more was needed
	buf  []byte
	r, w int  // buf[r:w] is read but not taken
	full bool // the last read filled the buffer: more is coming
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader) *Reader {
	base := make([]byte, idleBuffer)
	return &Reader{src: src, base: base, buf: base}
}

// Reset drops what is buffered and goes on with src.
func (r *Reader) Reset(src io.Reader) {
	*r = Reader{src: src, base: r.base, buf: r.base}
}

// Buffered returns how many octets were read but not taken.
func (r *Reader) Buffered() int { return r.w - r.r }

// ReadLine returns the next line without its CR LF; it is valid until the
// next call. A line with a bare CR or LF is refused as soon as it is seen, and
// so is one of more than limit octets, CR LF included. At the end of the input
// it returns [io.EOF], inside a line [io.ErrUnexpectedEOF].
func (r *Reader) ReadLine(limit int) ([]byte, error) {
	scanned := 0
	for {
		pending := r.buf[r.r:r.w]
		if i := bytes.IndexByte(pending[scanned:], '\n'); i >= 0 {
			line := pending[:scanned+i]
			r.r += len(line) + 1
			if len(line)+1 > limit {
				return nil, ErrLineTooLong
			}
			// RFC 5321 §2.3.8: only CR LF ends a line.
			if len(line) == 0 || bytes.IndexByte(line, '\r') != len(line)-1 {
				return nil, ErrBareLine
			}
			return line[:len(line)-1], nil
		}
		scanned = len(pending)
		if scanned >= limit {
			return nil, ErrLineTooLong
		}
		if err := r.Fill(); err != nil {
			if errors.Is(err, io.EOF) && scanned > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// Fill reads once from the connection, behind what is buffered.
func (r *Reader) Fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
		switch {
		case !r.full:
			r.buf = r.base
		case len(r.buf) < batchBuffer:
			r.buf = make([]byte, batchBuffer)
		}
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.w == len(r.buf) {
		grown := make([]byte, max(batchBuffer, 2*len(r.buf)))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := read(r.src, r.buf[r.w:])
	r.w += n
	r.full = r.w == len(r.buf)
	return err
}

// read reads once, and again while nothing comes. It returns octets or an
// error, never both.
func read(src io.Reader, p []byte) (int, error) {
	for range emptyReads {
		n, err := src.Read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// Read takes what is buffered, or else reads from the connection into p.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.r < r.w {
		n := copy(p, r.buf[r.r:r.w])
		r.r += n
		return n, nil
	}
	return read(r.src, p)
}

// unread puts p, which was read last, back in front.
func (r *Reader) unread(p []byte) {
	if len(p) == 0 {
		return
	}
	if len(p) > r.r {
		rest := r.buf[r.r:r.w]
		buf := r.buf
		if len(p)+len(rest) > len(buf) {
			buf = make([]byte, len(p)+len(rest))
		}
		r.w = len(p) + copy(buf[len(p):], rest)
		r.r = len(p)
		r.buf = buf
	}
	r.r -= len(p)
	copy(r.buf[r.r:], p)
}

// DataReader reads the content of one DATA command: lines that end in CR LF,
// without dot-stuffing.
type DataReader struct {
	src *Reader
	dec Decoder
	err error
}

// Data returns a reader of the content that comes next.
func (r *Reader) Data() *DataReader { return &DataReader{src: r} }

// Read decodes into p without another copy, so large buffers pay. At the true
// end of the message it returns [io.EOF], or an [*Error] if the message is to
// be refused for its line ends; the connection then stands behind the message.
// If the input ends first it returns [io.ErrUnexpectedEOF].
func (d *DataReader) Read(p []byte) (int, error) {
	for d.err == nil && len(p) > 0 {
		n, err := d.src.Read(p)
		k, used, end := d.dec.Decode(p[:n])
		switch {
		case end:
			d.src.unread(p[used:n])
			if d.err = d.dec.Fault().Err(); d.err == nil {
				d.err = io.EOF
			}
			return k, d.err
		case errors.Is(err, io.EOF):
			d.err = io.ErrUnexpectedEOF
		case err != nil:
			d.err = err
		case k > 0:
			return k, nil
		}
	}
	return 0, d.err
}

// DotWriter writes the content of DATA: dots that begin a line are doubled,
// and Close ends it (RFC 5321 §4.5.2). The writer behind it should be buffered.
type DotWriter struct {
	w   io.Writer
	dec Decoder
}

// NewDotWriter returns a DotWriter for one message.
func NewDotWriter(w io.Writer) *DotWriter { return &DotWriter{w: w} }

var dot = []byte{'.'}

// Write writes content in wire form. Content that holds a bare CR or LF or a
// NUL is not sent: the error is that of [Fault.Err], and the connection must be
// dropped unless nothing was written yet.
func (d *DotWriter) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		stuff := d.dec.state == lineStart && p[n] == '.'
		next := d.dec.run(p, n)
		if err := d.dec.Fault().Err(); err != nil {
			return n, err
		}
		if stuff {
			if _, err := d.w.Write(dot); err != nil {
				return n, err
			}
		}
		written, err := d.w.Write(p[n:next])
		if err != nil {
			return n + written, err
		}
		n = next
	}
	return n, nil
}

// Close ends the last line if need be, and the message.
func (d *DotWriter) Close() error {
	end := "\r\n.\r\n"
	if !d.dec.Finish() {
		end = ".\r\n"
	}
	if err := d.dec.Fault().Err(); err != nil {
		return err
	}
	_, err := io.WriteString(d.w, end)
	return err
}
