package policy

import "github.com/pawl-mail/pawl/internal/resolve"

// Decision table 4: trusting the resolver. The resolver itself keeps to the
// first half of it: without trust no answer of its is authentic.

// trustDecision is what table 4 says.
type trustDecision struct {
	Cell string `json:"cell"`
	DANE bool   `json:"dane"` // TLSA records are looked at
	Why  string `json:"why"`
	Do   string `json:"do,omitempty"`
}

// decideTrust is decision table 4. AD counts only if the operator says that the
// resolver validates, or a check showed it; that it is on loopback proves nothing.
func decideTrust(wanted bool, v resolve.Validation) trustDecision {
	if !wanted {
		return trustDecision{Cell: "4/off", Why: "DANE is switched off in the configuration"}
	}
	d := trustDecision{Cell: "4/trusted", DANE: v.Trusted, Why: v.Why, Do: v.Do}
	if v.Trusted {
		return d
	}
	d.Cell = "4/unchecked"
	for _, u := range v.Upstreams {
		switch u.Verdict {
		case resolve.NotValidating:
			d.Cell = "4/not-validating"
			return d
		case resolve.Forgeable:
			d.Cell = "4/forgeable"
		}
	}
	return d
}
