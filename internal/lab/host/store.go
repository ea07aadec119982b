package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	runsName = "runs" // folder in the data folder
	suffix   = ".json"
	// MaxRuns is how many runs are kept at a time; no new one is begun beyond.
	MaxRuns = 10_000
	// maxRun is how large a run's file can be, in octets.
	maxRun = 256 << 10
)

// errFull is returned where no run can be begun.
var errFull = errors.New("as many tests are under way as this host can keep")

// store keeps the runs, in memory and one file each. It is safe for concurrent use.
type store struct {
	folder string

	mu   sync.Mutex
	runs map[string]Run
}

// openStore reads the runs of a data folder. A file that cannot be read is left
// where it is, and said.
func openStore(data string, log *slog.Logger) (*store, error) {
	s := &store{folder: filepath.Join(data, runsName), runs: make(map[string]Run)}
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of the lab's runs: %w", err)
	}
	files, err := os.ReadDir(s.folder)
	if err != nil {
		return nil, fmt.Errorf("the folder of the lab's runs: %w", err)
	}
	for _, f := range files {
		token, ok := strings.CutSuffix(f.Name(), suffix)
		if !ok || strings.HasPrefix(token, ".") {
			continue
		}
		r, err := s.read(f)
		if err == nil && r.Token != token {
			err = fmt.Errorf("it is of run %q", r.Token)
		}
		if err != nil {
			log.Warn("lab host: a run cannot be read, and is left as it is", "file", filepath.Join(s.folder, f.Name()), "err", err)
			continue
		}
		s.runs[token] = r
	}
	return s, nil
}

func (s *store) read(f fs.DirEntry) (Run, error) {
	info, err := f.Info()
	if err != nil {
		return Run{}, err
	}
	if info.Size() > maxRun {
		return Run{}, fmt.Errorf("it has %d octets", info.Size())
	}
	text, err := os.ReadFile(filepath.Join(s.folder, f.Name()))
	if err != nil {
		return Run{}, err
	}
	var r Run
	return r, json.Unmarshal(text, &r)
}

// begin adds a run. It is durable when begin returns.
func (s *store) begin(r Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.runs) >= MaxRuns {
		return errFull
	}
	return s.keep(r)
}

// change changes a run, durably, and reports whether there is one.
func (s *store) change(token string, change func(*Run)) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.runs[token]
	if !ok {
		return false, nil
	}
	r = r.clone()
	change(&r)
	return true, s.keep(r)
}

// keep writes a run, and then has it.
func (s *store) keep(r Run) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err == nil && len(text) > maxRun {
		err = fmt.Errorf("it has grown to %d octets", len(text))
	}
	if err == nil {
		err = write(filepath.Join(s.folder, r.Token+suffix), text)
	}
	if err != nil {
		return fmt.Errorf("keeping run %s: %w", r.Token, err)
	}
	s.runs[r.Token] = r
	return nil
}

// get returns a run.
func (s *store) get(token string) (Run, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.runs[token]
	return r.clone(), ok
}

// all returns the runs, the oldest first.
func (s *store) all() []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	runs := slices.Collect(maps.Values(s.runs))
	slices.SortFunc(runs, func(a, b Run) int { return a.Began.Compare(b.Began) })
	for i := range runs {
		runs[i] = runs[i].clone()
	}
	return runs
}

// expire drops the runs that are over, and files of none that are as old.
func (s *store) expire(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, failed := os.ReadDir(s.folder)
	for _, f := range files {
		token := strings.TrimSuffix(f.Name(), suffix)
		r, known := s.runs[token]
		if known && !r.over(now) {
			continue
		}
		if info, err := f.Info(); !known && (err != nil || now.Sub(info.ModTime()) < Lifetime) {
			continue
		}
		if err := os.Remove(filepath.Join(s.folder, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
			continue
		}
		delete(s.runs, token)
	}
	if failed != nil {
		return fmt.Errorf("dropping old runs: %w", failed)
	}
	return nil
}
