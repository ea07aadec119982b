package queue_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// crashQueue opens the queue of a data folder, or of a PostgreSQL database, in
// the time of the machine, moved ahead.
func crashQueue(ctx context.Context, dir, url string, ahead time.Duration) (*db.DB, *queue.Queue, error) {
	d, err := db.Open(ctx, db.Options{DataDir: dir, URL: url})
	if err != nil {
		return nil, nil, err
	}
	q, err := queue.New(ctx, queue.Options{
		DB: d, Spool: filepath.Join(dir, "spool"), Node: "node.example.com", Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(ahead) }, After: time.After,
		Lifetime: 24 * time.Hour, RetryFirst: time.Minute, RetryMax: time.Hour, Concurrency: 16, Destination: 4, History: 24 * time.Hour,
	})
	return d, q, err
}

// randomBody makes a body that says by itself whether it is whole; one in ten is large.
func randomBody(n int) string {
	size := 100 + rand.IntN(20<<10)
	if n%10 == 0 {
		size = queue.InlineBody + rand.IntN(2<<20)
	}
	text := strings.Repeat(strconv.Itoa(n)+" ", size/(len(strconv.Itoa(n))+1))
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]) + text
}

func whole(body string) bool {
	const digest = 2 * sha256.Size
	if len(body) < digest {
		return false
	}
	sum := sha256.Sum256([]byte(body[digest:]))
	return body[:digest] == hex.EncodeToString(sum[:])
}

// accepts is a child that enqueues until it is killed, or so many messages, and
// says the id of each message that was accepted. Its arguments are the data
// folder, the database's URL, how many messages, and how many at a time.
func accepts(args []string) error {
	_, q, err := crashQueue(context.Background(), args[0], args[1], 0)
	if err != nil {
		return err
	}
	many, _ := strconv.Atoi(args[2])
	senders, _ := strconv.Atoi(args[3])
	return flood(q, many, senders)
}

func flood(q *queue.Queue, many, senders int) error {
	var next atomic.Int64
	var mu sync.Mutex
	var failed error
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= many {
					return
				}
				to := fmt.Sprintf("bob@d%d.example", n%7)
				id, err := enqueue(context.Background(), q, queue.Message{From: "ann@example.org"}, randomBody(n), to)
				mu.Lock()
				if err != nil {
					failed = err
				} else {
					fmt.Println("accepted", id)
				}
				mu.Unlock()
			}
		})
	}
	sending.Wait()
	return failed
}

// delivers is accepts with deliveries beside it; it says the message's id of each
// before the attempt returns.
func delivers(args []string) error {
	ctx := context.Background()
	_, q, err := crashQueue(ctx, args[0], args[1], 0)
	if err != nil {
		return err
	}
	go func() {
		_ = q.Run(ctx, func(_ context.Context, j *queue.Job) queue.Result {
			r := drain(j)
			fmt.Println("delivered", j.Message.ID)
			return r
		})
	}()
	many, _ := strconv.Atoi(args[2])
	senders, _ := strconv.Atoi(args[3])
	return flood(q, many, senders)
}

