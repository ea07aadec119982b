package db_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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

// What strace says of a call: "17 fsync(5</a/pawl.db-wal>) = 0" or, when another
// thread's call comes between, "17 fsync(5</a/pawl.db-wal> <unfinished ...>" and
// later "17 <... fsync resumed>) = 0".
var (
	walWritten = regexp.MustCompile(`^\d+ +(?:write|pwrite64|writev|pwritev)\(\d+<[^>]*pawl\.db-wal>`)
	walSynced  = regexp.MustCompile(`^(\d+) +f(?:data)?sync\(\d+<[^>]*pawl\.db-wal>(\) += 0$)?`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. f(?:data)?sync resumed>\) += 0$`)
	said       = regexp.MustCompile(`^\d+ +write\(1<[^>]*>, "(\d) acknowledged`)
)

func TestWriteReturnsOnlyAfterTheWriteAheadLogIsSynced(t *testing.T) {
	out := filepath.Join(t.TempDir(), "trace")
	cmd := child(t, "writes in order", t.TempDir(), tracer(t),
		"-f", "-y", "-s", "64", "-o", out, "-e", "trace=write,pwrite64,writev,pwritev,fsync,fdatasync")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	trace := string(b)
	unsynced, written := false, false
	syncing := map[string]bool{} // by thread
	acknowledged := 0
	for line := range strings.Lines(trace) {
		line = strings.TrimRight(line, "\n")
		switch {
		case walWritten.MatchString(line):
			unsynced, written = true, true
		case walSynced.MatchString(line):
			m := walSynced.FindStringSubmatch(line)
			if m[2] != "" {
				unsynced = false
			} else {
				syncing[m[1]] = true
			}
		case resumed.MatchString(line):
			if pid := resumed.FindStringSubmatch(line)[1]; syncing[pid] {
				unsynced = false
				delete(syncing, pid)
			}
		case said.MatchString(line):
			if !written {
				t.Errorf("acknowledged without a write to the log: %s", line)
			}
			if unsynced {
				t.Errorf("acknowledged before the log was synced: %s", line)
			}
			written = false
			acknowledged++
		}
	}
	if acknowledged != ordered {
		t.Errorf("the trace has %d acknowledgements, want %d:\n%s", acknowledged, ordered, trace)
	}
}

// While the disk fails no write is acknowledged; when it works again the next one
// is, without a restart.
func TestFailureOfTheDiskIsToldAndOutlived(t *testing.T) {
	tests := []struct {
		name, inject, want string
	}{
		{"the log cannot be synced", "fdatasync:error=EIO", "unknown"},
		{"the log cannot be written", "pwrite64:error=EIO", "io"},
		{"the disk is full", "pwrite64:error=ENOSPC", "full"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, path := t.TempDir(), tracer(t)
			cmd := child(t, "writes on call", dir)
			write, end := converse(t, cmd)
			if got := write("before"); got != "acknowledged" {
				t.Errorf("before the fault: %s", got)
			}
			mend := breakCalls(t, path, cmd.Process.Pid, filepath.Join(dir, "pawl.db-wal"), tt.inject)
			for range 2 {
				if got := write("during"); got != tt.want {
					t.Errorf("during the fault: %s, want %s", got, tt.want)
				}
			}
			mend()
			if got := write("later"); got != "acknowledged" {
				t.Errorf("after the fault: %s", got)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
			wantKeys(t, dbtest.Open(t, db.Options{DataDir: dir}), "before", "later")
		})
	}
}

func TestEverythingAcknowledgedIsThereAfterAKill(t *testing.T) {
	const rounds, each = 3, 300
	o := db.Options{DataDir: t.TempDir()}
	for range rounds {
		acknowledged := killed(t, o.DataDir, each)
		d, err := db.OpenReadOnly(t.Context(), o) // before a server has repaired anything
		if err != nil {
			t.Fatal(err)
		}
		there := keys(t, d.Read())
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		for _, id := range acknowledged {
			if _, ok := slices.BinarySearch(there, id); !ok {
				t.Errorf("row %s was acknowledged and is not there", id)
			}
		}
		t.Logf("%d acknowledged, %d rows", len(acknowledged), len(there))
	}
}

// killed runs the child that writes for ever, kills it when it has acknowledged n
// rows, and gives all that it has.
func killed(t *testing.T, dir string, n int) []string {
	t.Helper()
	cmd := child(t, "writes for ever", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what is left without its newline was not said in full
		}
		ids = append(ids, strings.TrimSpace(line))
		if len(ids) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if len(ids) < n {
		t.Fatalf("the child ended after %d rows", len(ids))
	}
	return ids
}

func TestPanicInAWriteFunctionEndsTheProcessAndAcknowledgesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "write panics", dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil {
		t.Error("the process did not fail")
	}
	if !strings.Contains(stderr.String(), "panic: a bug") || !strings.Contains(stderr.String(), "writePanics") {
		t.Errorf("standard error does not name the panic and its place:\n%s", &stderr)
	}
	if stdout.Len() > 0 {
		t.Errorf("the process said %q, want no acknowledgement", &stdout)
	}
	wantKeys(t, dbtest.Open(t, db.Options{DataDir: dir}))
}

// converse starts a child that writes on call. write hands it a key and gives its
// answer; end closes its input and waits for it.
func converse(t *testing.T, cmd *exec.Cmd) (write func(key string) string, end func() error) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	write = func(key string) string {
		t.Helper()
		if _, err := io.WriteString(in, key+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal("the child ended: ", err)
		}
		return strings.TrimSpace(answer)
	}
	return write, func() error {
		in.Close()
		return cmd.Wait()
	}
}

// breakCalls makes system calls of a process on one file fail, as strace's inject
// says, until mend.
func breakCalls(t *testing.T, strace string, pid int, file, inject string) (mend func()) {
	t.Helper()
	call, _, _ := strings.Cut(inject, ":")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-p", strconv.Itoa(pid), "-P", file,
		"-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+inject)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal("strace ended before it was attached: ", err)
		}
		if strings.Contains(line, " attached") {
			break
		}
	}
	return func() {
		t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait() // it ends by the signal
	}
}
