package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// maxEvents caps the events that are read of one domain.
const maxEvents = 200

// leak says how a message that arrived could have been read on its way by
// somebody other than its destination; empty if it could not. TLS proves whom it
// leads to if the certificate is trusted for the host's name or, where the host
// has TLSA records, if the key is its own.
func leak(d testnet.Delivery, dane bool) string {
	switch {
	case d.ByAttacker && d.Clear():
		return "the attacker took it as " + d.Host + ", in clear"
	case d.ByAttacker:
		return "the attacker took it as " + d.Host + ", over " + tls.VersionName(d.TLS.Version)
	case d.Clear():
		return d.Host + " got it in clear"
	case d.TLS.Version < tls.VersionTLS12:
		return d.Host + " got it over " + tls.VersionName(d.TLS.Version)
	case !d.Trusted && !(dane && d.TrueKey):
		return d.Host + " got it over " + tls.VersionName(d.TLS.Version) + " with a certificate that does not prove who it is"
	}
	return ""
}

// took says how a host got a message safely.
func took(d testnet.Delivery) string {
	how := "with a trusted certificate for its name"
	if !d.Trusted {
		how = "with the key of its TLSA records"
	}
	return d.Host + " got it over " + tls.VersionName(d.TLS.Version) + " " + how
}

// observe says in the cell what became of the message so far.
func (t *trial) observe() {
	state := t.state()
	first := t.cell.Observed == ""
	if first {
		t.cell.Observed = state
	} else if state != t.cell.Observed {
		t.cell.Became = state
	}
	t.evidence(state)
}

// evidence adds what shows the state, once.
func (t *trial) evidence(state Outcome) {
	var says string
	switch state {
	case Leaked:
		says = t.Leak()
	case Delivered:
		says = t.Took()
	case Held, Bounced:
		tries := t.w.tries.at(t.letter.to)
		last := tries[len(tries)-1].Result
		says = "it waits: " + last.Why
		if state == Bounced {
			t.cell.Status = Status(t.Bounces())
			says = "it went back to its sender with " + t.cell.Status + ": " + last.Why
		}
	default:
		says = "the relay says that it was delivered, and no host has it"
	}
	if !slices.Contains(t.cell.evidence, says) {
		t.cell.evidence = append(t.cell.evidence, says)
	}
	t.cell.Evidence = strings.Join(t.cell.evidence, "; then ")
}

// Status is the enhanced status code of a delivery status notification.
func Status(bounces []testnet.Delivery) string {
	code := regexp.MustCompile(`(?m)^Status: (\d\.\d+\.\d+)`)
	for _, d := range bounces {
		if m := code.FindSubmatch(d.Data); m != nil {
			return string(m[1])
		}
	}
	return "no status"
}

// noteAll notes trials once what the relay has counted so far is in its database.
func (w *world) noteAll(ctx context.Context, trials []*trial) error {
	if err := w.node.Ledger().Flush(ctx); err != nil {
		return err
	}
	// The ledger's own flush may be on its way: what comes after it is behind it.
	if err := w.commit(ctx); err != nil {
		return err
	}
	for _, t := range trials {
		if err := t.note(ctx); err != nil {
			return err
		}
	}
	return nil
}

// note takes down what TLS-RPT was told of the domain so far, and the story of
// the attempts.
func (t *trial) note(ctx context.Context) error {
	domain := queue.Domain(t.letter.to)
	counts, err := t.w.node.Ledger().Since(ctx, db.DefaultOrg, domain, time.Time{})
	if err != nil {
		return err
	}
	t.cell.Results = []outcome.ResultType{}
	for _, c := range counts {
		if c.Result != "" && !slices.Contains(t.cell.Results, c.Result) {
			t.cell.Results = append(t.cell.Results, c.Result)
		}
	}
	slices.Sort(t.cell.Results)
	t.story()
	return nil
}

