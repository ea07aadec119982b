package mta

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/testnet"
)

const (
	// DefaultWait is how long mail may take to leave: a few retries of a server
	// that was told to be quick.
	DefaultWait = 2 * time.Minute
	// recordTTL is of the domains' records: what a server or its policy daemon
	// caches of DNS is old when the attack begins.
	recordTTL = 2 * time.Second
	// DefaultSettle is how long after the honest mail the attacks begin.
	DefaultSettle = recordTTL + time.Second
	// quietTries is after how many sessions that did not deliver a message counts
	// as held: some servers try otherwise the second time.
	quietTries = 3
	// quietLookups is the same where no session begins: each attempt looks the MX
	// up, and a policy daemon beside the server may do so too.
	quietLookups = 12
	// DefaultRetryEvery is how often a server is made to try its queue again.
	DefaultRetryEvery = 6 * time.Second
)

// Options say what is run.
type Options struct {
	Addr    string       // where the server under test takes mail, in the namespace
	Login   Login        // as whom it takes mail; none: from anyone on 127.0.0.1
	As      string       // key of Senders in the table: whose cells are expected; "": what every sender should do
	Only    []string     // numbers of rows; none: all
	Columns []lab.Column // none: all
	Wait    time.Duration
	// Settle is the time between the honest mail and the attacks: for how long the server
	// uses a connection or an answer of DNS again, whatever its TTL. 0: DefaultSettle.
	Settle time.Duration
	// Retry, if not nil, makes the server try again at once what waits in its queue: for
	// one that cannot be told to do so every few seconds. It may stop taking mail meanwhile.
	Retry func(context.Context) error
	// RetryEvery is how often; an attempt should have ended by then. 0: DefaultRetryEvery.
	RetryEvery time.Duration
	// Progress is told what is being done, and for how long at the most.
	Progress func(what string)
}

// Run runs the table on a server and returns the report.
func (f *Field) Run(ctx context.Context, o Options) (lab.Report, error) {
	began := time.Now()
	table, err := lab.Load()
	if err != nil {
		return lab.Report{}, err
	}
	r := &runner{Options: o, f: f, table: table, sender: "the server at " + o.Addr}
	if o.As != "" {
		known, ok := table.Senders[o.As]
		if !ok {
			return lab.Report{}, &control.Error{Text: "the table has no expectations for " + o.As, Do: "It has them for " + strings.Join(table.SenderNames(), ", ") + "."}
		}
		r.sender = known.Says
	}
	if r.Wait <= 0 {
		r.Wait = DefaultWait
	}
	if r.RetryEvery <= 0 {
		r.RetryEvery = DefaultRetryEvery
	}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	rows, columns, err := table.Choose(o.Only, o.Columns)
	if err != nil {
		return lab.Report{}, err
	}
	if err := r.cast(ctx, rows, columns); err != nil {
		return lab.Report{}, err
	}
	for _, phase := range []func(context.Context) error{r.prime, r.attack, r.watch, r.release} {
		if err := phase(ctx); err != nil {
			return lab.Report{}, err
		}
	}
	var cells []lab.Cell
	for _, t := range r.trials {
		cells = append(cells, t.judge(table, r.As))
	}
	return lab.NewReport(table, r.sender, began, cells, r.omitted), f.Net.Err()
}

// runner is one run.
type runner struct {
	Options
	f       *Field
	table   *lab.Table
	sender  string
	trials  []*trial
	omitted []lab.Omission
}

// trial is one cell being run.
type trial struct {
	*lab.Scene
	lookups int // of the domain's MX before the message was sent
	cell    lab.Cell
}

// await waits until done, for Options.Wait at the most, through the server's retries.
func (r *runner) await(ctx context.Context, done func() bool) error {
	if r.Retry == nil {
		return r.f.await(ctx, r.Wait, done)
	}
	for end := time.Now().Add(r.Wait); !done() && time.Now().Before(end); {
		if err := r.f.await(ctx, min(r.RetryEvery, time.Until(end)), done); err != nil {
			return err
		}
		if done() {
			break
		}
		if err := r.Retry(ctx); err != nil {
			return fmt.Errorf("making the server try its queue again: %w", err)
		}
	}
	return Ready(ctx, r.Addr, patience)
}

// cast makes the scenes of all cells that the server can be tried on.
func (r *runner) cast(ctx context.Context, rows []lab.Attack, columns []lab.Column) error {
	c, reply, err := call(ctx, r.Addr)
	if err != nil {
		return err
	}
	_, _ = c.Say("QUIT")
	c.Close()
	without := slices.Clone(r.table.Senders[r.As].Without)
	if !offers(reply, "REQUIRETLS") && !slices.Contains(without, lab.RequireTLS) {
		without = append(without, lab.RequireTLS)
	}
	for _, a := range rows {
		for i, v := range a.Variants {
			if why := unfit(v); why != "" {
				r.omitted = append(r.omitted, lab.Omission{Attack: a.Attack, Variant: v.Variant, Name: a.Name, Reason: why})
				continue
			}
			for _, c := range columns {
				want := r.table.WantOf(v, r.As, c)
				if want.Expect == lab.NotAffected || slices.Contains(without, c) {
					continue
				}
				s := lab.NewScene(r.f.Net, a, i, c, want, "r"+a.Attack+"-")
				r.f.shorten(s.Domain)
				r.trials = append(r.trials, &trial{Scene: s, cell: s.Cell()})
			}
		}
	}
	for _, c := range without {
		if slices.Contains(columns, c) {
			r.omitted = append(r.omitted, lab.Omission{Column: c, Name: "every attack", Reason: "The server does not offer " + strings.ToUpper(string(c)) + "."})
		}
	}
	return r.f.expose()
}

