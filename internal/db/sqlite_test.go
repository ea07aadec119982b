package db_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

func pragma(name string) func(context.Context, db.Tx) error {
	return func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, "PRAGMA "+name)
		return err
	}
}

func TestWriteThatDoesNotFitTakesNoOtherOfItsBatchAlong(t *testing.T) {
	d := dbtest.SQLite(t)
	if err := d.Write(t.Context(), pragma("max_page_count = 60")); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 1<<20)
	errs := together(t, d, insert("a", ""), insert("big", big), insert("b", ""))
	if errs[0] != nil || !errors.Is(errs[1], db.ErrFull) || errs[2] != nil {
		t.Errorf("errors %v, want only the second to fail, with ErrFull", errs)
	}
	wantKeys(t, d, "a", "b")
	if s := d.Stats(); !strings.Contains(s.LastError, "full") || s.LastErrorAt.IsZero() {
		t.Errorf("the last error is %q at %v, want that of the full disk", s.LastError, s.LastErrorAt)
	}

	if err := d.Write(t.Context(), pragma("max_page_count = 10000")); err != nil {
		t.Fatal(err)
	}
	put(t, d, "big", big) // there is room again
}

func TestLockOfAnotherProcessIsErrBusyUntilItIsGone(t *testing.T) {
	o := db.Options{DataDir: t.TempDir()}
	d := dbtest.Open(t, db.Tune(o, db.Tuning{Busy: time.Millisecond}))
	other, err := sql.Open("sqlite", filepath.Join(o.DataDir, "pawl.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(t.Context(), insert("a", "")); !errors.Is(err, db.ErrBusy) {
		t.Errorf("error %v, want ErrBusy", err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	put(t, d, "b", "")
	wantKeys(t, d, "b")
}

// A foreign key that is checked at COMMIT is one function's fault, and fails only
// that one's.
func TestConstraintThatFailsAtCommitFailsOnlyItsOwnWrite(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		create := func(ctx context.Context, tx db.Tx) error {
			_, err := tx.ExecContext(ctx, "CREATE TABLE part (org TEXT REFERENCES organisation (id) DEFERRABLE INITIALLY DEFERRED)")
			return err
		}
		if err := d.Write(t.Context(), create); err != nil {
			t.Fatal(err)
		}
		orphan := func(ctx context.Context, tx db.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO part (org) VALUES ('nobody')")
			return err
		}
		errs := together(t, d, insert("a", ""), orphan, insert("b", ""))
		if errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Errorf("errors %v, want only the second to fail", errs)
		}
		wantKeys(t, d, "a", "b")
	})
}
