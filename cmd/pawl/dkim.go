package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/node"
)

type dkimCmd struct {
	Key dkimKeyCmd `cmd:"" help:"Make keys, list them, and check what is published of them."`
}

type dkimKeyCmd struct {
	New   dkimNewCmd   `cmd:"" help:"Make a key in the data folder and print the DNS record to publish."`
	List  dkimListCmd  `cmd:"" help:"List the keys with their records, and which of them sign."`
	Check dkimCheckCmd `cmd:"" help:"Ask DNS whether the records of the keys that sign are published."`
}

type dkimNewCmd struct {
	output
	Domain    string         `arg:"" help:"The domain that the key signs for."`
	Selector  string         `help:"Default: the algorithm and the date." placeholder:"NAME"`
	Algorithm dkim.Algorithm `enum:"rsa,ed25519" default:"rsa" help:"rsa, which every verifier knows, or ed25519. With a key of each a message gets both signatures."`
	Service   dkim.Service   `enum:"email,tlsrpt" default:"email" help:"email: all mail; tlsrpt: only the TLS reports that pawl sends."`
}

func (d *dkimNewCmd) Help() string {
	return "Example: pawl --config /etc/pawl.yaml dkim key new example.com --algorithm ed25519\n\n" +
		"The key signs when its record is published and the configuration names it. No server needs to run."
}

func (d *dkimNewCmd) Run(top *cli) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	if d.Selector == "" {
		d.Selector = string(d.Algorithm) + "-" + time.Now().UTC().Format("20060102")
		if d.Service == dkim.TLSRPT {
			d.Selector = "tlsrpt-" + d.Selector
		}
	}
	k, err := dkim.New(d.Domain, d.Selector, d.Service, d.Algorithm)
	if err != nil {
		return err
	}
	folder := dkim.Folder(cfg.DKIMFolder())
	if err := folder.Save(k); dkim.Exists(err) {
		return &control.Error{Text: "there is a key " + folder.Path(k) + " already", Do: "It was left as it is; choose another name with --selector."}
	} else if err != nil {
		return err
	}
	zone, err := k.Zone()
	if err != nil {
		return err
	}
	if d.JSON {
		record, err := k.Record()
		if err != nil {
			return err
		}
		return d.json(map[string]string{"file": folder.Path(k), "name": k.Name(), "record": record, "zone": zone})
	}
	say("%s", zone)
	say("")
	say("%s", faint.Render("The key is in "+folder.Path(k)+"."))
	say("%s", faint.Render("Publish the record above, then name the key in the configuration and restart pawl:"))
	say("")
	say("%s", snippet(k))
	return nil
}

// snippet is the part of a configuration that lets a key sign.
func snippet(k dkim.Key) string {
	s := fmt.Sprintf("dkim:\n  - domain: %s\n    selectors: [%s]", k.Domain, k.Selector)
	if k.Service != dkim.Email {
		s += "\n    service: " + string(k.Service)
	}
	return s
}

type dkimListCmd struct {
	output
}

func (d *dkimListCmd) Run(top *cli) error {
	return printKeys(d.output, top, node.Keys)
}

// printKeys lists keys.
func printKeys(o output, top *cli, list func(config.Config) ([]node.KeyState, error)) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	found, err := list(cfg)
	if err != nil {
		return err
	}
	if o.JSON {
		if found == nil {
			found = []node.KeyState{}
		}
		return o.json(found)
	}
	if len(found) == 0 {
		say("there are none; `pawl dkim key new DOMAIN` makes one")
	}
	for _, k := range found {
		say("%s  %s  %s", bold.Render(k.Domain), k.Selector, faint.Render(strings.TrimSpace(string(k.Algorithm)+" "+string(k.Service))))
		say("  %s", k.Text)
		if k.Do != "" {
			say("  %s", faint.Render(k.Do))
		}
		if !k.Published {
			say("%s", k.Record)
		}
	}
	return nil
}

type dkimCheckCmd struct {
	output
}

func (d *dkimCheckCmd) Help() string {
	return "Exit code 1 if a record is missing or not that of the key."
}

func (d *dkimCheckCmd) Run(ctx context.Context, top *cli) error {
	well := true
	err := printKeys(d.output, top, func(c config.Config) ([]node.KeyState, error) {
		found, err := node.CheckKeys(ctx, c, node.Wiring{})
		for _, k := range found {
			well = well && k.Published
		}
		return found, err
	})
	if err == nil && !well {
		return errBad
	}
	return err
}
