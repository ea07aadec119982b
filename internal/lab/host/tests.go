package host

import "slices"

// Mechanism is what a test is about.
type Mechanism string

// The two mechanisms.
const (
	MTASTS Mechanism = "MTA-STS"
	DANE   Mechanism = "DANE"
)

// Fate is what must become of a test's mail.
type Fate string

// The fates.
const (
	Arrive Fate = "arrive"
	Hold   Fate = "wait" // in the sender's queue; in the end it is returned
)

// certificate is what a host shows.
type certificate int

const (
	trusted    certificate = iota // of a CA, for the host's name
	other                         // of a CA, for the name of another host
	selfSigned                    // for the host's name
	expired                       // our own key, past its end and for no name: fit for DANE-EE only
)

// fault is what else is wrong with a host.
type fault int

const (
	none    fault = iota
	clear         // no STARTTLS
	broken        // the handshake fails
	oldOnly       // TLS 1.1 at best
)

// association is which TLSA record a host has.
type association int

const (
	noTLSA   association = iota
	ownTLSA              // 3 1 1 of the key of expired and selfSigned
	stale                // 3 1 1 of a key that no host has
	unusable             // PKIX-TA, which is not for SMTP (RFC 7672 §3.1.3)
)

// receiver is an MX host of a test.
type receiver struct {
	label string // below the test's domain: "mx"
	shows certificate
	fault fault
	tlsa  association
	rogue bool // mail at this one has leaked, whatever the fate
}

// web is how a policy is served.
type web int

const (
	served       web = iota
	notFound         // 404
	redirected       // to the policy of the first test
	badWebserver     // under a self-signed certificate
)

// policy is the MTA-STS policy of a test.
type policy struct {
	mode   string
	mx     []string // below the test's domain: "mx", "*"
	web    web
	copies int // TXT records; 0 is 1
}

// Test is one receiving domain.
type Test struct {
	Name    string // the label below the domain
	Is      string // what is particular about it
	Of      Mechanism
	Fate    Fate
	Section string // of the standard that says so
	Attack  string // number of the lab's attack that it stands for, or ""
	Fix     string // what to do where the fate is another

	far       bool // a sender that honours the policy need not connect to its host
	policy    *policy
	receivers []receiver
}

const (
	fixSTS     = "Let the sender honour MTA-STS: for Postfix through a TLS policy map such as pawl's, for others through a relay that does."
	fixDANE    = "Let the sender honour DANE: in Postfix, smtp_dns_support_level = dnssec and a level of dane, with a validating resolver on the same machine."
	fixStrict  = "The sender holds mail that it has no reason to hold. See its log for the reason that it gives."
	fixSNI     = "The sender must say the MX host's name in the TLS handshake (SNI); in Postfix, servername=hostname in the policy."
	fixPattern = "The sender's matching of mx patterns is wrong; in Postfix before 3.10.5, .name matches at any depth, so the policy map must list whole names."
)

// enforced is a policy in mode enforce.
func enforced(mx ...string) *policy { return &policy{mode: "enforce", mx: mx} }

