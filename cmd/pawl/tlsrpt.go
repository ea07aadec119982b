package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/node"
)

type tlsrptCmd struct {
	Status   tlsrptStatusCmd   `cmd:"" help:"What went out, to whom, with what answer; what waits; who is left alone."`
	Preview  tlsrptPreviewCmd  `cmd:"" help:"Print the report about a domain as it would be built now, and where it would go."`
	Send     tlsrptSendCmd     `cmd:"" help:"Send the reports that wait now, not within the window. What is done stays done."`
	Suppress tlsrptSuppressCmd `cmd:"" help:"Send no reports to a destination, or none about a domain; or take that back."`
}

type tlsrptStatusCmd struct {
	output
	Domain string       `arg:"" optional:"" help:"Only of this recipient domain."`
	Day    string       `help:"Only of this UTC day, as 2026-01-31." placeholder:"DAY"`
	State  ledger.State `help:"Only those that are waiting, sending, sent, failed or skipped." placeholder:"STATE"`
	Limit  int          `default:"20" help:"How many reports are listed."`
}

func (c *tlsrptStatusCmd) Help() string {
	return "Example: pawl tlsrpt status --state failed\n\nExit code 1 says that nothing is sent."
}

func (c *tlsrptStatusCmd) Run(ctx context.Context, top *cli) error {
	var st node.TLSRPTStatus
	q := ledger.ReportQuery{Day: c.Day, Domain: c.Domain, State: c.State, Limit: c.Limit}
	if err := top.call(ctx, "tlsrpt.status", q, &st); err != nil {
		return err
	}
	var result error
	if st.Trouble != "" {
		result = errBad
	}
	if c.JSON {
		if err := c.json(st); err != nil {
			return err
		}
		return result
	}
	if st.Trouble != "" {
		say("%s", bad.Render(st.Trouble))
	} else {
		say("reports go out in the name of %s <%s>", st.Identity.Organization, st.Identity.Contact)
	}
	if st.Lost > 0 {
		say("%s", warn.Render(fmt.Sprintf("%d outcomes were not counted: the database took none for too long", st.Lost)))
	}
	for _, d := range st.Days {
		line := ""
		for _, s := range []ledger.State{ledger.Sent, ledger.Sending, ledger.Waiting, ledger.Failed, ledger.Skipped} {
			if n := d.Reports[s]; n > 0 {
				line += fmt.Sprintf("  %d %s", n, s)
			}
		}
		say("%s%s", bold.Render(d.Day), line)
	}
	for _, r := range st.Reports {
		printReport(r)
	}
	for _, s := range st.Suppressions {
		until := "until it is taken back"
		if !s.Until.IsZero() {
			until = "until " + stamp(s.Until)
		}
		say("%s %s: no reports %s: %s", warn.Render("suppressed"), s.Subject, until, s.Why)
	}
	return result
}

func printReport(r ledger.ReportStatus) {
	mark := faint
	switch r.State {
	case ledger.Sent:
		mark = good
	case ledger.Failed:
		mark = bad
	case ledger.Waiting, ledger.Sending, ledger.Skipped:
	}
	say("%s %s %s", r.Day, bold.Render(r.Domain), mark.Render(string(r.State)))
	fact("why", "%s", r.Why)
	fact("next", "%s", stamp(r.Next))
	for _, d := range r.Deliveries {
		fact("to", "%s: %s after %d tries %s: %s", d.RUA, d.State, d.Attempts, stamp(d.Tried), d.Answer)
	}
}

type tlsrptPreviewCmd struct {
	output
	Domain string `arg:"" help:"The recipient domain."`
	Day    string `help:"UTC day, as 2026-01-31; today if nothing is said." placeholder:"DAY"`
}

func (c *tlsrptPreviewCmd) Help() string {
	return "Example: pawl tlsrpt preview example.com --day 2026-01-31\n\nExit code 1 says that no report would be sent."
}

func (c *tlsrptPreviewCmd) Run(ctx context.Context, top *cli) error {
	var p ledger.Preview
	if err := top.call(ctx, "tlsrpt.preview", node.TLSRPTParams{Domain: c.Domain, Day: c.Day}, &p); err != nil {
		return err
	}
	var result error
	if p.Why != "" {
		result = errBad
	}
	if c.JSON {
		if err := c.json(p); err != nil {
			return err
		}
		return result
	}
	if len(p.Report) > 0 {
		var b bytes.Buffer
		if err := json.Indent(&b, p.Report, "", "  "); err != nil {
			return fmt.Errorf("printing the report: %w", err)
		}
		say("%s", b.String())
	}
	for _, d := range p.Destinations {
		say("to %s", d.URI)
	}
	if p.Unverified > 0 {
		say("%s", warn.Render(fmt.Sprintf("%d sessions are left out: Postfix called them successes and verified none", p.Unverified)))
	}
	if p.Why != "" {
		say("%s", bad.Render("nothing would be sent: "+p.Why))
	}
	return result
}

type tlsrptSendCmd struct {
	output
	Domain string `arg:"" optional:"" help:"Only the reports about this domain."`
	Day    string `help:"Only those of this UTC day." placeholder:"DAY"`
}

func (c *tlsrptSendCmd) Help() string { return "Example: pawl tlsrpt send example.com" }

func (c *tlsrptSendCmd) Run(ctx context.Context, top *cli) error {
	var due int64
	if err := top.call(ctx, "tlsrpt.send", node.TLSRPTParams{Domain: c.Domain, Day: c.Day}, &due); err != nil {
		return err
	}
	if c.JSON {
		return c.json(map[string]int64{"due": due})
	}
	say("%d reports are sent now; `pawl tlsrpt status` shows what becomes of them", due)
	return nil
}

type tlsrptSuppressCmd struct {
	Subject string          `arg:"" help:"A destination as it stands in the record (mailto:… or https:…), or a recipient domain."`
	For     config.Duration `help:"How long; until it is taken back if nothing is said." placeholder:"30d"`
	Reason  string          `help:"Why; shown with it."`
	Remove  bool            `help:"Take it back."`
}

func (c *tlsrptSuppressCmd) Help() string {
	return "Example: pawl tlsrpt suppress example.com --reason 'they asked for it'\n\npawl tlsrpt status lists what is suppressed. A destination that refuses three reports in a row is left alone for 30 days by itself."
}

func (c *tlsrptSuppressCmd) Run(ctx context.Context, top *cli) error {
	var changed bool
	p := node.SuppressParams{Subject: c.Subject, For: c.For.Std(), Why: c.Reason, Resume: c.Remove}
	if err := top.call(ctx, "tlsrpt.suppress", p, &changed); err != nil {
		return err
	}
	switch {
	case c.Remove && !changed:
		return fmt.Errorf("%s was not suppressed", c.Subject)
	case c.Remove:
		say("reports go to or about %s again", c.Subject)
	default:
		say("no reports go to or about %s", c.Subject)
	}
	return nil
}
