package db_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

func insert(key, value string) func(context.Context, db.Tx) error {
	return func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO meta (value, key) VALUES ($2, $1)", key, value)
		return err
	}
}

func put(t *testing.T, d *db.DB, key, value string) {
	t.Helper()
	if err := d.Write(t.Context(), insert(key, value)); err != nil {
		t.Fatal(err)
	}
}

// keys gives the keys of meta in their order.
func keys(t *testing.T, r db.Reader) []string {
	t.Helper()
	all, err := db.All(t.Context(), r, scanText, "SELECT key FROM meta ORDER BY key")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantKeys(t *testing.T, d *db.DB, want ...string) {
	t.Helper()
	if got := keys(t, d.Read()); !slices.Equal(got, want) {
		t.Errorf("the database holds %q, want %q", got, want)
	}
}

// hold stops the writer inside a write function until the result is called,
// which then waits for that function's commit.
func hold(t *testing.T, d *db.DB) (release func()) {
	t.Helper()
	running, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once // it may run again
	go func() {
		ended <- d.Write(context.Background(), func(context.Context, db.Tx) error {
			once.Do(func() { close(running) })
			<-goOn
			return nil
		})
	}()
	<-running
	return func() {
		t.Helper()
		close(goOn)
		if err := <-ended; err != nil {
			t.Error("the write that held the writer:", err)
		}
	}
}

// together hands functions to the writer so that they run in one batch, in their
// order, and gives their errors.
func together(t *testing.T, d *db.DB, fns ...func(context.Context, db.Tx) error) []error {
	t.Helper()
	release := hold(t, d)
	errs := make([]error, len(fns))
	ended := make(chan int, len(fns))
	for i, fn := range fns {
		d.WriteSoon(t.Context(), fn, func(err error) {
			errs[i] = err
			ended <- i
		})
	}
	release()
	for range fns {
		<-ended
	}
	return errs
}

func TestWriteIsReadAfterItReturns(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		put(t, d, "a", "1")
		wantKeys(t, d, "a")
	})
}

func TestWritesThatWaitShareOneCommit(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		before := d.Stats()
		for i, err := range together(t, d, insert("a", ""), insert("b", ""), insert("c", "")) {
			if err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		}
		after := d.Stats()
		if n := after.Commits - before.Commits; n != 1 {
			t.Errorf("%d commits, want 1", n)
		}
		if n := after.Writes - before.Writes; n != 4 { // with the one that held the writer
			t.Errorf("%d writes, want 4", n)
		}
		if n := after.Batches[2] - before.Batches[2]; n != 1 {
			t.Errorf("%d commits counted among those of three and four writes, want 1", n)
		}
		wantKeys(t, d, "a", "b", "c")
	})
}

func TestFailureOfOneWriteLeavesTheOthersOfItsBatchAlone(t *testing.T) {
	mine := errors.New("mine")
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		put(t, d, "taken", "")
		errs := together(t, d,
			insert("a", ""),
			func(ctx context.Context, tx db.Tx) error {
				return errors.Join(insert("undone", "")(ctx, tx), mine)
			},
			insert("b", ""),
			insert("taken", ""),
			func(ctx context.Context, tx db.Tx) error {
				_, err := tx.ExecContext(ctx, "no such statement")
				return err
			},
			insert("c", ""),
		)
		if errs[0] != nil || errs[2] != nil || errs[5] != nil {
			t.Errorf("the sound writes got %v, %v, %v", errs[0], errs[2], errs[5])
		}
		if !errors.Is(errs[1], mine) || !errors.Is(errs[3], db.ErrUnique) || errs[4] == nil {
			t.Errorf("the others got %v, %v, %v", errs[1], errs[3], errs[4])
		}
		wantKeys(t, d, "a", "b", "c", "taken")
		if n := d.Stats().Failed; n != 3 {
			t.Errorf("%d counted as failed, want 3", n)
		}
	})
}

func TestBatchIsCappedInNumberAndBytes(t *testing.T) {
	for name, tuning := range map[string]db.Tuning{
		"number": {Batch: 2},
		"bytes":  {Bytes: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			d := dbtest.Open(t, db.Tune(db.Options{DataDir: t.TempDir()}, tuning))
			var fns []func(context.Context, db.Tx) error
			for i := range 7 {
				fns = append(fns, insert(fmt.Sprint(i), strings.Repeat("x", 500)))
			}
			for _, err := range together(t, d, fns...) {
				if err != nil {
					t.Error(err)
				}
			}
			// Two in each, the one that held the writer among them or not.
			if n := d.Stats().Commits; n != 4 {
				t.Errorf("%d commits, want 4", n)
			}
		})
	}
}

