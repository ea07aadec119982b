package lab

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/internal/testnet"
)

// Scene is one cell on a small Internet, whoever the sender is: a domain that
// has what the column says, the attack on it, and the message for it.
type Scene struct {
	Attack  Attack
	Variant Variant
	Column  Column
	Want    Want

	Net      *testnet.Net
	Domain   *testnet.Domain // that is attacked
	From, To string          // of the message

	before int // sessions before the attack
}

// NewScene makes the scene of a cell. The domain is named after the column, with
// a number where the row has several variants, and with the prefix, which keeps
// the domains of several rows apart.
func NewScene(n *testnet.Net, a Attack, variant int, c Column, want Want, prefix string) *Scene {
	v := a.Variants[variant]
	s := &Scene{Attack: a, Variant: v, Column: c, Want: want, Net: n}
	name := prefix + string(c)
	if len(a.Variants) > 1 {
		name += fmt.Sprintf("-%d", variant+1)
	}
	s.Domain = n.Domain(name+".test", s.domainOptions(name+".test"))
	to := s.Domain.Name
	if v.To == "subdomain" {
		to = n.Domain("sub."+to, testnet.DomainOptions{}).Name
	}
	s.From, s.To = name+"@"+SenderZone, "victim@"+to
	return s
}

// domainOptions are what the column, or the cell's base, says that the domain has.
func (s *Scene) domainOptions(name string) testnet.DomainOptions {
	var o testnet.DomainOptions
	o.Host.NoRequireTLS = s.Variant.Host.NoRequireTLS
	sts, dane := "", testnet.NoDANE
	switch {
	case s.Want.Base == BaseNone:
	case s.Want.Base == BaseDANEEnforce:
		sts, dane = "enforce", testnet.DANEEE
	case s.Column == DANE && s.Variant.DANE == "ta":
		dane = testnet.DANETA
	case s.Column == DANE:
		dane = testnet.DANEEE
	case s.Column == Testing:
		sts = "testing"
	case s.Column != None:
		sts = "enforce"
	}
	o.DANE = dane
	if sts == "" {
		return o
	}
	o.STS = testnet.STS{Mode: sts, MaxAge: s.Variant.MaxAge.Std()}
	for _, p := range s.Variant.Patterns {
		o.STS.Patterns = append(o.STS.Patterns, strings.ReplaceAll(p, "{domain}", name))
	}
	return o
}

// Cached reports whether the policy is in the sender's cache before the attack.
func (s *Scene) Cached() bool {
	return s.Want.Base != BaseNone && (s.Column == EnforceCached || s.Column == RequireTLS || s.Want.Base == BaseDANEEnforce)
}

// PrimeFrom is the sender of the honest message that fills the cache.
func (s *Scene) PrimeFrom() string { return "prime." + s.From }

// PrimeTo is its recipient.
func (s *Scene) PrimeTo() string { return "prime@" + s.Domain.Name }

// PrimedUnderAttack reports whether that message goes under the attack, which
// is over when the other one is sent.
func (s *Scene) PrimedUnderAttack() bool { return s.Want.Prime == "attacked" }

// Mark begins what [Scene.Exchanges] has: the sessions after the last one that
// there is now.
func (s *Scene) Mark(sessions int) { s.before = sessions }

// Begin switches the attack on, and lets the domain's owner do what he does.
func (s *Scene) Begin() error {
	if s.PrimedUnderAttack() {
		return nil // it is over
	}
	s.Domain.On(s.Variant.Stage...)
	switch s.Variant.Operator {
	case "":
	case "moves":
		s.Domain.SetMX(testnet.MX{Preference: 10, Host: "new." + s.Domain.Name})
		s.Domain.SetPolicy(testnet.STS{Mode: "enforce"})
	default:
		return fmt.Errorf("row %s: there is nothing %q that an operator does", s.Attack.Attack, s.Variant.Operator)
	}
	return nil
}

