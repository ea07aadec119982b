package policy

import (
	"testing"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
)

// table2 is decision table 2, cell by cell. The facts are those that lead there.
var table2 = []struct {
	cell  string
	facts hostFacts
	want  hostDecision
}{
	// usable: DANE authenticates, else next host.
	{
		"2/usable/none",
		hostFacts{DANE: dane.Usable, MXAuthentic: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true},
	},
	{
		"2/usable/testing",
		hostFacts{DANE: dane.Usable, STS: modeTesting, Matched: true, MXAuthentic: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true},
	},
	{
		"2/usable/enforce",
		hostFacts{DANE: dane.Usable, STS: modeEnforce, Matched: true, MXAuthentic: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true},
	},
	{"2/usable/enforce", hostFacts{DANE: dane.Usable, STS: modeEnforce, MXAuthentic: true}, // not matched: checked, reported, not enforced
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true}},
	// policy.both demands both.
	{
		"2/usable/enforce/both",
		hostFacts{DANE: dane.Usable, STS: modeEnforce, Matched: true, MXAuthentic: true, Both: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true},
	},
	{
		"2/usable/enforce/both/mx-mismatch",
		hostFacts{DANE: dane.Usable, STS: modeEnforce, MXAuthentic: true, Both: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true, Refuse: refusedMX},
	},
	// An insecure MX RRset with STS enforce: the STS must hold as well.
	{
		"2/usable/enforce/mx-insecure",
		hostFacts{DANE: dane.Usable, STS: modeEnforce, Matched: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true},
	},
	{
		"2/usable/enforce/mx-insecure/mx-mismatch",
		hostFacts{DANE: dane.Usable, STS: modeEnforce},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true, Refuse: refusedMX},
	},
	{
		"2/usable/none",
		hostFacts{DANE: dane.Usable},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true},
	},
	// Discovery hold: a host that DANE holds is not touched by it.
	{
		"2/usable/unknown",
		hostFacts{DANE: dane.Usable, STS: modeUnknown, MXAuthentic: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true},
	},
	{
		"2/usable/unknown",
		hostFacts{DANE: dane.Usable, STS: modeUnknown},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, Refuse: refusedDiscovery},
	},

	// unusable: TLS, unauthenticated; with enforce STS must hold.
	{
		"2/unusable/none",
		hostFacts{DANE: dane.Unusable, MXAuthentic: true},
		hostDecision{Level: verify.Encrypted, EnforceDANE: true},
	},
	{
		"2/unusable/testing",
		hostFacts{DANE: dane.Unusable, STS: modeTesting},
		hostDecision{Level: verify.Encrypted, EnforceDANE: true, CheckSTS: true},
	},
	{
		"2/unusable/enforce",
		hostFacts{DANE: dane.Unusable, STS: modeEnforce, Matched: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true},
	},
	{
		"2/unusable/enforce/mx-mismatch",
		hostFacts{DANE: dane.Unusable, STS: modeEnforce},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true, Refuse: refusedMX},
	},
	{
		"2/unusable/unknown",
		hostFacts{DANE: dane.Unusable, STS: modeUnknown, MXAuthentic: true},
		hostDecision{Level: verify.Encrypted, EnforceDANE: true, Refuse: refusedDiscovery},
	},

	// absent: opportunistic; testing is checked and reported; with enforce STS must hold.
	{
		"2/absent/none",
		hostFacts{DANE: dane.Absent},
		hostDecision{Level: verify.Opportunistic},
	},
	{
		"2/absent/testing",
		hostFacts{DANE: dane.Absent, STS: modeTesting, Matched: true},
		hostDecision{Level: verify.Opportunistic, CheckSTS: true},
	},
	{"2/absent/testing", hostFacts{DANE: dane.Absent, STS: modeTesting}, // a mismatch is reported and stops nothing
		hostDecision{Level: verify.Opportunistic, CheckSTS: true}},
	{
		"2/absent/enforce",
		hostFacts{DANE: dane.Absent, STS: modeEnforce, Matched: true},
		hostDecision{Level: verify.Authenticated, CheckSTS: true, EnforceSTS: true},
	},
	{
		"2/absent/enforce/mx-mismatch",
		hostFacts{DANE: dane.Absent, STS: modeEnforce},
		hostDecision{Level: verify.Authenticated, CheckSTS: true, EnforceSTS: true, Refuse: refusedMX},
	},
	{
		"2/absent/unknown",
		hostFacts{DANE: dane.Absent, STS: modeUnknown},
		hostDecision{Level: verify.Opportunistic, Refuse: refusedDiscovery},
	},

	// failed: the host is unreachable, whatever STS says.
	{
		"2/failed/none",
		hostFacts{DANE: dane.Failed},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, Refuse: refusedDANE},
	},
	{
		"2/failed/testing",
		hostFacts{DANE: dane.Failed, STS: modeTesting, Matched: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, Refuse: refusedDANE},
	},
	{
		"2/failed/enforce",
		hostFacts{DANE: dane.Failed, STS: modeEnforce, Matched: true, MXAuthentic: true},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, CheckSTS: true, EnforceSTS: true, Refuse: refusedDANE},
	},
	{
		"2/failed/unknown",
		hostFacts{DANE: dane.Failed, STS: modeUnknown},
		hostDecision{Level: verify.Authenticated, EnforceDANE: true, Refuse: refusedDANE},
	},
}

