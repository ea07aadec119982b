package main

import (
	"context"
	"os"

	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/web"
)

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Check the configuration's values and what the node stands on: roots, clock, data folder, resolver, DNSSEC."`
	Show  configShowCmd  `cmd:"" help:"Print the configuration that is in force, with every default."`
}

type configCheckCmd struct {
	output
}

func (c *configCheckCmd) Help() string {
	return "Example: pawl --config /etc/pawl.yaml config check\n\nExit code 1 if a check fails, 2 if the file cannot be used."
}

func (c *configCheckCmd) Run(ctx context.Context, top *cli) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	checks := node.Check(ctx, cfg, node.Wiring{})
	failed := false
	for _, ck := range checks {
		failed = failed || !ck.OK
	}
	if c.JSON {
		if err := c.json(checks); err != nil {
			return err
		}
	} else {
		printChecks(checks)
	}
	if failed {
		return errBad
	}
	return nil
}

func printChecks(checks []web.Check) {
	for _, ck := range checks {
		mark := good.Render("✓")
		if !ck.OK {
			mark = bad.Render("✗")
		}
		say("%s %-14s %s", mark, ck.Name, ck.Text)
		if ck.Do != "" {
			say("  %-14s %s", "", faint.Render(ck.Do))
		}
	}
}

type configShowCmd struct {
	output
}

func (c *configShowCmd) Help() string {
	return "Example: pawl config show > pawl.yaml    writes a file to start from."
}

func (c *configShowCmd) Run(top *cli) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	if c.JSON {
		return c.json(cfg)
	}
	text, err := cfg.Text()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}
