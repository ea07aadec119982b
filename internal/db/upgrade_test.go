package db_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// queueOver opens the queue of a database.
func queueOver(t *testing.T, o db.Options, spool string) (*db.DB, *queue.Queue) {
	t.Helper()
	d := reopen(t, o)
	q, err := queue.New(t.Context(), queue.Options{
		DB: d, Spool: spool, Node: "node.example.com", Log: slog.New(slog.DiscardHandler), Now: time.Now, After: time.After,
		Lifetime: 24 * time.Hour, RetryFirst: time.Hour, RetryMax: time.Hour, Concurrency: 8, Destination: 8, History: 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, q
}

// letterOf makes messages, of which one in ten has a large body.
func letterOf(i int) string {
	text := fmt.Sprintf("Subject: %d\r\n\r\n", i)
	if i%10 == 0 {
		return text + strings.Repeat("a line of a large message\r\n", queue.InlineBody/20)
	}
	return text + "a line\r\n"
}

func fillQueue(t *testing.T, q *queue.Queue, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		b := q.Body()
		if _, err := io.WriteString(b, letterOf(i)); err != nil {
			t.Fatal(err)
		}
		domain := fmt.Sprintf("d%d.example", i%7)
		if _, err := q.Enqueue(t.Context(), queue.Submission{
			Message: queue.Message{Org: db.DefaultOrg, From: fmt.Sprintf("a%d@example.org", i)}, Body: b,
			Recipients: []queue.Destined{{Domain: domain, Recipient: queue.Recipient{Addr: "b@" + domain, Notify: "FAILURE"}}},
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// emptyQueue delivers what waits, and returns the text that each sender's message had.
func emptyQueue(t *testing.T, q *queue.Queue, many int) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := map[string]string{}
	texts := make(chan [2]string, many)
	ended := make(chan error, 1)
	go func() {
		ended <- q.Run(ctx, func(_ context.Context, j *queue.Job) queue.Result {
			r, err := j.Open()
			if err != nil {
				return queue.Result{Why: err.Error()}
			}
			defer r.Close()
			text, err := io.ReadAll(r)
			if err != nil {
				return queue.Result{Why: err.Error()}
			}
			texts <- [2]string{j.From, string(text)}
			return queue.Result{Recipients: map[int]queue.Recipient{0: {State: queue.Delivered}}}
		})
	}()
	for len(got) < many && ctx.Err() == nil {
		select {
		case x := <-texts:
			got[x[0]] = x[1]
		case <-ctx.Done():
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return got
}

// A queue that is full goes through a roll-back to the schema of before and an
// upgrade to this one whole: each message as it was, what was held still held.
func TestAFullQueueOutlivesARollBackAndAnUpgrade(t *testing.T) {
	const before, many = 6, 120 // the schema that had the queue as it was first
	eachKept(t, func(t *testing.T, o db.Options) {
		spool := t.TempDir()
		d, q := queueOver(t, o, spool)
		fillQueue(t, q, 0, many)
		n, err := q.Do(t.Context(), queue.Hold, queue.Filter{Org: db.DefaultOrg, Domain: "d3.example"}, "ann", "an upgrade")
		if err != nil || n == 0 {
			t.Fatalf("held %d: %v", n, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := db.RollBack(t.Context(), o, before); err != nil {
			t.Fatalf("going back: %v", err)
		}
		d, q = queueOver(t, o, spool) // which upgrades it
		s, err := q.Stats(t.Context())
		if err != nil || int(s.Queued) != many-n || int(s.Held) != n {
			t.Errorf("after the way back and forth %d wait and %d are held (%v), want %d and %d", s.Queued, s.Held, err, many-n, n)
		}
		if _, err := q.Do(t.Context(), queue.Release, queue.Filter{Org: db.DefaultOrg, Why: "an upgrade"}, "ann", ""); err != nil {
			t.Fatal(err)
		}
		got := emptyQueue(t, q, many)
		for i := range many {
			if from := fmt.Sprintf("a%d@example.org", i); got[from] != letterOf(i) {
				t.Errorf("message %d: %d octets were delivered, not the %d that were taken", i, len(got[from]), len(letterOf(i)))
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}
