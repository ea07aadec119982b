package queue_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

// tracer finds strace.
func tracer(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		dbtest.Lacking(t, "strace", err)
	}
	if out, err := exec.CommandContext(t.Context(), path, "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		dbtest.Lacking(t, "strace that may trace", fmt.Errorf("%w: %s", err, out))
	}
	return path
}

// steps are the calls that matter, by what strace says of them. A call that
// another thread's interrupts is on two lines; it counts when it ends, and those
// that are begun and not ended when a message is acknowledged are missed then.
var steps = []struct {
	name string
	line *regexp.Regexp
}{
	{"file synced", regexp.MustCompile(`fsync\(\d+<[^>]*/spool/incoming-[^>]*>\) += 0$`)},
	{"file named", regexp.MustCompile(`linkat\(.*/spool/incoming-.*\.msg".*\) += 0$`)},
	{"folder synced", regexp.MustCompile(`fsync\(\d+<[^>]*/spool>\) += 0$`)},
	{"log synced", regexp.MustCompile(`fdatasync\(\d+<[^>]*pawl\.db-wal>\) += 0$`)},
	{"acknowledged", regexp.MustCompile(`write\(1<[^>]*>, "accepted `)},
}

// joined puts calls that strace has on two lines on one.
func joined(trace string) []string {
	begun := map[string]string{} // by thread
	var lines []string
	for line := range strings.Lines(trace) {
		thread, call, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		call = strings.TrimLeft(call, " ")
		if head, unfinished := strings.CutSuffix(call, " <unfinished ...>"); unfinished {
			begun[thread] = head
			continue
		}
		if _, tail, resumed := strings.Cut(call, " resumed>"); resumed && strings.HasPrefix(call, "<... ") {
			call = begun[thread] + tail
		}
		lines = append(lines, call)
	}
	return lines
}

func TestALargeMessageIsAcknowledgedAfterItsFileAndFolderAndTheDatabaseAreSynced(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	const messages = 11 // the first and the last are large
	cmd := child(t, []string{
		tracer(t), "-f", "-y", "-s", "64", "-o", out, "-e", "trace=write,fsync,fdatasync,linkat",
	}, "accepts", dir, "", fmt.Sprint(messages), "1")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, line := range joined(string(b)) {
		for _, s := range steps {
			if s.line.MatchString(line) {
				said = append(said, s.name)
			}
		}
	}
	got := strings.Join(said, ", ")
	// What the database syncs when it is opened and closed is not looked at.
	got = regexp.MustCompile(`(log synced, )+`).ReplaceAllString(got+", ", "log synced, ")
	large := "file synced, file named, folder synced, log synced, acknowledged, "
	want := large + strings.Repeat("log synced, acknowledged, ", messages-2) + large
	if got = strings.TrimPrefix(got, "log synced, "); !strings.HasPrefix(got, want) {
		t.Errorf("the order is\n%s\nwant\n%s", got, want)
	}
}

func TestALargeMessageThatCannotBeSyncedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, inject string
		folder       bool // only calls on the spool folder itself
	}{
		{name: "the file cannot be synced", inject: "fsync:error=EIO:when=1"},
		{name: "the file cannot be named", inject: "linkat:error=ENOSPC"},
		// Not fsync:when=2: strace counts by thread, and the runtime may move between the two.
		{name: "the folder cannot be synced", inject: "fsync:error=EIO", folder: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			spool := filepath.Join(dir, "spool")
			if err := os.Mkdir(spool, 0o700); err != nil {
				t.Fatal(err)
			}
			// The database is made beforehand, so that only the spool syncs with fsync.
			if err := dbtest.Open(t, db.Options{DataDir: dir}).Close(); err != nil {
				t.Fatal(err)
			}
			strace := []string{tracer(t), "-f", "-o", os.DevNull, "-e", "trace=fsync,linkat", "-e", "inject=" + c.inject}
			if c.folder {
				strace = append(strace, "-P", spool)
			}
			cmd := child(t, strace, "accepts", dir, "", "1", "1")
			cmd.Stderr = nil
			said, err := cmd.Output()
			if err == nil || strings.Contains(string(said), "accepted") {
				t.Errorf("the child said %q (%v), want an error", said, err)
			}
			if files, err := os.ReadDir(spool); err != nil || len(files) != 0 {
				t.Errorf("the spool holds %d files (%v), want none", len(files), err)
			}
			if went := empty(t, dir, ""); len(went) != 0 {
				t.Errorf("%d messages are in the queue, want none", len(went))
			}
		})
	}
}
