package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/postfix"
)

type postfixCmd struct {
	Config postfixConfigCmd `cmd:"" help:"Print what main.cf needs, with the reason for each line."`
	Check  postfixCheckCmd  `cmd:"" help:"Read Postfix's configuration and say what is missing, or weakens it."`
}

// postfixVersion is the version of Postfix that a command is about.
type postfixVersion struct {
	Version string `help:"Version of Postfix, as 3.7.11; without it the one that is installed here." placeholder:"VERSION"`
}

// get parses the version, or asks postconf for it.
func (p postfixVersion) get(ctx context.Context) (postfix.Version, error) {
	text := p.Version
	if text == "" {
		out, err := postconf(ctx, "-h", "mail_version")
		if err != nil {
			return postfix.Version{}, fmt.Errorf("%w; name the version with --version", err)
		}
		text = strings.TrimSpace(string(out))
	}
	return postfix.ParseVersion(text)
}

func postconf(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "postconf", args...).Output()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		return nil, fmt.Errorf("postconf %s: %s", strings.Join(args, " "), bytes.TrimSpace(failed.Stderr))
	case err != nil:
		return nil, fmt.Errorf("running postconf: %w", err)
	}
	return out, nil
}

// mapAddr is where Postfix finds the TLS policy map.
func mapAddr(top *cli) (string, error) {
	cfg, err := top.settings()
	if err != nil {
		return "", err
	}
	if cfg.Postfix.Listen == config.Off {
		return "", errors.New("postfix.listen is off in the configuration: there is no TLS policy map to ask")
	}
	return cfg.Postfix.Listen, nil
}

// tlsrptSocket is where Postfix tells its outcomes, or off.
func tlsrptSocket(top *cli) (string, error) {
	cfg, err := top.settings()
	return cfg.TLSRPTSocket(), err
}

type postfixConfigCmd struct {
	output
	postfixVersion
}

func (p *postfixConfigCmd) Help() string {
	return "Examples:\n  pawl postfix config\n  pawl postfix config --version 3.10.5"
}

func (p *postfixConfigCmd) Run(ctx context.Context, top *cli) error {
	v, err := p.get(ctx)
	if err != nil {
		return err
	}
	addr, err := mapAddr(top)
	if err != nil {
		return err
	}
	settings := postfix.MainCF(v, addr)
	if socket, err := tlsrptSocket(top); err != nil {
		return err
	} else if socket != config.Off {
		settings = append(settings, postfix.TLSRPT(v, socket)...)
	}
	if p.JSON {
		return p.json(settings)
	}
	fmt.Print(postfix.Text(settings))
	return nil
}

type postfixCheckCmd struct {
	output
	postfixVersion
	Dir string `help:"Folder of main.cf and master.cf, if it is not the usual one." type:"path" placeholder:"DIR"`
}

func (p *postfixCheckCmd) Help() string {
	return "Example: pawl postfix check\n\nExit code 1 if something is missing or weakens what pawl answers."
}

func (p *postfixCheckCmd) Run(ctx context.Context, top *cli) error {
	v, err := p.get(ctx)
	if err != nil {
		return err
	}
	addr, err := mapAddr(top)
	if err != nil {
		return err
	}
	var dir []string
	if p.Dir != "" {
		dir = []string{"-c", p.Dir}
	}
	main, err := readPostconf(ctx, append(dir, "-x")...)
	if err != nil {
		return err
	}
	master, err := readPostconf(ctx, append(dir, "-Px")...)
	if err != nil {
		return err
	}
	findings := postfix.Check(v, main, master, addr)
	bad := false
	for _, f := range findings {
		bad = bad || f.Level >= postfix.Weak
	}
	if p.JSON {
		if err := p.json(findings); err != nil {
			return err
		}
	} else {
		printFindings(findings)
	}
	if bad {
		return errBad
	}
	return nil
}

func readPostconf(ctx context.Context, args ...string) (map[string]string, error) {
	out, err := postconf(ctx, args...)
	if err != nil {
		return nil, err
	}
	return postfix.ReadPostconf(bytes.NewReader(out))
}

func printFindings(findings []postfix.Finding) {
	marks := map[postfix.Level]string{
		postfix.Good: good.Render("✓"), postfix.Note: faint.Render("·"), postfix.Weak: warn.Render("!"), postfix.Wrong: bad.Render("✗"),
	}
	for _, f := range findings {
		say("%s %s: %s", marks[f.Level], f.Key, f.Text)
		if f.Do != "" {
			say("  %s", faint.Render(f.Do))
		}
	}
}
