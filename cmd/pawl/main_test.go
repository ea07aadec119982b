package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pawl": main})
}

// TestCommands runs the command line as a user does; each script says what is
// printed, where, and with which exit code.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PAWL_CONFIG", "")
			env.Setenv("NO_COLOR", "1")
			return os.MkdirAll(env.WorkDir+"/readonly", 0o500)
		},
	})
}
