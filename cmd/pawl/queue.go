package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

type queueCmd struct {
	List    queueListCmd `cmd:"" help:"List deliveries that wait, or ended ones with --state."`
	Show    queueShowCmd `cmd:"" help:"Show one delivery with the story of its attempts."`
	Retry   queueActCmd  `cmd:"" help:"Try again now."`
	Hold    queueActCmd  `cmd:"" help:"Do not try until released."`
	Release queueActCmd  `cmd:"" help:"Try again what was held."`
	Drop    queueActCmd  `cmd:"" help:"End without delivering and without a bounce."`

	Transcript transcriptCmd `cmd:"" help:"Keep all that is said to a destination for a while."`
}

// chosen are the flags that choose deliveries.
type chosen struct {
	Domain      string `help:"Only mail for this destination." placeholder:"DOMAIN"`
	Sender      string `help:"Only mail from this address, or from a domain as @example.com." placeholder:"ADDRESS"`
	WhyContains string `help:"Only mail that waits for a reason with this text in it." placeholder:"TEXT"`
	ByPolicy    bool   `help:"Only mail that a policy makes wait."`
}

func (c chosen) filter() queue.Filter {
	return queue.Filter{Domain: strings.ToLower(c.Domain), Sender: c.Sender, Why: c.WhyContains, ByPolicy: c.ByPolicy}
}

type queueListCmd struct {
	output
	chosen
	State []queue.State `help:"Only these states: queued, held, delivered, failed, dropped." placeholder:"STATE"`
	Limit int           `help:"At most so many." default:"100"`
	After string        `help:"Continue behind this delivery." placeholder:"ID"`
}

func (q *queueListCmd) Help() string {
	return "Example: pawl queue list --by-policy --domain example.com"
}

func (q *queueListCmd) Run(ctx context.Context, top *cli) error {
	var list []queue.Delivery
	f := q.filter()
	f.States, f.Limit, f.After = q.State, q.Limit, q.After
	if err := top.call(ctx, "queue.list", f, &list); err != nil {
		return err
	}
	if q.JSON {
		if list == nil {
			list = []queue.Delivery{}
		}
		return q.json(list)
	}
	if len(list) == 0 {
		if len(f.States) > 0 || f.Domain != "" || f.Sender != "" || f.Why != "" || f.ByPolicy || f.After != "" {
			say("nothing in the queue is like that")
		} else {
			say("nothing waits")
		}
		return nil
	}
	for _, d := range list {
		say("%s  %s  %s → %s", faint.Render(d.ID), stateWords(d), sender(d), bold.Render(d.Domain))
		if d.Why != "" {
			say("    %s", d.Why)
		}
		if d.Do != "" {
			say("    %s", faint.Render(d.Do))
		}
		if d.State == queue.Queued {
			say("    %s", faint.Render("tries "+strconv.Itoa(d.Attempts)+", next "+stamp(d.Next)))
		}
	}
	if len(list) == q.Limit {
		say("%s", faint.Render("more may follow: --after "+list[len(list)-1].ID))
	}
	return nil
}

func sender(d queue.Delivery) string {
	if d.From == "" {
		return "<>"
	}
	return d.From
}

func stateWords(d queue.Delivery) string {
	switch {
	case d.State == queue.Queued && d.ByPolicy:
		return bad.Render("held by policy")
	case d.State == queue.Queued && d.Attempts > 0:
		return warn.Render("deferred")
	case d.State == queue.Held:
		return warn.Render("held by hand")
	case d.State == queue.AllDelivered:
		return good.Render("delivered")
	case d.State == queue.SomeFailed:
		return bad.Render("failed")
	default:
		return string(d.State)
	}
}

type queueShowCmd struct {
	output
	ID string `arg:"" help:"A delivery's id."`
}

func (q *queueShowCmd) Run(ctx context.Context, top *cli) error {
	var x node.Explanation
	if err := top.call(ctx, "explain", node.ExplainParams{Subject: q.ID, OnlyQueue: true}, &x); err != nil {
		return err
	}
	if q.JSON {
		return q.json(x.Deliveries)
	}
	for _, d := range x.Deliveries {
		printDelivery(d)
	}
	return nil
}

