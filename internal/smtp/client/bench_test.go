package client_test

import (
	"bytes"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// answering is a server that says the same to each message.
type answering struct {
	taped
	answers, left []byte
}

func (a *answering) Read(p []byte) (int, error) {
	if len(a.left) == 0 {
		a.left = a.answers
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

func (a *answering) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkSend10KiB(b *testing.B) {
	content := client.Bytes(bytes.Repeat([]byte("a line of text that is as long as most of those in a message are\r\n"), 150))
	for name, c := range map[string]struct{ extensions, answers string }{
		"by DATA": {"250-PIPELINING\r\n", "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n"},
		"by BDAT": {"250-PIPELINING\r\n250-CHUNKING\r\n", "250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.0.0 taken\r\n"},
	} {
		b.Run(name, func(b *testing.B) {
			conn := &answering{left: []byte("220 mx\r\n")}
			conn.answers = []byte("250-mx\r\n" + c.extensions + "250 SIZE\r\n")
			cl := client.New(conn, client.Options{Hello: "mail.example.org"})
			if err := cl.Hello(b.Context()); err != nil {
				b.Fatal(err)
			}
			conn.answers = []byte(c.answers)
			env := envelope("b@example.com")
			env.Size = int64(len(content))
			b.ReportAllocs()
			b.SetBytes(env.Size)
			for b.Loop() {
				if name == "by DATA" {
					conn.answers = []byte("250 2.0.0 taken\r\n")
					conn.left = []byte(c.answers)
				}
				if _, err := cl.Send(b.Context(), env, content); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