// drain takes a message if its body is whole.
func drain(j *queue.Job) queue.Result {
	r, err := j.Open()
	if err != nil {
		return queue.Result{Why: err.Error()}
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || !whole(string(b)) {
		return queue.Result{Why: fmt.Sprintf("the body of %d bytes is damaged: %v", len(b), err)}
	}
	return queue.Result{
		Recipients: map[int]queue.Recipient{0: {State: queue.Delivered, Reply: "250 ok"}}, Story: queue.Story{At: time.Now(), OK: true},
	}
}

// killed runs a child, kills it while it works, and returns what it said.
func killed(t *testing.T, name, dir, url string) (accepted, delivered map[string]int) {
	t.Helper()
	cmd := child(t, nil, name, dir, url, "1000000", "8")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	accepted, delivered = map[string]int{}, map[string]int{}
	enough := 5 + rand.IntN(250)
	lines := bufio.NewScanner(out)
	for lines.Scan() { // what it said before it was killed is in the pipe
		what, id, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "accepted":
			accepted[id]++
		case "delivered":
			delivered[id]++
		}
		if len(accepted) == enough {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if len(accepted) < enough {
		t.Fatalf("the child accepted %d messages before it ended by itself", len(accepted))
	}
	return accepted, delivered
}

// empty delivers all that a queue holds and counts how often each message went.
func empty(t *testing.T, dir, url string) map[string]int {
	t.Helper()
	d, q, err := crashQueue(t.Context(), dir, url, time.Hour) // all leases are over
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	went := map[string]int{}
	var checking sync.WaitGroup
	checking.Go(func() {
		for tick := time.Tick(50 * time.Millisecond); ctx.Err() == nil; { // that all is delivered shows in the database
			select {
			case <-ctx.Done():
			case <-tick:
				if s, err := q.Stats(ctx); err == nil && s.Queued == 0 {
					cancel()
				}
			}
		}
	})
	if err := q.Run(ctx, func(_ context.Context, j *queue.Job) queue.Result {
		r := drain(j)
		mu.Lock()
		defer mu.Unlock()
		if len(r.Recipients) == 0 {
			t.Errorf("message %s: %s", j.Message.ID, r.Why)
			r.Recipients = map[int]queue.Recipient{0: {State: queue.Failed}}
		}
		went[j.Message.ID]++
		return r
	}); err != nil {
		t.Error(err)
	}
	checking.Wait()
	return went
}

// rounds is how often the crash tests kill. Beside long runs a few are enough:
// the node's tests kill the whole server ten times.
func rounds() int {
	if os.Getenv("PAWL_SOAK") != "" {
		return 100
	}
	return 4
}

func TestEveryMessageThatWasAcceptedIsThereWholeAfterAKill(t *testing.T) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(string(dialect), func(t *testing.T) {
			dir, url := t.TempDir(), databaseOf(t, dialect).URL
			n := rounds()
			if dialect == db.Postgres {
				n = max(1, n/4)
			}
			accepted := 0
			for range n {
				said, _ := killed(t, "accepts", dir, url)
				went := empty(t, dir, url)
				for id := range said {
					if went[id] != 1 {
						t.Errorf("message %s was accepted and delivered %d times", id, went[id])
					}
				}
				// At most what was being accepted when it was killed is there beside.
				if more := len(went) - len(said); more > 8 {
					t.Errorf("%d messages are there that nobody was told of", more)
				}
				accepted += len(said)
				files, err := os.ReadDir(filepath.Join(dir, "spool"))
				if err != nil || len(files) != 0 {
					t.Errorf("the spool holds %d files (%v), want none", len(files), err)
				}
			}
			t.Logf("%d messages accepted in %d rounds, none lost", accepted, n)
		})
	}
}

func TestAKillDuringDeliveriesRepeatsOnlyWhatWasInFlight(t *testing.T) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(string(dialect), func(t *testing.T) {
			dir, url := t.TempDir(), databaseOf(t, dialect).URL
			n := rounds()
			if dialect == db.Postgres {
				n = max(1, n/4)
			}
			total, twice := 0, 0
			for range n {
				accepted, delivered := killed(t, "delivers", dir, url)
				went := empty(t, dir, url)
				again := 0
				for id := range accepted {
					switch times := delivered[id] + went[id]; {
					case times == 0:
						t.Errorf("message %s was accepted and is lost", id)
					case times > 2 || delivered[id] > 1 || went[id] > 1:
						t.Errorf("message %s was delivered %d times", id, times)
					case times == 2:
						again++
					}
				}
				total, twice = total+len(accepted), twice+again
			}
			t.Logf("%d messages accepted in %d rounds, none lost, %d delivered twice", total, n, twice)
		})
	}
}
