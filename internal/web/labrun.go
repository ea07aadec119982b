package web

import (
	"bytes"
	"errors"
	"net/http"
)

// runSecurity is for the lab's page, which carries its style with it.
const runSecurity = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// labRun shows the page of the lab's last run.
func (s *server) labRun(w http.ResponseWriter, r *http.Request) {
	var page bytes.Buffer
	err := s.Runs.WriteLastRun(&page)
	switch {
	case errors.Is(err, ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "The lab was not run here yet", "`pawl lab` runs every known downgrade attack on this relay's code, in a few seconds.")
	case err != nil:
		s.failed(w, r, err)
	default:
		w.Header().Set("Content-Security-Policy", runSecurity)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = page.WriteTo(w) // a failure is the reader having gone
	}
}

// lastRun is what the front page shows of the lab: nil where there is nothing to
// show it from.
type lastRun struct {
	LabRun
	None bool   // not yet
	Err  string // it cannot be read
}

func (s *server) lastRun() *lastRun {
	if s.Runs == nil {
		return nil
	}
	run, err := s.Runs.LastRun()
	switch {
	case errors.Is(err, ErrNotFound):
		return &lastRun{None: true}
	case err != nil:
		return &lastRun{Err: err.Error()}
	default:
		return &lastRun{LabRun: run}
	}
}
