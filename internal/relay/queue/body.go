package queue

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// InlineBody is how large a body may be, in bytes, to be taken in memory and
	// written to the database in one piece. A larger one goes through a file.
	InlineBody = 256 << 10
	// firstBody is the memory that a body begins with: most mail fits.
	firstBody = 16 << 10
	// fileBuffer is how much is written to a spool file at once.
	fileBuffer = 64 << 10
)

// Body takes a message's body as it arrives: in memory up to [InlineBody], in
// a file of the spool beyond. It is used by one goroutine.
type Body struct {
	spool string
	mem   []byte
	file  *os.File
	out   *bufio.Writer // to file
	size  int64
	err   error // the first of Write; the body cannot be enqueued then
}

// Body returns an empty body that belongs to the queue's spool. The caller
// hands it to [Queue.Enqueue] or discards it.
func (q *Queue) Body() *Body { return &Body{spool: q.opts.Spool} }

// Write takes the next bytes. After an error the body is not good for anything
// but [Body.Discard].
func (b *Body) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.file == nil && len(b.mem)+len(p) <= InlineBody {
		if b.mem == nil {
			b.mem = make([]byte, 0, max(firstBody, len(p)))
		}
		b.mem = append(b.mem, p...)
		b.size += int64(len(p))
		return len(p), nil
	}
	if b.file == nil {
		if b.err = b.toFile(); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.out.Write(p)
	b.size += int64(n)
	if err != nil {
		b.err = fmt.Errorf("writing a spool file: %w", err)
	}
	return n, b.err
}

// toFile moves what is in memory to a file.
func (b *Body) toFile() error {
	f, err := os.CreateTemp(b.spool, incoming+"*")
	if err != nil {
		return fmt.Errorf("making a spool file: %w", err)
	}
	b.file, b.out = f, bufio.NewWriterSize(f, fileBuffer)
	if _, err := b.out.Write(b.mem); err != nil {
		return fmt.Errorf("writing a spool file: %w", err)
	}
	b.mem = nil
	return nil
}

// Prepend puts text in front of what was taken, which is what a signature must
// come before and can only be made after. A body in a file is copied for it.
func (b *Body) Prepend(text []byte) error {
	if b.err != nil {
		return b.err
	}
	if b.file == nil && len(text)+len(b.mem) <= InlineBody {
		b.mem = append(append(make([]byte, 0, len(text)+len(b.mem)), text...), b.mem...)
		b.size += int64(len(text))
		return nil
	}
	n := &Body{spool: b.spool, mem: text}
	if b.err = b.copyTo(n); b.err != nil {
		n.Discard()
		return b.err
	}
	b.Discard()
	n.size = b.size + int64(len(text))
	*b = *n
	return nil
}

// copyTo writes what was taken behind the text of n, in a file.
func (b *Body) copyTo(n *Body) error {
	if err := n.toFile(); err != nil {
		return err
	}
	var from io.Reader = bytes.NewReader(b.mem)
	if b.file != nil {
		var err error
		if from, err = b.rewind(); err != nil {
			return err
		}
	}
	if _, err := n.out.ReadFrom(from); err != nil {
		return fmt.Errorf("copying a spool file: %w", err)
	}
	return nil
}

// Size is the number of bytes taken so far.
func (b *Body) Size() int64 { return b.size }

// Discard frees what the body holds. It is harmless after Enqueue.
func (b *Body) Discard() {
	b.mem = nil
	if b.file == nil {
		return
	}
	b.file.Close()
	// What cannot be removed is swept at the next start.
	_ = os.Remove(b.file.Name())
	b.file, b.out = nil, nil
}

// settle makes a body's file durable under path: the file and then its folder
// are synced before the commit that names it. A file that is there already
// belongs to another message and is not replaced.
func (b *Body) settle(path string) error {
	if err := b.out.Flush(); err != nil {
		return fmt.Errorf("writing a spool file: %w", err)
	}
	if err := b.file.Sync(); err != nil {
		return fmt.Errorf("syncing a spool file: %w", err)
	}
	if err := os.Link(b.file.Name(), path); err != nil {
		return fmt.Errorf("naming a spool file: %w", err)
	}
	b.Discard() // of its first name
	if err := syncFolder(b.spool); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// rewind makes a body's file readable from its beginning.
func (b *Body) rewind() (io.Reader, error) {
	if err := b.out.Flush(); err != nil {
		return nil, fmt.Errorf("writing a spool file: %w", err)
	}
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading a spool file: %w", err)
	}
	return b.file, nil
}

// inline gives the bytes of a body that is in memory, in no more memory than
// they need twice over: they may be kept until the message is delivered.
func (b *Body) inline() []byte {
	if cap(b.mem) > 2*len(b.mem) {
		return append(make([]byte, 0, len(b.mem)), b.mem...)
	}
	return b.mem
}
