package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"io/fs"
	"os"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/verify"
)

// output is what every printing command has.
type output struct {
	JSON bool `help:"Print JSON."`
}

// json prints v as JSON, indented for people who look at it all the same.
func (output) json(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// Styles; lipgloss leaves colours out where the output is no terminal.
var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = lipgloss.NewStyle().Foreground(color.RGBA{0x2e, 0xa0, 0x57, 0xff})
	bad   = lipgloss.NewStyle().Foreground(color.RGBA{0xe0, 0x4b, 0x4b, 0xff})
	warn  = lipgloss.NewStyle().Foreground(color.RGBA{0xd0, 0x8a, 0x1d, 0xff})
)

// say prints a line to standard output.
func say(format string, args ...any) { lipgloss.Printf(format+"\n", args...) }

// fact prints a named value, aligned with its neighbours.
func fact(name, format string, args ...any) {
	if value := fmt.Sprintf(format, args...); value != "" {
		say("  %s %s", faint.Render(fmt.Sprintf("%-12s", name)), value)
	}
}

// printSteps prints the reasoning behind a decision.
func printSteps(steps []verify.Step) {
	for _, s := range steps {
		mark := "·"
		if s.Authentic {
			mark = "✓"
		}
		say("  %s %s", mark, bold.Render(s.Asked))
		say("    %s", s.Answer)
		var notes []string
		if s.Note != "" {
			notes = append(notes, s.Note)
		}
		if s.Cell != "" {
			notes = append(notes, faint.Render(s.Cell))
		}
		if len(notes) > 0 {
			say("    %s", strings.Join(notes, " "))
		}
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// settings are the configuration that the command line named, or the defaults.
func (c *cli) settings() (config.Config, error) {
	if c.Config == "" {
		return config.Default(), nil
	}
	return config.Load(c.Config)
}

// demoData is where `pawl demo` keeps its data.
const demoData = "pawl-demo"

// call asks the running server: that of the configuration or, where none is
// named and none runs, the demo.
func (c *cli) call(ctx context.Context, method string, params, result any) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	err = control.NewClient(cfg.ControlSocket()).Call(ctx, method, params, result)
	if c.Config != "" || !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	cfg.Data = demoData
	if _, statErr := os.Stat(cfg.ControlSocket()); errors.Is(statErr, fs.ErrNotExist) {
		return err
	}
	demoErr := control.NewClient(cfg.ControlSocket()).Call(ctx, method, params, result)
	if errors.Is(demoErr, control.ErrNotRunning) {
		return err
	}
	return demoErr
}
