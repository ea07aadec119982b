package main

import (
	"context"
	"strings"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/postfix"
)

type serveCmd struct{}

func (s *serveCmd) Help() string {
	return "Example: pawl --config /etc/pawl.yaml serve\n\nWithout a configuration everything runs on loopback, with data in ./pawl-data. SIGTERM finishes what was accepted, then stops."
}

// Run runs the server until a signal ends it.
func (s *serveCmd) Run(ctx context.Context, top *cli) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	n, err := node.New(ctx, cfg, node.Wiring{})
	if err != nil {
		return err
	}
	printChecks(n.Checks())
	say("")
	printAddrs(cfg, n.Addrs())
	return n.Run(ctx)
}

// printAddrs says where everything is and what goes into main.cf.
func printAddrs(cfg config.Config, a node.Addrs) {
	if a.Web != "" {
		say("dashboard   %s", bold.Render("http://"+a.Web+"/"))
	}
	if len(a.Relay) > 0 {
		say("relay       hand mail to %s", bold.Render(strings.Join(a.Relay, ", ")))
	}
	if a.Postfix != "" {
		say("Postfix     in main.cf, from 3.4 on (`pawl postfix config` has the lines for your version, with reasons):")
		for _, s := range postfix.MainCF(postfix.Version{Major: 3, Minor: 9, Patch: 9}, a.Postfix) {
			say("              %s = %s", s.Key, s.Value)
		}
	}
	say("%s", faint.Render("pawl policy DOMAIN, pawl explain DOMAIN and pawl queue list ask this server; data is in "+cfg.Data))
}
