package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/policy"
)

// warmBatch is how many domains one call to the server names.
const warmBatch = 200

type policyWarmCmd struct {
	output
	File string `arg:"" help:"Domains, addresses or a mail log; - for standard input."`
}

func (w *policyWarmCmd) Help() string {
	return "Examples:\n  pawl policy warm domains.txt\n  grep 'to=<' /var/log/mail.log | pawl policy warm -"
}

func (w *policyWarmCmd) Run(ctx context.Context, top *cli) error {
	in, err := open(w.File)
	if err != nil {
		return err
	}
	defer in.Close()
	progress, bar := counter("domains")
	var total policy.Warmed
	var batch []string
	seen := map[string]bool{}
	send := func() error {
		var got policy.Warmed
		if err := top.call(ctx, "policy.warm", batch, &got); err != nil {
			return err
		}
		total.Asked += got.Asked
		total.Policies += got.Policies
		total.None += got.None
		total.Unknown += got.Unknown
		total.Bad += got.Bad
		bar.IncrBy(len(batch))
		batch = batch[:0]
		return nil
	}
	for domain, err := range policy.Domains(in) {
		if err != nil {
			return fmt.Errorf("reading %s: %w", w.File, err)
		}
		if seen[domain] {
			continue
		}
		seen[domain] = true
		if batch = append(batch, domain); len(batch) == warmBatch {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if len(batch) > 0 {
		if err := send(); err != nil {
			return err
		}
	}
	bar.SetTotal(-1, true)
	progress.Wait()
	if w.JSON {
		return w.json(total)
	}
	say("%d domains: %d with a policy, %d without, %d could not be found out, %d are no domains", total.Asked, total.Policies, total.None, total.Unknown, total.Bad)
	return nil
}

// open opens a file for reading, or standard input for "-".
func open(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(file)
}

// counter shows how many are done, on a terminal only.
func counter(of string) (*mpb.Progress, *mpb.Bar) {
	var out io.Writer = os.Stderr
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		out = nil
	}
	p := mpb.New(mpb.WithOutput(out))
	return p, p.AddSpinner(0, mpb.AppendDecorators(decor.CurrentNoUnit("%d "+of)))
}

type policyExportCmd struct {
	Key bool `help:"Print only the key by which other nodes know this installation's snapshots."`
}

func (e *policyExportCmd) Help() string {
	return "Example: pawl policy export > policies.snapshot"
}

func (e *policyExportCmd) Run(ctx context.Context, top *cli) error {
	var x node.Snapshot
	if err := top.call(ctx, "policy.export", node.ExportParams{OnlyKey: e.Key}, &x); err != nil {
		return err
	}
	if e.Key {
		say("%s", x.Key)
		return nil
	}
	if _, err := io.WriteString(os.Stdout, x.Text); err != nil {
		return fmt.Errorf("writing the snapshot: %w", err)
	}
	fmt.Fprintf(os.Stderr, "%d policies\n", x.Policies)
	return nil
}

type policyImportCmd struct {
	output
	File  string   `arg:"" help:"A snapshot; - for standard input."`
	Trust []string `help:"Key of an installation whose snapshots are believed, as its pawl policy export --key prints it." placeholder:"KEY"`
}

func (i *policyImportCmd) Help() string {
	return "Example: pawl policy import policies.snapshot --trust 3q2+7w…"
}

func (i *policyImportCmd) Run(ctx context.Context, top *cli) error {
	in, err := open(i.File)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, node.MaxSnapshot+1))
	if err != nil {
		return fmt.Errorf("reading %s: %w", i.File, err)
	}
	if len(text) > node.MaxSnapshot {
		return fmt.Errorf("%s is larger than %d MiB; split the export", i.File, node.MaxSnapshot>>20)
	}
	var got policy.Imported
	if err := top.call(ctx, "policy.import", node.ImportParams{Text: string(text), Trust: i.Trust}, &got); err != nil {
		return err
	}
	if i.JSON {
		return i.json(got)
	}
	say("%d taken, %d kept as they were, %d had expired, %d made no sense", got.Taken, got.Kept, got.Expired, got.Bad)
	return nil
}
