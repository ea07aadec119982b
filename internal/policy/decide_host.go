package policy

import (
	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Decision table 2: what one MX host must show. The cell's name is
// "2/DANE/STS", with what else decided behind it.

// mode is what MTA-STS asks of a destination: the mode of the policy that
// holds, none where there is no policy.
type mode uint8

const (
	modeNone    mode = iota // no policy, or one of mode none
	modeTesting             // checked and reported
	modeEnforce
	modeUnknown // discovery could not be done and the hold runs
	modes
)

var modeNames = [...]string{"none", "testing", "enforce", "unknown"}

// hostFacts is what table 2 is asked with.
type hostFacts struct {
	DANE        dane.State
	STS         mode
	Matched     bool // the policy has a pattern for the host (RFC 8461 §4.1)
	MXAuthentic bool // the host's name came by DNSSEC
	Both        bool // the operator demands MTA-STS of DANE hosts too
}

// refusal is why a host may not be used at all.
type refusal uint8

const (
	usable           refusal = iota
	refusedDANE              // its TLSA records could not be looked up (RFC 7672 §2.1.2)
	refusedMX                // no pattern of the policy matches its name (RFC 8461 §4.1)
	refusedDiscovery         // it cannot be known whether MTA-STS asks more of it
)

// hostDecision is what table 2 says.
type hostDecision struct {
	Cell        string
	Level       verify.Level
	CheckSTS    bool // MTA-STS is checked and reported
	EnforceSTS  bool // and a failure is the host's failure
	EnforceDANE bool
	Refuse      refusal // the host is as if unreachable: the next one is tried
}

// decideHost is decision table 2.
func decideHost(f hostFacts) hostDecision {
	d := hostDecision{
		Cell:     "2/" + f.DANE.String() + "/" + modeNames[f.STS],
		CheckSTS: f.STS == modeTesting || f.STS == modeEnforce,
	}
	enforce := f.STS == modeEnforce
	switch f.DANE {
	case dane.Usable:
		d.Level, d.EnforceDANE = verify.Authenticated, true
		switch {
		case f.STS == modeUnknown && !f.MXAuthentic:
			// The name may be the attacker's, and the policy that would tell is not known.
			d.Refuse = refusedDiscovery
		case enforce && !f.MXAuthentic:
			// RFC 7672 §2.2.1: a host found by an insecure MX is never called
			// secure, so the policy must vouch for its name.
			d.EnforceSTS, d.Cell = true, d.Cell+"/mx-insecure"
		case enforce && f.Both:
			d.EnforceSTS, d.Cell = true, d.Cell+"/both"
		}
	case dane.Unusable:
		// RFC 7672 §2.2: TLS MUST be used, authentication is not required.
		d.Level, d.EnforceDANE = verify.Encrypted, true
		d.EnforceSTS = enforce
	case dane.Absent:
		d.Level = verify.Opportunistic
		d.EnforceSTS = enforce
	default:
		// RFC 7672 §2.1.2: MUST treat that server as unreachable, whatever STS says.
		d.Level, d.EnforceDANE, d.EnforceSTS = verify.Authenticated, true, enforce
		d.Refuse = refusedDANE
		return d
	}
	if f.STS == modeUnknown && f.DANE != dane.Usable {
		d.Refuse = refusedDiscovery
	}
	if d.EnforceSTS {
		d.Level = verify.Authenticated
		if !f.Matched {
			// RFC 8461 §5: MUST NOT deliver to hosts that fail MX matching.
			d.Refuse, d.Cell = refusedMX, d.Cell+"/mx-mismatch"
		}
	}
	return d
}
