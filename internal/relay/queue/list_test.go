package queue_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// addrs lists the first recipients of what a filter chooses.
func (w *world) addrs(f queue.Filter) string {
	w.Helper()
	list, err := w.q.List(w.Context(), f)
	if err != nil {
		w.Fatal(err)
	}
	var all []string
	for _, d := range list {
		all = append(all, d.Recipients[0].Addr)
	}
	return strings.Join(all, " ")
}

func TestAListChoosesByStateDestinationAndPolicy(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("gone@one.example")
		w.next().delivered()
		w.send("refused@one.example")
		w.next().failed("550 no")
		_, f := w.waiting("dropped@one.example")
		w.do(queue.Drop, f, 1)
		_, f = w.waiting("held@one.example")
		w.do(queue.Hold, f, 1)
		w.waiting("waits@one.example")
		w.next2("a@two.example", "b@two.example").forbidden("no STARTTLS")
		w.settle()
		for _, c := range []struct {
			name string
			f    queue.Filter
			want string
		}{
			{"what waits", queue.Filter{}, "held@one.example waits@one.example a@two.example b@two.example"},
			{"what waits for a destination", queue.Filter{Domain: "one.example"}, "held@one.example waits@one.example"},
			{"what is queued", queue.Filter{States: []queue.State{queue.Queued}}, "waits@one.example a@two.example b@two.example"},
			{"what is held by hand", queue.Filter{States: []queue.State{queue.Held}}, "held@one.example"},
			{"what was delivered", queue.Filter{States: []queue.State{queue.AllDelivered}}, "gone@one.example"},
			{"what failed", queue.Filter{States: []queue.State{queue.SomeFailed}}, "refused@one.example"},
			{"what failed or was dropped", queue.Filter{States: []queue.State{queue.SomeFailed, queue.Dropped}}, "refused@one.example dropped@one.example"},
			{"what a policy makes wait, and what waits behind it", queue.Filter{ByPolicy: true}, "a@two.example b@two.example"},
			{"what a policy makes wait for another destination", queue.Filter{ByPolicy: true, Domain: "one.example"}, ""},
			{"another organisation's", queue.Filter{Org: "00000000-0000-7000-8000-000000000002"}, ""},
		} {
			if got := w.addrs(c.f); got != c.want {
				w.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	})
}

