package db_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

// eachKept runs f on options that name the same database each time it is opened.
func eachKept(t *testing.T, f func(t *testing.T, o db.Options)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, db.Options{DataDir: t.TempDir()}) })
	t.Run("postgres", func(t *testing.T) { f(t, db.Options{URL: dbtest.PostgresURL(t)}) })
}

func reopen(t *testing.T, o db.Options) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCloseFinishesWhatWaits(t *testing.T) {
	eachKept(t, func(t *testing.T, o db.Options) {
		d := reopen(t, o)
		for i := range 100 {
			d.WriteSoon(t.Context(), insert(strconv.Itoa(i), ""), nil)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = dbtest.Open(t, o)
		if n := len(keys(t, d.Read())); n != 100 {
			t.Errorf("%d rows after the close, want 100", n)
		}
	})
}

func TestClosedDatabaseTakesNoWrites(t *testing.T) {
	eachKept(t, func(t *testing.T, o db.Options) {
		d := reopen(t, o)
		for range 2 { // closing twice is harmless
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Write(t.Context(), insert("a", "")); !errors.Is(err, db.ErrClosed) {
			t.Errorf("Write got %v, want ErrClosed", err)
		}
		var soon error
		d.WriteSoon(t.Context(), insert("a", ""), func(err error) { soon = err })
		if !errors.Is(soon, db.ErrClosed) {
			t.Errorf("WriteSoon got %v, want ErrClosed", soon)
		}
		if err := d.Ping(t.Context()); err == nil {
			t.Error("Ping of a closed database gave no error")
		}
	})
}

func TestReadOnlyDatabaseIsReadBesideAServerAndNotWritten(t *testing.T) {
	eachKept(t, func(t *testing.T, o db.Options) {
		server := dbtest.Open(t, o)
		put(t, server, "a", "")
		d, err := db.OpenReadOnly(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		wantKeys(t, d, "a")
		put(t, server, "b", "")
		wantKeys(t, d, "a", "b")
		if err := d.Write(t.Context(), insert("c", "")); !errors.Is(err, db.ErrReadOnly) {
			t.Errorf("Write got %v, want ErrReadOnly", err)
		}
		if err := d.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestReadOnlyDatabaseIsReadWithoutAServer(t *testing.T) {
	o := db.Options{DataDir: t.TempDir()}
	d := reopen(t, o)
	put(t, d, "a", "")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := db.OpenReadOnly(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, d, "a")
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyOpenMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, err := db.OpenReadOnly(t.Context(), db.Options{DataDir: dir})
	if !errors.Is(err, db.ErrMissing) || !strings.Contains(err.Error(), "Start pawl serve once") {
		t.Errorf("error %v, want ErrMissing and what to do", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder: %v, want it not to exist", err)
	}
	_, err = db.OpenReadOnly(t.Context(), db.Options{URL: dbtest.PostgresURL(t)})
	if !errors.Is(err, db.ErrOlder) {
		t.Errorf("an empty PostgreSQL database gave %v, want ErrOlder", err)
	}
}

func TestDatabaseOfANewerPawlIsRefusedAndNotChanged(t *testing.T) {
	eachKept(t, func(t *testing.T, o db.Options) {
		d := reopen(t, o)
		err := d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
			applied := "1"
			if d.Dialect() == db.Postgres {
				applied = "true"
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, "+applied+")")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func(context.Context, db.Options) (*db.DB, error){
			"Open": db.Open, "OpenReadOnly": db.OpenReadOnly,
		} {
			_, err := open(t.Context(), o)
			if !errors.Is(err, db.ErrNewer) || !strings.Contains(err.Error(), "99999") || !strings.Contains(err.Error(), "Start the newer pawl again") {
				t.Errorf("%s: error %v, want ErrNewer, the version and what to do", name, err)
			}
		}
	})
}

func TestDatabaseOfAnOlderPawlIsMigratedByOpenAndRefusedForReading(t *testing.T) {
	eachKept(t, func(t *testing.T, o db.Options) {
		d := reopen(t, o)
		// As a pawl left it that did not know the first migration.
		err := d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
			for _, s := range []string{"DROP TABLE meta", "DELETE FROM goose_db_version WHERE version_id = 1"} {
				if _, err := tx.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = db.OpenReadOnly(t.Context(), o)
		if !errors.Is(err, db.ErrOlder) || !strings.Contains(err.Error(), "[1]") {
			t.Errorf("OpenReadOnly: error %v, want ErrOlder and the version", err)
		}
		// The organisation's table is still there, so the migration fails; what
		// matters here is that Open tries it although later ones are applied.
		_, err = db.Open(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "cannot be brought up to date") || !strings.Contains(err.Error(), "version:1") {
			t.Errorf("Open: error %v, want that of migration 1", err)
		}
	})
}

func TestSecondServerOnADataFolderIsRefused(t *testing.T) {
	o := db.Options{DataDir: t.TempDir()}
	d := reopen(t, o)
	_, err := db.Open(t.Context(), o)
	if !errors.Is(err, db.ErrLocked) {
		t.Fatalf("error %v, want ErrLocked", err)
	}
	want := "the data folder is in use by another pawl: " + o.DataDir + " (process " + strconv.Itoa(os.Getpid()) +
		"). Stop that one, or give this one a data folder of its own"
	if err.Error() != want {
		t.Errorf("error\n%s\nwant\n%s", err, want)
	}
	put(t, d, "a", "")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, dbtest.Open(t, o), "a")
}

func TestTwoNodesMayOpenANewPostgresDatabaseAtOnce(t *testing.T) {
	o := db.Options{URL: dbtest.PostgresURL(t)}
	const nodes = 3
	opened := make(chan *db.DB, nodes)
	for range nodes {
		go func() {
			d, err := db.Open(context.Background(), o)
			if err != nil {
				t.Error(err)
			}
			opened <- d
		}()
	}
	for range nodes {
		if d := <-opened; d != nil {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	garbage := t.TempDir()
	for path, text := range map[string]string{file: "", filepath.Join(garbage, "pawl.db"): strings.Repeat("not a database ", 1000)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		o    db.Options
		is   error
		want []string
	}{
		{"no data folder", db.Options{}, nil, []string{"no data folder is named", "Give one"}},
		{"another kind of URL", db.Options{URL: "mysql://db.example.com/pawl"}, nil, []string{"does not begin with postgres://", "Give such a URL"}},
		{"a broken URL", db.Options{URL: "postgres://user:secret@db.example.com:port/pawl"}, nil, []string{"the database URL is wrong", "postgres://user:password@host"}},
		{"a server that is not there", db.Options{URL: "postgres://pawl:secret@127.0.0.1:1/pawl"}, nil, []string{"does not answer at 127.0.0.1:1", "Check that it runs"}},
		{"a data folder below a file", db.Options{DataDir: filepath.Join(file, "data")}, nil, []string{"the data folder cannot be made", "Name one"}},
		{"a data folder that is a file", db.Options{DataDir: file}, nil, []string{"the data folder cannot be locked", "Give pawl's user write access"}},
		{"a file that is no database", db.Options{DataDir: garbage}, db.ErrCorrupt, []string{"damaged"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := db.Open(t.Context(), tt.o)
			if err == nil {
				d.Close()
				t.Fatal("no error")
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %v", err, tt.is)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q tells the password", err)
			}
		})
	}
}

func TestDataFolderIsForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new folder", "data?#%")
	put(t, dbtest.Open(t, db.Options{DataDir: dir}), "a", "")
	for name, want := range map[string]os.FileMode{"": 0o700, "pawl.db": 0o600, "pawl.db-wal": 0o600, "pawl.lock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
}

func TestMigrationsAreTheSameFilesInBothDialects(t *testing.T) {
	sqlite, err := db.MigrationFiles(db.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	postgres, err := db.MigrationFiles(db.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sqlite, postgres) {
		t.Errorf("sqlite has %q, postgres %q", sqlite, postgres)
	}
	name := regexp.MustCompile(`^\d{5}_[a-z_]+\.sql$`)
	for i, f := range sqlite {
		if !name.MatchString(f) {
			t.Errorf("%s is not named NNNNN_package.sql", f)
		}
		if i > 0 && f[:5] == sqlite[i-1][:5] {
			t.Errorf("%s and %s have the same number", sqlite[i-1], f)
		}
	}
}
