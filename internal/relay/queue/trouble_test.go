package queue_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// long is a reply that makes a story of some pages.
var long = strings.Repeat("x", 40<<10)

// fill lets the database grow no further, as a full disk does; it returns what
// makes room again.
func (w *world) fill() (mend func()) {
	w.Helper()
	w.exec(`PRAGMA max_page_count = 1`) // it means the present size
	return func() { w.exec(`PRAGMA max_page_count = 1000000`) }
}

func TestWhileResultsCannotBeStoredNothingGoesOutAndNothingGoesOutTwice(t *testing.T) {
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dbtest.Open(t, db.Options{DataDir: data}), t.TempDir(), nil)
		w.start()
		first := w.send("bob@one.example")
		second := w.send("bob@two.example")
		tries := []*try{w.next(), w.next()}
		third := w.send("bob@three.example")
		under := w.next()
		mend := w.fill()
		for _, try := range tries {
			try.answer <- queue.Result{
				Recipients: map[int]queue.Recipient{0: {State: queue.Delivered, Reply: "250 ok"}},
				Story:      queue.Story{At: time.Now(), OK: true, Why: long},
			}
		}
		w.settle()
		w.quiet(15 * time.Minute)
		mend()
		w.settle()
		<-time.After(6 * time.Second)
		w.settle()
		w.want(first, queue.AllDelivered, "")
		w.want(second, queue.AllDelivered, "")
		under.delivered()
		w.settle()
		w.want(third, queue.AllDelivered, "")
		w.send("bob@four.example")
		w.next().delivered()
		w.stop()
	})
}

func TestResultsThatCouldNotBeStoredAreStoredAtTheEnd(t *testing.T) {
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dbtest.Open(t, db.Options{DataDir: data}), t.TempDir(), nil)
		w.start()
		id := w.send("bob@one.example")
		try := w.next()
		mend := w.fill()
		try.answer <- queue.Result{
			Recipients: map[int]queue.Recipient{0: {State: queue.Delivered, Reply: "250 ok"}},
			Story:      queue.Story{At: time.Now(), OK: true, Why: long},
		}
		w.settle()
		mend()
		w.stop()
		w.want(id, queue.AllDelivered, "")
	})
}

func TestAResultIsStoredWithoutItsStoryRatherThanNotAtAll(t *testing.T) {
	each(t, nil, func(w *world) {
		// A database that refuses the story for what it is.
		if w.db.Dialect() == db.SQLite {
			w.exec(`CREATE TRIGGER no_story BEFORE INSERT ON attempt BEGIN SELECT RAISE(ABORT, 'no'); END`)
		} else {
			w.exec(`ALTER TABLE attempt ADD CHECK (story = '')`)
		}
		id := w.send("bob@one.example")
		w.next().delivered()
		<-time.After(6 * time.Second)
		w.settle()
		w.want(id, queue.AllDelivered, "")
		w.send("bob@one.example")
		w.next().delivered()
		w.quiet(time.Hour)
	})
}

func TestAResultThatIsRefusedAltogetherDoesNotGoOutAgainAndStopsNothing(t *testing.T) {
	each(t, nil, func(w *world) {
		if w.db.Dialect() == db.SQLite {
			w.exec(`CREATE TRIGGER no_mark BEFORE UPDATE ON delivery WHEN new.domain = 'one.example' BEGIN SELECT RAISE(ABORT, 'no'); END`)
		} else {
			w.exec(`ALTER TABLE delivery ADD CHECK (domain <> 'one.example' OR state = 'queued')`)
		}
		w.send("bob@one.example")
		w.next().delivered()
		w.quiet(time.Minute)
		other := w.send("bob@two.example")
		w.next().delivered()
		w.settle()
		w.want(other, queue.AllDelivered, "")
		w.quiet(2 * time.Hour)
	})
}

func TestAHostileServersTextIsStored(t *testing.T) {
	each(t, nil, func(w *world) {
		evil := "550 \x00\xff\xfe" + strings.Repeat("é", 100000)
		id := w.send("bob@one.example")
		w.next().answer <- queue.Result{
			Recipients: map[int]queue.Recipient{0: {State: queue.Failed, Reply: evil}},
			Why:        evil, Do: evil,
			Story: queue.Story{At: time.Now(), Why: evil, Tries: []queue.Try{{Lines: []string{evil, evil}}}},
		}
		w.settle()
		d := w.only(id)
		if d.State != queue.SomeFailed || !strings.HasPrefix(d.Why, "550 ??") || len(d.Why) > 2100 || len(d.Recipients[0].Reply) > 2100 {
			w.Errorf("the delivery is %s with %d bytes of why: %.20q", d.State, len(d.Why), d.Why)
		}
		stories, err := w.q.History(w.Context(), "", d.ID)
		if err != nil || len(stories) != 1 {
			w.Errorf("there are %d stories (%v), want 1", len(stories), err)
		}
	})
}
