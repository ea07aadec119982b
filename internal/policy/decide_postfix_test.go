package policy

import (
	"slices"
	"testing"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
)

// hosts are MX hosts a.test, b.test, … in the given states, all of which the
// policy matches; a state with a minus sign is one that it does not match, 100 a
// dead host.
const deadHost = dane.State(100)

func hosts(states ...dane.State) []mxFacts {
	var all []mxFacts
	for i, s := range states {
		h := mxFacts{Host: string(rune('a'+i)) + ".test", DANE: s, Matched: true}
		if s == deadHost {
			h.DANE, h.Dead = dane.Failed, true
		}
		all = append(all, h)
	}
	return all
}

func unmatched(all []mxFacts) []mxFacts {
	for i := range all {
		all[i].Matched = false
	}
	return all
}

var (
	patterns = []string{"*.test"}
	whole    = []string{"a.test", "b.test", "c.test"} // a policy without patterns
)

// table3 is decision table 3, cell by cell. MX are authentic unless the cell
// says otherwise.
var table3 = []struct {
	cell  string
	facts postfixFacts
	kind  verify.AnswerKind
	match []string
}{
	// All usable | any | dane-only.
	{"3/all-usable/none", postfixFacts{Hosts: hosts(dane.Usable, dane.Usable)}, verify.AnswerDANEOnly, nil},
	{"3/all-usable/testing", postfixFacts{Hosts: hosts(dane.Usable), STS: modeTesting}, verify.AnswerDANEOnly, nil},
	{"3/all-usable/enforce", postfixFacts{Hosts: hosts(dane.Usable), STS: modeEnforce, Patterns: patterns}, verify.AnswerDANEOnly, nil},
	{"3/all-usable/unknown", postfixFacts{Hosts: hosts(dane.Usable), STS: modeUnknown}, verify.AnswerDANEOnly, nil},
	{"3/all-usable/none", postfixFacts{Hosts: hosts(dane.Usable, deadHost)}, verify.AnswerDANEOnly, nil}, // one dead MX is one dead MX

	// Some usable, none failed | none, testing | dane.
	{"3/some-usable/none", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent)}, verify.AnswerDANE, nil},
	{"3/some-usable/testing", postfixFacts{Hosts: hosts(dane.Absent, dane.Usable), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/some-usable/none", postfixFacts{Hosts: hosts(dane.Usable, dane.Unusable)}, verify.AnswerDANE, nil},

	// Some usable | enforce | dane-only.
	{"3/some-usable/enforce", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent), STS: modeEnforce, Patterns: patterns}, verify.AnswerDANEOnly, nil},
	{"3/some-usable/unknown", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent), STS: modeUnknown}, verify.AnswerDANEOnly, nil},

	// None | enforce | secure. Of a policy with a pattern the hosts that it fits are
	// named: Postfix may take "*" for more than one label.
	{"3/none/enforce", postfixFacts{Hosts: hosts(dane.Absent, dane.Absent), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test", "b.test"}},
	{"3/none/enforce", postfixFacts{Hosts: hosts(dane.Absent, deadHost), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test"}},
	{"3/none/enforce", postfixFacts{Hosts: unmatched(hosts(dane.Absent)), STS: modeEnforce, Patterns: patterns}, verify.AnswerTemp, nil},
	{"3/none/enforce", postfixFacts{Hosts: hosts(dane.Absent, dane.Absent), STS: modeEnforce, Patterns: whole}, verify.AnswerSecure, whole},
	{"3/none/enforce", postfixFacts{Hosts: unmatched(hosts(dane.Absent)), STS: modeEnforce, Patterns: whole}, verify.AnswerSecure, whole},
	{"3/none-usable/enforce", postfixFacts{Hosts: hosts(dane.Unusable, dane.Absent), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test", "b.test"}},
	{"3/dane-off/enforce", postfixFacts{MX: mxNotAsked, STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, patterns},
	{"3/mx-nowhere/enforce", postfixFacts{MX: mxNowhere, STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, patterns},
	{"3/all-dead/enforce", postfixFacts{Hosts: hosts(deadHost), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, patterns},

	// None | testing, or none | NOTFOUND. Hosts whose records are all unusable
	// still need TLS (RFC 7672 §2.2): "dane" sees to that.
	{"3/none/none", postfixFacts{Hosts: hosts(dane.Absent, dane.Absent)}, verify.AnswerNotFound, nil},
	{"3/none/testing", postfixFacts{Hosts: hosts(dane.Absent), STS: modeTesting}, verify.AnswerNotFound, nil},
	{"3/none-usable/none", postfixFacts{Hosts: hosts(dane.Unusable, dane.Absent)}, verify.AnswerDANE, nil},
	{"3/none-usable/testing", postfixFacts{Hosts: hosts(dane.Unusable), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/dane-off/none", postfixFacts{MX: mxNotAsked}, verify.AnswerNotFound, nil},
	{"3/dane-off/testing", postfixFacts{MX: mxNotAsked, STS: modeTesting}, verify.AnswerNotFound, nil},
	{"3/mx-nowhere/none", postfixFacts{MX: mxNowhere}, verify.AnswerNotFound, nil},
	{"3/mx-nowhere/testing", postfixFacts{MX: mxNowhere, STS: modeTesting}, verify.AnswerNotFound, nil},
	{"3/all-dead/none", postfixFacts{Hosts: hosts(deadHost, deadHost)}, verify.AnswerNotFound, nil},
	{"3/all-dead/testing", postfixFacts{Hosts: hosts(deadHost), STS: modeTesting}, verify.AnswerNotFound, nil},

	// Some failed, others fine | any | as above, and the failed host is not used.
	{"3/some-usable+failed/none", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed)}, verify.AnswerDANE, nil},
	{"3/some-usable+failed/testing", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/some-usable+failed/enforce", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed), STS: modeEnforce, Patterns: patterns}, verify.AnswerDANEOnly, nil},
	{"3/some-usable+failed/unknown", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed), STS: modeUnknown}, verify.AnswerDANEOnly, nil},
	{"3/none+failed/none", postfixFacts{Hosts: hosts(dane.Absent, dane.Failed)}, verify.AnswerDANE, nil},
	{"3/none+failed/testing", postfixFacts{Hosts: hosts(dane.Absent, dane.Failed), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/none+failed/enforce", postfixFacts{Hosts: hosts(dane.Absent, dane.Failed, dane.Absent), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test", "c.test"}},
	{"3/none+failed/enforce", postfixFacts{Hosts: append(unmatched(hosts(dane.Absent)), mxFacts{Host: "z.test", DANE: dane.Failed, Matched: true}), STS: modeEnforce, Patterns: patterns}, verify.AnswerTemp, nil},
	{"3/none+failed/unknown", postfixFacts{Hosts: hosts(dane.Absent, dane.Failed), STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/none-usable+failed/none", postfixFacts{Hosts: hosts(dane.Unusable, dane.Failed)}, verify.AnswerDANE, nil},
	{"3/none-usable+failed/testing", postfixFacts{Hosts: hosts(dane.Unusable, dane.Failed), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/none-usable+failed/enforce", postfixFacts{Hosts: hosts(dane.Unusable, dane.Failed), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test"}},
	{"3/none-usable+failed/unknown", postfixFacts{Hosts: hosts(dane.Unusable, dane.Failed), STS: modeUnknown}, verify.AnswerTemp, nil},

	// All failed, or no MX could be looked up | any | TEMP. A dead host does not
	// make up for failed ones.
	{"3/all-failed/none", postfixFacts{Hosts: hosts(dane.Failed, dane.Failed)}, verify.AnswerTemp, nil},
	{"3/all-failed/testing", postfixFacts{Hosts: hosts(dane.Failed), STS: modeTesting}, verify.AnswerTemp, nil},
	{"3/all-failed/enforce", postfixFacts{Hosts: hosts(dane.Failed, deadHost), STS: modeEnforce, Patterns: patterns}, verify.AnswerTemp, nil},
	{"3/all-failed/unknown", postfixFacts{Hosts: hosts(dane.Failed), STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/mx-failed", postfixFacts{MX: mxFailed}, verify.AnswerTemp, nil},
	{"3/mx-failed", postfixFacts{MX: mxFailed, STS: modeEnforce, Patterns: patterns}, verify.AnswerTemp, nil},

	// Discovery could not be done, no cache | TEMP within discovery_hold.
	{"3/none/unknown", postfixFacts{Hosts: hosts(dane.Absent), STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/none-usable/unknown", postfixFacts{Hosts: hosts(dane.Unusable), STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/dane-off/unknown", postfixFacts{MX: mxNotAsked, STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/mx-nowhere/unknown", postfixFacts{MX: mxNowhere, STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/all-dead/unknown", postfixFacts{Hosts: hosts(deadHost), STS: modeUnknown}, verify.AnswerTemp, nil},
}

// table3Insecure are the cells where DNSSEC does not vouch for the MX names:
// Postfix defers dane-only then, and a policy in mode enforce must vouch for them.
var table3Insecure = []struct {
	cell  string
	facts postfixFacts
	kind  verify.AnswerKind
	match []string
}{
	{"3/all-usable/none/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable)}, verify.AnswerDANE, nil},
	{"3/all-usable/testing/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/all-usable/enforce/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test"}},
	{"3/all-usable/unknown/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable), STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/some-usable/none/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent)}, verify.AnswerDANE, nil},
	{"3/some-usable/testing/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/some-usable/enforce/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test", "b.test"}},
	{"3/some-usable/unknown/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Absent), STS: modeUnknown}, verify.AnswerTemp, nil},
	{"3/some-usable+failed/none/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed)}, verify.AnswerDANE, nil},
	{"3/some-usable+failed/testing/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed), STS: modeTesting}, verify.AnswerDANE, nil},
	{"3/some-usable+failed/enforce/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed), STS: modeEnforce, Patterns: patterns}, verify.AnswerSecure, []string{"a.test"}},
	{"3/some-usable+failed/unknown/mx-insecure", postfixFacts{Hosts: hosts(dane.Usable, dane.Failed), STS: modeUnknown}, verify.AnswerTemp, nil},
}

func TestEachCellOfTable3(t *testing.T) {
	cells := make(map[string]bool)
	check := func(cell string, f postfixFacts, kind verify.AnswerKind, match []string) {
		t.Helper()
		got := decidePostfix(f)
		if got.Cell != cell || got.Kind != kind || !slices.Equal(got.Match, match) {
			t.Errorf("%s: got %s %s %q, want %s %q", cell, got.Cell, got.Kind, got.Match, kind, match)
		}
		cells[cell] = true
	}
	for _, c := range table3 {
		c.facts.MXAuthentic = true
		check(c.cell, c.facts, c.kind, c.match)
	}
	for _, c := range table3Insecure {
		check(c.cell, c.facts, c.kind, c.match)
	}
	for f := range everyDomain() {
		if got := decidePostfix(f); !cells[got.Cell] {
			t.Errorf("%s is a cell that the table does not have (%+v)", got.Cell, f)
			cells[got.Cell] = true
		}
	}
}

// everyDomain yields all facts about a domain of up to three MX hosts.
func everyDomain() func(yield func(postfixFacts) bool) {
	states := []dane.State{dane.Failed, dane.Absent, dane.Unusable, dane.Usable, deadHost}
	var sets [][]mxFacts
	for _, a := range states {
		sets = append(sets, hosts(a), unmatched(hosts(a)))
		for _, b := range states {
			sets = append(sets, hosts(a, b))
			for _, c := range states {
				sets = append(sets, hosts(a, b, c))
			}
		}
	}
	return func(yield func(postfixFacts) bool) {
		for sts := range modes {
			for _, authentic := range []bool{true, false} {
				base := postfixFacts{STS: sts, MXAuthentic: authentic}
				if sts == modeEnforce {
					base.Patterns = patterns
				}
				for _, mx := range []mxLookup{mxFailed, mxNowhere, mxNotAsked} {
					f := base
					f.MX = mx
					if !yield(f) {
						return
					}
				}
				for _, set := range sets {
					f := base
					f.Hosts = set
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

func TestUnderEnforcePostfixIsNeverToldAnythingThatWeakens(t *testing.T) {
	for f := range everyDomain() {
		if f.STS != modeEnforce {
			continue
		}
		d := decidePostfix(f)
		switch d.Kind {
		case verify.AnswerSecure:
			if len(d.Match) == 0 {
				t.Errorf("%s: secure with nothing to match", d.Cell)
			}
		case verify.AnswerDANEOnly:
			if !f.MXAuthentic {
				t.Errorf("%s: dane-only for names that anyone may have written", d.Cell)
			}
		case verify.AnswerTemp:
		default:
			t.Errorf("%s: %s", d.Cell, d.Kind)
		}
	}
}

func TestAFailedHostIsNeverLeftToOpportunisticTLS(t *testing.T) {
	for f := range everyDomain() {
		d := decidePostfix(f)
		for _, h := range f.Hosts {
			if h.DANE == dane.Failed && !h.Dead && (d.Kind == verify.AnswerNotFound || slices.Contains(d.Match, h.Host)) {
				t.Errorf("%s: %s %q uses %s", d.Cell, d.Kind, d.Match, h.Host)
			}
		}
	}
}