// unfit says why a variant cannot be run on any server, or is empty.
func unfit(v lab.Variant) string {
	switch {
	case v.Reason != "":
		return v.Reason
	case v.Run != "":
		return "It is about how pawl itself takes mail in, not about sending."
	default:
		return ""
	}
}

// shorten makes what is cached of a domain's records old soon.
func (f *Field) shorten(d *testnet.Domain) {
	names := []string{d.Name, "_mta-sts." + d.Name, "mta-sts." + d.Name}
	for _, h := range d.Hosts() {
		names = append(names, h.Name, h.TLSABase())
	}
	for _, name := range names {
		f.Net.DNS.SetTTL(name, "", recordTTL)
	}
	f.Net.DNS.SetTTL(d.Name, "SOA", recordTTL)
}

// prime lets honest mail through to those domains whose policy may be cached,
// and to one that has none: what does not arrive now is no attack's doing.
func (r *runner) prime(ctx context.Context) error {
	honest := r.f.Net.Domain("honest.test", testnet.DomainOptions{})
	if err := r.f.expose(); err != nil {
		return err
	}
	letters := []letter{{from: "prime@" + lab.SenderZone, to: "prime@" + honest.Name}}
	var attacked []*trial
	for _, t := range r.trials {
		if !t.Cached() {
			continue
		}
		letters = append(letters, letter{from: t.PrimeFrom(), to: t.PrimeTo()})
		if t.PrimedUnderAttack() {
			t.Domain.On(t.Variant.Stage...)
			attacked = append(attacked, t)
		}
	}
	if err := r.f.expose(); err != nil {
		return err
	}
	r.Progress(fmt.Sprintf("handing over %d honest messages, and waiting for them", len(letters)))
	for _, l := range letters {
		if err := hand(ctx, r.Addr, r.Login, l); err != nil {
			return err
		}
	}
	missing := func() []letter {
		return slices.DeleteFunc(slices.Clone(letters), func(l letter) bool { return len(r.f.Net.Delivered(l.to)) > 0 })
	}
	if err := r.await(ctx, func() bool { return len(missing()) == 0 }); err != nil {
		return err
	}
	if left := missing(); len(left) > 0 {
		return &control.Error{
			Text: fmt.Sprintf("%d of %d honest messages did not arrive within %s, the one to %s among them: nothing was attacked yet", len(left), len(letters), r.Wait, left[0].to),
			Do:   "See the server's log. It has to ask the resolver " + Resolver + ", trust " + r.f.CAFile + ", and send to MX hosts itself, with no relay host.",
		}
	}
	for _, t := range attacked {
		t.Domain.Off()
	}
	return r.f.Net.Clock.Sleep(ctx, max(r.Settle, DefaultSettle))
}

// attack switches the attacks on and hands the messages over.
func (r *runner) attack(ctx context.Context) error {
	last := 0
	if s := r.f.Net.Sessions(); len(s) > 0 {
		last = s[len(s)-1].Number
	}
	for _, t := range r.trials {
		t.Mark(last)
		if err := t.Begin(); err != nil {
			return err
		}
		t.lookups = r.f.Net.DNS.Queries(t.Domain.Name, "MX")
	}
	if err := r.f.expose(); err != nil {
		return err
	}
	r.Progress(fmt.Sprintf("the attacks are on; handing over %d messages", len(r.trials)))
	for _, t := range r.trials {
		l := letter{from: t.From, to: t.To, requireTLS: t.Column == lab.RequireTLS, tlsOptional: t.Variant.Message == lab.TLSOptional}
		if err := hand(ctx, r.Addr, r.Login, l); err != nil {
			return err
		}
	}
	return nil
}

// watch waits through the retries and takes down what became of each message.
func (r *runner) watch(ctx context.Context) error {
	r.Progress(fmt.Sprintf("watching what arrives where, for %s at the most", r.Wait))
	err := r.await(ctx, func() bool {
		return !slices.ContainsFunc(r.trials, func(t *trial) bool { return !t.settled() })
	})
	for _, t := range r.trials {
		t.observe()
	}
	return err
}

// release ends the attacks and waits until what was held has left.
func (r *runner) release(ctx context.Context) error {
	var held []*trial
	for _, t := range r.trials {
		if t.Releases() && t.cell.Observed == lab.Held {
			held = append(held, t)
			if err := t.End(); err != nil {
				return err
			}
		}
	}
	if err := r.f.expose(); err != nil {
		return err
	}
	r.Progress(fmt.Sprintf("the attacks are over; waiting for %d held messages to leave, for %s at the most", len(held), r.Wait))
	err := r.await(ctx, func() bool {
		return !slices.ContainsFunc(held, func(t *trial) bool { return t.state() == "" })
	})
	for _, t := range held {
		if t.cell.Released = t.state(); t.cell.Released == "" {
			t.cell.Released = lab.Held
		}
	}
	return err
}
