package main

import (
	"os"
	"testing"
	"time"

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
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "interrupt": interrupt},
	})
}

// await waits for a file that a program in the background makes.
func await(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not come", args[0])
		}
	}
}

// interrupt is Ctrl-C for a program in the background.
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.BackgroundCmds()[0].Process.Signal(os.Interrupt))
}
