package queue_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// large is a body that does not lie in memory: of several parts, the last one
// not whole.
var large = "Subject: large\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n", 40000) + "the end\r\n"

// files lists the spool.
func (w *world) files() []string {
	w.Helper()
	entries, err := os.ReadDir(w.opts.Spool)
	if err != nil {
		w.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestALargeBodyIsKeptWholeUntilItIsDelivered(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.submit(queue.Message{From: "ann@example.org"}, large, "bob@example.com")
		try := w.next()
		if got := try.body(w); got != large {
			t.Errorf("the body has %d bytes, want %d and the same", len(got), len(large))
		}
		files, parts := w.files(), w.rows("body")
		if w.db.Dialect() == db.SQLite && (len(files) != 1 || files[0] != id+".msg" || parts != 0) {
			w.Errorf("the spool holds %q and the database %d parts, want the file alone", files, parts)
		}
		if w.db.Dialect() == db.Postgres && (len(files) != 0 || parts != 3) {
			w.Errorf("the spool holds %q and the database %d parts, want 3 parts alone", files, parts)
		}
		try.later("once more")
		w.settle()
		w.stop()
		w.start()
		try = w.within(time.Hour)
		if got := try.body(w); got != large {
			t.Errorf("after a restart the body has %d bytes, want %d and the same", len(got), len(large))
		}
		try.delivered()
		w.settle()
		if files, parts := w.files(), w.rows("body"); len(files) != 0 || parts != 0 {
			w.Errorf("after the delivery the spool holds %q and the database %d parts, want nothing", files, parts)
		}
	})
}

func TestADroppedMessageLeavesNoBody(t *testing.T) {
	each(t, nil, func(w *world) {
		w.submit(queue.Message{From: "ann@example.org"}, large, "bob@example.com")
		w.next().later("try later")
		w.send("bob@example.com")
		w.next().later("try later")
		w.settle()
		w.do(queue.Drop, queue.Filter{}, 2)
		if files, parts := w.files(), w.rows("body"); len(files) != 0 || parts != 0 {
			w.Errorf("the spool holds %q and the database %d parts, want nothing", files, parts)
		}
	})
}

func TestABodyThatIsDiscardedLeavesNothing(t *testing.T) {
	each(t, nil, func(w *world) {
		b := w.q.Body()
		if _, err := b.Write([]byte(large)); err != nil {
			w.Fatal(err)
		}
		if n := len(w.files()); n != 1 {
			w.Errorf("the spool holds %d files while the body arrives, want 1", n)
		}
		b.Discard()
		b.Discard()
		if files := w.files(); len(files) != 0 {
			w.Errorf("the spool holds %q, want nothing", files)
		}
	})
}

func TestABodyThatWasFreedDoesNotPassForAWholeOne(t *testing.T) {
	each(t, nil, func(w *world) {
		w.submit(queue.Message{From: "ann@example.org"}, large, "bob@example.com")
		try := w.next()
		w.do(queue.Drop, queue.Filter{}, 1)
		if r, err := try.Open(); !errors.Is(err, queue.ErrNoBody) {
			w.Errorf("it opens: %v (%v), want ErrNoBody", r != nil, err)
		}
		try.later("no body")
		w.settle()
	})
}

func TestAStartSweepsWhatACrashLeftInTheSpool(t *testing.T) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(string(dialect), func(t *testing.T) {
			d := dbtest.Open(t, databaseOf(t, dialect))
			spool := filepath.Join(t.TempDir(), "spool")
			w := newWorld(t, d, spool, nil)
			q, err := queue.New(t.Context(), w.opts)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := enqueue(t.Context(), q, queue.Message{From: "ann@example.org"}, large, "bob@example.com")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"incoming-123", db.NewID() + ".msg", "notes.txt"} {
				if err := os.WriteFile(filepath.Join(spool, name), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := queue.New(t.Context(), w.opts); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(w.files(), " ")
			if want := kept + ".msg notes.txt"; dialect == db.SQLite && got != want {
				t.Errorf("the spool holds %q, want %q", got, want)
			}
			// With bodies in the database, a file is that of another one and is left alone.
			if dialect == db.Postgres && (strings.Contains(got, "incoming") || !strings.Contains(got, ".msg")) {
				t.Errorf("the spool holds %q", got)
			}
		})
	}
}