func TestEachCellOfTable2(t *testing.T) {
	cells := make(map[string]bool)
	for _, c := range table2 {
		c.want.Cell = c.cell
		if got := decideHost(c.facts); got != c.want {
			t.Errorf("%s with %+v:\n got %+v\nwant %+v", c.cell, c.facts, got, c.want)
		}
		cells[c.cell] = true
	}
	for f := range everyHost() {
		if got := decideHost(f); !cells[got.Cell] {
			t.Errorf("%s is a cell that the table does not have (%+v)", got.Cell, f)
		}
	}
}

// everyHost yields all facts there are.
func everyHost() func(yield func(hostFacts) bool) {
	return func(yield func(hostFacts) bool) {
		for _, state := range []dane.State{dane.Failed, dane.Absent, dane.Unusable, dane.Usable, 99} {
			for sts := range modes {
				for bits := range 8 {
					f := hostFacts{DANE: state, STS: sts, Matched: bits&1 != 0, MXAuthentic: bits&2 != 0, Both: bits&4 != 0}
					if state == 99 {
						f.DANE = dane.Failed
					}
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

func TestAStateThatIsNotKnownMakesAHostUnreachable(t *testing.T) {
	if d := decideHost(hostFacts{DANE: dane.State(99), STS: modeEnforce, Matched: true}); d.Refuse != refusedDANE {
		t.Errorf("got %+v", d)
	}
}

func TestRFC8461_2_STSNeverOverridesAFailingDANECheck(t *testing.T) {
	for f := range everyHost() {
		d := decideHost(f)
		switch f.DANE {
		case dane.Failed:
			if d.Refuse != refusedDANE {
				t.Errorf("%+v: %+v", f, d)
			}
		case dane.Usable, dane.Unusable:
			if !d.EnforceDANE {
				t.Errorf("%+v: %+v", f, d)
			}
		}
	}
}

func TestRFC8461_5_UnderEnforceNoHostIsUsedThatFailsMXMatching(t *testing.T) {
	for f := range everyHost() {
		if f.STS != modeEnforce || f.Matched || f.DANE == dane.Usable && f.MXAuthentic {
			continue // a host that DANE authenticated under a secure MX is not held to STS
		}
		if d := decideHost(f); d.Refuse == usable {
			t.Errorf("%+v: %+v", f, d)
		}
	}
}

func TestRFC7672_2_2_PlaintextIsAllowedOnlyWhereNothingIsDemanded(t *testing.T) {
	for f := range everyHost() {
		d := decideHost(f)
		demand := verify.Demand{Level: d.Level, EnforceSTS: d.EnforceSTS, EnforceDANE: d.EnforceDANE}
		free := f.DANE == dane.Absent && f.STS != modeEnforce
		if demand.PlaintextAllowed() != free {
			t.Errorf("%+v: plaintext %v", f, demand.PlaintextAllowed())
		}
	}
}