func TestWriteSoonIsCommittedTwentyMillisecondsLaterByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dbtest.SQLite(t)
		for range 3 {
			start := time.Now()
			ended := make(chan error)
			d.WriteSoon(t.Context(), func(context.Context, db.Tx) error { return nil }, func(err error) { ended <- err })
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if late := time.Since(start); late != 20*time.Millisecond {
				t.Errorf("committed after %v, want 20ms", late)
			}
		}
	})
}

func TestWriteSoonIsNotHeldUpByItsDelayWhenAnotherWriteComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dbtest.SQLite(t)
		start := time.Now()
		d.WriteSoon(t.Context(), insert("soon", ""), nil)
		put(t, d, "now", "")
		if late := time.Since(start); late != 0 {
			t.Errorf("committed after %v, want at once", late)
		}
		wantKeys(t, d, "now", "soon")
	})
}

func TestWritesAreCommittedInTheOrderOfTheirCalls(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var order []int
		for i := range 200 {
			d.WriteSoon(t.Context(), func(context.Context, db.Tx) error {
				order = append(order, i)
				return nil
			}, nil)
		}
		put(t, d, "last", "")
		if len(order) != 200 || !slices.IsSorted(order) {
			t.Errorf("ran in the order %v, want 0 to 199 before the write", order)
		}
	})
}

func TestWriteWhoseCallerGaveUpBeforeItBeganIsNotRun(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		release := hold(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Write(ctx, insert("unwanted", "")) }()
		soon := make(chan error, 1)
		d.WriteSoon(ctx, insert("unwanted too", ""), func(err error) { soon <- err })
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Write returned %v while the writer was held, want the context's error", err)
		}
		release()
		if err := <-soon; !errors.Is(err, context.Canceled) {
			t.Errorf("WriteSoon got %v, want the context's error", err)
		}
		if err := d.Write(ctx, insert("unwanted again", "")); !errors.Is(err, context.Canceled) {
			t.Errorf("Write with an ended context returned %v", err)
		}
		put(t, d, "last", "")
		wantKeys(t, d, "last")
	})
}

func TestWriteThatHasBegunIsFinishedThoughItsContextEnds(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		err := d.Write(ctx, func(inner context.Context, tx db.Tx) error {
			cancel()
			if inner.Err() != nil {
				t.Error("the function's context ended with its caller's")
			}
			return insert("a", "")(ctx, tx)
		})
		if err != nil {
			t.Error(err)
		}
		wantKeys(t, d, "a")
	})
}

func TestErrorOfAStatementCannotBeIgnored(t *testing.T) {
	fail := func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('a', NULL)")
		return err
	}
	for name, ignore := range map[string]func(context.Context, db.Tx) error{
		"of a statement": func(ctx context.Context, tx db.Tx) error {
			_ = fail(ctx, tx)
			return nil
		},
		"when another follows": func(ctx context.Context, tx db.Tx) error {
			_ = fail(ctx, tx)
			return insert("b", "")(ctx, tx)
		},
		"of a query for one row": func(ctx context.Context, tx db.Tx) error {
			var v string
			_ = tx.QueryRowContext(ctx, "SELECT nonsense FROM meta").Scan(&v)
			return tx.QueryRowContext(ctx, "SELECT 'a'").Scan(&v)
		},
		"of a query that is not read": func(ctx context.Context, tx db.Tx) error {
			tx.QueryRowContext(ctx, "SELECT nonsense FROM meta")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dbtest.Each(t, func(t *testing.T, d *db.DB) {
				errs := together(t, d, insert("before", ""), ignore, insert("later", ""))
				if errs[0] != nil || errs[1] == nil || errs[2] != nil {
					t.Errorf("errors %v, want only the second to fail", errs)
				}
				wantKeys(t, d, "before", "later")
			})
		})
	}
}

func TestWriteFunctionMayLeaveRowsOpen(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		put(t, d, "a", "")
		put(t, d, "b", "")
		careless := func(ctx context.Context, tx db.Tx) error {
			rows, err := tx.QueryContext(ctx, "SELECT key FROM meta") //nolint:sqlclosecheck,rowserrcheck // the point of the test
			if err != nil {
				return err
			}
			rows.Next()
			return nil
		}
		unread := func(ctx context.Context, tx db.Tx) error {
			tx.QueryRowContext(ctx, "SELECT key FROM meta")
			return nil
		}
		for i, err := range together(t, d, careless, unread, careless, insert("c", "")) {
			if err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		}
		wantKeys(t, d, "a", "b", "c")
	})
}