func TestAListChoosesBySenderAndReason(t *testing.T) {
	each(t, nil, func(w *world) {
		from := func(sender, to string) {
			w.submit(queue.Message{From: sender}, letter, to)
		}
		from("Ann@Example.org", "a@one.example")
		w.next().later("452 4.2.2 mailbox 100% full")
		from("bob@example.org", "b@one.example")
		w.next().later("452 4.2.2 mailbox 1000 full")
		from("", "c@two.example")
		w.next().down("connection refused")
		w.settle()
		from("ann@notexample.org", "d@two.example") // waits behind the one before
		for _, c := range []struct {
			name string
			f    queue.Filter
			want string
		}{
			{"an address in any case", queue.Filter{Sender: "ann@example.ORG"}, "a@one.example"},
			{"an address in brackets", queue.Filter{Sender: "<bob@example.org>"}, "b@one.example"},
			{"a domain", queue.Filter{Sender: "@example.org"}, "a@one.example b@one.example"},
			{"a reason in any case", queue.Filter{Why: "MAILBOX"}, "a@one.example b@one.example"},
			{"a reason with a wildcard in it", queue.Filter{Why: "100%"}, "a@one.example"},
			{"the reason of the destination", queue.Filter{Why: "refused"}, "c@two.example d@two.example"},
			{"both", queue.Filter{Sender: "@notexample.org", Why: "refused"}, "d@two.example"},
			{"the reason of another", queue.Filter{Domain: "one.example", Why: "refused"}, ""},
		} {
			if got := w.addrs(c.f); got != c.want {
				w.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
		w.do(queue.Hold, queue.Filter{Why: "mailbox"}, 2)
		w.do(queue.Drop, queue.Filter{Sender: "@example.org"}, 2)
	})
}

func TestAListIsReadPageByPage(t *testing.T) {
	each(t, nil, func(w *world) {
		var want []string
		for i := range 25 {
			addr := fmt.Sprintf("r%02d@example.com", i)
			want = append(want, addr)
			w.send(addr)
		}
		var got []string
		f := queue.Filter{Limit: 10}
		for _, size := range []int{10, 10, 5, 0} {
			page, err := w.q.List(w.Context(), f)
			if err != nil || len(page) != size {
				w.Fatalf("a page has %d deliveries (%v), want %d", len(page), err, size)
			}
			for _, d := range page {
				got = append(got, d.Recipients[0].Addr)
				f.After = d.ID
			}
		}
		if !slices.Equal(got, want) {
			w.Errorf("the pages hold %q, want %q", got, want)
		}
	})
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	each(t, nil, func(w *world) {
		if _, err := w.q.Show(w.Context(), "", "nothing"); err == nil || !strings.Contains(err.Error(), "no such delivery") {
			w.Errorf("a delivery that is not there gives %v", err)
		}
		for _, id := range []string{"", "x", db.NewID()} {
			if found, err := w.q.OfMessage(w.Context(), "", id); err != nil || len(found) != 0 {
				w.Errorf("message %q has %d deliveries (%v)", id, len(found), err)
			}
		}
	})
}

func TestTheCountsAreThoseOfWhatWaits(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("gone@example.com")
		w.next().delivered()
		<-time.After(time.Hour)
		oldest := time.Now()
		_, f := w.waiting("held@example.com")
		w.do(queue.Hold, f, 1)
		<-time.After(time.Hour)
		w.waiting("waits@example.com")
		w.send("under@example.net")
		under := w.next()
		s, err := w.q.Stats(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		if want := (queue.Stats{Queued: 2, Held: 1, Oldest: oldest.UTC().Truncate(time.Microsecond), Active: 1}); s != want {
			w.Errorf("counted %+v, want %+v", s, want)
		}
		under.delivered()
	})
}

func TestHistoryIsDeletedWhenItIsOver(t *testing.T) {
	change := func(o *queue.Options) { o.History = 2 * time.Hour }
	each(t, change, func(w *world) {
		gone := w.send("a@one.example", "b@two.example")
		w.next().delivered()
		w.next().delivered()
		kept, _ := w.waiting("c@three.example")
		f := queue.Filter{ID: w.only(kept).ID}
		w.do(queue.Hold, f, 1)
		for range 450 {
			w.send("d@four.example")
			w.next().delivered()
		}
		<-time.After(time.Hour)
		if found, err := w.q.OfMessage(w.Context(), "", gone); err != nil || len(found) != 2 {
			w.Errorf("after an hour %d deliveries are there (%v), want 2", len(found), err)
		}
		<-time.After(time.Hour + 2*time.Minute)
		for table, want := range map[string]int{"message": 1, "delivery": 1, "attempt": 2, "body": 1} {
			if n := w.rows(table); n != want {
				w.Errorf("%d rows are left in %s, want %d: those of what is held", n, table, want)
			}
		}
	})
}

// rows counts the rows of a table.
func (w *world) rows(table string) (n int) {
	w.Helper()
	if err := w.db.Read().QueryRowContext(w.Context(), `SELECT COUNT(*) FROM `+table).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

func TestABodyIsFreedWhenItsLastDeliveryHasEnded(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("a@one.example", "b@two.example")
		first, second := w.next(), w.next()
		first.delivered()
		w.settle()
		if n := w.rows("body"); n != 1 {
			w.Errorf("%d bodies are kept while a delivery waits, want 1", n)
		}
		if got := second.body(w); got != letter {
			w.Errorf("the second delivery has the body %q", got)
		}
		second.delivered()
		w.settle()
		if n := w.rows("body"); n != 0 {
			w.Errorf("%d bodies are kept, want none", n)
		}
	})
}

// TestNoStatementReadsWhatItIsNotAskedFor looks at SQLite's plans: with a
// million rows of history, a scan of a table would take seconds.
func TestNoStatementReadsWhatItIsNotAskedFor(t *testing.T) {
	d := dbtest.SQLite(t)
	partial := []string{ // scans of indexes that hold nothing but what is counted
		"SCAN delivery USING COVERING INDEX delivery_queued", "SCAN delivery USING COVERING INDEX delivery_held",
		"SCAN d USING COVERING INDEX delivery_policy", "SCAN g USING COVERING INDEX destination_policy",
		"SCAN o USING COVERING INDEX sqlite_autoindex_organisation_1",
		"SCAN CONSTANT ROW", "SCAN walk", "SCAN firsts", "SCAN (subquery",
	}
	tables := []string{"delivery", "d", "w", "message", "m", "body", "attempt", "destination", "g", "o"}
	for name, statement := range queue.Statements() {
		t.Run(name, func(t *testing.T) {
			args := make([]any, 14)
			steps, err := db.All(t.Context(), d.Read(), func(rows *sql.Rows) (s string, err error) {
				var id, parent, unused int
				err = rows.Scan(&id, &parent, &unused, &s)
				return s, err
			}, "EXPLAIN QUERY PLAN "+statement, args[:arguments(statement)]...)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range steps {
				word, rest, _ := strings.Cut(s, " ")
				table, _, _ := strings.Cut(rest, " ")
				// All of an organisation, or all behind an id.
				wide := strings.HasSuffix(s, "delivery USING PRIMARY KEY (org=?)") || strings.HasSuffix(s, "delivery USING PRIMARY KEY (org=? AND id>?)")
				if word == "SCAN" && slices.Contains(tables, table) && !slices.ContainsFunc(partial, func(p string) bool { return strings.HasPrefix(s, p) }) || wide {
					t.Errorf("%s\nin the plan of %s", s, statement)
				}
			}
		})
	}
}

// arguments is the highest placeholder of a statement.
func arguments(statement string) int {
	for n := 14; n > 0; n-- {
		if strings.Contains(statement, fmt.Sprintf("$%d", n)) {
			return n
		}
	}
	return 0
}
