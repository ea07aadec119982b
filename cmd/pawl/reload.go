package main

import (
	"context"
	"strings"

	"github.com/pawl-mail/pawl/internal/node"
)

type reloadCmd struct {
	output
}

func (r *reloadCmd) Help() string {
	return "Example: pawl --config /etc/pawl/pawl.yaml reload\n\nWhat can change while the server runs changes at once; what cannot is named. A file that cannot be used changes nothing. SIGHUP does the same, and the log says what came of it. Exit code 1 if something needs a restart."
}

func (r *reloadCmd) Run(ctx context.Context, top *cli) error {
	var done node.Reloaded
	if err := top.call(ctx, "reload", struct{}{}, &done); err != nil {
		return err
	}
	switch {
	case r.JSON:
		if err := r.json(done); err != nil {
			return err
		}
	case len(done.Changed)+len(done.Restart) == 0:
		say("nothing has changed")
	default:
		if len(done.Changed) > 0 {
			say("in force: %s", strings.Join(done.Changed, ", "))
		}
		for _, key := range done.Restart {
			say("%s", warn.Render(key+" needs a restart"))
		}
	}
	if len(done.Restart) > 0 {
		return errBad
	}
	return nil
}
