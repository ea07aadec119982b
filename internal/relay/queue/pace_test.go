package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// Of a thousand destinations that turn out to be dead each costs look-ups and a
// connection: they must not crowd out mail that goes.
func TestDestinationsOfWhichNothingIsKnownArePacedBesideMailThatGoes(t *testing.T) {
	const dead = 400
	change := func(o *queue.Options) { o.Concurrency = 100 }
	each(t, change, func(w *world) {
		w.send("bob@live.example")
		w.next().delivered()
		w.settle()

		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		var tried, gone atomic.Int64
		go func() {
			for {
				select {
				case try := <-w.tries:
					if try.Domain == "live.example" {
						gone.Add(1)
						try.delivered()
						continue
					}
					tried.Add(1)
					try.down("connection refused")
				case <-ctx.Done():
					return
				}
			}
		}()
		w.send("bob@live.example")
		var to []string
		for i := range dead {
			to = append(to, fmt.Sprintf("ann@d%d.example", i))
		}
		w.send(to...)
		for range 10 {
			w.send("bob@live.example")
			<-time.After(100 * time.Millisecond)
		}
		if n := tried.Load(); n < 90 || n > 115 {
			w.Errorf("beside mail that goes %d dead destinations were tried in a second, want about 100", n)
		}
		if n := gone.Load(); n != 11 {
			w.Errorf("%d messages went meanwhile, want 11", n)
		}
		<-time.After(2 * time.Second)
		if n := tried.Load(); n != dead {
			w.Errorf("with nothing else to do %d dead destinations were tried, want all %d", n, dead)
		}
	})
}
