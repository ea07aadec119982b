package netns

import (
	"context"
	"flag"
	"io"
	"os"
	"strings"
	"time"
)

// TB is what [Run] needs of a testing.T.
type TB interface {
	Helper()
	Name() string
	Context() context.Context
	Deadline() (time.Time, bool)
	Output() io.Writer
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// spare is how much sooner than the test binary the one inside must end, so that
// what it has to say about a timeout is heard.
const spare = 5 * time.Second

// Run runs body in a network of its own: the test, which must be one of the top
// level, is started again in namespaces, and body runs there. Its output becomes
// the test's. Where there can be no namespaces the test is skipped, or fails if
// the environment says CI=true.
func Run(t TB, o Options, body func()) {
	t.Helper()
	if Inside() {
		if err := Setup(t.Context(), o); err != nil {
			t.Fatalf("set the network up: %v", err)
		}
		body()
		return
	}
	if err := Supported(t.Context()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("a network of its own is needed: %v", err)
		}
		t.Skipf("a network of its own is needed: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("find the test binary: %v", err)
	}
	args := []string{"-test.run=" + pattern(t.Name()), "-test.v=true", "-test.count=1"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+(time.Until(end)-spare).String())
	}
	cmd := Command(t.Context(), self, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Run(); err != nil {
		t.Errorf("inside the namespace: %v", err)
	}
}

// pattern selects the test of that name, and of its subtests those that -run
// selects here.
func pattern(name string) string {
	p := "^" + name + "$"
	if f := flag.Lookup("test.run"); f != nil {
		if _, sub, ok := strings.Cut(f.Value.String(), "/"); ok {
			p += "/" + sub
		}
	}
	return p
}
