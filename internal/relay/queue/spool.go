package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pawl-mail/pawl/internal/db"
)

// The spool is a folder that belongs to one process. On SQLite it keeps the
// bodies that are too large for a row. A database that several nodes share keeps
// those itself, in parts, since another node's disk is out of reach; there the
// spool only takes them while they arrive.

// incoming is how the names of files begin that hold a body while it arrives.
const incoming = "incoming-"

// accepted is how the names of files end that hold the body of a message.
const accepted = ".msg"

// openSpool makes the spool and sweeps from it what a crash left: bodies that
// were never accepted, and bodies that are no longer needed.
func (q *Queue) openSpool(ctx context.Context) error {
	if _, err := os.Stat(q.opts.Spool); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(q.opts.Spool, 0o700); err != nil {
			return fmt.Errorf("making the spool: %w", err)
		}
		if err := syncFolder(filepath.Dir(q.opts.Spool)); err != nil {
			return err
		}
	}
	needed, err := db.All(ctx, q.opts.DB.Read(), scanText, spooledMessages)
	if err != nil {
		return fmt.Errorf("looking for messages with a spool file: %w", err)
	}
	keep := make(map[string]bool, len(needed))
	for _, id := range needed {
		keep[id] = true
	}
	entries, err := os.ReadDir(q.opts.Spool)
	if err != nil {
		return fmt.Errorf("reading the spool: %w", err)
	}
	for _, e := range entries {
		id, isMessage := strings.CutSuffix(e.Name(), accepted)
		// Where bodies lie in the database, a message's file is another database's.
		over := isMessage && !q.shared() && !keep[id]
		if !over && !strings.HasPrefix(e.Name(), incoming) {
			continue
		}
		if err := os.Remove(filepath.Join(q.opts.Spool, e.Name())); err != nil {
			return fmt.Errorf("sweeping the spool: %w", err)
		}
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing the spool folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing the spool folder: %w", err)
	}
	return nil
}

func (q *Queue) spoolPath(message string) string {
	return filepath.Join(q.opts.Spool, message+accepted)
}

// openSpooled opens a spooled body for reading.
func (q *Queue) openSpooled(m Message) (io.ReadCloser, error) {
	f, err := os.Open(q.spoolPath(m.ID))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoBody
	}
	if err != nil {
		return nil, fmt.Errorf("opening the body of message %s: %w", m.ID, err)
	}
	if i, err := f.Stat(); err != nil || i.Size() != m.Size {
		f.Close()
		return nil, fmt.Errorf("opening the body of message %s: its file is damaged: it should have %d bytes", m.ID, m.Size)
	}
	return f, nil
}

// removeSpooled frees a body that the database no longer names.
func (q *Queue) removeSpooled(message string) {
	if q.keeps(message) {
		return
	}
	if err := os.Remove(q.spoolPath(message)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		q.opts.Log.Warn("a spool file could not be removed; it is removed at the next start", "message", message, "err", err)
	}
}
