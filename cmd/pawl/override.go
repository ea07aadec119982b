package main

import (
	"context"
	"fmt"
	"os/user"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/policy"
)

type overrideCmd struct {
	Add    overrideAddCmd    `cmd:"" help:"Put an override in force."`
	List   overrideListCmd   `cmd:"" help:"List the overrides in force."`
	Remove overrideRemoveCmd `cmd:"" help:"End an override."`
}

type overrideAddCmd struct {
	Domain string              `arg:"" help:"The destination."`
	Kind   policy.OverrideKind `required:"" enum:"none,encrypt,secure,observe" help:"none: opportunistic TLS; encrypt: TLS without authentication; secure: TLS with a trusted certificate of the hosts in --match; observe: decide and record, stop nothing."`
	Match  []string            `help:"MX patterns of a secure override, as mx.example.com or *.example.com." placeholder:"PATTERN"`
	Reason string              `required:"" help:"Why; shown wherever the override is."`
	For    config.Duration     `default:"7d" help:"How long it holds."`
}

func (o *overrideAddCmd) Help() string {
	return "Example: pawl policy override add partner.example --kind secure --match mx.partner.example --reason 'agreed by phone, ticket 4711' --for 30d"
}

func (o *overrideAddCmd) Run(ctx context.Context, top *cli) error {
	who := "the operator"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	var added policy.Override
	err := top.call(ctx, "override.add", policy.Override{
		Domain: o.Domain, Kind: o.Kind, Match: o.Match, Reason: o.Reason, Author: who, Expires: time.Now().Add(o.For.Std()),
	}, &added)
	if err != nil {
		return err
	}
	printOverride(added)
	return nil
}

type overrideListCmd struct {
	output
}

func (o *overrideListCmd) Run(ctx context.Context, top *cli) error {
	all := []policy.Override{}
	if err := top.call(ctx, "override.list", struct{}{}, &all); err != nil {
		return err
	}
	if o.JSON {
		return o.json(all)
	}
	if len(all) == 0 {
		say("there are none")
	}
	for _, v := range all {
		printOverride(v)
	}
	return nil
}

func printOverride(o policy.Override) {
	say("%s  %s", bold.Render(o.Domain), o.String())
	if o.Weakens != "" {
		say("    %s", warn.Render("weakens: "+o.Weakens))
	}
}

type overrideRemoveCmd struct {
	Domain string `arg:"" help:"The destination."`
}

func (o *overrideRemoveCmd) Run(ctx context.Context, top *cli) error {
	var had bool
	if err := top.call(ctx, "override.remove", o.Domain, &had); err != nil {
		return err
	}
	if !had {
		return fmt.Errorf("there is no override for %s", o.Domain)
	}
	say("the override for %s has ended", o.Domain)
	return nil
}
