package queue_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// nodes runs a test with two nodes that share a PostgreSQL database.
func nodes(t *testing.T, change func(*queue.Options), test func(a, b *world)) {
	t.Helper()
	url := dbtest.PostgresURL(t)
	synctest.Test(t, func(t *testing.T) {
		var two [2]*world
		for i := range two {
			two[i] = newWorld(t, dbtest.Open(t, db.Options{URL: url}), t.TempDir(), change)
		}
		test(two[0], two[1])
		for _, w := range two {
			if w.stop != nil {
				w.stop()
			}
		}
	})
}

func TestTwoNodesShareTheWorkAndDeliverNothingTwice(t *testing.T) {
	nodes(t, nil, func(a, b *world) {
		a.start()
		b.start()
		const each = 60
		var ids []string
		for i := range each {
			ids = append(ids, a.send(fmt.Sprintf("bob@d%d.example", i%5)), b.send(fmt.Sprintf("bob@d%d.example", i%5)))
		}
		went, by := map[string]int{}, [2]int{}
		for range 2 * each {
			var try *try
			var node int
			select {
			case try = <-a.tries:
			case try = <-b.tries:
				node = 1
			case <-time.After(2 * time.Minute): // one node looks for the other's mail once a minute
				t.Fatalf("after %d deliveries nothing is tried any more", len(went))
			}
			went[try.Message.ID]++
			by[node]++
			try.delivered()
		}
		a.quiet(time.Hour)
		b.settle()
		for _, id := range ids {
			if went[id] != 1 {
				t.Errorf("message %s was delivered %d times", id, went[id])
			}
			b.want(id, queue.AllDelivered, "")
		}
		if by[0] == 0 || by[1] == 0 {
			t.Errorf("the nodes made %v deliveries, want some of each", by)
		}
	})
}

func TestANodeTakesOverWhatAnotherOneHasLeftBehind(t *testing.T) {
	nodes(t, nil, func(a, b *world) {
		a.start()
		var ids []string
		for i := range 5 {
			ids = append(ids, a.send(fmt.Sprintf("bob@d%d.example", i)))
		}
		large := a.submit(queue.Message{From: "ann@example.org"}, large, "bob@d9.example")
		ids = append(ids, large)
		var hanging []*try
		for range ids {
			hanging = append(hanging, a.next())
		}
		// The node stands still, as a machine that is cut off does: it says nothing
		// of itself any more, and its attempts hang.
		a.exec(`UPDATE lease SET until = 0`)
		b.start()
		went := map[string]bool{}
		for range ids {
			try := b.next()
			try.body(b)
			went[try.Message.ID] = true
			try.delivered()
		}
		b.settle()
		for _, id := range ids {
			if !went[id] {
				t.Errorf("message %s was not taken over", id)
			}
		}
		// What it comes to at last is merged with what has happened meanwhile.
		for i, try := range hanging {
			if i%2 == 0 {
				try.delivered()
			} else {
				try.down("connection refused")
			}
		}
		a.settle()
		for _, id := range ids {
			b.want(id, queue.AllDelivered, "")
		}
		b.quiet(time.Hour)
	})
}

func TestANodeWithoutTheDatabaseStopsTryingBeforeAnotherOneBegins(t *testing.T) {
	change := func(o *queue.Options) { o.Destination = 1 }
	nodes(t, change, func(a, b *world) {
		a.start()
		a.send("bob@example.com")
		a.next().delivered()
		for range 3 { // handed over: one is tried, the others lie in memory
			a.send("bob@example.com")
		}
		under := a.next()
		a.settle()
		// It cannot renew its leases from here on.
		a.exec(`ALTER TABLE lease ADD CONSTRAINT cut CHECK (until < 0) NOT VALID`)
		a.quiet(4 * time.Minute)
		under.delivered()
		a.quiet(4 * time.Minute) // its leases are over: the rest is not its any longer
		a.exec(`ALTER TABLE lease DROP CONSTRAINT cut`)
		b.start()
		went := map[string]int{}
		for range 2 {
			var try *try
			select {
			case try = <-a.tries:
			case try = <-b.tries:
			case <-time.After(5 * time.Minute):
				t.Fatal("what it had leased is tried by nobody")
			}
			went[try.Message.ID]++
			try.delivered()
		}
		a.quiet(time.Hour)
		if len(went) != 2 {
			t.Errorf("delivered were %v, want two messages once each", went)
		}
	})
}

func TestAGateThatOneNodeClosedOrOpenedHoldsForTheOther(t *testing.T) {
	nodes(t, nil, func(a, b *world) {
		a.start()
		a.send("bob@example.com")
		a.next().down("connection refused")
		a.settle()
		b.start()
		b.send("carl@example.com")
		b.quiet(2 * time.Minute)
		a.quiet(time.Second)
		if err := b.q.Kick(b.Context(), "example.com"); err != nil {
			t.Fatal(err)
		}
		b.next().delivered()
		b.next().delivered()
		a.quiet(time.Hour)
		if s, err := a.q.Stats(a.Context()); err != nil || s.Down != 0 || s.Queued != 0 {
			t.Errorf("the first node counts %+v (%v), want nothing queued and nothing down", s, err)
		}
	})
}

func TestWhatIsHeldOnOneNodeIsNotTriedByTheOther(t *testing.T) {
	change := func(o *queue.Options) { o.Destination = 1 }
	nodes(t, change, func(a, b *world) {
		a.start()
		b.start()
		a.send("bob@example.com")
		a.next().delivered()
		a.send("bob@example.com")
		under := a.next()
		id := a.send("carl@example.com") // lies in a's memory
		<-time.After(time.Minute)
		b.do(queue.Hold, queue.Filter{ID: b.only(id).ID}, 1)
		under.delivered()
		a.quiet(time.Hour)
		b.want(id, queue.Held, "held by ann: a test")
	})
}
