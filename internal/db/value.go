package db

import (
	"context"
	"database/sql"
	"time"

	"github.com/google/uuid"
)

// Micros is how a time is stored: microseconds since 1970. The zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the reverse of [Micros], in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// Flag is how a boolean is stored.
func Flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// NewID makes a UUIDv7 (RFC 9562 §5.7). The ids of one process ascend.
func NewID() string {
	// The error is that of crypto/rand, which has none since Go 1.24.
	return uuid.Must(uuid.NewV7()).String()
}

// All runs a query and collects what scan makes of each row.
func All[T any](ctx context.Context, r Reader, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := r.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
