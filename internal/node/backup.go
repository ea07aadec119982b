package node

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// A backup is a tar file of the data folder: the database as it was at one
// moment, each spool file that its messages need, whatever else is kept in the
// folder (keys), and last a file that says what the backup is. One without it is
// not complete.
const (
	manifestName = "backup.json"
	spoolName    = "spool"
	copyPrefix   = "backup-" // of the folder in which the database's copy is made
	maxManifest  = 64 << 10
)

// Manifest says what a backup is.
type Manifest struct {
	Version  string    `json:"version"` // of the pawl that made it
	Hostname string    `json:"hostname"`
	Created  time.Time `json:"created"`
	Files    int       `json:"files"` // beside this one
}

// passing are files of the data folder that belong to a running server.
var passing = []string{"pawl.lock", "control.sock", db.File, db.File + "-wal", db.File + "-shm", db.File + "-journal", spoolName}

// backup writes the backup of a running node. Mail is taken and delivered
// meanwhile; a body that is delivered stays until it is copied.
func (n *Node) backup(ctx context.Context, _ struct{}, w io.Writer) error {
	ctx, cancel := n.whileRunning(ctx)
	defer cancel()
	if n.db.Dialect() != db.SQLite {
		return &control.Error{
			Text: "the database is PostgreSQL's, and so are the bodies of all mail: its own tools make the backup",
			Do:   "pg_dump --format=custom --file=pawl.dump and the database's URL make it, pg_restore reads it back; copy the data folder as well. docs/operations.md has the steps.",
		}
	}
	defer n.queue.PinSpool()() // before the database is copied
	dir := filepath.Join(n.config.Data, copyPrefix+db.NewID())
	defer func() { _ = os.RemoveAll(dir) }()
	if err := n.db.Copy(ctx, dir); err != nil {
		return err
	}
	needed, err := spooled(ctx, dir)
	if err != nil {
		return err
	}
	a := &archive{tar: tar.NewWriter(w), ctx: ctx}
	a.add(filepath.Join(dir, db.File), db.File)
	for _, name := range needed {
		a.add(filepath.Join(n.config.Data, spoolName, name), path.Join(spoolName, name))
	}
	a.rest(n.config.Data)
	a.manifest(Manifest{Version: Version, Hostname: n.config.Hostname, Created: n.w.Now().UTC()})
	if a.err != nil {
		n.log.ErrorContext(ctx, "a backup was not completed", "err", a.err)
		return a.err
	}
	n.log.InfoContext(ctx, "a backup was made", "by", control.Caller(ctx), "files", a.files)
	return nil
}

// spooled are the names of the spool's files that a copy of the database needs.
func spooled(ctx context.Context, dir string) ([]string, error) {
	d, err := db.OpenReadOnly(ctx, db.Options{DataDir: dir})
	if err != nil {
		return nil, err
	}
	names, err := queue.SpoolFiles(ctx, d.Read())
	return names, errors.Join(err, d.Close())
}

// archive writes a backup, up to the first error.
type archive struct {
	tar   *tar.Writer
	ctx   context.Context //nolint:containedctx // it lives as long as the call
	files int
	err   error
}

func (a *archive) add(from, name string) {
	if a.err == nil {
		a.err = a.ctx.Err()
	}
	if a.err != nil {
		return
	}
	if err := a.copy(from, name); err != nil {
		a.err = fmt.Errorf("copying %s into the backup: %w", name, err)
	}
	a.files++
}

func (a *archive) copy(from, name string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.Copy(a.tar, f)
	return err
}

// rest adds what else lies in the data folder.
func (a *archive) rest(dir string) {
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(dir, file)
		switch {
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		case name == ".":
		case slices.Contains(passing, name), strings.HasPrefix(name, copyPrefix):
			if e.IsDir() {
				return filepath.SkipDir
			}
		case e.Type().IsRegular():
			a.add(file, filepath.ToSlash(name))
		}
		return a.err
	})
	if a.err == nil && err != nil {
		a.err = fmt.Errorf("reading the data folder: %w", err)
	}
}

func (a *archive) manifest(m Manifest) {
	if a.err != nil {
		return
	}
	m.Files = a.files
	text, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = a.tar.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o600, Size: int64(len(text)), ModTime: m.Created})
	}
	if err == nil {
		_, err = a.tar.Write(text)
	}
	if err == nil {
		err = a.tar.Close()
	}
	a.err = err
}

// sweepCopies removes what a backup left that was cut off by a crash.
func sweepCopies(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, copyPrefix+"*"))
	for _, l := range left {
		err = errors.Join(err, os.RemoveAll(l))
	}
	return err
}

// SaveBackup writes a backup to a path that does not exist yet: a tar file if
// its name ends in .tar, or else a folder. It is whole and synced when it has
// that name.
func SaveBackup(backup io.Reader, to string) (Manifest, error) {
	if _, err := os.Lstat(to); err == nil {
		return Manifest{}, &control.Error{Text: to + " is there already, and is not overwritten", Do: "Name another, with the date in it."}
	}
	part := to + ".part"
	m, err := savePart(backup, part, strings.HasSuffix(to, ".tar"))
	if err == nil {
		err = os.Rename(part, to)
	}
	if err == nil {
		err = syncDir(filepath.Dir(to))
	}
	if err != nil {
		return m, errors.Join(fmt.Errorf("writing the backup to %s: %w", to, err), os.RemoveAll(part))
	}
	return m, nil
}

func savePart(backup io.Reader, part string, file bool) (m Manifest, err error) {
	if !file {
		if err := os.Mkdir(part, 0o700); err != nil {
			return m, err
		}
		if m, err = unpack(fromTar(backup), part); err != nil {
			return m, err
		}
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return m, err
		}
		return m, writeFile(part, manifestName, strings.NewReader(string(text)))
	}
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return m, err
	}
	defer out.Close()
	// It is read as it is written: what cannot be read back is no backup.
	if m, err = read(fromTar(io.TeeReader(backup, out)), func(string, io.Reader) error { return nil }); err != nil {
		return m, err
	}
	if _, err := io.Copy(out, backup); err != nil { // the end marks of the tar
		return m, err
	}
	return m, out.Sync()
}
