package server

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// BenchmarkMessages sends messages over loopback connections, each waiting for
// the reply before the next: what the protocol alone costs.
func BenchmarkMessages(b *testing.B) {
	in := &inbox{onData: func(_ context.Context, body *Body) (smtp.Reply, error) {
		if _, whole := body.Bytes(); !whole {
			return smtp.Reply{}, smtp.Errorf(554, smtp.Enhanced{5, 0, 0}, "not whole")
		}
		return smtp.Reply{}, nil
	}}
	r := start(b, in, nil)
	content := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 131) + ".\r\n")
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	b.SetParallelism(10)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		replies := bufio.NewReader(conn)
		ask := func(text []byte, count int) {
			if _, err := conn.Write(text); err != nil {
				b.Error(err)
			}
			for range count {
				line, err := replies.ReadSlice('\n')
				if err != nil || line[0] != '2' && !bytes.HasPrefix(line, []byte("354 ")) {
					b.Errorf("%s, %v", line, err)
				}
			}
		}
		ask([]byte("HELO client.example\r\n"), 2)
		envelope := []byte("MAIL FROM:<ann@a.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\n")
		for pb.Next() {
			ask(envelope, 3)
			ask(content, 1)
		}
	})
}
