package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrNoCopy is returned for a database that is not a file of pawl's.
var ErrNoCopy = errors.New("the database is PostgreSQL's, which makes its own copies")

// Copy writes the database as it is at this moment into a folder, which is made,
// as one file that [Open] and [OpenReadOnly] take. Reads and writes go on. The
// copy is synced.
func (d *DB) Copy(ctx context.Context, dir string) error {
	if d.Dialect() != SQLite {
		return ErrNoCopy
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder of the copy: %w", err)
	}
	path := filepath.Join(dir, File)
	// It is made beforehand, for its mode; SQLite takes an empty file for none.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making the copy: %w", err)
	}
	if _, err := d.reads.ExecContext(ctx, "VACUUM INTO $1", path); err != nil {
		return errors.Join(fmt.Errorf("copying the database: %w", d.name(err)), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing the copy: %w", err)
	}
	return nil
}

// InUse returns [ErrLocked] if a server has a data folder open.
func InUse(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, lockFile)); err != nil {
		return nil //nolint:nilerr // nobody ever locked it
	}
	unlock, err := Lock(dir)
	if err != nil {
		return err
	}
	return unlock()
}

// magic is how a SQLite database begins (sqlite.org/fileformat.html §1.3).
const magic = "SQLite format 3\x00"

// IsDatabase returns [ErrCorrupt] if the file in a folder is no SQLite database:
// an empty one would be taken for a new one.
func IsDatabase(dir string) error {
	f, err := os.Open(filepath.Join(dir, File))
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer f.Close()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != magic {
		return fmt.Errorf("%w: %s", ErrCorrupt, f.Name())
	}
	return nil
}

// IsSound reads the whole of a SQLite database and returns [ErrCorrupt] if it
// does not hang together.
func (d *DB) IsSound(ctx context.Context) error {
	if d.Dialect() != SQLite {
		return nil
	}
	var said string
	if err := d.reads.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&said); err != nil {
		return fmt.Errorf("checking the database: %w", d.name(err))
	}
	if said != "ok" {
		return fmt.Errorf("%w: %s", ErrCorrupt, said)
	}
	return nil
}
