package resolve

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"
)

func TestCallersWhoAskTheSameShareOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		answer := make(chan struct{})
		w := wire(func(_ context.Context, _, _ string, query *dns.Msg) []*dns.Msg {
			asked.Add(1)
			<-answer
			return says(query, "example.com. 300 IN MX 10 mx.example.com.")
		})
		r := New(Options{Upstreams: []string{"one"}, Dial: w.dial})
		defer r.Close()
		var wg sync.WaitGroup
		for i := range 100 {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = Fresh(ctx) // what is on its way is fresh
			}
			wg.Go(func() {
				mx, err := r.MX(ctx, "Example.com")
				if err != nil || len(mx.Records) != 1 {
					t.Errorf("got %v, %v", mx.Records, err)
				}
			})
		}
		synctest.Wait()
		close(answer)
		wg.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("100 callers made %d questions, want 1", n)
		}
	})
}

func TestACallerWhoGoesAwayDoesNotTakeTheOthersAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		w := wire(func(_ context.Context, _, _ string, query *dns.Msg) []*dns.Msg {
			<-answer
			return says(query, "example.com. 300 IN MX 10 mx.example.com.")
		})
		r := New(Options{Upstreams: []string{"one"}, Dial: w.dial})
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		gone, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := r.MX(ctx, "example.com"); gone <- err }() // it leads
		synctest.Wait()
		go func() { _, err := r.MX(t.Context(), "example.com"); stayed <- err }()
		synctest.Wait()
		cancel()
		if err := <-gone; outcome(err) != "canceled" || !errors.Is(err, context.Canceled) {
			t.Errorf("who went away got %v", err)
		}
		close(answer)
		if err := <-stayed; err != nil {
			t.Errorf("who stayed got %v", err)
		}
	})
}

func TestWhenTheLastCallerGoesTheWorkEndsAndIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		ended := make(chan struct{}, 1)
		w := wire(func(ctx context.Context, _, _ string, query *dns.Msg) []*dns.Msg {
			if asked.Add(1) == 1 {
				silent(ctx)
				ended <- struct{}{}
				return nil
			}
			return says(query, "example.com. 300 IN MX 10 mx.example.com.")
		})
		r := New(Options{Upstreams: []string{"one"}, Dial: w.dial})
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { _, err := r.MX(ctx, "example.com"); gone <- err }()
		synctest.Wait()
		cancel()
		<-gone
		<-ended // the socket was closed, long before any timeout
		if _, err := r.MX(t.Context(), "example.com"); err != nil {
			t.Errorf("the next caller got %v", err)
		}
		if st := r.Stats(); st.Failures[Timeout] != 0 || st.Failures[ServFail] != 0 {
			t.Errorf("failures are counted: %v", st.Failures)
		}
	})
}

func TestClosingEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(func(ctx context.Context, _, _ string, _ *dns.Msg) []*dns.Msg { return silent(ctx) })
		r := New(Options{Upstreams: []string{"one"}, Dial: w.dial})
		waiting := make(chan error, 1)
		go func() { _, err := r.MX(t.Context(), "example.com"); waiting <- err }()
		synctest.Wait()
		r.Close()
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("who waited got %v, want ErrClosed", err)
		}
	})
}
