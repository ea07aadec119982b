package verify

import (
	"fmt"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/outcome"
)

// adviceDefect is for what can only be a mistake of pawl's own.
const adviceDefect = "Look at the steps of this decision with pawl explain; if they do not account for it, report a defect."

// explain fills in why, by which section, and what to do.
func (j *judgement) explain(v *Verdict, why *refusal) {
	if why == nil {
		v.Source = j.identity()
		v.Section = sections[v.Source]
		v.Why = j.accepted(v.Transport, v.Session) + j.tested()
		return
	}
	v.Source, v.Section, v.Do = why.source, why.section, why.do
	if v.Section == "" {
		v.Section = sections[why.source]
	}
	v.Why = fmt.Sprintf("%s %s, which %s", j.Host, why.text, j.objection(why.source))
	switch {
	case v.WouldHold && j.Observe:
		v.Why += "; the mail goes because the destination is only observed"
	case v.WouldHold:
		v.Why += "; the mail goes because the message says TLS-Required: No"
	}
}

// sections is where the demand of a source is made, for what has no section of
// its own.
var sections = map[Source]string{
	FromDANE:       "RFC 7672 §2.2",
	FromSTS:        "RFC 8461 §4",
	FromRequireTLS: "RFC 8689 §4.2.1",
}

func (j *judgement) objection(by Source) string {
	switch by {
	case FromDANE:
		return "its TLSA records do not allow"
	case FromRequireTLS:
		return "REQUIRETLS does not allow"
	case FromRoute:
		return "the route by which the mail goes does not allow"
	case FromOverride:
		if !j.EnforceSTS {
			return fmt.Sprintf("the level %q that is set for it does not allow", j.Level)
		}
	}
	return j.stsName() + " does not allow"
}

func (j *judgement) stsName() string {
	switch {
	case j.STS == nil:
		return "an MTA-STS policy"
	case j.STS.Local:
		return "the operator's demand for " + j.STS.PolicyDomain
	}
	return fmt.Sprintf("the MTA-STS policy of %s (mode %s)", j.STS.PolicyDomain, j.STS.Policy.Mode)
}

// accepted says how mail goes to a host that meets all demands.
func (j *judgement) accepted(how outcome.Transport, session *Session) string {
	if how == outcome.Clear {
		return fmt.Sprintf("%s %s, and nothing demands TLS of it: the mail goes in clear", j.Host, j.noTLS.text)
	}
	by := ""
	switch j.identity() {
	case FromDANE:
		by = fmt.Sprintf("was authenticated by its TLSA record %q", clean(j.match.Record.String()))
		if how != outcome.Verified {
			by += ", but its name came from an MX record that is not signed"
		}
	case FromSTS:
		by = "matches " + j.stsName() + " and showed a trusted certificate for its name"
	case FromRequireTLS:
		by = "has a name that is vouched for and showed a trusted certificate for it, as REQUIRETLS demands"
	case FromRoute:
		by = "showed a trusted certificate for its name, as the route by which the mail goes demands"
	case FromOverride:
		by = "showed a trusted certificate for its name"
	default:
		if j.DANE != nil && j.DANE.Set.State == dane.Unusable {
			return fmt.Sprintf("%s has TLSA records of which none is usable: they demand TLS, which there is (%s), and prove nothing", j.Host, session.Version)
		}
		return fmt.Sprintf("%s speaks %s, and nothing demands that it prove who it is", j.Host, session.Version)
	}
	if session.Certificate == nil {
		return fmt.Sprintf("%s %s (%s)", j.Host, by, session.Version)
	}
	return fmt.Sprintf("%s %s (%s, certificate %s)", j.Host, by, session.Version, *session.Certificate)
}

// tested adds what a policy that is not enforced found wrong.
func (j *judgement) tested() string {
	text := ""
	if j.sts != nil {
		text += fmt.Sprintf("; %s is not enforced on it, and would not be met: the host %s", j.stsName(), j.sts.text)
	}
	if j.dane != nil {
		text += "; its TLSA records are not enforced, and would not be met: the host " + j.dane.text
	}
	return text
}
