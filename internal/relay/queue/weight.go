package queue

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// weight keeps how much the messages that wait weigh, as counts does.
type weight struct {
	mu    sync.Mutex
	bytes int64
	until time.Time
}

// weigh adds up the messages that have a delivery that waits. It reads a row for
// each of them.
const weigh = `SELECT COALESCE(SUM(m.size), 0) FROM (
	SELECT d.org, d.message FROM delivery d WHERE d.state = 'queued' UNION
	SELECT d.org, d.message FROM delivery d WHERE d.state = 'held') AS w
	JOIN message m ON m.org = w.org AND m.id = w.message`

// Bytes returns how much the messages that wait weigh, in wire form. With many
// of them the figure may be some minutes old.
func (q *Queue) Bytes(ctx context.Context) (int64, error) {
	w := &q.weight
	w.mu.Lock()
	defer w.mu.Unlock()
	began := q.opts.Now()
	if began.Before(w.until) {
		return w.bytes, nil
	}
	var bytes int64
	if err := q.opts.DB.Read().QueryRowContext(ctx, weigh).Scan(&bytes); err != nil {
		return 0, fmt.Errorf("weighing the queue: %w", err)
	}
	now := q.opts.Now()
	w.bytes, w.until = bytes, now.Add(costFactor*now.Sub(began))
	return bytes, nil
}
