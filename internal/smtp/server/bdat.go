package server

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// errAborted says that a command other than BDAT ended the message.
var errAborted = errors.New("the client gave the message up")

// bdat runs BDAT (RFC 3030 §2): the first of a message, or one that has no
// place. The others are run by chunkSource.
func (c *Conn) bdat(arg string) error {
	if !c.s.o.offers(smtp.Chunking) {
		if err := c.alone("BDAT"); err != nil {
			return err
		}
		return c.fail(502, smtp.Enhanced{5, 5, 1}, "BDAT is not offered here")
	}
	src := &chunkSource{pace: c.newPace(), dec: smtp.Decoder{Raw: true}}
	if err := src.begin(arg); err != nil {
		return err
	}
	var refusal *smtp.Error
	switch {
	case !c.mail.open:
		refusal = smtp.Errorf(503, smtp.Enhanced{5, 5, 1}, "say MAIL first")
	case c.mail.rcpts == 0:
		refusal = smtp.Errorf(554, smtp.Enhanced{5, 5, 1}, "no valid recipients")
	default:
		c.mail.chunking = true
		return c.receive(src)
	}
	// The chunk comes all the same (RFC 3030 §2).
	buf := c.s.buffers.get(smallBody)
	defer c.s.buffers.put(buf)
	err := src.skip(buf, max(minOverrun, c.limits.Size))
	if errors.Is(err, errEndless) {
		return c.end(552, smtp.Enhanced{5, 3, 4}, "the chunk is much too large")
	}
	if err != nil {
		return err
	}
	return c.refuse("BDAT", refusal)
}

// chunkSource is the content of a message that comes by BDAT. It replies to
// all chunks but the last, and reads the commands between them.
type chunkSource struct {
	pace
	dec  smtp.Decoder
	size int64 // of the chunk
	left int64 // of it
	last bool
	done bool   // the content is over but for the tail
	tail string // that ends an open last line
}

// begin starts a chunk. A malformed command ends the connection, because
// nobody knows how much content follows it.
func (s *chunkSource) begin(arg string) error {
	size, word, hasWord := strings.Cut(arg, " ")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || size[0] < '0' || hasWord && !strings.EqualFold(word, "LAST") {
		return s.c.end(501, smtp.Enhanced{5, 5, 4}, "after BDAT come the size and, at the end, LAST")
	}
	s.size, s.left, s.last = n, n, hasWord
	if n > 0 {
		s.c.idling-- // it leads to mail
	}
	return nil
}

func (s *chunkSource) Read(p []byte) (int, error) {
	for {
		switch {
		case s.left > 0:
			n, err := s.chunk(p)
			s.dec.Decode(p[:n]) // for its faults
			return n, err
		case s.dec.Fault() != 0:
			return 0, s.dec.Fault().Err()
		case s.done:
			if s.tail == "" {
				return 0, io.EOF
			}
			n := copy(p, s.tail)
			s.tail = s.tail[n:]
			return n, nil
		case s.last:
			s.done = true
			if s.dec.Finish() {
				s.tail = "\r\n"
			}
		default:
			if err := s.next(); err != nil {
				return 0, err
			}
		}
	}
}

// chunk reads from the chunk that has begun.
func (s *chunkSource) chunk(p []byte) (int, error) {
	s.set()
	n, err := s.c.in.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next replies to a chunk and reads as far as the next one.
func (s *chunkSource) next() error {
	c := s.c
	if err := c.ok(250, smtp.Enhanced{2, 0, 0}, strconv.FormatInt(s.size, 10)+" octets received"); err != nil {
		return err
	}
	for {
		if time.Now().After(s.end) {
			return os.ErrDeadlineExceeded
		}
		line, err := c.readCommand()
		if err != nil {
			return err
		}
		switch verb, arg := cutVerb(line); verb {
		case "BDAT":
			return s.begin(arg)
		case "RSET", "EHLO", "HELO", "QUIT":
			c.held = line
			return errAborted
		default:
			if err := c.command(verb, arg); err != nil {
				return err
			}
		}
	}
}

// skip takes in the rest of the chunk.
func (s *chunkSource) skip(buf []byte, limit int64) error {
	if s.left > limit {
		return errEndless
	}
	for s.left > 0 {
		if _, err := s.chunk(buf); err != nil {
			return err
		}
	}
	return nil
}
