package db_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

func scanText(rows *sql.Rows) (s string, err error) { return s, rows.Scan(&s) }

func TestTimesAreKeptToTheMicrosecondInUTC(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.FixedZone("", 3600))
	if got, want := db.Micros(at), int64(1772364600123456); got != want {
		t.Errorf("Micros is %d, want %d", got, want)
	}
	if got, want := db.Time(db.Micros(at)), time.Date(2026, 3, 1, 11, 30, 0, 123456000, time.UTC); got != want {
		t.Errorf("Time is %v, want %v", got, want)
	}
	if db.Micros(time.Time{}) != 0 || !db.Time(0).IsZero() {
		t.Error("the zero time is not 0")
	}
}

func TestNewIDsAreVersion7AndAscend(t *testing.T) {
	ids := make([]string, 10000)
	for i := range ids {
		ids[i] = db.NewID()
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 10000 {
		t.Error("the ids do not ascend")
	}
	if id, err := uuid.Parse(ids[0]); err != nil || id.Version() != 7 {
		t.Errorf("%s: version %d, %v", ids[0], id.Version(), err)
	}
}

func TestDefaultOrganisationExists(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ids, err := db.All(t.Context(), d.Read(), scanText, "SELECT id FROM organisation WHERE created_at > 1700000000000000")
		if err != nil || !slices.Equal(ids, []string{db.DefaultOrg}) {
			t.Errorf("organisations %q, error %v", ids, err)
		}
	})
}

// What goes in comes out the same on both dialects.
func TestValuesKeepTheirTypes(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		blob := "BLOB"
		if d.Dialect() == db.Postgres {
			blob = "BYTEA"
		}
		err := d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
			if _, err := tx.ExecContext(ctx, "CREATE TABLE kinds (id BIGINT PRIMARY KEY, n BIGINT, s TEXT, b "+blob+")"); err != nil {
				return err
			}
			for i, row := range [][]any{
				{int64(-1 << 63), "Grüße", []byte{0, 0xff}},
				{db.Flag(true), "", []byte{}},
				{nil, nil, nil},
				{nil, nil, []byte(nil)},
			} {
				if _, err := tx.ExecContext(ctx, "INSERT INTO kinds (id, n, s, b) VALUES ($1, $2, $3, $4)", append([]any{i}, row...)...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		type row struct {
			n    sql.NullInt64
			s    sql.NullString
			b    []byte
			null bool // what the database says of b
		}
		scan := func(rows *sql.Rows) (r row, err error) { return r, rows.Scan(&r.n, &r.s, &r.b, &r.null) }
		got, err := db.All(t.Context(), d.Read(), scan, "SELECT n, s, b, b IS NULL FROM kinds ORDER BY id")
		if err != nil || len(got) != 4 {
			t.Fatalf("%d rows, error %v", len(got), err)
		}
		if r := got[0]; r.n.Int64 != -1<<63 || r.s.String != "Grüße" || !slices.Equal(r.b, []byte{0, 0xff}) {
			t.Errorf("first row %+v", r)
		}
		if r := got[1]; r.n.Int64 != 1 || !r.s.Valid || r.s.String != "" || len(r.b) != 0 || r.null {
			t.Errorf("second row, of empty values: %+v", r)
		}
		for _, r := range got[2:] {
			if r.n.Valid || r.s.Valid || r.b != nil || !r.null {
				t.Errorf("row of NULLs: %+v", r)
			}
		}
	})
}

func TestAllGivesTheFirstError(t *testing.T) {
	d := dbtest.SQLite(t)
	put(t, d, "a", "not a number")
	number := func(rows *sql.Rows) (n int, err error) { return n, rows.Scan(&n) }
	if _, err := db.All(t.Context(), d.Read(), number, "SELECT value FROM meta"); err == nil {
		t.Error("a value that cannot be scanned gave no error")
	}
	if _, err := db.All(t.Context(), d.Read(), number, "SELECT nonsense"); err == nil {
		t.Error("a query that is wrong gave no error")
	}
}
