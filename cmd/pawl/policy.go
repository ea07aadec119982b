package main

import (
	"context"
	"strings"

	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/verify"
)

type policyCmd struct {
	Show     policyShowCmd   `cmd:"" default:"withargs" help:"Which policy holds for a domain (the default)."`
	Warm     policyWarmCmd   `cmd:"" help:"Look at domains before there is mail for them."`
	Export   policyExportCmd `cmd:"" help:"Write a signed snapshot of the cached policies, to seed another node."`
	Import   policyImportCmd `cmd:"" help:"Take policies out of a snapshot; what is cached is never weakened."`
	Override overrideCmd     `cmd:"" help:"The operator's own word for a destination."`
}

type policyShowCmd struct {
	output
	Domain  string `arg:"" help:"Domain of the recipients, or of a smart host."`
	Refresh bool   `help:"Ask DNS and the policy host afresh."`
}

func (p *policyShowCmd) Help() string {
	return "Example: pawl policy example.com"
}

func (p *policyShowCmd) Run(ctx context.Context, top *cli) error {
	x, err := explain(ctx, top, p.Domain, p.Refresh)
	if err != nil {
		return err
	}
	if p.JSON {
		return p.json(x)
	}
	say("%s", bold.Render(x.Domain))
	say("  %s", x.Summary)
	printPolicy(x)
	return nil
}

// explain asks the running server; the policy is found the same way that mail
// would find it.
func explain(ctx context.Context, top *cli, domain string, refresh bool) (policy.Explanation, error) {
	var x policy.Explanation
	err := top.call(ctx, "policy", node.PolicyParams{Domain: domain, Refresh: refresh}, &x)
	return x, err
}

func printPolicy(x policy.Explanation) {
	d := x.Destination
	fact("source", "%s", sourceWords(x))
	if sts := d.STS; sts.Found {
		fact("MTA-STS", "%s, id %s", sts.Policy.Mode, sts.ID)
		fact("MX", "%s", strings.Join(sts.Policy.MX, ", "))
		fact("fetched", "%s", stamp(sts.Fetched))
		fact("until", "%s", stamp(sts.Expires))
	}
	fact("override", "%s", d.Override)
	if d.Observe {
		fact("observe", "%s", warn.Render("only observed: decided and recorded, not enforced"))
	}
	if d.Hold != nil {
		fact("held", "%s", bad.Render(d.Hold.Why))
		fact("", "%s", d.Hold.Do)
	}
	if x.Postfix != nil {
		told := postfixWords(x.Postfix.Kind)
		if len(x.Postfix.Match) > 0 {
			told += " match=" + strings.Join(x.Postfix.Match, ":")
		}
		fact("Postfix", "%s  %s", told, faint.Render(x.Postfix.Cell))
		fact("", "%s", x.Postfix.Reason)
	}
}

// sourceWords says where what is demanded comes from.
func sourceWords(x policy.Explanation) string {
	dane := 0
	for _, h := range x.Hosts {
		dane += len(h.TLSA)
	}
	switch x.Destination.Source {
	case verify.FromSTS:
		if dane > 0 {
			return "DANE and MTA-STS"
		}
		return "MTA-STS"
	case verify.FromDANE:
		return "DANE"
	case verify.FromOverride:
		return "the operator's override"
	default:
		return "nothing is demanded"
	}
}

// postfixWords is an answer as Postfix sees it.
func postfixWords(kind verify.AnswerKind) string {
	switch kind {
	case verify.AnswerNotFound:
		return "NOTFOUND: what main.cf says holds"
	case verify.AnswerTemp:
		return "TEMP: the mail waits"
	default:
		return kind.String()
	}
}

type explainCmd struct {
	output
	Subject string `arg:"" help:"A domain, a delivery's id, or the message id that the relay answered with."`
}

func (e *explainCmd) Help() string {
	return "Examples:\n  pawl explain example.com\n  pawl explain 0198c2c4-7c1e-7a7e-9d8e-3f0c2f1f2a11"
}

func (e *explainCmd) Run(ctx context.Context, top *cli) error {
	var x node.Explanation
	if err := top.call(ctx, "explain", node.ExplainParams{Subject: e.Subject}, &x); err != nil {
		return err
	}
	if e.JSON {
		return e.json(x)
	}
	for _, m := range x.Deliveries {
		printDelivery(m)
	}
	if x.Policy == nil {
		return nil
	}
	if x.Route != "" {
		say("%s goes by a route: %s", bold.Render(e.Subject), x.Route)
		say("")
	}
	say("%s", bold.Render(x.Policy.Domain))
	say("  %s", x.Policy.Summary)
	printPolicy(*x.Policy)
	say("")
	say("%s", bold.Render("How the decision was made"))
	printSteps(x.Policy.Destination.Steps)
	for _, h := range x.Policy.Hosts {
		printHost(h)
	}
	return nil
}

func printHost(h policy.HostExplanation) {
	say("")
	say("%s  preference %d  %s", bold.Render(h.Name), h.Preference, faint.Render(h.Cell))
	fact("must show", "%s", demandWords(h))
	if h.Unreachable != "" {
		fact("not used", "%s", bad.Render(h.Unreachable))
	}
	if h.Observed != "" {
		fact("observed", "%s", warn.Render(h.Observed))
	}
	var addrs []string
	for _, a := range h.Addrs {
		addrs = append(addrs, a.String())
	}
	fact("addresses", "%s", strings.Join(addrs, ", "))
	for _, record := range h.TLSA {
		fact("TLSA", "%s", record)
	}
	printSteps(h.Steps)
}

func demandWords(h policy.HostExplanation) string {
	switch h.Level {
	case verify.Opportunistic.String():
		return "nothing: TLS if it offers it"
	case verify.Encrypted.String():
		return "TLS"
	default:
		return "TLS with an identity that was proven"
	}
}
