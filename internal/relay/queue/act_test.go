package queue_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// waiting sends a message whose first attempt came to nothing.
func (w *world) waiting(to ...string) (message string, f queue.Filter) {
	w.Helper()
	message = w.send(to...)
	w.next().later("try later")
	w.settle()
	return message, queue.Filter{ID: w.only(message).ID}
}

func TestWhatIsHeldIsNotTriedUntilItIsReleased(t *testing.T) {
	each(t, nil, func(w *world) {
		id, f := w.waiting("bob@example.com")
		w.do(queue.Hold, f, 1)
		d := w.want(id, queue.Held, "held by ann: a test")
		if want := "Release it with `pawl queue release " + d.ID + "`."; d.Do != want {
			w.Errorf("it says to do %q, want %q", d.Do, want)
		}
		w.quiet(time.Hour)
		w.do(queue.Hold, f, 0) // it is held already
		w.do(queue.Retry, f, 0)
		w.do(queue.Release, f, 1)
		w.next().delivered()
		w.settle()
		w.want(id, queue.AllDelivered, "")
	})
}

func TestWhatIsDroppedIsNotTriedAndNobodyIsTold(t *testing.T) {
	change := func(o *queue.Options) {
		o.Bounce = nil
	}
	each(t, change, func(w *world) {
		id, f := w.waiting("bob@example.com")
		w.do(queue.Drop, f, 1)
		w.want(id, queue.Dropped, "dropped by ann: a test")
		w.do(queue.Release, f, 0)
		w.do(queue.Drop, f, 0)
		w.quiet(6 * time.Hour)

		held, f := w.waiting("bob@example.net")
		w.do(queue.Hold, f, 1)
		w.do(queue.Drop, f, 1)
		w.want(held, queue.Dropped, "dropped by ann: a test")
		w.quiet(6 * time.Hour)
	})
}

func TestARetryIsMadeAtOnce(t *testing.T) {
	each(t, nil, func(w *world) {
		id, f := w.waiting("bob@example.com")
		w.do(queue.Retry, f, 1)
		w.next().delivered()
		w.settle()
		w.want(id, queue.AllDelivered, "")
	})
}

func TestARetryOpensTheGateOfTheDestination(t *testing.T) {
	each(t, nil, func(w *world) {
		w.next2("a@example.com", "b@example.com").down("connection refused")
		w.settle()
		w.do(queue.Retry, queue.Filter{Domain: "example.com"}, 2)
		w.next().delivered()
		w.next().delivered()
	})
}

func TestAHoldDuringAnAttemptStaysUnlessAllWasDelivered(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   func(*try)
		state queue.State
		why   string
		rcpt  queue.Recipient
	}{
		{"delivered", (*try).delivered, queue.AllDelivered, "", queue.Recipient{Addr: "bob@example.com", State: queue.Delivered, Reply: "250 ok"}},
		{
			"deferred", func(t *try) { t.later("try later") }, queue.Held, "held by ann: a test",
			queue.Recipient{Addr: "bob@example.com", State: queue.Pending},
		},
		{
			"refused for good", func(t *try) { t.failed("550 who?") }, queue.Held, "held by ann: a test",
			queue.Recipient{Addr: "bob@example.com", State: queue.Pending, Reply: "550 who?"},
		},
		{
			"the destination is down", func(t *try) { t.down("refused") }, queue.Held, "held by ann: a test",
			queue.Recipient{Addr: "bob@example.com", State: queue.Pending},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, nil, func(w *world) {
				id := w.send("bob@example.com")
				try := w.next()
				w.do(queue.Hold, queue.Filter{ID: try.Delivery.ID}, 1)
				c.end(try)
				w.settle()
				d := w.want(id, c.state, c.why)
				if d.Recipients[0] != c.rcpt {
					w.Errorf("the recipient is %+v, want %+v", d.Recipients[0], c.rcpt)
				}
				if d.Attempts != 1 {
					w.Errorf("it counts %d attempts, want 1", d.Attempts)
				}
				w.quiet(time.Hour)
				if c.state == queue.Held {
					w.do(queue.Release, queue.Filter{ID: d.ID}, 1)
					w.next().delivered()
					w.settle()
					w.want(id, queue.AllDelivered, "")
				}
			})
		})
	}
}

