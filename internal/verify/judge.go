package verify

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/mtasts"
)

// Seen is what a host showed, from its reply to EHLO to the end of the TLS
// handshake.
type Seen struct {
	STARTTLSOffered bool
	Reply           string // what it answered to STARTTLS, where that was not 220
	// HandshakeErr is what the STARTTLS command or the handshake came to grief
	// over. An error with the methods ResultType and FailureReason is taken at
	// its word. An end that we made ourselves, as by a context, is not the
	// host's doing and must not be shown here.
	HandshakeErr error
	State        *tls.ConnectionState // nil: there is no TLS session
}

// Bounce codes (RFC 8689 §4.2.1).
const (
	// BounceNoTLS is [Verdict.Bounce] where REQUIRETLS failed.
	BounceNoTLS = "5.7.10"
	// BounceNoRequireTLS is for the caller, who learns it from the EHLO that
	// follows the handshake: the host does not offer REQUIRETLS.
	BounceNoRequireTLS = "5.7.30"
)

// Verdict says whether mail may go over a connection, and why.
type Verdict struct {
	Pass bool `json:"pass"`
	// Transport is how the mail goes: outcome.NotSent without Pass. Clear after
	// a handshake error means over a new connection, without STARTTLS.
	Transport outcome.Transport `json:"transport"`
	// Policies has an entry for each policy that was checked, enforced or not,
	// or one of type no-policy-found. That one never has a failure: no demand was
	// not met. What Transport says must be looked at before calling it a success.
	Policies []outcome.Policy `json:"policies"`
	// Source is the demand that decided: which was not met, or which established
	// the host's identity.
	Source  Source `json:"source"`
	Why     string `json:"why"`               // one sentence
	Section string `json:"section,omitempty"` // as "RFC 8461 §4.2"
	Do      string `json:"do,omitempty"`      // one sentence; empty: nothing
	// WouldHold is set where only [Demand.Observe] or [Demand.Waived] lets the
	// mail go.
	WouldHold bool `json:"would_hold,omitempty"`
	// Bounce is [BounceNoTLS] where the message's REQUIRETLS was not met: if no
	// other host meets it, the message goes back at once with this status. Empty:
	// a failure is transient.
	Bounce  string   `json:"bounce,omitempty"`
	Session *Session `json:"session,omitempty"` // nil: no TLS
	Cell    string   `json:"cell,omitempty"`    // of the demand
}

// Judge holds what was seen of a host against what is demanded of it: decision
// table 2 for one host. It is to be asked as soon as the handshake is over, has
// failed or has turned out not to be offered, before anything else is sent. Nil
// roots are the system's. A failed lookup in the demand passes for nothing.
//
// Where several things are wrong the first counts, in the order in which they
// stand in the way: MX not in the policy, no TLS, its version, its cipher suite,
// the certificate's trust, its dates, its name.
func Judge(d Demand, s Seen, roots *x509.CertPool, now time.Time) Verdict {
	j := judgement{Demand: d, seen: s, roots: roots, now: now}
	j.look()
	v := Verdict{Policies: j.policies(), Cell: d.Cell}
	if j.tls() {
		v.Session = describeSession(s.State)
	}
	why := j.refusal()
	v.WouldHold = why != nil && why.source != FromRequireTLS && why.source != FromRoute && j.lifted()
	if !j.tls() && !d.PlaintextAllowed() && (why == nil || v.WouldHold) {
		why, v.WouldHold = &refusal{FromOverride, j.noTLS}, false // whatever else was thought of it
	}
	v.Pass = why == nil || v.WouldHold
	v.Transport = j.transport(v.Pass)
	if why != nil && why.source == FromRequireTLS {
		v.Bounce = BounceNoTLS
	}
	j.explain(&v, why)
	return v
}

// judgement is one call of [Judge]: the flaws, each nil where there is none or
// nobody asked.
type judgement struct {
	Demand
	seen  Seen
	roots *x509.CertPool
	now   time.Time

	noTLS *flaw // there is no TLS session
	weak  *flaw // it is too weak to authenticate anybody
	pkix  *flaw // by certificate authorities and DNS-ID; noTLS and weak included
	sts   *flaw // by the MTA-STS policy, MX match included
	dane  *flaw // by TLSA records
	match dane.Match
}

// refusal is a demand that was not met.
type refusal struct {
	source Source
	*flaw
}

func (j *judgement) tls() bool { return j.noTLS == nil }

// daneUsable reports whether the host's TLSA records can authenticate it.
func (d Demand) daneUsable() bool { return d.DANE != nil && d.DANE.Set.State == dane.Usable }

