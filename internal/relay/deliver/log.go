package deliver

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp"
)

// maxNamed is how many recipients an attempt's line names.
const maxNamed = 5

// log writes the attempt's line. Its keys stay the same from one version to the
// next: people search for them.
func (a *attempt) log(ctx context.Context) {
	if !a.d.opts.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	t := a.telling
	if t == nil {
		t = &queue.Try{Transport: outcome.NotSent}
	}
	addr := ""
	if t.Addr.IsValid() {
		addr = t.Addr.String()
	}
	policy, result := judged(t.Policies)
	attrs := []slog.Attr{
		slog.String("message", a.Message.ID), slog.String("delivery", a.ID), slog.String("from", a.From), slog.String("to", a.to()),
		slog.String("domain", a.Domain), slog.String("route", a.result.Story.Route), slog.String("mx", t.MX), slog.String("addr", addr),
		slog.String("transport", string(t.Transport)), slog.String("tls", t.TLS), slog.String("policy", policy),
		slog.String("result", result), slog.String("cell", t.Cell), slog.Bool("by_policy", a.result.ByPolicy),
		slog.Bool("reused", t.Reused), slog.String("reply", a.said), slog.Int("attempt", a.Attempts+1), slog.Int("left", len(a.open)),
		slog.Duration("delay", a.began.Sub(a.Received).Round(time.Millisecond)), slog.Duration("took", a.result.Story.Took),
		slog.String("why", a.result.Story.Why),
	}
	what := "not delivered"
	if a.result.Story.OK {
		what = "delivered"
	}
	a.d.opts.Log.LogAttrs(ctx, slog.LevelInfo, "relay: "+what, attrs...)
}

// to names the recipients of an attempt, the first few of many.
func (a *attempt) to() string {
	var list []string
	for _, i := range a.Pending()[:min(len(a.Pending()), maxNamed)] {
		list = append(list, a.Recipients[i].Addr)
	}
	return strings.Join(list, " ")
}

// judged is the policies of a try, as "sts:example.com tlsa:mx.example.com", and
// the result type (RFC 8460 §4.3) of the first that was not satisfied.
func judged(policies []outcome.Policy) (policy, result string) {
	var list []string
	for _, p := range policies {
		list = append(list, string(p.Type)+":"+p.Domain)
		if p.Failure != nil && result == "" {
			result = string(p.Failure.Result)
		}
	}
	return strings.Join(list, " "), result
}

// redact leaves no mailbox in a story. What the policies say has none.
func redact(s *queue.Story) {
	s.Why, s.Do = smtp.Redact(s.Why), smtp.Redact(s.Do)
	for i := range s.Tries {
		t := &s.Tries[i]
		t.Why, t.Do, t.WouldHold = smtp.Redact(t.Why), smtp.Redact(t.Do), smtp.Redact(t.WouldHold)
		for n, line := range t.Lines {
			t.Lines[n] = smtp.Redact(line)
		}
	}
}
