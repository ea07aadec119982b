package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/internal/testnet"
)

// trial is one cell being run: its domain, its message, what was seen.
type trial struct {
	w       *world
	attack  Attack
	variant Variant
	column  Column
	want    Want

	domain *testnet.Domain // that is attacked
	letter letter
	cell   Cell
	before int // sessions before the attack
}

// newTrial makes the cell's domain and message. Names tell the cell: the column,
// and a number where the row has several variants.
func (w *world) newTrial(a Attack, variant int, c Column) *trial {
	v := a.Variants[variant]
	t := &trial{w: w, attack: a, variant: v, column: c, want: v.Want(c)}
	name := string(c)
	if len(a.Variants) > 1 {
		name += fmt.Sprintf("-%d", variant+1)
	}
	t.domain = w.net.Domain(name+".test", t.domainOptions(name+".test"))
	to := t.domain.Name
	if v.To == "subdomain" {
		to = w.net.Domain("sub."+to, testnet.DomainOptions{}).Name
	}
	t.letter = letter{
		from: name + "@" + senderZone, to: "victim@" + to,
		requireTLS: c == RequireTLS, tlsOptional: v.Message == "tls-optional",
	}
	t.cell = Cell{
		Attack: a.Attack, Variant: v.Variant, Column: c, Name: a.Name, Section: a.Section,
		Expected: t.want.Expect, Then: t.want.Then, WantResults: t.want.Results,
	}
	return t
}

// domainOptions are what the column, or the cell's base, says that the domain has.
func (t *trial) domainOptions(name string) testnet.DomainOptions {
	var o testnet.DomainOptions
	o.Host.NoRequireTLS = t.variant.Host.NoRequireTLS
	sts, dane := "", testnet.NoDANE
	switch {
	case t.want.Base == "dane-enforce":
		sts, dane = "enforce", testnet.DANEEE
	case t.column == DANE && t.variant.DANE == "ta":
		dane = testnet.DANETA
	case t.column == DANE:
		dane = testnet.DANEEE
	case t.column == Testing:
		sts = "testing"
	case t.column != None:
		sts = "enforce"
	}
	o.DANE = dane
	if sts == "" {
		return o
	}
	o.STS = testnet.STS{Mode: sts, MaxAge: t.variant.MaxAge.Std()}
	for _, p := range t.variant.Patterns {
		o.STS.Patterns = append(o.STS.Patterns, strings.ReplaceAll(p, "{domain}", name))
	}
	return o
}

// cached reports whether the policy is in the sender's cache before the attack.
func (t *trial) cached() bool {
	return t.column == EnforceCached || t.column == RequireTLS || t.want.Base == "dane-enforce"
}

// prime lets an honest message through, so that the policy is cached.
func (t *trial) prime() letter {
	return letter{from: "prime." + t.letter.from, to: "prime@" + t.domain.Name}
}

// begin switches the attack on, and lets the domain's owner do what he does.
func (t *trial) begin() error {
	if t.want.Prime == "attacked" {
		return nil // it is over
	}
	t.domain.On(t.variant.Stage...)
	switch t.variant.Operator {
	case "":
	case "moves":
		t.domain.SetMX(testnet.MX{Preference: 10, Host: "new." + t.domain.Name})
		t.domain.SetPolicy(testnet.STS{Mode: "enforce"})
	default:
		return fmt.Errorf("row %s: there is nothing %q that an operator does", t.attack.Attack, t.variant.Operator)
	}
	return nil
}

// end ends the attack, or has the domain's owner put right what was wrong.
func (t *trial) end() error {
	switch t.variant.Remedy {
	case "":
		t.domain.Off()
	case "new-policy":
		t.domain.SetPolicy(testnet.STS{Mode: "enforce"})
	default:
		return fmt.Errorf("row %s: there is no remedy %q", t.attack.Attack, t.variant.Remedy)
	}
	return nil
}

// state is where the message stands: what the receiving ends saw counts for
// more than what the relay says.
func (t *trial) state() Outcome {
	arrived := t.arrivals()
	if slices.ContainsFunc(arrived, func(d testnet.Delivery) bool { return t.leaked(d) != "" }) {
		return Leaked
	}
	if slices.ContainsFunc(arrived, func(d testnet.Delivery) bool { return d.Accepted }) {
		return Delivered
	}
	tries := t.w.tries.at(t.letter.to)
	switch {
	case len(tries) == 0:
		return ""
	case tries[len(tries)-1].State == Delivered:
		return "lost" // the relay says so, and nobody has it
	}
	return tries[len(tries)-1].State
}

// arrivals are the copies of the message whose data reached a receiving end,
// taken there or not.
func (t *trial) arrivals() []testnet.Delivery {
	return slices.DeleteFunc(t.w.net.Deliveries(), func(d testnet.Delivery) bool { return !d.For(t.letter.to) })
}

// leaked says how a message that arrived could have been read on its way by
// somebody other than its destination; empty if it could not.
func (t *trial) leaked(d testnet.Delivery) string {
	return leak(d, t.column == DANE || t.want.Base == "dane-enforce")
}

// rested reports whether the message has been tried.
func (t *trial) rested() bool {
	return t.state() != "" && len(t.w.tries.at(t.letter.to)) > 0
}

// told reports whether the sender of a message that bounced knows of it.
func (t *trial) told() bool { return t.state() != Bounced || len(t.bounces()) > 0 }

// bounces are the notifications that the sender got.
func (t *trial) bounces() []testnet.Delivery { return t.w.net.Delivered(t.letter.from) }

// waiting reports whether the relay still has the message.
func (t *trial) waiting() bool {
	tries := t.w.tries.at(t.letter.to)
	return len(tries) == 0 || tries[len(tries)-1].State == Held
}

// sendAll sends each letter.
func (w *world) sendAll(ctx context.Context, letters []letter) error {
	for _, l := range letters {
		if err := w.send(ctx, l); err != nil {
			return err
		}
	}
	return nil
}
