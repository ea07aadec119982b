package mtasts_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/mtasts"
)

// inBubble runs a fetch against a host within a synctest bubble, where a minute
// passes at once, and returns how long it took and its error.
func inBubble(t *testing.T, timeout time.Duration, respond func(conn *tls.Conn, second <-chan time.Time)) (took time.Duration, err error) {
	ca := newAuthority(t, "test root")
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(unchanged)}, Time: clock}
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var server sync.WaitGroup
		server.Go(func() {
			conn := tls.Server(far, config)
			defer far.Close()
			if _, err := readRequest(conn); err != nil {
				return
			}
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			respond(conn, ticker.C)
		})
		f := &mtasts.Fetcher{
			Dial:  func(context.Context, string, string) (net.Conn, error) { return near, nil },
			Roots: ca.pool(), Now: clock, Timeout: timeout,
		}
		start := time.Now()
		_, err = f.Fetch(t.Context(), "example.com")
		took = time.Since(start)
		server.Wait()
	})
	return took, err
}

func TestRFC8461_3_3_AFetchTakesAMinuteAtMost(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	byteASecond := func(head string) func(*tls.Conn, <-chan time.Time) {
		return func(conn *tls.Conn, second <-chan time.Time) {
			_, err := io.WriteString(conn, head)
			for err == nil {
				<-second
				_, err = io.WriteString(conn, "x")
			}
		}
	}
	for _, tt := range []struct {
		name    string
		respond func(*tls.Conn, <-chan time.Time)
	}{
		{"a body of a byte a second", byteASecond(head + "\r\n")},
		{"headers of a byte a second", byteASecond(head)},
		{"no answer", func(conn *tls.Conn, _ <-chan time.Time) { io.Copy(io.Discard, conn) }},
		{"a body that stops", func(conn *tls.Conn, _ <-chan time.Time) {
			io.WriteString(conn, head+"Content-Length: 68\r\n\r\nversion")
			io.Copy(io.Discard, conn)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			took, err := inBubble(t, 0, tt.respond)
			failure := refused(t, err, mtasts.ResponseTimeout, "sts-policy-fetch-error", mtasts.StageResponse)
			if took != time.Minute || !failure.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("took %v, timeout %v: %v", took, failure.Timeout(), err)
			}
		})
	}
	t.Run("and less if so configured", func(t *testing.T) {
		took, err := inBubble(t, 5*time.Second, byteASecond(head+"\r\n"))
		refused(t, err, mtasts.ResponseTimeout, "sts-policy-fetch-error", mtasts.StageResponse)
		if took != 5*time.Second {
			t.Errorf("took %v, want 5 s", took)
		}
	})
	t.Run("and the handshake counts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go io.Copy(io.Discard, far) // never answers
			f := &mtasts.Fetcher{Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
			start := time.Now()
			_, err := f.Fetch(t.Context(), "example.com")
			refused(t, err, mtasts.TLSTimeout, "sts-policy-fetch-error", mtasts.StageTLS)
			if took := time.Since(start); took != time.Minute {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("and so does connecting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &mtasts.Fetcher{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
			}}
			_, err := f.Fetch(t.Context(), "example.com")
			refused(t, err, mtasts.ConnectTimeout, "sts-policy-fetch-error", mtasts.StageConnect)
		})
	})
}

func TestACallerWhoGivesUpEndsTheFetchAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, f := answering(t, func(conn *tls.Conn) {
		cancel()
		io.Copy(io.Discard, conn)
	})
	_, err := f.Fetch(ctx, "example.com")
	failure := refused(t, err, mtasts.Cancelled, "sts-policy-fetch-error", mtasts.StageResponse)
	if !errors.Is(err, context.Canceled) || failure.Timeout() {
		t.Errorf("error %v, timeout %v", err, failure.Timeout())
	}
	_, err = f.Fetch(ctx, "example.com")
	refused(t, err, mtasts.Cancelled, "sts-policy-fetch-error", mtasts.StageConnect)
}
