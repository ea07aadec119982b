package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// leased is how many deliveries are under a lease.
func (w *world) leased() int {
	w.Helper()
	var n int
	if err := w.db.Read().QueryRowContext(w.Context(), `SELECT COUNT(*) FROM delivery WHERE lease <> ''`).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

func TestAPausedQueueFinishesWhatIsUnderWayAndBeginsNothing(t *testing.T) {
	change := func(o *queue.Options) { o.Destination = 1 }
	each(t, change, func(w *world) {
		w.send("first@example.com")
		w.next().delivered() // from now on mail is handed over as it comes
		w.settle()
		id := w.send("second@example.com")
		under := w.next()
		behind := w.send("third@example.com") // in memory, behind the second
		w.q.Pause()
		quiet := make(chan error, 1)
		go func() { quiet <- w.q.Quiet(w.Context()) }()
		later := w.send("fourth@example.com")
		w.settle()
		select {
		case <-quiet:
			w.Error("it was quiet while an attempt was under way")
		default:
		}
		if n := w.q.UnderWay(); n != 1 {
			w.Errorf("%d deliveries are under way, want 1", n)
		}
		under.delivered()
		if err := <-quiet; err != nil {
			w.Error(err)
		}
		w.want(id, queue.AllDelivered, "") // durable by the time it is quiet
		if n := w.leased(); n != 0 {
			w.Errorf("%d deliveries are leased, want none", n)
		}
		w.quiet(6 * time.Hour)
		w.q.Resume()
		w.next().delivered()
		w.next().delivered()
		w.settle()
		w.want(behind, queue.AllDelivered, "")
		w.want(later, queue.AllDelivered, "")
	})
}

func TestThePauseOfOneNodeLeavesTheWorkToTheOther(t *testing.T) {
	nodes(t, nil, func(a, b *world) {
		a.start()
		b.start()
		a.q.Pause()
		id := a.send("bob@example.com")
		b.within(2 * time.Minute).delivered()
		b.settle()
		a.want(id, queue.AllDelivered, "")
	})
}

func TestWhoWaitsForTheQuietIsToldWhenThePauseIsOver(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("bob@example.com")
		try := w.next()
		w.q.Pause()
		ended := make(chan error, 2)
		ctx, cancel := context.WithCancel(w.Context())
		go func() { ended <- w.q.Quiet(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err == nil {
			w.Error("the wait that was given up says that it is quiet")
		}
		go func() { ended <- w.q.Quiet(w.Context()) }()
		synctest.Wait()
		w.q.Resume()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		try.delivered()
	})
}

func TestSettingsChangeWhileTheQueueRuns(t *testing.T) {
	change := func(o *queue.Options) { o.Destination = 8 }
	each(t, change, func(w *world) {
		for range 3 {
			w.send("bob@example.com")
			w.next().delivered()
			w.settle()
		}
		w.q.Tune(queue.Tuning{
			Lifetime: time.Hour, RetryFirst: 30 * time.Minute, RetryMax: 30 * time.Minute, Concurrency: 8, Destination: 1, History: 24 * time.Hour,
		})
		id := w.send("bob@example.com")
		w.send("carl@example.com")
		first := w.next()
		w.quiet(time.Minute) // one at a time
		first.later("try later")
		w.next().delivered()
		w.quiet(28 * time.Minute)
		try := w.within(10 * time.Minute)
		if d := w.only(id); d.Expires.Sub(d.Received) != time.Hour {
			w.Errorf("it is tried for %s, want an hour", d.Expires.Sub(d.Received))
		}
		try.delivered()
	})
}