func printDelivery(d node.DeliveryStory) {
	say("%s  %s  %s → %s", faint.Render(d.ID), stateWords(d.Delivery), sender(d.Delivery), bold.Render(d.Domain))
	fact("message", "%s, %d bytes, received %s", d.Message.ID, d.Size, stamp(d.Received))
	for _, r := range d.Recipients {
		fact("to", "%s  %s  %s", r.Addr, r.State, faint.Render(r.Reply))
	}
	if d.Why != "" {
		fact("why", "%s", d.Why)
		fact("do", "%s", d.Do)
	}
	if d.Waiting() {
		fact("next", "%s, until %s", stamp(d.Next), stamp(d.Expires))
	}
	for _, s := range d.Stories {
		printStory(s)
	}
	say("")
}

func printStory(s queue.Story) {
	mark := bad.Render("✗")
	if s.OK {
		mark = good.Render("✓")
	}
	if len(s.Tries) > 0 { // each says why by itself
		say("  %s %s  %s", mark, stamp(s.At), faint.Render("took "+s.Took.Round(time.Millisecond).String()))
	} else {
		say("  %s %s  %s", mark, stamp(s.At), s.Why)
		if s.Do != "" {
			say("        %s", faint.Render(s.Do))
		}
	}
	if s.Route != "" {
		say("      %s", faint.Render("by a route: "+s.Route))
	}
	for _, t := range s.Tries {
		where := t.MX
		if t.Addr.IsValid() {
			where += " [" + t.Addr.String() + "]"
		}
		say("      %s  %s %s", bold.Render(where), t.Transport, faint.Render(strings.TrimSpace(t.Took.Round(time.Millisecond).String()+" "+t.TLS+" "+t.Cell)))
		say("        %s %s", t.Why, faint.Render(t.Section))
		if t.Do != "" {
			say("        %s", faint.Render(t.Do))
		}
		if t.WouldHold != "" {
			say("        would have been held: %s", t.WouldHold)
		}
		for _, p := range t.Policies {
			say("        %s", faint.Render("held against "+p.String()+": "+fared(p)))
		}
		if t.Certificate != "" {
			say("        %s", faint.Render("certificate: "+t.Certificate))
		}
		for _, l := range t.Lines {
			say("        %s", faint.Render(l))
		}
	}
}

// fared says what came of holding a session against a policy.
func fared(p outcome.Policy) string {
	if p.Failure == nil {
		return "satisfied"
	}
	return strings.TrimSpace(string(p.Failure.Result) + " " + p.Failure.Reason)
}

type queueActCmd struct {
	output
	chosen
	ID  []string `arg:"" optional:"" help:"Deliveries or messages by id."`
	All bool     `help:"All that wait."`
	Why string   `help:"Your reason, kept with each delivery and in the log." placeholder:"TEXT"`
}

func (q *queueActCmd) Help() string {
	return "Example: pawl queue hold --domain example.com --why 'their MX is being moved'\n\nWho did it, when and why stand in each delivery's story (`pawl queue show`) and in the log. Exit code 1 if nothing was changed."
}

// Run does the act that the command is named after.
func (q *queueActCmd) Run(ctx context.Context, top *cli, parsed *kong.Context) error {
	p := node.ActParams{Act: queue.Act(strings.Fields(parsed.Command())[1]), IDs: q.ID, Filter: q.filter(), Who: os.Getenv("SUDO_USER"), Why: q.Why}
	switch {
	case len(q.ID) > 0 && q.chosen != (chosen{}):
		return errors.New("name deliveries by id, or choose them with flags, not both")
	case len(q.ID) == 0 && q.chosen == (chosen{}) && !q.All:
		return errors.New("name deliveries by id, choose them with --domain, --sender, --why-contains or --by-policy, or say --all")
	}
	var n int
	if err := top.call(ctx, "queue.act", p, &n); err != nil {
		return err
	}
	if q.JSON {
		if err := q.json(map[string]int{"changed": n}); err != nil {
			return err
		}
	} else {
		say("%d changed", n)
	}
	if n == 0 {
		return errBad
	}
	return nil
}
