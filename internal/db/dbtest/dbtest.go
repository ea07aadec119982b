// Package dbtest gives tests a database: SQLite in a temporary folder, and a
// database of its own in a real PostgreSQL server that is started for the test
// binary and ends with it.
//
// Without PostgreSQL on the machine those tests are skipped, unless the
// environment says CI=true: then they fail.
package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pawl-mail/pawl/internal/db"
)

// SQLite opens a new database in a folder of tb's, and closes it when tb ends.
func SQLite(tb testing.TB) *db.DB {
	tb.Helper()
	file, err := migrated()
	if err != nil {
		tb.Fatal("make a database:", err)
	}
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, sqliteFile), file, 0o600); err != nil {
		tb.Fatal(err)
	}
	return Open(tb, db.Options{DataDir: dir})
}

// sqliteFile is the database's name in its folder.
const sqliteFile = "pawl.db"

// migrated is a new database's file. It is made once for the test binary: the
// migrations take longer than most tests that need what they make.
var migrated = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "pawl-dbtest-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := db.Open(context.Background(), db.Options{DataDir: dir})
	if err != nil {
		return nil, err
	}
	if err := d.Close(); err != nil { // what is in the WAL is in the file then
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, sqliteFile))
})

// Postgres opens a new PostgreSQL database, and drops it when tb ends.
func Postgres(tb testing.TB) *db.DB {
	tb.Helper()
	return Open(tb, db.Options{URL: PostgresURL(tb)})
}

// Each runs f as a subtest on each dialect.
func Each(t *testing.T, f func(t *testing.T, d *db.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Postgres(t)) })
}

// Lacking skips a test for which the machine lacks something; with CI=true it
// fails it.
func Lacking(tb testing.TB, what string, err error) {
	tb.Helper()
	text := fmt.Sprintf("%s is needed: %v", what, err)
	if os.Getenv("CI") == "true" {
		tb.Fatal(text)
	}
	tb.Skip(text)
}

// Open opens a database and closes it when tb ends.
func Open(tb testing.TB, o db.Options) *db.DB {
	tb.Helper()
	d, err := db.Open(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error("close the database:", err)
		}
	})
	return d
}
