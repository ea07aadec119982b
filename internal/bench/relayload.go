package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// relayLoad hands mail in: "ADDRESS RECIPIENT BYTES SESSIONS NANOSECONDS" is
// answered with how many messages got their 250, and when the first was begun.
// A recipient's domain may hold a %d for the number of the session.
func relayLoad(ctx context.Context, _ []string) error {
	return attend("ready", func(line string) (string, error) {
		var addr, to string
		var size, sessions int
		var slice time.Duration
		if _, err := fmt.Sscan(line, &addr, &to, &size, &sessions, (*int64)(&slice)); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, slice)
		defer cancel()
		counts := make([]int64, sessions)
		errs := make([]error, sessions)
		begin := time.Now()
		var wait sync.WaitGroup
		for i := range sessions {
			wait.Go(func() { counts[i], errs[i] = submitFor(ctx, addr, to, content(size)) })
		}
		wait.Wait()
		var n int64
		for _, c := range counts {
			n += c
		}
		return fmt.Sprint(n, begin.UnixNano()), errors.Join(errs...)
	})
}

// content is a message of a size, in wire form, with its end.
func content(size int) []byte {
	b := []byte("From: <bench@sender.test>\r\nTo: <someone@example.com>\r\nSubject: bench\r\nDate: Mon, 1 Jun 2026 12:00:00 +0000\r\n" +
		"Message-ID: <bench@sender.test>\r\n\r\n")
	line := []byte("The quick brown fox jumps over the lazy dog, and the dog does not mind it.\r\n")
	for len(b)+len(line) <= size {
		b = append(b, line...)
	}
	return append(b, ".\r\n"...)
}

// submitFor hands the same message in over one connection until ctx ends. What
// was begun by then is finished.
func submitFor(ctx context.Context, addr, to string, content []byte) (n int64, err error) {
	c, err := dialSubmit(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	envelope := []byte("MAIL FROM:<bench@sender.test>\r\nRCPT TO:<" + to + ">\r\nDATA\r\n")
	for ctx.Err() == nil {
		if err := c.submit(envelope, content); err != nil {
			return n, err
		}
		n++
	}
	return n, c.say([]byte("QUIT\r\n"), "221")
}

// submitter is a connection that hands mail in.
type submitter struct {
	net.Conn
	r *bufio.Reader
}

func dialSubmit(ctx context.Context, addr string) (*submitter, error) {
	return submitOver(new(net.Dialer).DialContext(ctx, "tcp", addr))
}

// submitOver says EHLO over a connection, if there is one.
func submitOver(conn net.Conn, err error) (*submitter, error) {
	if err != nil {
		return nil, err
	}
	c := &submitter{conn, bufio.NewReader(conn)}
	if err := errors.Join(c.expect("220"), c.say([]byte("EHLO load.sender.test\r\n"), "250")); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// submit hands in one message: the envelope in one write, and the content in
// another once it is asked for.
func (c *submitter) submit(envelope, content []byte) error {
	return errors.Join(c.say(envelope, "250", "250", "354"), c.say(content, "250"))
}

// say writes commands and reads a reply to each.
func (c *submitter) say(text []byte, replies ...string) error {
	if _, err := c.Write(text); err != nil {
		return err
	}
	return c.expect(replies...)
}

func (c *submitter) expect(replies ...string) error {
	for _, code := range replies {
		for {
			line, err := c.r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if len(line) < 4 || !bytes.HasPrefix(line, []byte(code)) {
				return fmt.Errorf("%s was expected, and %q came", code, line)
			}
			if line[3] != '-' {
				break
			}
		}
	}
	return nil
}
