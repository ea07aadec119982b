package lab

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/web"
)

func TestTheLastReportIsKeptForTheDashboard(t *testing.T) {
	dir := t.TempDir()
	if _, err := Last(dir); !errors.Is(err, ErrNoRun) {
		t.Errorf("before any run: %v", err)
	}
	kept := run(t, Options{Only: []string{"1"}, Columns: []Column{EnforceCached}})
	for range 2 { // the second takes the place of the first
		if err := kept.Keep(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Last(dir)
	if err != nil {
		t.Fatal(err)
	}
	var want, have bytes.Buffer
	if err := errors.Join(kept.Print(&want), got.Print(&have)); err != nil {
		t.Fatal(err)
	}
	if want.String() != have.String() {
		t.Errorf("kept\n%s\nread\n%s", &want, &have)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("in the folder: %v", left)
	}
}

func TestTheDashboardIsToldOfTheLastRun(t *testing.T) {
	dir := t.TempDir()
	runs := NewRuns(dir)
	if _, err := runs.LastRun(); !errors.Is(err, web.ErrNotFound) {
		t.Errorf("before any run: %v", err)
	}
	if err := runs.WriteLastRun(io.Discard); !errors.Is(err, web.ErrNotFound) {
		t.Errorf("before any run: %v", err)
	}
	for i, columns := range [][]Column{{EnforceCached}, {EnforceCached, DANE}} {
		kept := run(t, Options{Only: []string{"1"}, Columns: columns})
		if err := kept.Keep(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, lastName), time.Time{}, kept.At.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := runs.LastRun()
		if want := (web.LabRun{Sender: PawlsRelay, At: got.At, Cells: len(columns)}); err != nil || got != want || !got.At.Equal(kept.At) {
			t.Errorf("got %+v, %v; want %+v of %s", got, err, want, kept.At)
		}
	}
	var page bytes.Buffer
	if err := runs.WriteLastRun(&page); err != nil || !strings.Contains(page.String(), "2 cells, all as expected") {
		t.Errorf("the page: %v", err)
	}
}

func TestAReportIsNotKeptWhereThereIsNoServer(t *testing.T) {
	if err := (Report{}).Keep(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestALastReportThatIsNoneIsSaid(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, lastName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Last(dir); err == nil || errors.Is(err, ErrNoRun) {
		t.Errorf("got %v", err)
	}
}
