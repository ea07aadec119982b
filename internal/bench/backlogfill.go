package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// fillers is how many messages are put into a queue at once: what shares a commit.
const fillers = 200

// backlogFill puts messages into the queue of a node that does not run: "FOLDER
// ZONE". A number of messages is answered with how many nanoseconds it took.
func backlogFill(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("backlog-fill FOLDER ZONE")
	}
	c := relayConfig(args[0], "")
	store, err := db.Open(ctx, db.Options{DataDir: c.Data, Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	q, err := queue.New(ctx, queue.Options{
		DB: store, Spool: filepath.Join(c.Data, "spool"), Node: c.Hostname, Now: time.Now, After: time.After,
		Log: slog.New(slog.DiscardHandler), Lifetime: c.Relay.Lifetime.Std(),
	})
	if err != nil {
		return err
	}
	return attend("ready", func(line string) (string, error) {
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return nothing(line)
		}
		begin := time.Now()
		err = fillWith(ctx, q, n, args[1])
		return fmt.Sprint(time.Since(begin).Nanoseconds()), err
	})
}

// fillWith enqueues n messages, for the destinations in turn.
func fillWith(ctx context.Context, q *queue.Queue, n int64, zone string) error {
	text := content(backlogSize)
	text = text[:len(text)-len(".\r\n")]
	var next atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, fillers)
	for f := range fillers {
		wait.Go(func() {
			for errs[f] == nil {
				i := next.Add(1)
				if i > n {
					return
				}
				domain := fmt.Sprintf("d%05d.%s", i%backlogDestinations, zone)
				b := q.Body()
				if _, errs[f] = b.Write(text); errs[f] != nil {
					return
				}
				_, errs[f] = q.Enqueue(ctx, queue.Submission{
					Message:    queue.Message{From: "bench@sender.test"},
					Recipients: []queue.Destined{{Recipient: queue.Recipient{Addr: "someone@" + domain}, Domain: domain}},
					Body:       b,
				})
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
