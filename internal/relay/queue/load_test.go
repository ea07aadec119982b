package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// TestUnderLoadEverythingGoesOnce runs in the time of the machine, with retries
// so quick that attempts, arrivals, marks and reads of the database meet in every
// order.
func TestUnderLoadEverythingGoesOnce(t *testing.T) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(string(dialect), func(t *testing.T) {
			messages, senders := 3000, 16
			if dialect == db.Postgres {
				messages = 600
			}
			d := dbtest.Open(t, databaseOf(t, dialect))
			q, err := queue.New(t.Context(), queue.Options{
				DB: d, Spool: t.TempDir(), Now: time.Now, After: time.After, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
				Lifetime: time.Hour, RetryFirst: time.Millisecond, RetryMax: 5 * time.Millisecond,
				Concurrency: 24, Destination: 8, History: time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			went := map[string]int{}
			all := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() {
				_ = q.Run(ctx, func(_ context.Context, j *queue.Job) queue.Result {
					switch rand.IntN(12) {
					case 0:
						return queue.Result{Why: "later"}
					case 1:
						return queue.Result{Why: "down", DestinationDown: true}
					case 2:
						return queue.Result{Why: "slower", Throttled: true}
					}
					mu.Lock()
					defer mu.Unlock()
					went[j.Message.ID]++
					if len(went) == messages && went[j.Message.ID] == 1 {
						close(all)
					}
					return queue.Result{Recipients: map[int]queue.Recipient{0: {State: queue.Delivered}}}
				})
			})
			var n atomic.Int64
			var sending sync.WaitGroup
			for range senders {
				sending.Go(func() {
					for n.Add(1) <= int64(messages) {
						if _, err := enqueue(ctx, q, queue.Message{From: "ann@example.org"}, letter, fmt.Sprintf("bob@d%d.example", rand.IntN(5))); err != nil {
							t.Error(err)
						}
						if rand.IntN(200) == 0 {
							if err := q.Kick(ctx, fmt.Sprintf("d%d.example", rand.IntN(5))); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			sending.Wait()
			select {
			case <-all:
			case <-time.After(time.Minute):
				t.Error("not everything was delivered within a minute")
			}
			cancel()
			running.Wait()
			if s, err := q.Stats(t.Context()); err != nil || s.Queued != 0 {
				t.Errorf("counted %+v (%v), want nothing queued", s, err)
			}
			for id, times := range went {
				if times != 1 {
					t.Errorf("message %s was delivered %d times", id, times)
				}
			}
			t.Logf("%d of %d messages", len(went), messages)
		})
	}
}

// resident is the memory of this process in MiB.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize()) >> 20
}

// TestSoakBacklog queues a million messages for ten thousand destinations that
// swallow every connection, and delivers to a live one beside them.
func TestSoakBacklog(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("a soak test: set PAWL_SOAK=1")
	}
	backlog(t, 1_000_000, 10_000)
}

func backlog(t *testing.T, messages, destinations int) {
	dir := t.TempDir()
	var went atomic.Int64
	arrived := make(chan struct{}, 1<<20)
	deliver := func(ctx context.Context, j *queue.Job) queue.Result {
		if j.Domain == "live.example" {
			went.Add(1)
			arrived <- struct{}{}
			return queue.Result{Recipients: map[int]queue.Recipient{0: {State: queue.Delivered, Reply: "250 ok"}}, Story: queue.Story{At: time.Now(), OK: true}}
		}
		select { // a connection that is never answered
		case <-ctx.Done():
		case <-time.After(30 * time.Second):
		}
		return queue.Result{Why: "connect: timeout", DestinationDown: true, Story: queue.Story{At: time.Now(), Why: "connect: timeout"}}
	}
	open := func() (*queue.Queue, func()) {
		d, err := db.Open(t.Context(), db.Options{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		q, err := queue.New(t.Context(), queue.Options{
			DB: d, Spool: filepath.Join(dir, "spool"), Now: time.Now, After: time.After, Log: slog.New(slog.DiscardHandler),
			Lifetime: 24 * time.Hour, RetryFirst: 5 * time.Minute, RetryMax: 4 * time.Hour, Concurrency: 200, Destination: 20, History: 24 * time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the queue was opened in %s", time.Since(began))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = q.Run(ctx, deliver) })
		return q, func() {
			cancel()
			running.Wait()
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	body := string(bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), 16))
	live := func(q *queue.Queue) float64 {
		const many, senders = 10000, 20
		began := time.Now()
		var n atomic.Int64
		var sending sync.WaitGroup
		for range senders {
			sending.Go(func() {
				for n.Add(1) <= many {
					if _, err := enqueue(t.Context(), q, queue.Message{From: "ann@example.org"}, body, "bob@live.example"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range many {
			<-arrived
		}
		sending.Wait()
		return many / time.Since(began).Seconds()
	}
	t.Logf("%d resident at first", resident(t))
	q, stop := open()
	empty := live(q)
	t.Logf("%d resident after live", resident(t))
	began := time.Now()
	var n atomic.Int64
	var sending sync.WaitGroup
	for range 50 {
		sending.Go(func() {
			for {
				i := int(n.Add(1))
				if i > messages {
					return
				}
				if _, err := enqueue(t.Context(), q, queue.Message{From: "ann@example.org"}, body, fmt.Sprintf("bob@d%d.example", i%destinations)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	t.Logf("%d messages were queued at %.0f a second", messages, float64(messages)/time.Since(began).Seconds())
	full := live(q)
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	t.Logf("%d MiB resident; heap %d in use, %d idle, %d released, %d sys", resident(t), before.HeapInuse>>20, before.HeapIdle>>20, before.HeapReleased>>20, before.Sys>>20)
	runtime.GC()
	runtime.ReadMemStats(&before)
	t.Logf("%d MiB resident; heap %d in use, %d idle, %d released, %d sys, stacks %d", resident(t), before.HeapInuse>>20, before.HeapIdle>>20, before.HeapReleased>>20, before.Sys>>20, before.StackInuse>>20)
	t.Logf("live: %.0f a second with an empty queue, %.0f with a full one; %d MiB resident", empty, full, resident(t))
	began = time.Now()
	if _, err := q.Stats(t.Context()); err != nil {
		t.Error(err)
	}
	stats := time.Since(began)
	began = time.Now()
	if _, err := q.List(t.Context(), queue.Filter{Domain: "d77.example"}); err != nil {
		t.Error(err)
	}
	t.Logf("counted in %s, listed a destination in %s", stats, time.Since(began))
	stop()
	began = time.Now()
	q, stop = open()
	defer stop()
	if _, err := enqueue(t.Context(), q, queue.Message{From: "ann@example.org"}, body, "bob@live.example"); err != nil {
		t.Error(err)
	}
	<-arrived
	t.Logf("the first delivery after the restart came after %s", time.Since(began))
	if full < 0.8*empty {
		t.Errorf("with a full queue %.0f a second go to a live destination, and %.0f with an empty one; want 80%%", full, empty)
	}
	if m := resident(t); m > 300 {
		t.Errorf("%d MiB are resident, want less than 300", m)
	}
}
