package queue

import (
	"context"
	"fmt"

	"github.com/pawl-mail/pawl/internal/db"
)

// PinSpool keeps every file of the spool where it is until unpin is called, so
// that a copy of the database, taken after this, can be given its bodies. What
// is delivered meanwhile is removed then; after a crash, at the next start.
func (q *Queue) PinSpool() (unpin func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pins++
	return func() {
		q.mu.Lock()
		var free []string
		if q.pins--; q.pins == 0 {
			free, q.pinned = q.pinned, nil
		}
		q.mu.Unlock()
		for _, m := range free {
			q.removeSpooled(m)
		}
	}
}

// keeps reports whether a file is pinned, and notes that it may go afterwards.
func (q *Queue) keeps(message string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pins == 0 {
		return false
	}
	q.pinned = append(q.pinned, message)
	return true
}

// SpoolFiles returns the names of the spool's files that a database's messages
// need.
func SpoolFiles(ctx context.Context, from db.Reader) ([]string, error) {
	ids, err := db.All(ctx, from, scanText, spooledMessages)
	if err != nil {
		return nil, fmt.Errorf("looking for messages with a spool file: %w", err)
	}
	for i := range ids {
		ids[i] += accepted
	}
	return ids, nil
}

const spooledMessages = `SELECT id FROM message WHERE spooled = 1`
