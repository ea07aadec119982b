package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// File is the SQLite database's name in the data folder.
const File = "pawl.db"

// How the file is laid out and cached. Pages of 8 KiB hold most rows whole and
// a mail in few; a checkpoint every 32 MiB of WAL keeps the second write of each
// page rare; 64 MiB of cache is what the writer's indexes take with a million
// rows queued.
const (
	sqlitePage       = 8192
	sqliteCheckpoint = 4096 // pages
	sqliteWALKept    = 64 << 20
	sqliteCacheKiB   = 64 << 10
	sqliteReadKiB    = 512
)

// readerIdle is how long a connection that reads is kept when nobody needs it:
// each takes more than a megabyte.
const readerIdle = time.Minute

func (d *DB) openSQLite(ctx context.Context, o Options, readOnly bool) error {
	engine := &sqliteEngine{}
	d.engine = engine
	if o.DataDir == "" {
		return errors.New("no data folder is named. Give one, or the URL of a PostgreSQL database")
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return fmt.Errorf("data folder %q: %w", o.DataDir, err)
	}
	path := filepath.Join(dir, File)
	if readOnly {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w at %s. Start pawl serve once, or name another data folder", ErrMissing, path)
		}
	} else {
		if err := d.ownFolder(dir, path); err != nil {
			return err
		}
		// fdatasync is as durable as fsync here and leaves the file's times to
		// later; the switch is the driver's, for the whole process.
		if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
			return fmt.Errorf("choose fdatasync: %w", err)
		}
		if err := d.openWriter(ctx, path); err != nil {
			return err
		}
		if engine.file, err = os.Stat(path); err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		engine.path = path
	}
	d.reads, err = sqlitePool(path, "ro",
		fmt.Sprintf("PRAGMA busy_timeout = %d", d.limits.busy.Milliseconds()),
		fmt.Sprintf("PRAGMA cache_size = -%d", sqliteReadKiB))
	if err != nil {
		return err
	}
	d.reads.SetMaxOpenConns(readers)
	d.reads.SetMaxIdleConns(readers)
	d.reads.SetConnMaxIdleTime(readerIdle)
	if !readOnly {
		return nil
	}
	return d.checkVersion(ctx, d.reads)
}

// ownFolder makes the data folder and the file, for this user only, and locks them.
func (d *DB) ownFolder(dir, path string) error {
	if err := makeFolder(dir); err != nil {
		return fmt.Errorf("the data folder cannot be made: %w. Name one that pawl's user may write", err)
	}
	var err error
	if d.unlock, err = Lock(dir); err != nil {
		d.unlock = func() error { return nil }
		return err
	}
	// The WAL and its index take the file's mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("the database cannot be opened for writing: %w. Give pawl's user write access to the data folder", err)
	}
	return f.Close()
}

// makeFolder makes a folder that outlives a loss of power.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeFolder(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// openWriter opens the one connection that writes, and migrates over it.
func (d *DB) openWriter(ctx context.Context, path string) error {
	var err error
	d.writes, err = sqlitePool(path, "rw",
		fmt.Sprintf("PRAGMA busy_timeout = %d", d.limits.busy.Milliseconds()),
		fmt.Sprintf("PRAGMA page_size = %d", sqlitePage), // heeded only while the file is empty
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = FULL",  // the WAL is synced before a COMMIT returns
		"PRAGMA temp_store = MEMORY", // where savepoints keep what they may undo
		"PRAGMA foreign_keys = ON",
		fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", sqliteCheckpoint),
		fmt.Sprintf("PRAGMA journal_size_limit = %d", sqliteWALKept),
		fmt.Sprintf("PRAGMA cache_size = -%d", sqliteCacheKiB),
		// What a crashed process left in the WAL may never have been synced:
		// written to the database and synced there, it is durable.
		"PRAGMA wal_checkpoint(TRUNCATE)")
	if err != nil {
		return err
	}
	d.writes.SetMaxOpenConns(1)
	d.writes.SetMaxIdleConns(1)
	var mode string
	if err := d.writes.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fmt.Errorf("open %s: %w", path, d.name(err))
	}
	if mode != "wal" {
		return fmt.Errorf("the file system of %s does not support SQLite's write-ahead log (journal mode is %q). Use a local disk, or PostgreSQL", path, mode)
	}
	return d.migrate(ctx, d.writes)
}

