package db_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary run one of children instead of the tests, so
// that a test can watch, break or kill a process that writes.
const childEnv = "PAWL_DB_CHILD"

var children = map[string]func(dir string) error{
	"writes in order": writesInOrder,
	"writes on call":  writesOnCall,
	"writes for ever": writesForEver,
	"write panics":    writePanics,
}

func TestMain(m *testing.M) {
	name := os.Getenv(childEnv)
	if name == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := children[name](os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is a command that runs one of children on a data folder, behind a prefix
// such as strace.
func child(t *testing.T, name, dir string, prefix ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := slices.Concat(prefix, []string{self, dir})
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd
}
