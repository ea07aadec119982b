package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
)

// pipes is a listener of net.Pipe, for bubbles in which time is synthetic.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// remote is a pipe's end that has an address.
type remote struct{ net.Conn }

func (*remote) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:5000"))
}

// bubble runs a test against a server in synthetic time.
func bubble(t *testing.T, in *inbox, change func(*Options), test func(t *testing.T, s *Server, dial func() net.Conn)) {
	t.Helper()
	certificate() // not from the bubble's past
	synctest.Test(t, func(t *testing.T) {
		if in == nil {
			in = &inbox{}
		}
		o := Options{Hostname: "mx.example.com", Backend: in}
		if change != nil {
			change(&o)
		}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		test(t, s, func() net.Conn {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { ours.Close() })
			l.conns <- &remote{theirs}
			return ours
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// pipeClient plays transcripts in a bubble, without a deadline of its own.
func pipeClient(t *testing.T, conn net.Conn) *smtptest.Client {
	return smtptest.Untimed(t, conn)
}

// took checks how long something took in synthetic time.
func took(t *testing.T, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

const silence = "S: 421 4.4.2 nothing came for too long\nEND"

func TestRFC5321_4_5_3_2_7_AnIdleClientIsToldAfterFiveMinutes(t *testing.T) {
	bubble(t, nil, nil, func(t *testing.T, _ *Server, dial func() net.Conn) {
		c := pipeClient(t, dial())
		c.Talk(hello)
		begin := time.Now()
		c.Talk(silence)
		took(t, begin, 5*time.Minute)
	})
}

func TestACommandThatComesInDribsIsNotWaitedForLonger(t *testing.T) {
	bubble(t, nil, nil, func(t *testing.T, _ *Server, dial func() net.Conn) {
		c := pipeClient(t, dial())
		c.Talk(hello)
		begin := time.Now()
		go dribble(t, c.Conn, "NOOP with many words", time.Minute)
		c.Talk(silence)
		took(t, begin, 5*time.Minute)
	})
}

// dribble writes octet by octet until the other end is closed or the test over.
func dribble(t *testing.T, w io.Writer, text string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		for i := range text {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				return
			}
			if _, err := io.WriteString(w, text[i:i+1]); err != nil {
				return
			}
		}
	}
}

func TestContentThatStopsIsWaitedForFiveMinutes(t *testing.T) {
	for _, by := range []string{"DATA", "BDAT"} {
		bubble(t, nil, chunking, func(t *testing.T, _ *Server, dial func() net.Conn) {
			c := pipeClient(t, dial())
			c.Talk(chunkHello)
			if by == "DATA" {
				c.Talk("C: DATA\nS: 354 …\nC: hello")
			} else {
				c.Talk("C: BDAT 100 LAST\nC: hello")
			}
			begin := time.Now()
			c.Talk(silence)
			took(t, begin, 5*time.Minute)
		})
	}
}

func TestContentThatComesInDribsIsTakenForAnHourAtMost(t *testing.T) {
	for _, by := range []string{"DATA", "BDAT 1000000", "BDAT 1"} {
		bubble(t, nil, chunking, func(t *testing.T, _ *Server, dial func() net.Conn) {
			c := pipeClient(t, dial())
			c.Talk(chunkHello)
			begin := time.Now()
			switch by {
			case "DATA":
				c.Talk("C: DATA\nS: 354 …")
				begin = time.Now()
				go dribble(t, c.Conn, "x", 4*time.Minute)
			case "BDAT 1000000":
				c.Talk("C: BDAT 1000000")
				go dribble(t, c.Conn, "x", 4*time.Minute)
			default:
				for range 15 {
					c.Talk("C| \"BDAT 1\\r\\nx\"\nS: 250 2.0.0 1 octets received")
					time.Sleep(4 * time.Minute) // synthetic
				}
				time.Sleep(time.Second)
				c.Talk("C: NOOP\nS: 250 …")
				begin = begin.Add(time.Second)
			}
			c.Talk(silence)
			took(t, begin, time.Hour)
		})
	}
}

func TestAClientThatDoesNotReadIsLeft(t *testing.T) {
	bubble(t, nil, nil, func(t *testing.T, s *Server, dial func() net.Conn) {
		dial()
		begin := time.Now()
		synctest.Wait()
		for s.isOpen() {
			time.Sleep(time.Second) // synthetic
			synctest.Wait()
		}
		took(t, begin, WriteTimeout)
	})
}

func (s *Server) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) > 0
}

func TestAHandshakeThatStopsIsWaitedForAMinute(t *testing.T) {
	bubble(t, nil, withTLS, func(t *testing.T, _ *Server, dial func() net.Conn) {
		c := pipeClient(t, dial())
		c.Talk(hello + "C: STARTTLS\nS: 220 …")
		begin := time.Now()
		c.Talk("END")
		took(t, begin, HandshakeTimeout)
	})
}

func TestAProxyHeaderThatStopsIsWaitedForAMinute(t *testing.T) {
	everyone := func(o *Options) { o.ProxyNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
	bubble(t, nil, everyone, func(t *testing.T, _ *Server, dial func() net.Conn) {
		c := pipeClient(t, dial())
		begin := time.Now()
		c.Talk("C| \"PROXY \"\nEND")
		took(t, begin, HandshakeTimeout)
	})
}

// slow is an inbox whose MAIL waits for its context to end or to be let go.
func slow(release chan struct{}, seen chan error) *inbox {
	return &inbox{onMail: func(ctx context.Context, _ smtp.Mail) error {
		select {
		case <-ctx.Done():
			seen <- context.Cause(ctx)
			return ctx.Err()
		case <-release:
			return nil
		}
	}}
}

func TestACallbackIsToldThatTheClientWentAway(t *testing.T) {
	for _, after := range []time.Duration{0, time.Minute} {
		synctestSlow(t, nil, func(t *testing.T, c *smtptest.Client, _ chan struct{}, seen chan error) {
			c.Talk("C: MAIL FROM:<ann@a.test>")
			begin := time.Now()
			time.Sleep(after) // synthetic
			c.Conn.Close()
			if err := <-seen; !errors.Is(err, errGone) {
				t.Errorf("cause %v", err)
			}
			took(t, begin, max(after, watchAfter))
		})
	}
}

// synctestSlow runs a test whose MAIL is slow, the client having said hello.
func synctestSlow(t *testing.T, change func(*Options), test func(t *testing.T, c *smtptest.Client, release chan struct{}, seen chan error)) {
	t.Helper()
	in := &inbox{}
	bubble(t, in, change, func(t *testing.T, _ *Server, dial func() net.Conn) {
		release, seen := make(chan struct{}), make(chan error, 1)
		in.onMail = slow(release, seen).onMail
		c := pipeClient(t, dial())
		c.Talk(hello)
		test(t, c, release, seen)
	})
}

func TestACallbackIsToldWhenItsAnswerWouldBeTooLate(t *testing.T) {
	synctestSlow(t, nil, func(t *testing.T, c *smtptest.Client, _ chan struct{}, seen chan error) {
		begin := time.Now()
		c.Talk("C: MAIL FROM:<ann@a.test>\nS: 451 4.3.0 this cannot be done now, try again later")
		took(t, begin, AnswerTimeout)
		if err := <-seen; !errors.Is(err, errLate) {
			t.Errorf("cause %v", err)
		}
		c.Talk("C: NOOP\nS: 250 2.0.0 nothing done")
	})
}

func TestAConnectionGoesOnAfterASlowCallback(t *testing.T) {
	for name, change := range map[string]func(*Options){"in clear": nil, "under TLS": withTLS} {
		t.Run(name, func(t *testing.T) {
			synctestSlow(t, change, func(t *testing.T, c *smtptest.Client, release chan struct{}, _ chan error) {
				if change != nil {
					c.Talk("C: STARTTLS\nS: 220 …\nTLS\nC: HELO client.example\nS: 250 …")
				}
				c.Talk("C: MAIL FROM:<ann@a.test>")
				time.Sleep(time.Minute) // synthetic: the client is being watched
				release <- struct{}{}
				c.Talk("S: 250 2.1.0 go on\nC: RCPT TO:<bob@b.test>\nS: 250 2.1.5 go on")
				// What comes while a callback runs is kept.
				c.Talk("C: RSET\nS: 250 …\nC: MAIL FROM:<ann@a.test>")
				time.Sleep(time.Minute)
				c.Talk("C: RCPT TO:<bob@b.test>")
				synctest.Wait()
				release <- struct{}{}
				c.Talk("S: 250 2.1.0 go on\nS: 250 2.1.5 go on")
			})
		})
	}
}

func TestDataIsToldThatTheClientWentAway(t *testing.T) {
	for _, size := range []int{100, 3 * wholeBody} {
		in := &inbox{}
		bubble(t, in, nil, func(t *testing.T, _ *Server, dial func() net.Conn) {
			seen := make(chan error, 1)
			in.onData = func(ctx context.Context, b *Body) (smtp.Reply, error) {
				if _, err := io.Copy(io.Discard, b); err != nil {
					return smtp.Reply{}, err
				}
				<-ctx.Done()
				seen <- context.Cause(ctx)
				return smtp.Reply{}, ctx.Err()
			}
			c := pipeClient(t, dial())
			c.Talk(envelope)
			c.Send([]byte(text(size) + ".\r\n"))
			begin := time.Now()
			c.Conn.Close()
			if err := <-seen; !errors.Is(err, errGone) {
				t.Errorf("cause %v", err)
			}
			took(t, begin, watchAfter)
		})
	}
}

func TestDataHasNineMinutesFromTheEndOfTheContent(t *testing.T) {
	in := &inbox{}
	bubble(t, in, nil, func(t *testing.T, _ *Server, dial func() net.Conn) {
		in.onData = func(ctx context.Context, b *Body) (smtp.Reply, error) {
			<-ctx.Done()
			return smtp.Reply{}, context.Cause(ctx)
		}
		c := pipeClient(t, dial())
		c.Talk(envelope)
		c.Send([]byte("x\r\n.\r\n"))
		begin := time.Now()
		c.Talk("S: 451 4.3.0 this cannot be done now, try again later")
		took(t, begin, AcceptTimeout)
	})
}

const goodbye = "S: 421 4.3.2 mx.example.com is shutting down\nEND"

func TestShutdownTellsIdleClientsAndFinishesAMessage(t *testing.T) {
	in := &inbox{}
	bubble(t, in, withTLS, func(t *testing.T, s *Server, dial func() net.Conn) {
		idle, between, sending, tlsIdle, handshaking := pipeClient(t, dial()), pipeClient(t, dial()), pipeClient(t, dial()), pipeClient(t, dial()), pipeClient(t, dial())
		idle.Talk(hello)
		between.Talk(hello + "C: MAIL FROM:<ann@a.test>\nS: 250 …")
		sending.Talk(envelope + "C: first half")
		tlsIdle.Talk(hello + "C: STARTTLS\nS: 220 …\nTLS\nC: HELO client.example\nS: 250 …")
		handshaking.Talk(hello + "C: STARTTLS\nS: 220 …")
		synctest.Wait()

		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(context.Background()) }()
		idle.Talk(goodbye)
		between.Talk(goodbye)
		tlsIdle.Talk(goodbye)
		handshaking.Talk("END")
		synctest.Wait()
		select {
		case err := <-stopped:
			t.Fatalf("stopped inside a message: %v", err)
		default:
		}
		sending.Talk("C: second half\nC: .\nS: 250 2.0.0 taken\n" + goodbye)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if got := in.taken(); len(got) != 1 || got[0].body != "first half\r\nsecond half\r\n" {
			t.Errorf("taken %+v", got)
		}
	})
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	seen := make(chan error, 1)
	in := &inbox{}
	bubble(t, in, nil, func(t *testing.T, s *Server, dial func() net.Conn) {
		seen = make(chan error, 1)
		in.onMail = slow(nil, seen).onMail
		c := pipeClient(t, dial())
		c.Talk(hello + "C: MAIL FROM:<ann@a.test>")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		took(t, begin, 10*time.Second)
		if err := <-seen; !errors.Is(err, context.Canceled) {
			t.Errorf("cause %v", err)
		}
		c.Talk("END")
	})
}

func TestAServerThatIsStoppingTakesNobody(t *testing.T) {
	bubble(t, nil, nil, func(t *testing.T, s *Server, dial func() net.Conn) {
		ours, theirs := net.Pipe()
		synctest.Wait()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		go func() {
			if s.admit(context.Background(), theirs, false) != nil {
				t.Error("admitted")
			}
		}()
		pipeClient(t, ours).Talk("S: 421 4.3.2 …\nEND")
	})
}
