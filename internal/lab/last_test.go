package lab

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
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
