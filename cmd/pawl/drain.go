package main

import (
	"context"

	"github.com/pawl-mail/pawl/internal/node"
)

type drainCmd struct {
	output
	Wait bool `help:"Return when nothing is under way any longer."`
}

func (d *drainCmd) Help() string {
	return "Example: pawl drain --wait && systemctl restart pawl\n\nNo new mail is taken (421), no delivery is begun, and what is under way is finished. The queue keeps what waits: on PostgreSQL the other nodes deliver it. Postfix is answered as before. `pawl resume`, or a restart, ends it."
}

func (d *drainCmd) Run(ctx context.Context, top *cli) error {
	return printDrain(ctx, top, d.output, "drain", node.DrainParams{Wait: d.Wait})
}

type resumeCmd struct {
	output
}

func (r *resumeCmd) Help() string {
	return "Example: pawl resume\n\nMail is taken and delivered again after `pawl drain`."
}

func (r *resumeCmd) Run(ctx context.Context, top *cli) error {
	return printDrain(ctx, top, r.output, "resume", struct{}{})
}

func printDrain(ctx context.Context, top *cli, out output, method string, params any) error {
	var state node.Draining
	if err := top.call(ctx, method, params, &state); err != nil {
		return err
	}
	if out.JSON {
		return out.json(state)
	}
	switch {
	case !state.Draining:
		say("mail is taken and delivered")
	case state.Receiving+state.Delivering > 0:
		say("draining: no new mail is taken; under way are %d messages being handed in and %d deliveries", state.Receiving, state.Delivering)
	default:
		say("drained: nothing is under way, and what waits in the queue stays there")
	}
	return nil
}
