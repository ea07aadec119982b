package db

import (
	"context"
	"database/sql"
	"sync"
)

// reader reads, and hides the rest of sql.DB, so that nobody writes beside the
// writer. Where the driver does not do so by itself it keeps the statements
// prepared: to read the text of one costs SQLite more than most of them do.
type reader struct {
	pool *sql.DB
	room int // how many texts are kept

	mu         sync.Mutex
	statements map[string]*sql.Stmt // nil: none are kept
}

func newReader(pool *sql.DB, prepares bool, room int) *reader {
	r := &reader{pool: pool, room: room}
	if prepares {
		r.statements = map[string]*sql.Stmt{}
	}
	return r
}

// QueryContext is [Reader]'s.
func (r *reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if st := r.statement(ctx, query); st != nil { //nolint:sqlclosecheck // it is kept
		return st.QueryContext(ctx, args...)
	}
	return r.pool.QueryContext(ctx, query, args...)
}

// QueryRowContext is [Reader]'s.
func (r *reader) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if st := r.statement(ctx, query); st != nil { //nolint:sqlclosecheck // it is kept
		return st.QueryRowContext(ctx, args...)
	}
	return r.pool.QueryRowContext(ctx, query, args...)
}

// statement gives the prepared statement for a text; nil if there is none, be
// it because there are too many or because the text is no good, which running
// it tells.
func (r *reader) statement(ctx context.Context, query string) *sql.Stmt {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, ok := r.statements[query]
	if ok || r.statements == nil || len(r.statements) >= r.room {
		return st
	}
	st, err := r.pool.PrepareContext(ctx, query) //nolint:sqlclosecheck // they end with the pool
	if err != nil {
		return nil
	}
	r.statements[query] = st
	return st
}
