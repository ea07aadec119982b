package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/web"
)

const (
	// lastName is the file in a data folder that has the last report.
	lastName = "lab-last.json"
	// maxLast caps what is read of it.
	maxLast = 64 << 20
)

// ErrNoRun is returned by [Last] where the lab was not run yet.
var ErrNoRun = errors.New("the lab was not run here yet")

// Keep writes the report into a server's data folder, for its dashboard. Without
// the folder there is nothing to do: [fs.ErrNotExist].
func (r Report) Keep(folder string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keeping the lab's report: %w", err)
	}
	// Beside it first: a reader never sees half of it.
	f, err := os.CreateTemp(folder, lastName+".*")
	if err != nil {
		return fmt.Errorf("keeping the lab's report: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(folder, lastName))
	}
	if err != nil {
		return fmt.Errorf("keeping the lab's report: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Runs is what a server's dashboard shows of the lab: the report that was kept last
// in its data folder. It is a [web.Runs].
type Runs struct {
	folder string

	mu    sync.Mutex
	stamp time.Time // of the file that was read
	run   web.LabRun
	err   error
}

// NewRuns returns the runs of a data folder.
func NewRuns(folder string) *Runs { return &Runs{folder: folder} }

// LastRun implements [web.Runs]. It reads the file when it is another than
// before, and keeps no more of it than it returns: the front page asks often.
func (r *Runs) LastRun() (web.LabRun, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(filepath.Join(r.folder, lastName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return web.LabRun{}, web.ErrNotFound
	case err != nil:
		return web.LabRun{}, fmt.Errorf("the lab's last report: %w", err)
	case info.ModTime().Equal(r.stamp):
		return r.run, r.err
	}
	report, err := Last(r.folder)
	r.stamp, r.err = info.ModTime(), err
	r.run = web.LabRun{Sender: report.Sender, At: report.At, Cells: len(report.ran()), Wrong: len(report.Wrong())}
	return r.run, r.err
}

// WriteLastRun implements [web.Runs].
func (r *Runs) WriteLastRun(w io.Writer) error {
	report, err := Last(r.folder)
	if errors.Is(err, ErrNoRun) {
		return web.ErrNotFound
	}
	if err != nil {
		return err
	}
	return report.HTML(w)
}

// Last reads the report that was kept last in a data folder.
func Last(folder string) (Report, error) {
	var r Report
	name := filepath.Join(folder, lastName)
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, ErrNoRun
	case err != nil:
		return r, fmt.Errorf("the lab's last report: %w", err)
	case info.Size() > maxLast:
		return r, fmt.Errorf("the lab's last report: %s has %d octets", name, info.Size())
	}
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return Report{}, fmt.Errorf("the lab's last report: %w", err)
	}
	if t, err := Load(); err == nil {
		r.numbers = t.numbers()
	}
	return r, nil
}