func TestADropDuringAnAttemptStaysAndWhoGotTheMailIsKept(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.send("a@example.com", "b@example.com")
		try := w.next()
		w.do(queue.Drop, queue.Filter{ID: try.Delivery.ID}, 1)
		try.answer <- queue.Result{Recipients: map[int]queue.Recipient{
			0: {State: queue.Delivered, Reply: "250 ok"}, 1: {State: queue.Failed, Reply: "550 who?"},
		}}
		w.settle()
		d := w.want(id, queue.Dropped, "dropped by ann: a test")
		if a, b := d.Recipients[0], d.Recipients[1]; a.State != queue.Delivered || b.State != queue.Pending || b.Reply != "550 who?" {
			w.Errorf("the recipients are %+v, want the first delivered and the second as it was", d.Recipients)
		}
		w.quiet(time.Hour)
	})
}

func TestARetryDuringAnAttemptIsMadeAfterIt(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.send("bob@example.com")
		try := w.next()
		<-time.After(time.Second)
		w.do(queue.Retry, queue.Filter{ID: try.Delivery.ID}, 1)
		try.down("connection refused")
		w.next().delivered()
		w.settle()
		w.want(id, queue.AllDelivered, "")
	})
}

func TestAHoldReachesWhatLiesInMemory(t *testing.T) {
	change := func(o *queue.Options) { o.Destination = 1 }
	each(t, change, func(w *world) {
		w.send("first@example.com")
		w.next().delivered() // from now on mail is handed over as it comes
		w.send("second@example.com")
		under := w.next()
		id := w.send("third@example.com")
		w.do(queue.Hold, queue.Filter{ID: w.only(id).ID}, 1)
		under.delivered()
		w.quiet(time.Hour)
		w.want(id, queue.Held, "held by ann: a test")
	})
}

func TestAnActReachesAllThatTheFilterChooses(t *testing.T) {
	each(t, nil, func(w *world) {
		w.next2("a@one.example", "b@one.example").down("connection refused")
		for i := range 450 {
			w.send(fmt.Sprintf("r%d@one.example", i))
		}
		w.do(queue.Hold, queue.Filter{Domain: "two.example"}, 0)
		w.do(queue.Hold, queue.Filter{Domain: "one.example", Limit: 301}, 301)
		w.do(queue.Hold, queue.Filter{}, 151)
		s, err := w.q.Stats(w.Context())
		if err != nil || s.Queued != 0 || s.Held != 452 {
			w.Errorf("counted %+v (%v), want 452 held", s, err)
		}
		w.do(queue.Drop, queue.Filter{}, 452)
	})
}

func TestAnUnknownActOrStateIsRefused(t *testing.T) {
	each(t, nil, func(w *world) {
		_, f := w.waiting("bob@example.com")
		if _, err := w.q.Do(w.Context(), "lose", f, "ann", ""); !errors.Is(err, queue.ErrAct) {
			w.Errorf("the act gives %v, want ErrAct", err)
		}
		if _, err := w.q.List(w.Context(), queue.Filter{States: []queue.State{"lost'"}}); !errors.Is(err, queue.ErrState) {
			w.Errorf("the state gives %v, want ErrState", err)
		}
	})
}

func TestTheHistorySaysWhoDidWhatAndWhy(t *testing.T) {
	each(t, nil, func(w *world) {
		_, f := w.waiting("bob@example.com")
		for _, act := range []queue.Act{queue.Hold, queue.Release} {
			w.do(act, f, 1)
		}
		w.next().delivered()
		w.settle()
		stories, err := w.q.History(w.Context(), "", f.ID)
		if err != nil {
			w.Fatal(err)
		}
		var got []string
		for _, s := range stories {
			got = append(got, fmt.Sprintf("%s %v", s.Why, s.OK))
		}
		want := "try later false; held by ann: a test false; released by ann: a test false;  true"
		if strings.Join(got, "; ") != want {
			w.Errorf("the history is %q, want %q", strings.Join(got, "; "), want)
		}
	})
}