// End ends the attack, or has the domain's owner put right what was wrong.
func (s *Scene) End() error {
	switch s.Variant.Remedy {
	case "":
		s.Domain.Off()
	case "new-policy":
		s.Domain.SetPolicy(testnet.STS{Mode: "enforce"})
	default:
		return fmt.Errorf("row %s: there is no remedy %q", s.Attack.Attack, s.Variant.Remedy)
	}
	return nil
}

// Releases reports whether the message is to leave once the attack is over.
func (s *Scene) Releases() bool { return s.Want.Expect == Held && s.Want.Then == "" }

// Arrivals are the copies of the message whose data reached a receiving end,
// taken there or not.
func (s *Scene) Arrivals() []testnet.Delivery {
	return slices.DeleteFunc(s.Net.Deliveries(), func(d testnet.Delivery) bool { return !d.For(s.To) })
}

// Leak says how the message, where it arrived, could have been read on its way
// by somebody other than its destination; empty if it could not.
func (s *Scene) Leak() string {
	for _, d := range s.Arrivals() {
		if how := s.leaked(d); how != "" {
			return how
		}
	}
	return ""
}

// Took says which host got the message safely, and how; empty if none did.
func (s *Scene) Took() string {
	says := ""
	for _, d := range s.Arrivals() {
		if d.Accepted {
			says = took(d)
		}
	}
	return says
}

func (s *Scene) leaked(d testnet.Delivery) string {
	return leak(d, s.Column == DANE || s.Want.Base == BaseDANEEnforce)
}

// Bounces are the notifications of a failure that the sender got.
func (s *Scene) Bounces() []testnet.Delivery {
	return slices.DeleteFunc(s.Net.Delivered(s.From), func(d testnet.Delivery) bool { return !failed(d.Data) })
}

var action = regexp.MustCompile(`(?mi)^Action:[ \t]*(\w+)`)

// failed reports whether a notification is of a failure. One of a delay says so
// (RFC 3464 §2.3.3), and the message still waits.
func failed(notification []byte) bool {
	actions := action.FindAllSubmatch(notification, -1)
	return len(actions) == 0 || slices.ContainsFunc(actions, func(m [][]byte) bool { return strings.EqualFold(string(m[1]), "failed") })
}

// Sessions are those with the domain's hosts and its policy host since [Scene.Mark],
// and those in which somebody else got the message.
func (s *Scene) Sessions() []*testnet.Session {
	names := []string{"mta-sts." + s.Domain.Name}
	for _, h := range s.Domain.Hosts() {
		names = append(names, h.Name)
	}
	arrived := s.Arrivals()
	return slices.DeleteFunc(s.Net.Sessions(), func(x *testnet.Session) bool {
		ours := slices.Contains(names, x.Host) && x.Number > s.before
		return !ours && !slices.ContainsFunc(arrived, func(d testnet.Delivery) bool { return d.Session == x })
	})
}

// maxExchanges caps the sessions in a cell's transcript.
const maxExchanges = 12

// Exchanges are what was said in the first of these sessions.
func (s *Scene) Exchanges() []Exchange {
	var list []Exchange
	for _, x := range s.Sessions() {
		if len(list) == maxExchanges {
			break
		}
		list = append(list, exchange(x))
	}
	return list
}

func exchange(s *testnet.Session) Exchange {
	x := Exchange{Host: s.Host, Addr: s.Addr.String(), Lines: []Line{}}
	for _, v := range s.Via() {
		x.Via = append(x.Via, string(v))
	}
	for _, l := range s.Lines() {
		x.Lines = append(x.Lines, Line{l.From, l.To, l.TLS, l.Text})
	}
	return x
}

// Cell begins the scene's cell.
func (s *Scene) Cell() Cell {
	return Cell{
		Attack: s.Attack.Attack, Variant: s.Variant.Variant, Column: s.Column, Name: s.Attack.Name, Section: s.Attack.Section,
		Expected: s.Want.Expect, Then: s.Want.Then, WantResults: s.Want.Results,
	}
}
