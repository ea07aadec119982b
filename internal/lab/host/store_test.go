package host

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestARunIsKeptInAFileThatIsReadAgain(t *testing.T) {
	data := t.TempDir()
	s, err := openStore(data, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	if err := s.begin(Run{Token: "abc", Sender: somebody, Began: began}); err != nil {
		t.Fatal(err)
	}
	if found, err := s.change("abc", func(r *Run) { r.Answered = began }); !found || err != nil {
		t.Fatal(found, err)
	}
	if found, err := s.change("other", func(*Run) {}); found || err != nil {
		t.Errorf("a run that is not there: %v, %v", found, err)
	}
	s, err = openStore(data, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := s.get("abc"); !ok || r.Sender != somebody || !r.Answered.Equal(began) {
		t.Errorf("read again: %+v", r)
	}
	if err := s.expire(began.Add(Unused)); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.get("abc"); !ok {
		t.Error("it is dropped too soon")
	}
	if err := s.expire(began.Add(Unused + 1)); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(filepath.Join(data, runsName)); err != nil || len(files) > 0 {
		t.Errorf("what is old is still there: %v, %v", files, err)
	}
}

func TestAFileThatCannotBeReadIsLeftAndSaid(t *testing.T) {
	data := t.TempDir()
	folder := filepath.Join(data, runsName)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"half.json": `{"token":`, "other.json": `{"token":"another"}`, "big.json": strings.Repeat(" ", maxRun+1), ".abc.json.123": "{", "notes.txt": "",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	s, err := openStore(data, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || len(s.all()) > 0 {
		t.Fatalf("%d runs, %v", len(s.all()), err)
	}
	if got := strings.Count(log.String(), "cannot be read"); got != 3 {
		t.Errorf("%d files are said to be bad, want 3:\n%s", got, log.String())
	}
	if err := s.expire(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "half.json")); err != nil {
		t.Error(err)
	}
	if err := s.expire(time.Now().Add(Lifetime + time.Hour)); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
		t.Errorf("what nobody can read is kept for ever: %v, %v", files, err)
	}
}

func TestARunThatCannotBeWrittenIsNotBegun(t *testing.T) {
	data := t.TempDir()
	s, err := openStore(data, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.folder); err != nil {
		t.Fatal(err)
	}
	if err := s.begin(Run{Token: "abc"}); err == nil {
		t.Error("it was begun")
	}
	if _, ok := s.get("abc"); ok {
		t.Error("it is there")
	}
}

func TestARunThatCouldNotBeReadAgainIsNotKept(t *testing.T) {
	s, err := openStore(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.begin(Run{Token: "abc", Sender: strings.Repeat("x", maxRun)}); err == nil {
		t.Error("it was begun")
	}
}

func TestNoMoreRunsAreBegunThanAreKept(t *testing.T) {
	s := &store{runs: make(map[string]Run)}
	for i := range MaxRuns {
		token := fmt.Sprint(i)
		s.runs[token] = Run{Token: token}
	}
	if err := s.begin(Run{Token: "abc"}); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