// Tests returns all tests, in their order. Those without a policy that holds have
// a host that only a sender without demands delivers to, so that one which
// wrongly sees a policy shows.
func Tests() []Test {
	untrusted := []receiver{{label: "mx", shows: selfSigned}}
	return []Test{
		{
			Name: "good", Is: "all is as the policy says", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §4", Fix: fixStrict,
			policy: enforced("mx"), receivers: []receiver{{label: "mx"}},
		},
		{
			Name: "wildcard", Is: "the policy names the host by a pattern", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §4.1", Fix: fixPattern,
			policy: enforced("*"), receivers: []receiver{{label: "mx"}},
		},
		{
			Name: "no-starttls", Is: "the host does not offer STARTTLS", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §5", Attack: "1", Fix: fixSTS,
			policy: enforced("mx"), receivers: []receiver{{label: "mx", fault: clear}},
		},
		{
			Name: "broken-handshake", Is: "the TLS handshake fails", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §5", Attack: "3", Fix: fixSTS,
			policy: enforced("mx"), receivers: []receiver{{label: "mx", fault: broken}},
		},
		{
			Name: "old-tls", Is: "the host speaks TLS 1.1 at best", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §7.2", Attack: "4", Fix: fixSTS,
			policy: enforced("mx"), receivers: []receiver{{label: "mx", fault: oldOnly}},
		},
		{
			Name: "self-signed", Is: "the certificate is self-signed", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §4.2", Attack: "5", Fix: fixSTS,
			policy: enforced("mx"), receivers: untrusted,
		},
		{
			Name: "wrong-name", Is: "the certificate is for another name", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §4.2", Attack: "7", Fix: fixSTS,
			policy: enforced("mx"), receivers: []receiver{{label: "mx", shows: other}},
		},
		{
			Name: "unlisted-mx", Is: "the policy does not list the host", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §4.1", Attack: "8", Fix: fixSTS,
			far: true, policy: enforced("mail"), receivers: []receiver{{label: "mx"}},
		},
		{
			Name: "wildcard-depth", Is: "a pattern that the host is one label too deep for", Of: MTASTS, Fate: Hold, Section: "RFC 8461 §4.1", Fix: fixPattern,
			far: true, policy: enforced("*"), receivers: []receiver{{label: "mx.deep"}},
		},
		{
			Name: "next-host", Is: "the first host's certificate is self-signed, the second is good", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §5.1",
			Fix: fixSNI, policy: enforced("mx1", "mx2"),
			receivers: []receiver{{label: "mx1", shows: selfSigned, rogue: true}, {label: "mx2"}},
		},
		{
			Name: "testing", Is: "a bad certificate, and a policy in mode testing", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §5", Fix: fixStrict,
			policy: &policy{mode: "testing", mx: []string{"mx"}}, receivers: untrusted,
		},
		{
			Name: "mode-none", Is: "a bad certificate, and a policy in mode none", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §5", Fix: fixStrict,
			policy: &policy{mode: "none"}, receivers: untrusted,
		},
		{
			Name: "no-policy", Is: "a record, but the policy is a 404", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §3.3", Attack: "14", Fix: fixStrict,
			policy: &policy{mode: "enforce", mx: []string{"mx"}, web: notFound}, receivers: untrusted,
		},
		{
			Name: "redirect", Is: "the policy is a redirect, which must not be followed", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §3.3", Attack: "14", Fix: fixStrict,
			policy: &policy{mode: "enforce", mx: []string{"mx"}, web: redirected}, receivers: untrusted,
		},
		{
			Name: "policy-host", Is: "the policy host's certificate is self-signed, so there is no policy", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §3.3",
			Attack: "13", Fix: fixStrict, policy: &policy{mode: "enforce", mx: []string{"mx"}, web: badWebserver}, receivers: untrusted,
		},
		{
			Name: "two-records", Is: "two _mta-sts records, so there is no policy", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §3.1", Fix: fixStrict,
			policy: &policy{mode: "enforce", mx: []string{"mx"}, copies: 2}, receivers: untrusted,
		},
		{
			Name: "below.good", Is: "a subdomain of one with a policy, without one of its own", Of: MTASTS, Fate: Arrive, Section: "RFC 8461 §3.4", Attack: "37",
			Fix: fixStrict, receivers: untrusted,
		},
		{
			Name: "dane", Is: "a certificate that has expired, has no name, and is what TLSA says", Of: DANE, Fate: Arrive, Section: "RFC 7672 §3.1.1", Fix: fixStrict,
			receivers: []receiver{{label: "mx", shows: expired, tlsa: ownTLSA}},
		},
		{
			Name: "dane-stale", Is: "a good certificate that is not what TLSA says", Of: DANE, Fate: Hold, Section: "RFC 7672 §2.2", Attack: "41", Fix: fixDANE,
			receivers: []receiver{{label: "mx", tlsa: stale}},
		},
		{
			Name: "dane-no-starttls", Is: "TLSA records, and the host does not offer STARTTLS", Of: DANE, Fate: Hold, Section: "RFC 7672 §2.2", Attack: "1", Fix: fixDANE,
			receivers: []receiver{{label: "mx", fault: clear, tlsa: stale}},
		},
		{
			Name: "dane-over-sts", Is: "MTA-STS holds, but the certificate is not what TLSA says", Of: DANE, Fate: Hold, Section: "RFC 8461 §2", Attack: "41",
			Fix:    "MTA-STS must not override a failing DANE validation. " + fixDANE,
			policy: enforced("mx"), receivers: []receiver{{label: "mx", tlsa: stale}},
		},
		{
			Name: "dane-unusable", Is: "TLSA records that are not for SMTP, and a self-signed certificate", Of: DANE, Fate: Arrive, Section: "RFC 7672 §3.1.3", Fix: fixStrict,
			receivers: []receiver{{label: "mx", shows: selfSigned, tlsa: unusable}},
		},
	}
}

// needsClear reports whether the test has a host without STARTTLS.
func (t Test) needsClear() bool {
	return slices.ContainsFunc(t.receivers, func(r receiver) bool { return r.fault == clear })
}

// hasRogue reports whether the test has a host at which mail has leaked.
func (t Test) hasRogue() bool {
	return slices.ContainsFunc(t.receivers, func(r receiver) bool { return r.rogue })
}

// demandsTLS reports whether mail in clear has leaked.
func (t Test) demandsTLS() bool {
	if t.Of == DANE {
		return true // unusable TLSA records demand TLS, too (RFC 7672 §2.2)
	}
	return t.holds()
}

// holds reports whether the test has a policy in mode enforce that a sender can
// get.
func (t Test) holds() bool {
	return t.policy != nil && t.policy.mode == "enforce" && t.policy.web == served && t.policy.copies < 2
}