// lifted reports whether a policy's failure stops nothing. With the REQUIRETLS
// parameter the header field TLS-Required: No MUST be ignored (RFC 8689 §4.1).
func (j *judgement) lifted() bool { return j.Observe || j.Waived && !j.RequireTLS }

// look finds all flaws that somebody asks for.
func (j *judgement) look() {
	j.noTLS = noTLS(j.seen)
	if j.tls() {
		j.weak = weakTLS(j.seen.State)
	}
	if j.STS != nil || j.RequireTLS || j.Level == Authenticated || j.Least == Authenticated || j.EnforceSTS {
		switch {
		case !j.tls():
			j.pkix = j.noTLS
		case j.weak != nil:
			j.pkix = j.weak
		default:
			j.pkix = pkix(j.seen.State, j.Host, j.roots, j.now)
		}
	}
	j.sts = j.lookSTS()
	j.dane = j.lookDANE()
}

// lookSTS holds the host against its MTA-STS policy (RFC 8461 §4), nil if none.
func (j *judgement) lookSTS() *flaw {
	switch {
	case j.STS == nil && j.EnforceSTS:
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonPolicyMissing,
			text: "is held to an MTA-STS policy that is not at hand", do: adviceDefect,
		}
	case j.STS == nil:
		return nil
	case !j.STS.Matched:
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonMXMismatch, section: "RFC 8461 §4.1",
			text: "matches no mx pattern of " + j.stsName(),
			do:   "Ask the domain's owner to list the host in the policy and to give the policy a new id, unless the MX record is forged.",
		}
	}
	return j.pkix
}

// lookDANE holds the host against its TLSA records (RFC 7672 §2.2), nil if it
// meets them or has none.
func (j *judgement) lookDANE() *flaw {
	if j.DANE == nil {
		if j.EnforceDANE {
			return &flaw{
				result: outcome.ValidationFailure, reason: ReasonPolicyMissing,
				text: "is held to TLSA records that are not at hand", do: adviceDefect,
			}
		}
		return nil
	}
	switch state := j.DANE.Set.State; {
	case state == dane.Absent && !j.EnforceDANE:
		return nil
	case state != dane.Usable && state != dane.Unusable:
		return daneFlaw(j.DANE.Set.Require())
	case !j.tls():
		return j.noTLS
	case state == dane.Unusable:
		return nil // RFC 7672 §2.2: TLS, authentication not required
	case j.weak != nil:
		return j.weak
	}
	var err error
	j.match, err = dane.Verify(j.seen.State.PeerCertificates, j.DANE.Set.Records, j.DANE.Reference, j.now)
	if err == nil {
		return nil
	}
	f := daneFlaw(err)
	if certs := j.seen.State.PeerCertificates; len(certs) > 0 {
		f.text += " (" + Describe(certs[0]).String() + ")"
	}
	return f
}

// daneFlaw takes over what package dane says of a host.
func daneFlaw(err error) *flaw {
	f := &flaw{
		result: outcome.ValidationFailure, reason: ReasonNotAuthenticated, section: "RFC 7672 §3.2",
		text: "was not authenticated by its TLSA records: " + clean(err.Error()), do: adviceDefect,
	}
	var known *dane.Error
	if !errors.As(err, &known) {
		return f
	}
	f.result, f.reason, f.do = outcome.ResultType(known.Result), known.Reason, known.Advice()
	if known.Err != nil {
		f.text = "was not authenticated by its TLSA records: " + clean(known.Err.Error())
	}
	if f.result == outcome.DNSSECInvalid || f.result == outcome.DANERequired {
		f.section = "RFC 7672 §2.1.2"
	}
	return f
}

// refusal returns the first demand that is not met, nil if all are. REQUIRETLS
// comes first, because nothing lifts it and the message is bounced for it.
func (j *judgement) refusal() *refusal {
	switch {
	case j.RequireTLS && j.requireTLS() != nil:
		return &refusal{FromRequireTLS, j.requireTLS()}
	case j.least() != nil:
		return &refusal{FromRoute, j.least()}
	case j.EnforceDANE && j.dane != nil:
		return &refusal{FromDANE, j.dane}
	case j.EnforceSTS && j.sts != nil:
		return &refusal{j.stsSource(), j.sts}
	case j.Level >= Encrypted && !j.tls():
		return &refusal{FromOverride, j.noTLS}
	case j.Level == Authenticated && j.identity() == FromNowhere:
		if j.pkix != nil {
			return &refusal{FromOverride, j.pkix}
		}
		return &refusal{FromOverride, &flaw{
			result: outcome.ValidationFailure, reason: ReasonNotAuthenticated,
			text: "was not authenticated by anything that is demanded of it", do: adviceDefect,
		}}
	}
	return nil
}