// sqlitePool opens a pool whose connections each begin with the pragmas, in
// their order. Nothing is opened yet.
func sqlitePool(path, mode string, pragmas ...string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode}
	c, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return sql.OpenDB(connector{c, pragmas}), nil
}

type connector struct {
	driver.Connector
	pragmas []string
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	run, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("the SQLite driver runs no statements"), conn.Close())
	}
	for _, p := range c.pragmas {
		if _, err := run.ExecContext(ctx, p, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", strings.ToLower(p), err), conn.Close())
		}
	}
	return conn, nil
}

// sqliteEngine is the writer's view of SQLite.
type sqliteEngine struct {
	path string      // empty where nothing is written
	file os.FileInfo // what is there
}

// errMoved: what is committed to a file that has no name any longer, or another
// one's, is lost with the process.
var errMoved = errors.New("the database file was moved, removed or replaced while it was open; put it back, or restart pawl")

func (e *sqliteEngine) inPlace() error {
	now, err := os.Stat(e.path)
	if err != nil || !os.SameFile(now, e.file) {
		return errMoved
	}
	return nil
}

func (*sqliteEngine) dialect() Dialect { return SQLite }
func (*sqliteEngine) batch() int       { return maxBatch }
func (*sqliteEngine) prepares() bool   { return true }
func (*sqliteEngine) patient() bool    { return false }

// bound has no end: the waits for locks are bounded by busy_timeout, and the
// driver starts a goroutine for each statement whose context may end.
func (*sqliteEngine) bound() (context.Context, context.CancelFunc) {
	return context.Background(), func() {}
}

func (e *sqliteEngine) begin(s *session) error {
	if err := e.inPlace(); err != nil {
		return err
	}
	// IMMEDIATE: the lock is waited for here, where nothing has run yet.
	if err := s.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	return s.exec("SAVEPOINT w")
}

func (*sqliteEngine) next(s *session) error {
	if err := s.exec("RELEASE w"); err != nil {
		return err
	}
	return s.exec("SAVEPOINT w")
}

// undo fails when SQLite has rolled the whole transaction back by itself, as it
// may for a full disk or an I/O error (sqlite.org/lang_transaction.html).
func (*sqliteEngine) undo(s *session) error   { return s.exec("ROLLBACK TO w") }
func (*sqliteEngine) commit(s *session) error { return s.exec("COMMIT") }

// reset keeps the connection, also after an I/O error: in it SQLite knows which
// frames of the WAL were never synced, and the next commit writes over them. A new
// connection would find them in the page cache and take them for committed.
func (*sqliteEngine) reset(s *session, _ error) bool {
	err := s.exec("ROLLBACK")
	// The plain error is that SQLite has already rolled back by itself.
	return err == nil || sqliteCode(err) == lib.SQLITE_ERROR
}

func (*sqliteEngine) spoilt(*session) bool      { return false }
func (*sqliteEngine) lost(*session, error) bool { return false }
func (*sqliteEngine) again(error) bool          { return false }

// unknown: once the commit record is written and only its sync fails, a crash
// before the next commit overwrites it could bring it back.
func (*sqliteEngine) unknown(_ *session, err error) bool {
	code := sqliteCode(err)
	return code == lib.SQLITE_IOERR_FSYNC || code == lib.SQLITE_IOERR_DIR_FSYNC
}

// separate: a deferred foreign key is checked at COMMIT.
func (*sqliteEngine) separate(err error) bool { return sqliteCode(err)&0xff == lib.SQLITE_CONSTRAINT }

func sqliteCode(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code()
}

func (*sqliteEngine) kind(err error) error {
	if errors.Is(err, errMoved) {
		return ErrIO
	}
	code := sqliteCode(err)
	switch code {
	case lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_PRIMARYKEY, lib.SQLITE_CONSTRAINT_ROWID:
		return ErrUnique
	}
	switch code & 0xff { // the rest of an extended code says where
	case lib.SQLITE_FULL:
		return ErrFull
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return ErrBusy
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN:
		return ErrIO
	case lib.SQLITE_READONLY, lib.SQLITE_PERM:
		return ErrReadOnly
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return ErrCorrupt
	}
	return nil
}
