package node

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// RestoreOptions say what is restored, and where.
type RestoreOptions struct {
	From    string // a tar file or folder that a backup was written to
	Data    string // the data folder: missing, or empty
	Release bool   // let the queue deliver at once
	Who     string
	Now     func() time.Time
	Log     *slog.Logger
}

// Restored is what a restore came to.
type Restored struct {
	Manifest Manifest `json:"backup"`
	Waiting  int64    `json:"waiting"` // deliveries in the queue
	Held     int      `json:"held"`    // of them, those that this restore holds
}

// restoreName is the folder, inside the data folder, in which a backup is made
// ready. The database takes its place at the very end.
const restoreName = ".restore"

// Restore makes a data folder of a backup. What waits in its queue is held,
// unless it is to be released: what was delivered after the backup was made
// would be delivered again.
func Restore(ctx context.Context, o RestoreOptions) (Restored, error) {
	if err := emptyFolder(o.Data); err != nil {
		return Restored{}, err
	}
	stage := filepath.Join(o.Data, restoreName)
	r, err := o.restore(ctx, stage)
	if err != nil {
		return r, errors.Join(err, os.RemoveAll(stage))
	}
	return r, nil
}

func (o RestoreOptions) restore(ctx context.Context, stage string) (r Restored, err error) {
	if err := os.MkdirAll(filepath.Join(stage, spoolName), 0o700); err != nil {
		return r, fmt.Errorf("making the data folder: %w", err)
	}
	source, closeSource, err := openBackup(o.From)
	if err != nil {
		return r, err
	}
	defer func() { _ = closeSource() }() // it was only read
	if r.Manifest, err = unpack(source, stage); err != nil {
		return r, fmt.Errorf("reading the backup %s: %w", o.From, err)
	}
	if err := o.ready(ctx, stage, &r); err != nil {
		return r, err
	}
	return r, o.place(stage)
}

// ready checks the database, brings it up to date and holds what waits.
func (o RestoreOptions) ready(ctx context.Context, stage string, r *Restored) (err error) {
	if err := db.IsDatabase(stage); err != nil {
		return err
	}
	d, err := db.Open(ctx, db.Options{DataDir: stage, Log: o.Log, Now: o.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.IsSound(ctx); err != nil {
		return err
	}
	names, err := queue.SpoolFiles(ctx, d.Read())
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(stage, spoolName, name)); err != nil {
			return fmt.Errorf("the backup lacks the body of a message: %w", err)
		}
	}
	t := tuning(config.Default().Relay)
	q, err := queue.New(ctx, queue.Options{
		DB: d, Spool: filepath.Join(stage, spoolName), Now: o.Now, After: time.After, Log: o.Log,
		Lifetime: t.Lifetime, RetryFirst: t.RetryFirst, RetryMax: t.RetryMax, Concurrency: t.Concurrency, Destination: t.Destination, History: t.History,
	})
	if err != nil {
		return err
	}
	if !o.Release {
		why := "restored from the backup of " + r.Manifest.Created.Format(time.DateTime) + " UTC; it may have been delivered since"
		if r.Held, err = q.Do(ctx, queue.Hold, queue.Filter{}, o.Who, why); err != nil {
			return err
		}
	}
	stats, err := q.Stats(ctx)
	r.Waiting = stats.Queued + stats.Held
	return err
}

// place moves what is ready to where a server looks for it, the database last.
func (o RestoreOptions) place(stage string) error {
	entries, err := os.ReadDir(stage)
	if err != nil {
		return fmt.Errorf("placing the data: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != db.File && name != "pawl.lock" {
			if err := os.Rename(filepath.Join(stage, name), filepath.Join(o.Data, name)); err != nil {
				return fmt.Errorf("placing the data: %w", err)
			}
		}
	}
	// A link does not replace what a server may have made meanwhile.
	if err := os.Link(filepath.Join(stage, db.File), filepath.Join(o.Data, db.File)); err != nil {
		return fmt.Errorf("placing the database: %w", err)
	}
	return errors.Join(os.RemoveAll(stage), giveToOwner(o.Data), syncDir(o.Data))
}

// giveToOwner gives all in a folder to the folder's owner, so that root may
// restore for the user that runs pawl.
func giveToOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	root, err := os.OpenRoot(dir) // so that nobody's link leads to another file
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return root.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}

// emptyFolder refuses a folder that a server has open, or that holds anything.
func emptyFolder(dir string) error {
	if err := db.InUse(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the data folder: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("reading the data folder: %w", err)
	case len(entries) > 0:
		return &control.Error{Text: dir + " is not empty, and nothing in it is overwritten", Do: "Move the old data folder away, or name a new one."}
	}
	return nil
}

// files gives each file of a backup, in order, to take.
type files func(take func(name string, r io.Reader) error) error

// openBackup opens a backup: a folder or a tar file.
func openBackup(from string) (files, func() error, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the backup: %w", err)
	}
	if info.IsDir() {
		return fromFolder(from), func() error { return nil }, nil
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the backup: %w", err)
	}
	return fromTar(f), f.Close, nil
}

func fromTar(r io.Reader) files {
	return func(take func(string, io.Reader) error) error {
		t := tar.NewReader(r)
		for {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if h.Typeflag != tar.TypeReg {
				return fmt.Errorf("%q is not a file", h.Name)
			}
			if err := take(h.Name, t); err != nil {
				return err
			}
		}
	}
}

func fromFolder(dir string) files {
	return func(take func(string, io.Reader) error) error {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			f, err := root.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return take(name, f)
		})
	}
}

// read hands each file of a backup to take, and checks that all are there.
func read(from files, take func(name string, r io.Reader) error) (Manifest, error) {
	var m Manifest
	var count int
	whole := false
	err := from(func(name string, r io.Reader) error {
		if name == manifestName {
			whole = true
			return json.NewDecoder(io.LimitReader(r, maxManifest)).Decode(&m)
		}
		count++
		return take(name, r)
	})
	switch {
	case err != nil:
		return m, err
	case !whole || count != m.Files:
		return m, errors.New("the backup is not complete")
	}
	return m, nil
}

// unpack writes the files of a backup into a folder. It takes nobody's word for
// their names.
func unpack(from files, dir string) (Manifest, error) {
	m, err := read(from, func(name string, r io.Reader) error {
		if !filepath.IsLocal(name) || strings.Contains(name, "\\") {
			return fmt.Errorf("%q is not a name inside a data folder", name)
		}
		return writeFile(dir, filepath.FromSlash(name), r)
	})
	if err != nil {
		return m, err
	}
	return m, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = syncDir(path)
		}
		return err
	})
}

// writeFile makes a file in a folder, with the folders on its way, and syncs it.
func writeFile(dir, name string, r io.Reader) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
