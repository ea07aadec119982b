package main

import (
	"context"
	"errors"
	"time"

	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/deliver"
)

type transcriptCmd struct {
	output
	Domain string        `arg:"" optional:"" help:"The destination."`
	For    time.Duration `help:"How long, at most 168h." default:"1h" placeholder:"TIME"`
	Off    bool          `help:"End it now."`
}

func (t *transcriptCmd) Help() string {
	return "Example: pawl queue transcript example.com --for 1h\n\nFor so long everything that is said to the destination's hosts, but for credentials and the messages themselves, stands in the stories of its attempts (`pawl explain ID`), not only what led to a failure. It goes with the stories after relay.history, holds on this node, and ends with a restart. Without a domain the destinations in transcript mode are listed."
}

func (t *transcriptCmd) Run(ctx context.Context, top *cli) error {
	p := node.TranscriptParams{Domain: t.Domain, For: t.For}
	switch {
	case t.Off && t.Domain == "":
		return errors.New("name the destination whose transcripts are to end")
	case t.Off:
		p.For = 0
	case t.For <= 0:
		return errors.New("--for takes a time as 30m or 2h; --off ends it")
	}
	var list []deliver.Recording
	if err := top.call(ctx, "queue.transcript", p, &list); err != nil {
		return err
	}
	if t.JSON {
		return t.json(list)
	}
	if len(list) == 0 {
		say("no destination is in transcript mode")
	}
	for _, r := range list {
		say("%s  until %s", bold.Render(r.Domain), stamp(r.Until))
	}
	return nil
}