func TestAMessageThatCannotBeKeptIsNotAcceptedInPart(t *testing.T) {
	each(t, nil, func(w *world) {
		nothing := func(step string) {
			w.Helper()
			for _, table := range []string{"message", "delivery", "body"} {
				if n := w.rows(table); n != 0 {
					w.Errorf("%s: %d rows are left in %s", step, n, table)
				}
			}
			if files := w.files(); len(files) != 0 {
				w.Errorf("%s: the spool holds %q", step, files)
			}
		}
		w.stop() // what is refused here is refused without anything that runs
		send := func(body string, to ...string) error {
			_, err := enqueue(w.Context(), w.q, queue.Message{From: "ann@example.org"}, body, to...)
			return err
		}
		for _, body := range []string{letter, large} {
			if err := send(body); !errors.Is(err, queue.ErrNoRecipients) {
				w.Errorf("without recipients: %v", err)
			}
			nothing("without recipients")
			if err := send(body, "bob\x00@example.com"); !errors.Is(err, queue.ErrText) {
				w.Errorf("with a NUL: %v", err)
			}
			if err := send(body, "bob\xff@example.com"); !errors.Is(err, queue.ErrText) {
				w.Errorf("not UTF-8: %v", err)
			}
			nothing("with an address that is not text")
			if _, err := enqueue(w.Context(), w.q, queue.Message{ID: "1"}, body, "bob@example.com"); !errors.Is(err, queue.ErrID) {
				w.Errorf("with an id that is none: %v", err)
			}
			nothing("with an id that is none")
		}
		if _, err := w.q.Enqueue(w.Context(), queue.Submission{}); !errors.Is(err, queue.ErrNoBody) {
			w.Errorf("without a body: %v", err)
		}
		if err := os.RemoveAll(w.opts.Spool); err != nil {
			w.Fatal(err)
		}
		if err := send(large, "bob@example.com"); !errors.Is(err, os.ErrNotExist) {
			w.Errorf("without a spool: %v, want that it does not exist", err)
		}
		// A caller that overlooks the failed Write does not get a part accepted.
		b := w.q.Body()
		if _, err := b.Write([]byte(large)); err == nil {
			w.Error("a body was written without a spool")
		}
		_, err := w.q.Enqueue(w.Context(), queue.Submission{Body: b, Recipients: []queue.Destined{{Domain: "example.com"}}})
		if !errors.Is(err, os.ErrNotExist) {
			w.Errorf("after a failed write: %v, want its error", err)
		}
		if err := os.Mkdir(w.opts.Spool, 0o700); err != nil {
			w.Fatal(err)
		}
		nothing("without a spool")
	})
}

func TestTheIDOfAMessageThatIsThereIsRefusedAndItsBodyKept(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.submit(queue.Message{From: "ann@example.org"}, large, "bob@example.com")
		try := w.next()
		if _, err := enqueue(w.Context(), w.q, queue.Message{ID: id}, "Subject: other\r\n\r\n"+large, "eve@example.com"); err == nil {
			w.Error("the same id was accepted twice")
		}
		if got := try.body(w); got != large {
			w.Errorf("the body has %d bytes, want %d and the same", len(got), len(large))
		}
		try.delivered()
	})
}

func TestAFullDiskUnderTheSpoolRefusesMailAndLosesNone(t *testing.T) {
	spool := t.TempDir()
	if err := unix.Mount("tmpfs", spool, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	defer func() {
		if err := unix.Unmount(spool, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dbtest.Open(t, db.Options{DataDir: data}), spool, nil)
		w.start()
		w.submit(queue.Message{From: "ann@example.org"}, large, "bob@example.com")
		try := w.next()
		for range 3 {
			if _, err := enqueue(w.Context(), w.q, queue.Message{From: "ann@example.org"}, large, "eve@example.com"); !errors.Is(err, unix.ENOSPC) {
				w.Errorf("on the full disk: %v, want ENOSPC", err)
			}
		}
		if files := w.files(); len(files) != 1 {
			w.Errorf("the spool holds %q, want the first message alone", files)
		}
		if got := try.body(w); got != large {
			w.Error("the first message is damaged")
		}
		try.delivered()
		w.settle()
		w.submit(queue.Message{From: "ann@example.org"}, large, "carl@example.com")
		w.next().delivered()
		w.stop()
	})
}

func TestPartsOfAMessageThatWasNeverAcceptedAreRemoved(t *testing.T) {
	each(t, nil, func(w *world) {
		if w.db.Dialect() != db.Postgres {
			return
		}
		w.submit(queue.Message{From: "ann@example.org"}, large, "bob@example.com")
		w.next().later("try later")
		w.settle()
		// As a crash between the parts and the commit leaves it.
		w.exec(`UPDATE message SET incoming = 1`)
		w.exec(`DELETE FROM delivery`)
		<-time.After(50 * time.Minute)
		if n := w.rows("body"); n != 3 {
			w.Errorf("%d parts are left after 50 minutes, want all 3", n)
		}
		<-time.After(12 * time.Minute)
		if m, b := w.rows("message"), w.rows("body"); m != 0 || b != 0 {
			w.Errorf("%d messages and %d parts are left after an hour, want none", m, b)
		}
	})
}
