package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/lab"
)

type demoCmd struct {
	Every time.Duration `help:"How often a message is sent." default:"2.5s"`
}

func (d *demoCmd) Help() string {
	return "Example: pawl demo\n\nThe server is that of `pawl serve`, wired to a small Internet on loopback: it needs no network, and no mail leaves the machine. Its data is in ./pawl-demo."
}

// Run runs the demo until a signal ends it.
func (d *demoCmd) Run(ctx context.Context, top *cli) error {
	cfg := lab.DemoConfig()
	if top.Config != "" {
		given, err := top.settings()
		if err != nil {
			return err
		}
		cfg.Data, cfg.Postfix, cfg.Relay.Listen, cfg.Web = given.Data, given.Postfix, given.Relay.Listen, given.Web
	}
	demo, err := lab.NewDemo(ctx, lab.DemoOptions{Config: cfg, Every: d.Every})
	if err != nil {
		return err
	}
	printDemo(demo)
	return demo.Run(ctx)
}

// printDemo says where everything is and what to try.
func printDemo(demo *lab.Demo) {
	a := demo.Addrs()
	say("%s", bold.Render("pawl, on a small Internet of its own: mail flows, and nothing leaves this machine."))
	say("")
	if a.Web != "" {
		say("  dashboard   %s   see the mail flow, switch the attack on and off", bold.Render("http://"+a.Web+"/"))
	}
	say("  relay       %s", bold.Render(strings.Join(a.Relay, ", ")))
	for i, x := range demo.Domains() {
		name := "domains"
		if i > 0 {
			name = ""
		}
		say("  %-10s  %s  %s", name, bold.Render(fmt.Sprintf("%-12s", x.Domain)), faint.Render(x.Kind))
	}
	say("")
	say("Try, in another terminal:")
	if len(a.Relay) > 0 {
		say("  swaks --to user@enforce.test --server %s", a.Relay[0])
	}
	say("  pawl explain enforce.test     how mail to it goes, step by step")
	say("  pawl queue list               what waits, and why")
	say("")
	say("%s", faint.Render("`pawl serve` is the same server without the lab. Control-C ends the demo."))
}