// noteEvents takes down what the operator was told of the domain so far.
func (t *trial) noteEvents(ctx context.Context) error {
	events, err := t.w.node.Events().Recent(ctx, db.DefaultOrg, t.Domain.Name, maxEvents)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(events) {
		if !slices.ContainsFunc(t.cell.Events, func(s Said) bool { return s.Kind == e.Kind }) {
			t.cell.Events = append(t.cell.Events, Said{e.Kind, e.At, e.Text})
		}
	}
	return nil
}

// untold are the events that the operator is yet to be told of.
func (t *trial) untold() []event.Kind {
	return slices.DeleteFunc(slices.Clone(t.Want.Events), func(kind event.Kind) bool {
		return slices.ContainsFunc(t.cell.Events, func(s Said) bool { return s.Kind == kind })
	})
}

// Said is something that the operator was told.
type Said struct {
	Kind event.Kind `json:"kind"`
	At   time.Time  `json:"at"`
	Text string     `json:"text"`
}

// story takes down the decision of the last attempt, and what was said on the
// wire since the attack began.
func (t *trial) story() {
	tries := t.w.tries.at(t.letter.to)
	if len(tries) > 0 {
		last := tries[len(tries)-1].Result.Story
		for _, try := range last.Tries {
			t.cell.Decision = append(t.cell.Decision, Decision{
				MX: try.MX, Cell: try.Cell, Demand: try.Demand, Section: try.Section, Why: try.Why, Certificate: try.Certificate,
			})
		}
		if len(last.Tries) == 0 && last.Destination != nil {
			t.cell.Decision = append(t.cell.Decision, Decision{Cell: last.Destination.STS.Cell, Why: last.Why})
		}
	}
	t.cell.Transcript = t.Exchanges()
}

// judge holds what was seen against what must be.
func (t *trial) judge(table *Table) {
	c, want := &t.cell, t.Want
	wrong := func(format string, args ...any) { c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...)) }
	if c.Observed != want.Expect {
		wrong("expected %s, and it was %s", want.Expect, c.Observed)
	} else if c.Became != want.Then {
		wrong("expected %s in the end, and it was %s", orNothing(want.Then), orNothing(c.Became))
	}
	if lasted := t.lasted(); want.Then != "" && c.Became == want.Then && lasted < want.Until.Std() {
		wrong("expected %s for %s, and it was for %s", want.Expect, want.Until.Std(), lasted)
	}
	results := slices.Sorted(slices.Values(want.Results))
	if !slices.Equal(results, c.Results) {
		wrong("expected TLS-RPT to be told %s, and it was told %s", words(results), words(c.Results))
	}
	if want.Status != "" && c.Status != want.Status {
		wrong("expected the status %s, and it was %s", want.Status, c.Status)
	}
	for _, kind := range t.untold() {
		wrong("expected the operator to be told of %s", kind)
	}
	if t.state() == Bounced && !t.told() {
		wrong("expected its sender to be told that it bounced, and nothing came")
	}
	if tries := t.w.tries.at(t.letter.to); want.AskedAgain && (len(tries) == 0 || tries[len(tries)-1].Asked == 0) {
		wrong("expected DNS to be asked afresh before it bounced")
	}
	if t.Releases() && c.Released != Delivered {
		wrong("expected it to leave safely once the attack was over, and it was %s", orNothing(c.Released))
	}
	if c.Observed == Leaked || c.Became == Leaked {
		c.Closes = table.Closes("", t.Column, want)
	}
	c.OK = len(c.Wrong) == 0
}

// lasted is how long the message was in its first state.
func (t *trial) lasted() time.Duration {
	tries := t.w.tries.at(t.letter.to)
	for _, a := range tries {
		if a.State != tries[0].State {
			return a.At.Sub(tries[0].At)
		}
	}
	return 0
}

func orNothing(o Outcome) string {
	if o == "" {
		return "nothing"
	}
	return string(o)
}

func words[T ~string](list []T) string {
	if len(list) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for i, w := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}