// requireTLS is what a host lacks for a message with REQUIRETLS: a name that is
// vouched for, TLS, and a certificate verified "as specified in [RFC6125] or
// [RFC7672], as applicable" (RFC 8689 §4.2.1). Where there are usable TLSA
// records, the latter applies: a trusted authority must not outvote them.
// Whether the host offers REQUIRETLS is seen by the EHLO that follows.
func (j *judgement) requireTLS() *flaw {
	switch {
	case !j.MXSecure:
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonMXNotSecure, section: "RFC 8689 §4.2.1",
			text: "has a name for which neither DNSSEC nor an MTA-STS policy vouches",
			do:   "Send the message without REQUIRETLS, or ask the domain's owner to sign its zone or to publish an MTA-STS policy.",
		}
	case j.daneUsable():
		return j.dane
	}
	return j.pkix
}

// least is what the host lacks of what the operator demands of the way to it.
// A name that anybody could have put into an MX record is no identity.
func (j *judgement) least() *flaw {
	switch {
	case j.LeastDANE && !j.daneUsable():
		return &flaw{
			result: outcome.DANERequired, reason: ReasonNotAuthenticated, section: "RFC 7672 §2.2",
			text: "has no TLSA records that could authenticate it",
			do:   "Ask the host's operator to publish TLSA records in a signed zone, or choose another tls for the route.",
		}
	case j.LeastDANE && j.dane != nil:
		return j.dane
	case j.Least >= Encrypted && !j.tls():
		return j.noTLS
	case j.Least < Authenticated && !j.LeastDANE:
		return nil
	case !j.MXSecure:
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonMXNotSecure,
			text: "has a name for which neither DNSSEC nor an MTA-STS policy vouches",
			do:   "Write the smart host's own name in brackets, so that no MX record is asked for.",
		}
	case j.daneUsable():
		return j.dane
	}
	return j.pkix
}

// identity says which demand established who the host is, FromNowhere if none
// did. What a usable TLSA record denies, no authority can vouch for.
func (j *judgement) identity() Source {
	switch {
	case !j.tls() || j.daneUsable() && j.dane != nil:
		return FromNowhere
	case j.daneUsable():
		return FromDANE
	case j.STS != nil && j.sts == nil:
		return j.stsSource()
	case j.RequireTLS && j.requireTLS() == nil:
		return FromRequireTLS
	case j.Least == Authenticated && j.MXSecure && j.pkix == nil:
		return FromRoute
	case j.Level == Authenticated && !j.EnforceDANE && !j.EnforceSTS && j.pkix == nil:
		return FromOverride // no policy, but a level that somebody configured
	}
	return FromNowhere
}

// verified reports whether the host is known to be the domain's: if it was found
// by an MX record that anybody could have written, DANE proves its name alone,
// and that MUST NOT be misrepresented as secure delivery (RFC 7672 §2.2.1).
func (j *judgement) verified() bool {
	switch j.identity() {
	case FromNowhere:
		return false
	case FromDANE:
		return j.MXSecure || j.STS != nil && j.sts == nil
	}
	return true
}

// stsSource tells an MTA-STS policy from the operator's demand in its form.
func (j *judgement) stsSource() Source {
	if j.STS != nil && j.STS.Local {
		return FromOverride
	}
	return FromSTS
}

func (j *judgement) transport(pass bool) outcome.Transport {
	switch {
	case !pass:
		return outcome.NotSent
	case !j.tls():
		return outcome.Clear
	case j.verified():
		return outcome.Verified
	}
	return outcome.Encrypted
}

// policies says how each policy fared, for TLS-RPT.
func (j *judgement) policies() []outcome.Policy {
	var list []outcome.Policy
	if j.DANE != nil && j.DANE.Set.State != dane.Absent {
		list = append(list, outcome.Policy{
			Type: outcome.TLSA, Domain: j.serverName(), Strings: j.DANE.Set.Strings(), Failure: j.daneFailure(),
		})
	}
	if j.STS != nil && !j.STS.Local && j.STS.Policy.Mode != mtasts.None {
		list = append(list, outcome.Policy{
			Type: outcome.STS, Domain: j.STS.PolicyDomain, Strings: j.STS.Policy.Strings(), MXHosts: j.STS.Policy.MX,
			Failure: j.sts.failure(),
		})
	}
	if len(list) == 0 {
		list = append(list, outcome.Policy{Type: outcome.NoPolicy, Domain: j.Domain})
	}
	return list
}

// daneFailure is the failure of the TLSA policy. Records of which none is usable
// are one (RFC 8460 §4.3.2.1), even though mail goes by them.
func (j *judgement) daneFailure() *outcome.Failure {
	if j.dane == nil && j.DANE.Set.State == dane.Unusable {
		return daneFlaw(j.DANE.Set.Require()).failure()
	}
	return j.dane.failure()
}
