package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// BenchmarkEnqueueDeliver measures messages of 10 KiB from the call of Enqueue,
// made by 20 goroutines at a time, to the durable mark that they were delivered.
func BenchmarkEnqueueDeliver(b *testing.B) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		b.Run(string(dialect), func(b *testing.B) { benchmark(b, dialect) })
	}
}

func benchmark(b *testing.B, dialect db.Dialect) {
	o := db.Options{DataDir: b.TempDir()}
	if dialect == db.Postgres {
		o = db.Options{URL: dbtest.OwnPostgres(b).URL(b)}
	}
	const senders, destinations = 20, 10
	body := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmn\r\n"), 10<<10/62)
	d := dbtest.Open(b, o)
	q, err := queue.New(b.Context(), queue.Options{
		DB: d, Spool: b.TempDir(), Now: time.Now, After: time.After, Log: slog.New(slog.DiscardHandler),
		Lifetime: 24 * time.Hour, RetryFirst: time.Minute, RetryMax: time.Hour, Concurrency: 200, Destination: 20, History: 24 * time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	var ended sync.WaitGroup
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		_ = q.Run(ctx, func(_ context.Context, j *queue.Job) queue.Result {
			defer ended.Done()
			return take(b, j)
		})
	})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	left := make(chan int, senders)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for i := range left {
				ended.Add(1)
				body0 := q.Body()
				_, _ = body0.Write(body)
				to := fmt.Sprintf("bob@d%d.example.com", i%destinations)
				_, err := q.Enqueue(b.Context(), queue.Submission{
					Message: queue.Message{From: "ann@example.org"}, Body: body0,
					Recipients: []queue.Destined{{Recipient: queue.Recipient{Addr: to}, Domain: queue.Domain(to)}},
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		left <- i
	}
	close(left)
	sending.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepted/s")
	ended.Wait()
	cancel()
	running.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "delivered/s")
	s, err := q.Stats(b.Context())
	if err != nil || s.Queued != 0 {
		b.Fatal(s, err)
	}
}

// take is a destination that takes everything.
func take(b *testing.B, j *queue.Job) queue.Result {
	r, err := j.Open()
	if err != nil {
		b.Error(err)
		return queue.Result{Why: err.Error()}
	}
	defer r.Close()
	var sink bytes.Buffer
	if _, err := sink.ReadFrom(r); err != nil {
		b.Error(err)
	}
	now := time.Now()
	return queue.Result{
		Recipients: map[int]queue.Recipient{0: {State: queue.Delivered, Reply: "250 2.0.0 queued"}},
		Story:      queue.Story{At: now, OK: true, Tries: []queue.Try{{At: now, MX: "mx.example.com", OK: true, Why: "taken"}}},
	}
}
