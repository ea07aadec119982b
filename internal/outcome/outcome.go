// Package outcome holds the types of what one TLS attempt came to: the result
// types of RFC 8460, the policies an attempt was judged by, and the transport
// the mail went over. Everything that connects makes them (the relay, Postfix
// through its TLS-RPT socket, policy discovery); the ledger counts them.
package outcome

import (
	"net/netip"
	"time"
)

// ResultType is a failure's result type, by the names of RFC 8460 §4.3.
type ResultType string

// The eleven result types of RFC 8460 §4.3.
const (
	StartTLSNotSupported    ResultType = "starttls-not-supported"    // §4.3.1
	CertificateHostMismatch ResultType = "certificate-host-mismatch" // §4.3.1
	CertificateExpired      ResultType = "certificate-expired"       // §4.3.1
	CertificateNotTrusted   ResultType = "certificate-not-trusted"   // §4.3.1; carries a failure-reason-code
	ValidationFailure       ResultType = "validation-failure"        // §4.3.1; carries a failure-reason-code
	TLSAInvalid             ResultType = "tlsa-invalid"              // §4.3.2.1
	DNSSECInvalid           ResultType = "dnssec-invalid"            // §4.3.2.1
	DANERequired            ResultType = "dane-required"             // §4.3.2.1
	STSPolicyFetchError     ResultType = "sts-policy-fetch-error"    // §4.3.2.2
	STSPolicyInvalid        ResultType = "sts-policy-invalid"        // §4.3.2.2
	STSWebPKIInvalid        ResultType = "sts-webpki-invalid"        // §4.3.2.2
)

// PolicyType says which kind of policy an attempt was judged by (RFC 8460 §4.4).
type PolicyType string

// The policy types of RFC 8460 §4.4.
const (
	TLSA     PolicyType = "tlsa"
	STS      PolicyType = "sts"
	NoPolicy PolicyType = "no-policy-found"
)

// Transport is the protection under which a message went, or did not go.
type Transport string

// The transports, from no connection to an authenticated one.
const (
	NotSent   Transport = "none"      // no mail was sent over this connection
	Clear     Transport = "clear"     // SMTP without TLS
	Encrypted Transport = "encrypted" // TLS to a peer whose identity was not established
	Verified  Transport = "verified"  // TLS to a peer that DANE or the policy's PKIX rules authenticated
)

// Failure is why an attempt did not satisfy a policy.
type Failure struct {
	Result ResultType `json:"result"`
	Reason string     `json:"reason,omitempty"` // failure-reason-code (RFC 8460 §4.3): short and stable
	Info   string     `json:"info,omitempty"`   // additional-information: for people
}

// Policy is one policy an attempt was judged by, and how it fared.
type Policy struct {
	Type    PolicyType `json:"type"`
	Domain  string     `json:"domain"`             // policy-domain: the domain of the MTA-STS policy, or the TLSA base domain
	Strings []string   `json:"strings,omitempty"`  // policy-string: the policy's lines, or the TLSA records
	MXHosts []string   `json:"mx_hosts,omitempty"` // mx-host: the patterns of an MTA-STS policy
	Failure *Failure   `json:"failure,omitempty"`  // nil: the policy was satisfied
}

// String names the policy for people.
func (p Policy) String() string {
	switch p.Type {
	case STS:
		return "the MTA-STS policy of " + p.Domain
	case TLSA:
		return "the TLSA records of " + p.Domain
	default:
		return "no policy"
	}
}

// Attempt is one try at a TLS session with one MX host, or a try at finding a
// policy that failed before there was a host to speak to.
type Attempt struct {
	At        time.Time  `json:"at"`
	Org       string     `json:"-"`
	Source    string     `json:"source"` // "relay", "postfix" or "policy"
	Domain    string     `json:"domain"` // recipient domain: the key of the TLS-RPT report it ends up in
	MX        string     `json:"mx,omitempty"`
	IP        netip.Addr `json:"ip,omitzero"`
	SourceIP  netip.Addr `json:"source_ip,omitzero"`
	Helo      string     `json:"helo,omitempty"` // the receiver's EHLO name
	Policies  []Policy   `json:"policies,omitempty"`
	Transport Transport  `json:"transport"`
	Delivered bool       `json:"delivered"` // the receiver took at least one recipient
}

// Failed reports whether any policy of the attempt was not satisfied.
func (a Attempt) Failed() bool {
	for _, p := range a.Policies {
		if p.Failure != nil {
			return true
		}
	}
	return false
}
