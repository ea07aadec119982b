package server

import (
	"errors"
	"io"
	"sync"
)

const (
	// smallBody is the space that every message gets while it is read; most fit.
	smallBody = 32 << 10
	// wholeBody is the largest message that is there as a whole when Data is
	// called. Of a larger one this much is read ahead.
	wholeBody = 128 << 10
)

// Body is the content of a message in wire form: lines that end in CR LF,
// without dot-stuffing. It may be used until Data returns.
//
// A message up to 128 KiB was read and found good before Data is called;
// [Body.Bytes] gives it without a copy. A larger one comes as it is read, and
// whether it is good is known at its end only: an error of Read means that it
// must be discarded.
type Body struct {
	src   source
	buf   []byte // of the pool
	r, w  int    // buf[r:w] is yet to be read
	whole bool

	size, limit int64
	err         error  // why there is nothing more behind buf: io.EOF, or worse
	onEnd       func() // called when err is set
}

// source is where a body comes from.
type source interface {
	// Read returns [io.EOF] at the end of a good message, and after an error
	// nothing else.
	io.Reader
	// skip takes in what the client sends before it can read a reply.
	skip(buf []byte, limit int64) error
}

var (
	// errReleased is returned to a session that reads a body after Data.
	errReleased = errors.New("smtp server: the body was read after Data returned")
	// errEndless says that too much is still to come of a refused message.
	errEndless = errors.New("the refused message does not end")
)

// Bytes returns the message and true if it is there as a whole. The octets are
// the server's again when Data returns.
func (b *Body) Bytes() ([]byte, bool) {
	if !b.whole {
		return nil, false
	}
	return b.buf[:b.w], true
}

// Read reads on. It returns [io.EOF] at the end of a good message. Any other
// error means that there is no message.
func (b *Body) Read(p []byte) (int, error) {
	if b.r < b.w {
		n := copy(p, b.buf[b.r:b.w])
		b.r += n
		return n, nil
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n := b.take(p)
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// WriteTo writes what is left to w, without another buffer.
func (b *Body) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for {
		if b.r < b.w {
			n, err := w.Write(b.buf[b.r:b.w])
			written += int64(n)
			b.r += n
			if err != nil {
				return written, err
			}
			if b.r < b.w {
				return written, io.ErrShortWrite
			}
		}
		if errors.Is(b.err, io.EOF) {
			return written, nil
		}
		if b.err != nil {
			return written, b.err
		}
		b.r, b.w = 0, b.take(b.buf)
	}
}

// take reads from the source into p and keeps its error.
func (b *Body) take(p []byte) int {
	n, err := b.src.Read(p)
	b.size += int64(n)
	if b.size > b.limit && (err == nil || errors.Is(err, io.EOF)) {
		err = tooLarge(b.limit)
	}
	if err == nil {
		return n
	}
	b.err = err
	if b.onEnd != nil {
		b.onEnd()
	}
	if !errors.Is(err, io.EOF) {
		return 0
	}
	return n
}

// fill reads the message, or as much of it as is read ahead.
func (b *Body) fill(pool *buffers) {
	b.buf = pool.get(smallBody)
	for b.err == nil {
		if b.w == len(b.buf) {
			if len(b.buf) == wholeBody {
				return
			}
			large := pool.get(wholeBody)
			copy(large, b.buf)
			pool.put(b.buf)
			b.buf = large
		}
		b.w += b.take(b.buf[b.w:])
	}
	b.whole = errors.Is(b.err, io.EOF)
}

// release gives the buffer back. Nothing can be read from then on.
func (b *Body) release(pool *buffers) {
	pool.put(b.buf)
	*b = Body{err: errReleased}
}

// buffers are the spaces for bodies.
type buffers struct{ small, large sync.Pool }

func (p *buffers) get(size int) []byte {
	if size == smallBody {
		if b, ok := p.small.Get().(*[smallBody]byte); ok {
			return b[:]
		}
	} else if b, ok := p.large.Get().(*[wholeBody]byte); ok {
		return b[:]
	}
	return make([]byte, size)
}

func (p *buffers) put(b []byte) {
	switch len(b) {
	case smallBody:
		p.small.Put((*[smallBody]byte)(b))
	case wholeBody:
		p.large.Put((*[wholeBody]byte)(b))
	}
}
