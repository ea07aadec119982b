package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Dialect is the kind of SQL that a database speaks.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// DefaultOrg is the id of the organisation that exists from the first migration on.
const DefaultOrg = "00000000-0000-7000-8000-000000000001"

// Options say which database to open.
type Options struct {
	// URL is "" for SQLite in DataDir, or a PostgreSQL URL
	// ("postgres://user:password@host:5432/name?sslmode=verify-full").
	URL string
	// DataDir is the folder of the SQLite database; it is made if it does not
	// exist. PostgreSQL does not use it.
	DataDir string
	// Log takes what an operator should know; nil discards it.
	Log *slog.Logger
	// Now is the clock of [Stats]; nil is time.Now.
	Now func() time.Time

	limits limits
}

// Reader reads. It sees everything whose Write has returned.
type Reader interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Tx is what a write function works with. It ends with the function. Its
// statements do not heed the context they are given: a batch that has begun is
// finished, and bounded by limits of the database's own.
type Tx interface {
	Reader
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	engine engine
	reads  *sql.DB
	reader *reader
	writes *sql.DB
	queue  *queue
	stats  *stats
	log    *slog.Logger
	limits limits
	slots  chan struct{} // held by each WriteSoon that waits
	ended  chan struct{} // closed when the writer has ended
	unlock func() error
	close  func() error
}

// Open opens the database, brings its tables up to date and starts the writer.
// A database that a newer pawl has written is refused with [ErrNewer], a SQLite
// data folder that another process has open with [ErrLocked].
func Open(ctx context.Context, o Options) (*DB, error) {
	d, err := open(ctx, o, false)
	if err != nil {
		return nil, err
	}
	go newWriter(d).run() //nolint:contextcheck // it ends with Close
	return d, nil
}

// OpenReadOnly opens an existing database for reading only, beside a running
// server or without one; it takes no lock and changes nothing. Write returns
// [ErrReadOnly]. A database that does not exist is [ErrMissing], one that wants
// a migration first [ErrOlder].
func OpenReadOnly(ctx context.Context, o Options) (*DB, error) {
	d, err := open(ctx, o, true)
	if err != nil {
		return nil, err
	}
	d.queue.refuse(ErrReadOnly)
	close(d.ended)
	return d, nil
}

func open(ctx context.Context, o Options, readOnly bool) (*DB, error) {
	d := &DB{
		log:    o.Log,
		limits: o.limits.withDefaults(),
		ended:  make(chan struct{}),
		unlock: func() error { return nil },
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.queue = newQueue(d.limits)
	d.stats = newStats(o.Now)
	d.close = sync.OnceValue(d.release)
	d.slots = make(chan struct{}, d.limits.soon)

	var err error
	switch {
	case o.URL == "":
		err = d.openSQLite(ctx, o, readOnly)
	case strings.HasPrefix(o.URL, "postgres://"), strings.HasPrefix(o.URL, "postgresql://"):
		err = d.openPostgres(ctx, o, readOnly)
	default:
		err = errors.New("the database URL does not begin with postgres://. Give such a URL, or none for SQLite in the data folder")
	}
	if err != nil {
		return nil, errors.Join(err, d.release())
	}
	d.reader = newReader(d.reads, d.engine.prepares(), d.limits.statements)
	return d, nil
}

// Dialect says which SQL the database speaks.
func (d *DB) Dialect() Dialect { return d.engine.dialect() }

// Read gives the connections for reading.
func (d *DB) Read() Reader { return d.reader }

// Ping asks the database for one row, and so says whether it can be read.
func (d *DB) Ping(ctx context.Context) error {
	var one int64
	if err := d.reads.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("ask the database: %w", d.name(err))
	}
	return nil
}

// Close lets every write that waits finish, then closes the database. Writes
// that come later get [ErrClosed].
func (d *DB) Close() error {
	d.queue.refuse(ErrClosed)
	<-d.ended
	return d.close()
}

func (d *DB) release() error {
	var errs []error
	// The reads go first: SQLite checkpoints when the last connection closes,
	// and those for reading cannot.
	for _, pool := range []*sql.DB{d.reads, d.writes} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(append(errs, d.unlock())...)
}

// name puts the package's error in front of a driver's.
func (d *DB) name(err error) error { return named(d.engine, err) }

// Shrink frees the pages that the writer keeps of an SQLite file. The next work
// reads them again.
func (d *DB) Shrink(ctx context.Context) error {
	if d.Dialect() != SQLite {
		return nil
	}
	return d.Write(ctx, func(ctx context.Context, tx Tx) error {
		_, err := tx.ExecContext(ctx, "PRAGMA shrink_memory") // sqlite.org/pragma.html#pragma_shrink_memory
		return err
	})
}
