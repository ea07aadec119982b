package queue_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// patience is how long, in the bubble's time, a test waits for what must happen
// at once. It is shorter than every wait of the queue's own.
const patience = 10 * time.Second

// world is a queue in a bubble with a time of its own, which passes only while
// nothing else is left to do.
type world struct {
	testing.TB
	db    *db.DB
	opts  queue.Options
	q     *queue.Queue
	tries chan *try
	stop  func()
}

// try is an attempt that waits for the test to say what it came to.
type try struct {
	*queue.Job
	ctx    context.Context
	answer chan queue.Result
}

// each runs a test on a queue over each dialect. change may set options.
func each(t *testing.T, change func(*queue.Options), test func(w *world)) {
	t.Helper()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(string(dialect), func(t *testing.T) {
			o := databaseOf(t, dialect)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, dbtest.Open(t, o), t.TempDir(), change)
				w.start()
				test(w)
				w.stop()
			})
		})
	}
}

// databaseOf makes a database; PostgreSQL's server runs in the time of the machine.
func databaseOf(t testing.TB, dialect db.Dialect) db.Options {
	if dialect == db.Postgres {
		return db.Options{URL: dbtest.PostgresURL(t)}
	}
	return db.Options{DataDir: t.TempDir()}
}

func newWorld(t testing.TB, d *db.DB, spool string, change func(*queue.Options)) *world {
	o := queue.Options{
		DB: d, Spool: spool, Node: "node.example.com", Now: time.Now, After: time.After, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Lifetime: 5 * 24 * time.Hour, RetryFirst: 5 * time.Minute, RetryMax: 4 * time.Hour,
		Concurrency: 8, Destination: 4, History: 30 * 24 * time.Hour,
	}
	if change != nil {
		change(&o)
	}
	return &world{TB: t, db: d, opts: o, tries: make(chan *try)}
}

// start makes a queue over the database as it is, and runs it.
func (w *world) start() {
	w.Helper()
	var err error
	if w.q, err = queue.New(w.Context(), w.opts); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.q.Run(ctx, w.deliver); err != nil {
			w.Error(err)
		}
	})
	w.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	w.Cleanup(func() { w.stop() })
}

func (w *world) deliver(ctx context.Context, j *queue.Job) queue.Result {
	t := &try{Job: j, ctx: ctx, answer: make(chan queue.Result, 1)}
	select {
	case w.tries <- t:
	case <-ctx.Done():
		return queue.Result{Why: "cut short"}
	}
	select {
	case r := <-t.answer:
		return r
	case <-ctx.Done():
		return queue.Result{Why: "cut short"}
	}
}

// next waits for an attempt that is due at once.
func (w *world) next() *try {
	w.Helper()
	return w.within(patience)
}

// within waits for an attempt, at most for a while.
func (w *world) within(d time.Duration) *try {
	w.Helper()
	select {
	case t := <-w.tries:
		return t
	case <-time.After(d):
		w.Fatalf("no attempt was made within %s", d)
		return nil
	}
}

// quiet lets time pass in which no attempt may be made.
func (w *world) quiet(d time.Duration) {
	w.Helper()
	select {
	case t := <-w.tries:
		w.Fatalf("an attempt at delivery %s to %s was made, too early by %s", t.Delivery.ID, t.Domain, time.Until(time.Now().Add(d)))
	case <-time.After(d):
	}
}

// settle lets marks become durable.
func (w *world) settle() {
	<-time.After(100 * time.Millisecond)
	synctest.Wait()
}

// delivered ends the attempt with success for every recipient that is left.
func (t *try) delivered() { t.all(queue.Delivered, "250 ok") }

// failed ends it with a permanent failure of every recipient that is left.
func (t *try) failed(reply string) { t.all(queue.Failed, reply) }

func (t *try) all(state queue.RecipientState, reply string) {
	r := queue.Result{Recipients: map[int]queue.Recipient{}, Story: queue.Story{At: time.Now(), OK: state == queue.Delivered}}
	for _, i := range t.Pending() {
		rcpt := t.Recipients[i]
		rcpt.State, rcpt.Reply = state, reply
		r.Recipients[i] = rcpt
	}
	if state == queue.Failed {
		r.Why = reply
	}
	t.answer <- r
}

// later ends the attempt with nothing delivered, for a reason of this message alone.
func (t *try) later(why string) {
	t.answer <- queue.Result{Why: why, Do: "Wait.", Story: queue.Story{At: time.Now(), Why: why}}
}

// down ends the attempt with no host of the destination usable.
func (t *try) down(why string) {
	t.answer <- queue.Result{Why: why, Do: "Wait.", DestinationDown: true, Story: queue.Story{At: time.Now(), Why: why}}
}

// forbidden ends it with no host that the policy lets be used.
func (t *try) forbidden(why string) {
	t.answer <- queue.Result{Why: why, Do: "Look at the policy.", ByPolicy: true, DestinationDown: true, Story: queue.Story{At: time.Now(), Why: why}}
}

// body reads the whole body.
func (t *try) body(tb testing.TB) string {
	tb.Helper()
	r, err := t.Open()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

const letter = "From: <ann@example.org>\r\nSubject: hello\r\n\r\nHello.\r\n"

// send enqueues a letter to recipients and returns the message's id.
func (w *world) send(to ...string) string {
	w.Helper()
	return w.submit(queue.Message{From: "ann@example.org"}, letter, to...)
}

func (w *world) submit(m queue.Message, body string, to ...string) string {
	w.Helper()
	id, err := enqueue(w.Context(), w.q, m, body, to...)
	if err != nil {
		w.Fatal(err)
	}
	return id
}

func enqueue(ctx context.Context, q *queue.Queue, m queue.Message, body string, to ...string) (string, error) {
	b := q.Body()
	if _, err := io.Copy(b, strings.NewReader(body)); err != nil {
		b.Discard()
		return "", err
	}
	s := queue.Submission{Message: m, Body: b}
	for _, addr := range to {
		s.Recipients = append(s.Recipients, queue.Destined{Recipient: queue.Recipient{Addr: addr}, Domain: queue.Domain(addr)})
	}
	return q.Enqueue(ctx, s)
}

// only returns the one delivery of a message.
func (w *world) only(message string) queue.Delivery {
	w.Helper()
	found, err := w.q.OfMessage(w.Context(), "", message)
	if err != nil {
		w.Fatal(err)
	}
	if len(found) != 1 {
		w.Fatalf("message %s has %d deliveries, want 1", message, len(found))
	}
	return found[0]
}

// want checks how the one delivery of a message stands.
func (w *world) want(message string, state queue.State, why string) queue.Delivery {
	w.Helper()
	d := w.only(message)
	if d.State != state || d.Why != why {
		w.Errorf("the delivery is %s (%q), want %s (%q)", d.State, d.Why, state, why)
	}
	return d
}

// do does an act and checks to how many deliveries it was done.
func (w *world) do(act queue.Act, f queue.Filter, want int) {
	w.Helper()
	n, err := w.q.Do(w.Context(), act, f, "ann", "a test")
	if err != nil {
		w.Fatal(err)
	}
	if n != want {
		w.Errorf("%s was done to %d deliveries, want %d", act, n, want)
	}
}

// exec changes the database behind the queue's back.
func (w *world) exec(statement string, args ...any) {
	w.Helper()
	err := w.db.Write(w.Context(), func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
}
