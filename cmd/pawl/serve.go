package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/systemd"
)

type serveCmd struct{}

func (s *serveCmd) Help() string {
	return "Example: pawl --config /etc/pawl.yaml serve\n\nWithout a configuration everything runs on loopback, with data in ./pawl-data. SIGTERM finishes what was accepted, then stops. SIGHUP reads the configuration again, as `pawl reload` does."
}

// Run runs the server until a signal ends it.
func (s *serveCmd) Run(ctx context.Context, top *cli) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	wiring := node.Wiring{Notify: notify, GiveBack: true, Runs: lab.NewRuns(cfg.Data)}
	if top.Config != "" {
		wiring.Load = top.settings
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(node.GCPercent)
	}
	n, err := node.New(ctx, cfg, wiring)
	if err != nil {
		return err
	}
	printChecks(n.Checks())
	say("")
	printAddrs(cfg, n.Addrs())
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				// The log says what came of it.
				_, _ = n.Reload(ctx)
			}
		}
	}()
	return n.Run(ctx)
}

// notify tells the service manager, if there is one.
func notify(said string) {
	if err := systemd.Notify(said); err != nil {
		fmt.Fprintln(os.Stderr, "pawl: "+err.Error())
	}
}

// printAddrs says where everything is and what goes into main.cf.
func printAddrs(cfg config.Config, a node.Addrs) {
	if a.Web != "" {
		say("dashboard   %s", bold.Render("http://"+a.Web+"/"))
	}
	if len(a.Relay) > 0 {
		say("relay       hand mail to %s", bold.Render(strings.Join(a.Relay, ", ")))
	}
	if len(a.Submissions) > 0 {
		say("            with TLS from the first byte on %s", bold.Render(strings.Join(a.Submissions, ", ")))
	}
	if a.Postfix != "" {
		say("Postfix     in main.cf, from 3.4 on (`pawl postfix config` has the lines for your version, with reasons):")
		for _, s := range postfix.MainCF(postfix.Version{Major: 3, Minor: 9, Patch: 9}, a.Postfix) {
			say("              %s = %s", s.Key, s.Value)
		}
	}
	say("%s", faint.Render("pawl policy DOMAIN, pawl explain DOMAIN and pawl queue list ask this server; data is in "+cfg.Data))
}
