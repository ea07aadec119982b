// Package verify holds a connection against what is demanded of it. Policy
// makes a [Demand] for each MX host (decisions table 2); the relay connects,
// shows what it saw as [Seen], and [Judge] says whether mail may go, over what
// kind of transport that would be, and how each policy fared, in the result
// types of RFC 8460. Nothing else decides whether a connection is good enough.
package verify

import (
	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/mtasts"
)

// Level is how much protection a connection needs before mail may go over it.
type Level int

// The levels, weakest first.
const (
	// Opportunistic takes TLS where it is offered and clear text where it is
	// not (RFC 7435). The only level at which plaintext can happen.
	Opportunistic Level = iota
	// Encrypted demands TLS, but no proof of identity: the host published TLSA
	// records of which none is usable (RFC 7672 §2.2).
	Encrypted
	// Authenticated demands TLS with a peer that the demand's policies
	// authenticate.
	Authenticated
)

// String returns the level's name in lower case.
func (l Level) String() string {
	switch l {
	case Opportunistic:
		return "opportunistic"
	case Encrypted:
		return "encrypted"
	default:
		return "authenticated"
	}
}

// STSDemand is what an MTA-STS policy asks of one MX host.
type STSDemand struct {
	PolicyDomain string // policy-domain of reports
	Policy       mtasts.Policy
	Matched      bool // the MX name matches one of the policy's patterns (RFC 8461 §4.1)
	Local        bool // the operator's own demand in the form of a policy: not MTA-STS, and not reported as such
}

// DANEDemand is what a host's TLSA records ask of it.
type DANEDemand struct {
	Set       dane.Set // State is Usable or Unusable here: a failed lookup makes the host unreachable before it comes to a demand
	Reference dane.Reference
}

// Demand is what one MX host must show (decisions table 2).
type Demand struct {
	Host   string // the MX name: SNI and DNS-ID (RFC 8461 §7.1)
	Domain string // the next-hop domain: policy-domain of a report on a domain without a policy
	Level  Level

	STS         *STSDemand  // nil: no policy, or mode none
	DANE        *DANEDemand // nil: no TLSA records, or DANE is off
	EnforceSTS  bool        // a failure of STS is a failure of the host
	EnforceDANE bool        // a failure of DANE is a failure of the host

	// RequireTLS is set for a message with the REQUIRETLS parameter and a sender
	// that is not null (RFC 8689 §4.2.1): a bounce is not bound by it (§5).
	RequireTLS bool
	// MXSecure says that the host's name was found by DNSSEC or matches the
	// MTA-STS policy. REQUIRETLS needs it, and without it a host that DANE
	// authenticated is never called verified (RFC 7672 §2.2.1).
	MXSecure bool

	// Waived is set where TLS-Required: No lifts STS and DANE for this message
	// (RFC 8689 §3). Policies are still checked and shown, and stop nothing.
	Waived bool
	// Observe decides and records as if enforcing, and lets the mail go as if
	// opportunistic.
	Observe bool

	// Least and LeastDANE are what the operator demands of the way to a smart
	// host, whatever its policy asks. Neither [Demand.Observe] nor
	// [Demand.Waived] lifts it: it is no policy of the destination's.
	Least     Level
	LeastDANE bool // usable TLSA records must authenticate the host

	Cell string // the cell of the decision tables, as "2/absent/enforce"
}

// PlaintextAllowed reports whether mail may go to the host without TLS. It is
// the one place in pawl where that is decided.
func (d Demand) PlaintextAllowed() bool {
	if d.RequireTLS {
		return false // RFC 8689 §4.2.1: REQUIRETLS beats every waiver
	}
	if d.Least > Opportunistic || d.LeastDANE {
		return false // the operator's own word
	}
	if d.Observe || d.Waived {
		return true
	}
	return d.Level == Opportunistic && !d.EnforceSTS && !d.EnforceDANE
}
