package server

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// FuzzSession sends anything to a whole session: every reply is well formed,
// and every message taken is made of proper lines.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO a.test\r\n",
		"HELO a.test\r\nMAIL FROM:<ann@a.test>\r\nRCPT TO:<bob@b.test>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\nQUIT\r\n",
		"HELO a.test\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nBDAT 3 LAST\r\na\nbMAIL FROM:<>\r\nRSET\r\nNOOP\r\n",
		"MAIL FROM:<a@a.test>\nRCPT TO:<b@b.test>\r\n",
		"STARTTLS\r\nEHLO b\r\n", "AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", "VRFY x\r\nHELP\r\nEXPN\r\n\r\nGET / HTTP/1.1\r\n",
	} {
		f.Add([]byte(s), "")
		f.Add([]byte("HELO a.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n"), s+"\r\n.\r\nQUIT\r\n")
	}
	in := &inbox{}
	s, err := New(Options{
		Hostname: "mx.example.com", Backend: in,
		Limits: Limits{Size: 1 << 10, Recipients: 3, Idling: 30, Errors: 10},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first []byte, second string) {
		ours, theirs := net.Pipe()
		c := s.admit(context.Background(), theirs, false)
		served, read := make(chan struct{}), make(chan error, 1)
		go func() { defer close(served); c.run() }()
		replies := make(chan struct{}, 1)
		go func() { read <- readReplies(ours, replies) }()
		select {
		case <-replies: // the greeting
		case err := <-read:
			t.Fatalf("no greeting: %v", err)
		}
		if _, err := ours.Write(first); err == nil {
			_, _ = ours.Write([]byte(second)) // in a batch of its own
		}
		ours.Close()
		<-served
		if err := <-read; err != nil {
			t.Fatalf("%q, %q: %v", first, second, err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, m := range in.messages {
			rest := strings.ReplaceAll(m.body, "\r\n", "")
			if strings.ContainsAny(rest, "\r\n\x00") || m.body != "" && !strings.HasSuffix(m.body, "\r\n") || len(m.rcpts) == 0 {
				t.Fatalf("%q, %q: taken %+v", first, second, m)
			}
		}
		in.messages = nil
		if in.open != 0 {
			t.Fatalf("%q, %q: %d sessions are open", first, second, in.open)
		}
	})
}

// readReplies reads replies to the end of the connection, which may come
// anywhere, and says when the first was there.
func readReplies(conn net.Conn, first chan<- struct{}) error {
	in := bufio.NewReader(conn)
	for {
		r, err := smtp.ReadReply(in)
		var malformed *smtp.ReplyError
		if errors.As(err, &malformed) {
			conn.Close()
			return err
		}
		if err != nil {
			return nil //nolint:nilerr // the end
		}
		if r.Code == 220 {
			first <- struct{}{}
		}
	}
}
