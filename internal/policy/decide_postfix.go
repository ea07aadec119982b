package policy

import (
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Decision table 3: what Postfix is told, one answer for a whole domain. The
// cell's name is "3/MX hosts/STS"; "+failed" behind the hosts says that some of
// them must not be used, "/mx-insecure" that DNSSEC does not vouch for their names.

// mxLookup is what looking up the domain's MX hosts came to.
type mxLookup uint8

const (
	mxFound    mxLookup = iota
	mxFailed            // could not be looked up
	mxNowhere           // a null MX, or no such domain: nothing to protect
	mxNotAsked          // DANE is off: the answer does not depend on them
)

// mxFacts is what is known of one MX host.
type mxFacts struct {
	Host    string
	DANE    dane.State
	Matched bool // the policy has a pattern for it
	Dead    bool // DNS says that it has no address: Postfix cannot use it either
}

// postfixFacts is what table 3 is asked with.
type postfixFacts struct {
	MX          mxLookup
	Hosts       []mxFacts
	MXAuthentic bool
	STS         mode
	Patterns    []string // of the policy, where STS is enforce
}

// postfixDecision is what table 3 says.
type postfixDecision struct {
	Cell  string
	Kind  verify.AnswerKind
	Match []string // of a secure answer: patterns as in the policy, or names of hosts
}

// decidePostfix is decision table 3. Where policy.both demands MTA-STS of DANE
// hosts too, Postfix has no level for it: such hosts are held to DANE.
func decidePostfix(f postfixFacts) postfixDecision {
	if f.MX == mxFailed {
		return postfixDecision{Cell: "3/mx-failed", Kind: verify.AnswerTemp}
	}
	t := tallyMX(f)
	d := postfixDecision{Cell: "3/" + t.name(f.MX) + "/" + modeNames[f.STS]}
	if t.usable > 0 && !f.MXAuthentic {
		d.Cell += "/mx-insecure"
	}
	switch {
	case t.failed > 0 && t.others() == 0:
		d.Kind = verify.AnswerTemp
	case f.STS == modeUnknown:
		d.Kind = verify.AnswerTemp
		if t.usable > 0 && f.MXAuthentic {
			// Whatever MTA-STS would ask, these hosts are held to DANE (table 2).
			d.Kind = verify.AnswerDANEOnly
		}
	case f.STS == modeEnforce && t.usable > 0 && f.MXAuthentic:
		d.Kind = verify.AnswerDANEOnly
	case f.STS == modeEnforce:
		// Where the MX names are not authentic, dane-only would follow a forged
		// name, and Postfix defers it in any case (RFC 7672 §2.2.1).
		d.Kind, d.Match = verify.AnswerSecure, f.Patterns
		if t.failed > 0 || t.others() > 0 && slices.ContainsFunc(f.Patterns, isWildcard) {
			// "*" is one label (RFC 8461 §4.1), but before 3.10.5 Postfix takes it for
			// any number, whoever wrote the MX answer that it gets: names leave no doubt.
			d.Match = t.fit
		}
		if len(d.Match) == 0 {
			d.Kind = verify.AnswerTemp
		}
	case t.usable > 0 && t.usable == t.all() && f.MXAuthentic:
		d.Kind = verify.AnswerDANEOnly
	case t.usable > 0 || t.unusable > 0 || t.failed > 0:
		// Postfix looks TLSA up itself: it skips a host whose lookup fails, and
		// demands TLS of one whose records are unusable (RFC 7672 §2.2).
		d.Kind = verify.AnswerDANE
	default:
		d.Kind = verify.AnswerNotFound
	}
	return d
}

// tally counts MX hosts by what DANE makes of them. Dead hosts are not counted:
// one dead MX is one dead MX.
type tally struct {
	usable, unusable, absent, failed int
	fit                              []string // matched by the policy and not failed
}

func tallyMX(f postfixFacts) tally {
	var t tally
	for _, h := range f.Hosts {
		if h.Dead {
			continue
		}
		switch h.DANE {
		case dane.Usable:
			t.usable++
		case dane.Unusable:
			t.unusable++
		case dane.Absent:
			t.absent++
		default:
			t.failed++
			continue
		}
		if h.Matched {
			t.fit = append(t.fit, h.Host)
		}
	}
	return t
}

func isWildcard(pattern string) bool { return strings.HasPrefix(pattern, "*") }

func (t tally) others() int { return t.usable + t.unusable + t.absent }
func (t tally) all() int    { return t.others() + t.failed }

// name is the row's name.
func (t tally) name(mx mxLookup) string {
	var row string
	switch {
	case mx == mxNowhere:
		return "mx-nowhere"
	case mx == mxNotAsked:
		return "dane-off"
	case t.all() == 0:
		return "all-dead"
	case t.others() == 0:
		return "all-failed"
	case t.usable == t.all():
		return "all-usable"
	case t.usable > 0:
		row = "some-usable"
	case t.unusable > 0:
		row = "none-usable"
	default:
		row = "none"
	}
	if t.failed > 0 {
		row += "+failed"
	}
	return row
}
