package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Bytes is a message in memory.
type Bytes []byte

// Open returns a reader of the message.
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// blocks gathers content behind the commands that wait, and writes full blocks.
type blocks struct {
	c   *Client
	ctx context.Context
}

// Write keeps p for later if there is room, else writes what waits, and of p what
// fills a block, without another copy.
func (b blocks) Write(p []byte) (int, error) {
	if len(b.c.out)+len(p) > writeBlock {
		if err := b.c.flush(b.ctx, Body); err != nil {
			return 0, err
		}
		if len(p) >= writeBlock {
			if err := b.c.write(b.ctx, Body, p); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	b.c.out = append(b.c.out, p...)
	return len(p), nil
}

// errRefused ends the content because the server refused a chunk of it.
var errRefused = errors.New("a chunk was refused")

var errSize = errors.New("it is not of the size that was said")

// chunks passes content on in chunks of BDAT, of which each is announced with its
// size. The sizes are known because the message's is.
type chunks struct {
	to    io.Writer
	left  int64                             // of the message
	room  int64                             // in this chunk
	begin func(size int64, last bool) error // announces one
	next  func() error                      // ends one that is not the last
	check smtp.Decoder                      // finds what must not be sent
}

func newChunks(to io.Writer, size int64) *chunks {
	return &chunks{to: to, left: size, check: smtp.Decoder{Raw: true}}
}

func (k *chunks) Write(p []byte) (int, error) {
	if int64(len(p)) > k.left {
		return 0, errSize
	}
	k.check.Decode(p) // writes nothing to p: raw content is as it is
	if int64(len(p)) == k.left {
		k.check.Finish()
	}
	if err := k.check.Fault().Err(); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		if k.room == 0 {
			k.room = min(k.left, maxChunk)
			if err := k.begin(k.room, k.room == k.left); err != nil {
				return n, err
			}
		}
		part := p[n:min(int64(len(p)), int64(n)+k.room)]
		written, err := k.to.Write(part)
		n += written
		k.left -= int64(written)
		k.room -= int64(written)
		if err != nil {
			return n, err
		}
		if k.room == 0 && k.left > 0 {
			if err := k.next(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Close ends the content.
func (k *chunks) Close() error {
	if k.left > 0 {
		return errSize
	}
	return nil
}

// copyContent passes a message to w. An error that the connection does not account
// for is the content's own; it ends the session, since a message that has begun
// can be ended in no other way.
func (c *Client) copyContent(content Content, w io.WriteCloser) error {
	r, err := content.Open()
	if err == nil {
		_, err = io.Copy(w, r)
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}
	if err == nil {
		err = w.Close()
	}
	switch {
	case err == nil, errors.Is(err, errRefused):
		return nil
	case c.err != nil:
		return c.err
	}
	return c.fail(&BodyError{fmt.Errorf("sending it: %w", err)})
}
