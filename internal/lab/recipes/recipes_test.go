package recipes

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/lab/mta"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

// lanes is how many recipes are tried at a time: each has a network of its own,
// and mostly waits.
const lanes = "5"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", lanes); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// cook starts a recipe's server on a small Internet of its own, runs rows of the
// table on it, and fails where a cell ends otherwise than the table says of it.
func cook(t *testing.T, name string, wait time.Duration, rows ...string) {
	t.Helper()
	t.Parallel()
	r, err := Named(name)
	if err != nil {
		t.Fatal(err)
	}
	var root string
	if err := r.Installed(); err != nil {
		out, failed := exec.CommandContext(t.Context(), "../../../scripts/unpack.sh", r.Package).Output()
		if failed != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err, failed)
			}
			t.Skip(err, failed)
		}
		root = strings.TrimSpace(string(out))
	}
	netns.Run(t, mta.Network(), func() {
		field := mta.Start(t)
		running, err := r.Start(t.Context(), Site{Root: root, CAFile: field.CAFile, Roots: field.Net.Roots(), Log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		defer running.Stop()
		o := running.Options
		o.Only, o.Wait = rows, wait
		report, err := field.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Cells) == 0 {
			t.Error("no cell was run")
		}
		for _, c := range report.Wrong() {
			t.Errorf("%s: %s\nevidence: %s", c.Label(), strings.Join(c.Wrong, "\n"), c.Evidence)
		}
		t.Logf("%d cells in %s", len(report.Cells), report.Took)
	})
}

// few are the rows of a normal run.
func few() []string { return []string{"1", "3", "5", "8", "11a"} }

const (
	fewWait  = time.Minute // ends sooner, when everything has come to rest
	soakWait = 3 * time.Minute
)

func TestPawlsRelayFromOutsideEndsAsTheTableSays(t *testing.T) {
	cook(t, "pawl", fewWait, "1", "5", "11a")
}

func TestPostfixAloneEndsAsTheTableSaysOfIt(t *testing.T) {
	cook(t, "postfix", fewWait, few()...)
}

func TestPostfixWithPawlsMapEndsAsTheTableSaysOfIt(t *testing.T) {
	cook(t, "postfix-pawl", fewWait, append(few(), "7", "24")...)
}

func TestPostfixWithPostfixMTASTSResolverEndsAsTheTableSaysOfIt(t *testing.T) {
	cook(t, "postfix-mta-sts-resolver", fewWait, append(few(), "41")...)
}

func TestEximEndsAsTheTableSaysOfIt(t *testing.T) { cook(t, "exim", fewWait, few()...) }

func TestChasquidEndsAsTheTableSaysOfIt(t *testing.T) { cook(t, "chasquid", fewWait, few()...) }

func TestOpenSMTPDEndsAsTheTableSaysOfIt(t *testing.T) { cook(t, "opensmtpd", fewWait, few()...) }

func soak(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("PAWL_SOAK is not set")
	}
	cook(t, name, soakWait)
}

func TestSoakPawlsRelayFromOutside(t *testing.T) { soak(t, "pawl") }
func TestSoakPostfixAlone(t *testing.T)          { soak(t, "postfix") }
func TestSoakPostfixWithPawlsMap(t *testing.T)   { soak(t, "postfix-pawl") }
func TestSoakEximFromOutside(t *testing.T)       { soak(t, "exim") }
func TestSoakChasquidFromOutside(t *testing.T)   { soak(t, "chasquid") }
func TestSoakOpenSMTPDFromOutside(t *testing.T)  { soak(t, "opensmtpd") }

func TestSoakPostfixWithPostfixMTASTSResolver(t *testing.T) { soak(t, "postfix-mta-sts-resolver") }

func TestEveryRecipesExpectationsAreInTheTable(t *testing.T) {
	table, err := lab.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range All() {
		if r.As != "" && !slices.Contains(table.SenderNames(), r.As) {
			t.Errorf("%s is expected to be as %q, which the table does not have", r.Name, r.As)
		}
	}
}

func TestARecipeThatThereIsNotIsNamed(t *testing.T) {
	_, err := Named("sendmail")
	var e *control.Error
	if !errors.As(err, &e) || e.Text != "there is no recipe sendmail" || !strings.Contains(e.Do, "postfix-pawl") {
		t.Errorf("got %v", err)
	}
}
