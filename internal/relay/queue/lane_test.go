package queue_test

import (
	"testing"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// one makes a destination take one message at a time.
func one(o *queue.Options) { o.Concurrency, o.Destination = 1, 1 }

func (w *world) bulk(to string) string {
	w.Helper()
	return w.submit(queue.Message{From: "news@example.org", Bulk: true}, letter, to)
}

// in checks in which order messages are tried; all of them are delivered.
func (w *world) in(messages ...string) {
	w.Helper()
	for i, id := range messages {
		t := w.next()
		if t.Message.ID != id {
			w.Errorf("try %d is of message %s (bulk: %v), want %s", i, t.Message.ID, t.Bulk, id)
		}
		t.delivered()
	}
}

func TestBulkMailLetsOtherMailForItsDestinationGoFirst(t *testing.T) {
	each(t, one, func(w *world) {
		under := w.bulk("a@example.com")
		t := w.next() // nothing is known of the destination yet: what comes now waits in the database
		news1, news2 := w.bulk("b@example.com"), w.bulk("c@example.com")
		reset, receipt := w.send("d@example.com"), w.send("e@example.com")
		if t.Message.ID != under {
			w.Errorf("the first try is of %s", t.Message.ID)
		}
		t.delivered()
		w.in(reset, receipt, news1, news2)

		// It is known by now, and what comes is handed over in memory.
		w.bulk("f@example.com")
		t = w.next()
		news3, news4 := w.bulk("g@example.com"), w.bulk("h@example.com")
		invoice := w.send("i@example.com")
		t.delivered()
		w.in(invoice, news3, news4)
	})
}

func TestThatAMessageIsBulkIsKeptOverARestart(t *testing.T) {
	each(t, one, func(w *world) {
		w.send("a@example.com")
		w.next().down("no host answers")
		news, letter := w.bulk("b@example.com"), w.send("c@example.com")
		w.settle()
		w.stop()
		if !w.only(news).Bulk || w.only(letter).Bulk {
			w.Error("the list does not tell which is bulk")
		}
		w.start()
		w.do(queue.Retry, queue.Filter{}, 3)
		w.next().delivered()
		w.in(letter, news)
	})
}
