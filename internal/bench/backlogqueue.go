package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
)

const (
	queueRounds = 9
	queueTarget = 200 * time.Millisecond
	pawlBinary  = "bin/pawl" // `make build` puts it there
)

// benchQueue measures how long people wait for the queue's list and figures when
// a million messages wait: the command from its start to its end, and the
// figures of the dashboard's front page.
func benchQueue(ctx context.Context, out *report) (err error) {
	w, err := startWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	n, err := w.fillQueue(ctx, "full", zoneHole)
	if err != nil {
		return err
	}
	pawl, err := w.startNode(ctx, "full")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pawl.stop()) }()
	folder := filepath.Join(w.folder, "full")
	file := filepath.Join(folder, "pawl.yaml")
	text, err := relayConfig(folder, w.dns).Text()
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	for _, q := range []struct {
		name string
		args []string
	}{
		{"list", []string{"queue", "list"}},
		{"domain", []string{"queue", "list", "--domain", "d00042." + zoneHole}},
		{"held", []string{"queue", "list", "--state", "held"}},
		{"policy", []string{"queue", "list", "--by-policy"}},
		{"version", []string{"version"}}, // what any command takes
	} {
		err := timed(out, fmt.Sprintf("queue/%d/%s", n, q.name), func() error {
			if said, err := exec.CommandContext(ctx, pawlBinary, append([]string{"--config", file}, q.args...)...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", pawlBinary, err, said)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return timed(out, fmt.Sprintf("queue/%d/counts", n), func() error {
		var overview any
		return control.NewClient(pawl.control).Call(ctx, "status", struct{}{}, &overview)
	})
}

// timed measures the median and the worst of some calls.
func timed(out *report, name string, do func() error) error {
	var all []float64
	worst := 0.0
	for range queueRounds {
		begin := time.Now()
		if err := do(); err != nil {
			return err
		}
		ms := float64(time.Since(begin).Microseconds()) / 1e3
		all, worst = append(all, ms), max(worst, ms)
	}
	out.figure(name, median(all), "ms", median(all)/float64(queueTarget.Milliseconds()), fmt.Sprintf("%d ms; the slowest of %d took %.0f", queueTarget.Milliseconds(), queueRounds, worst))
	return nil
}
