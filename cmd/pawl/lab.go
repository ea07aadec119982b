package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/pawl-mail/pawl/internal/lab"
)

// labCmd is the lab for pawl's own relay, and its sub-commands for others.
type labCmd struct {
	Relay labRelayCmd `cmd:"" default:"withargs" help:"Run the attacks on pawl's own relay."`
	Serve labServeCmd `cmd:"" help:"Run them on any other mail server, in a network namespace."`
	Host  labHostCmd  `cmd:"" help:"Put good and broken receivers on a domain of your own, so that any sender can be tested by mailing it."`
}

// labChoice is which cells are run.
type labChoice struct {
	Only   []string     `help:"Only these attacks, by number: 1,5,11a." placeholder:"N,…"`
	Column []lab.Column `help:"Only these columns: none, testing, enforce-first, enforce-cached, dane, requiretls." placeholder:"C,…"`
	HTML   string       `help:"Write a page with each cell's transcript, too." type:"path" placeholder:"FILE"`
}

type labRelayCmd struct {
	output
	labChoice
	Seed uint64 `help:"Repeat a run." placeholder:"N"`
}

func (l *labRelayCmd) Help() string {
	return "Examples:\n  pawl lab\n  pawl lab --only 1,5,11a --column enforce-cached --json\n\nIt needs no network, no privilege and no running server.\n\nExit code 1 if a cell ended otherwise than it must."
}

// Run runs the lab and prints what became of the mail.
func (l *labRelayCmd) Run(ctx context.Context, top *cli) error {
	bar := newProgress()
	report, err := lab.Run(ctx, lab.Options{Only: l.Only, Columns: l.Column, Seed: l.Seed, Progress: bar.set})
	bar.done()
	if err != nil {
		return err
	}
	if err := top.keep(report); err != nil {
		return err
	}
	return l.show(report, l.output)
}

// keep puts the report where the dashboard of the server here finds it, if there
// is one.
func (c *cli) keep(report lab.Report) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	err = report.Keep(cfg.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// show prints a report, and writes its page where one is wanted.
func (l labChoice) show(report lab.Report, out output) error {
	if l.HTML != "" {
		if err := writeFile(l.HTML, report.HTML); err != nil {
			return err
		}
	}
	var err error
	if out.JSON {
		err = out.json(report)
	} else {
		err = report.Print(os.Stdout)
	}
	if err == nil && len(report.Wrong()) > 0 {
		err = errBad
	}
	return err
}

// progress is a bar on a terminal, and nothing in a pipe.
type progress struct {
	bars *mpb.Progress
	bar  *mpb.Bar
}

func newProgress() *progress {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return &progress{}
	}
	return &progress{bars: mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(60))}
}

func (p *progress) set(done, all int) {
	if p.bars == nil {
		return
	}
	if p.bar == nil {
		p.bar = p.bars.AddBar(int64(all), mpb.BarRemoveOnComplete(), mpb.AppendDecorators(decor.CountersNoUnit("%d of %d cells")))
	}
	p.bar.SetCurrent(int64(done))
}

func (p *progress) done() {
	if p.bars == nil {
		return
	}
	if p.bar != nil {
		p.bar.Abort(true)
	}
	p.bars.Wait()
}

// writeFile writes a file whole.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return f.Close()
}
