package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/pawl-mail/pawl/internal/lab"
)

type labCmd struct {
	output
	Only   []string     `help:"Only these attacks, by number: 1,5,11a." placeholder:"N,…"`
	Column []lab.Column `help:"Only these columns: none, testing, enforce-first, enforce-cached, dane, requiretls." placeholder:"C,…"`
	Seed   uint64       `help:"Repeat a run." placeholder:"N"`
	HTML   string       `help:"Write a page with each cell's transcript, too." type:"path" placeholder:"FILE"`
}

func (l *labCmd) Help() string {
	return "Examples:\n  pawl lab\n  pawl lab --only 1,5,11a --column enforce-cached --json\n\nIt needs no network, no privilege and no running server.\n\nExit code 1 if a cell ended otherwise than it must."
}

// Run runs the lab and prints what became of the mail.
func (l *labCmd) Run(ctx context.Context) error {
	bar := newProgress()
	report, err := lab.Run(ctx, lab.Options{Only: l.Only, Columns: l.Column, Seed: l.Seed, Progress: bar.set})
	bar.done()
	if err != nil {
		return err
	}
	if l.HTML != "" {
		if err := writeFile(l.HTML, report.HTML); err != nil {
			return err
		}
	}
	if l.JSON {
		err = l.json(report)
	} else {
		err = report.Print(os.Stdout)
	}
	if err != nil {
		return err
	}
	if len(report.Wrong()) > 0 {
		return errBad
	}
	return nil
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
