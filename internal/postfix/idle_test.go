package postfix_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"

	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/verify"
)

// crowd makes a server with so many connections on which nothing is asked, and
// returns a way to connect once more.
func crowd(t *testing.T, o postfix.Options, idle int) (s *postfix.Server, dial func() net.Conn) {
	t.Helper()
	o.Log, o.After = slog.New(slog.DiscardHandler), never
	l := oneConn{conns: make(chan net.Conn), gone: make(chan struct{})}
	s = postfix.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var clients []net.Conn
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		for _, c := range clients {
			c.Close()
		}
	})
	dial = func() net.Conn {
		client, server := net.Pipe()
		l.conns <- server
		clients = append(clients, client)
		return client
	}
	for range idle {
		dial()
	}
	waitFor(t, func() bool { return s.Stats().Connections == idle })
	return s, dial
}

func TestThousandsOfIdleConnectionsCostLittleAndKeepNobodyFromAnAnswer(t *testing.T) {
	const each = 8 << 10 // bytes of heap and stack; a pipe's own and the test's included
	before := inUse()
	s, dial := crowd(t, postfix.Options{Source: &answers{known: map[string]*verify.Answer{"a.test": {Kind: verify.AnswerDANE}}}}, idleConns)
	if grown := inUse() - before; grown > idleConns*each && !raceDetector {
		t.Errorf("%d idle connections take %d bytes each, want at most %d", idleConns, grown/idleConns, each)
	}
	c := dial()
	go fmt.Fprint(c, frame("pawl a.test"))
	if got := read(t, bufio.NewReader(c)); got != "OK dane" {
		t.Errorf("beside them: %q", got)
	}
	if got := s.Stats(); got.Connections != idleConns+1 || got.Refused != 0 {
		t.Errorf("the counters are %+v", got)
	}
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func TestConnectionsOverTheCapAreRefusedAndCounted(t *testing.T) {
	const most = 20
	s, dial := crowd(t, postfix.Options{Source: &answers{}, MaxConns: most}, most)
	if n, err := dial().Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("one more: %d bytes, %v, want its end", n, err)
	}
	if got := s.Stats(); got.Connections != most || got.Refused != 1 {
		t.Errorf("the counters are %+v", got)
	}
}
