package web

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// shelf is a Runs with one run, or an error.
type shelf struct {
	run LabRun
	err error
}

func (s shelf) LastRun() (LabRun, error) { return s.run, s.err }

func (s shelf) WriteLastRun(w io.Writer) error {
	if s.err != nil {
		return s.err
	}
	_, err := io.WriteString(w, "<!doctype html><style>b{}</style><p>the run's page")
	return err
}

// with asks a page that also knows of the lab's runs.
func with(t *testing.T, runs Runs, path string) answer {
	t.Helper()
	o := new(fake).options()
	o.Runs = runs
	return ask(t, New(o), httptest.NewRequest(http.MethodGet, path, nil))
}

func TestTheFrontPageSaysWhatTheLabCameTo(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		runs Runs
		says string
	}{
		"nothing is known of it": {nil, ""},
		"it was not run":         {shelf{err: ErrNotFound}, "It was not run here yet. pawl lab takes a few seconds."},
		"all went as it must":    {shelf{run: LabRun{Sender: "pawl's relay", At: at, Cells: 297}}, "297 as expected pawl's relay"},
		"some did not":           {shelf{run: LabRun{Sender: "Exim", At: at, Cells: 1200, Wrong: 3}}, "3 of 1,200 wrong Exim"},
		"it cannot be read":      {shelf{err: errors.New("the lab's last report: no such octets")}, "unreadable the lab's last report: no such octets"},
	} {
		t.Run(name, func(t *testing.T) {
			got := with(t, c.runs, "/").is(http.StatusOK).text()
			if c.says == "" {
				if strings.Contains(got, "The lab") {
					t.Errorf("it speaks of the lab: %s", got)
				}
				return
			}
			if !strings.Contains(got, c.says) {
				t.Errorf("it does not say %q: %s", c.says, got)
			}
		})
	}
}

func TestTheLastRunHasAPageThatRunsNoScript(t *testing.T) {
	a := with(t, shelf{run: LabRun{Cells: 1}}, "/lab/run").is(http.StatusOK)
	if !strings.Contains(a.body, "the run's page") {
		t.Errorf("got %s", a.body)
	}
	if csp := a.header.Get("Content-Security-Policy"); strings.Contains(csp, "script-src") || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("its Content-Security-Policy is %q", csp)
	}
	with(t, shelf{err: ErrNotFound}, "/lab/run").is(http.StatusNotFound)
	with(t, shelf{err: errors.New("broken")}, "/lab/run").is(http.StatusServiceUnavailable)
	with(t, nil, "/lab/run").is(http.StatusNotFound)
}