func TestQueryMayRunAgainWhileItsRowsAreRead(t *testing.T) {
	// PostgreSQL has one result set at a time on a connection.
	d := dbtest.SQLite(t)
	for _, k := range []string{"a", "b", "c"} {
		put(t, d, k, "")
	}
	var got []string
	err := d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
		got = nil
		const query = "SELECT key FROM meta ORDER BY key"
		outer, err := tx.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer outer.Close()
		for outer.Next() {
			var k string
			if err := outer.Scan(&k); err != nil {
				return err
			}
			got = append(got, k)
			if inner := keys(t, tx); len(inner) != 3 {
				t.Errorf("the inner query read %q", inner)
			}
		}
		return outer.Err()
	})
	if err != nil || !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("the outer query read %q, error %v", got, err)
	}
}

func TestTxEndsWithItsFunction(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var kept db.Tx
		if err := d.Write(t.Context(), func(_ context.Context, tx db.Tx) error {
			kept = tx
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := insert("a", "")(t.Context(), kept); err == nil {
			t.Error("a statement ran after its transaction")
		}
		var one int
		if err := kept.QueryRowContext(t.Context(), "SELECT 1").Scan(&one); err == nil {
			t.Error("a query ran after its transaction")
		}
		wantKeys(t, d)
	})
}

func TestWriterGoesOnAfterAFunctionEndedItsGoroutine(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		errs := together(t, d,
			insert("a", ""),
			func(ctx context.Context, tx db.Tx) error {
				_ = insert("undone", "")(ctx, tx)
				if rows, err := tx.QueryContext(ctx, "SELECT key FROM meta"); err == nil { //nolint:sqlclosecheck,rowserrcheck // left open
					rows.Next()
				}
				runtime.Goexit()
				return nil
			},
			insert("b", ""))
		if errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Errorf("errors %v, want only the second to fail", errs)
		}
		wantKeys(t, d, "a", "b")
	})
}

func TestWriterGoesOnAfterACallbackEndedItsGoroutine(t *testing.T) {
	d := dbtest.SQLite(t)
	release := hold(t, d)
	runs := 0
	d.WriteSoon(t.Context(), insert("a", ""), func(error) { runtime.Goexit() })
	ended := make(chan error, 1)
	d.WriteSoon(t.Context(), func(ctx context.Context, tx db.Tx) error {
		runs++
		return insert("b", "")(ctx, tx)
	}, func(err error) { ended <- err })
	release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	put(t, d, "c", "")
	if runs != 1 {
		t.Errorf("a committed function ran %d times", runs)
	}
	wantKeys(t, d, "a", "b", "c")
}

func TestPreparedStatementsAreFew(t *testing.T) {
	d := dbtest.Open(t, db.Tune(db.Options{DataDir: t.TempDir()}, db.Tuning{Statements: 3}))
	for i := range 10 {
		err := d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
			_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO meta (key, value) VALUES ('%d', '')", i))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(keys(t, d.Read())); n != 10 {
		t.Errorf("%d rows, want 10", n)
	}
}

func TestWriteSoonWaitsForRoomWhenTooManyWait(t *testing.T) {
	d := dbtest.Open(t, db.Tune(db.Options{DataDir: t.TempDir()}, db.Tuning{Soon: 2}))
	release := hold(t, d)
	ended := make(chan error, 4)
	done := func(err error) { ended <- err }
	d.WriteSoon(t.Context(), insert("a", ""), done)
	d.WriteSoon(t.Context(), insert("b", ""), done)
	if n := d.Stats().Queued; n != 2 {
		t.Errorf("%d queued, want 2", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.WriteSoon(ctx, insert("unwanted", ""), done)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the third got %v, want its context's error", err)
	}
	blocked := make(chan struct{})
	go func() {
		d.WriteSoon(t.Context(), insert("c", ""), done)
		close(blocked)
	}()
	release()
	<-blocked
	for range 3 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	wantKeys(t, d, "a", "b", "c")
}

func TestReadCannotWrite(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var v string
		err := d.Read().QueryRowContext(t.Context(), "INSERT INTO meta (key, value) VALUES ('a', '') RETURNING key").Scan(&v)
		if err == nil {
			t.Error("a row was written beside the writer")
		}
		wantKeys(t, d)
	})
}
