package mtasts

import "fmt"

// The result types that RFC 8460 §4.3.2.2 has for MTA-STS, as the ResultType
// method of this package's errors returns them.
const (
	ResultFetchError    = "sts-policy-fetch-error" // no policy could be retrieved
	ResultPolicyInvalid = "sts-policy-invalid"     // what was retrieved is not a valid policy
	ResultWebPKIInvalid = "sts-webpki-invalid"     // the policy host could not be authenticated
)

// Code names one thing that is wrong, or odd, with a record, a policy or a
// policy host. Codes are stable: they suit as the failure-reason-code of a TLS
// report (RFC 8460 §4.4) and as keys of a catalogue.
type Code string

// What can be wrong with the TXT record (RFC 8461 §3.1).
const (
	RecordNone         Code = "record-none"            // no record begins with the version
	RecordSeveral      Code = "record-several"         // more than one does
	RecordTooLarge     Code = "record-too-large"       // over MaxRecordSize
	RecordVersion      Code = "record-version-invalid" // does not begin with v=STSv1, in this case and spelling
	RecordIDMissing    Code = "record-id-missing"      //
	RecordIDInvalid    Code = "record-id-invalid"      // not 1 to 32 letters and digits
	RecordFieldInvalid Code = "record-field-invalid"   // a field that is not name=value, or a delimiter that is not a semicolon
)

// What is odd about a TXT record, but valid.
const (
	RecordBlankBeforeDelimiter Code = "record-blank-before-delimiter" // "v=STSv1 ;": other senders do not see the record
	RecordFieldDuplicate       Code = "record-field-duplicate"        // the first counts
)

// What can be wrong with the policy (RFC 8461 §3.2).
const (
	PolicyTooLarge       Code = "policy-too-large"       // over MaxPolicySize
	PolicyBOM            Code = "policy-bom"             // begins with a byte order mark
	PolicyBareCR         Code = "policy-bare-cr"         // a CR without its LF
	PolicyNotUTF8        Code = "policy-not-utf8"        //
	PolicyBlankLine      Code = "policy-blank-line"      // other than one at the end
	PolicyLineInvalid    Code = "policy-line-invalid"    // not key: value
	PolicyOneLine        Code = "policy-one-line"        // all fields on one line
	PolicyVersionMissing Code = "policy-version-missing" //
	PolicyVersionInvalid Code = "policy-version-invalid" // not STSv1
	PolicyModeMissing    Code = "policy-mode-missing"    //
	PolicyModeInvalid    Code = "policy-mode-invalid"    // not enforce, testing or none
	PolicyMaxAgeMissing  Code = "policy-max-age-missing" //
	PolicyMaxAgeInvalid  Code = "policy-max-age-invalid" // not a whole number of seconds
	PolicyMaxAgeTooLong  Code = "policy-max-age-too-long"
	PolicyMXMissing      Code = "policy-mx-missing"  // and the mode is not none
	PolicyMXSeveral      Code = "policy-mx-several"  // more than one on a line
	PolicyMXInvalid      Code = "policy-mx-invalid"  // not a host name: trailing dot, URL, preference …
	PolicyMXWildcard     Code = "policy-mx-wildcard" // * is not the whole left label
)

// What is odd about a policy, but valid.
const (
	PolicyMXULabel     Code = "policy-mx-u-label"    // a name in Unicode: matches no host
	PolicyMXAddress    Code = "policy-mx-address"    // an IP address: matches no host that has a certificate for a name
	PolicyKeyDuplicate Code = "policy-key-duplicate" // the first counts
	PolicyKeyCase      Code = "policy-key-case"      // "Mode" is not "mode" and is ignored
)

// What can be wrong with the policy host (RFC 8461 §3.3).
const (
	DomainInvalid Code = "domain-invalid" // no domain that could have a policy
	Cancelled     Code = "cancelled"      // the caller gave up; says nothing about the host

	HostNotFound   Code = "policy-host-not-found"     // its name or address does not exist
	HostLookup     Code = "policy-host-lookup-failed" // it could not be looked up
	ConnectRefused Code = "connect-refused"
	ConnectTimeout Code = "connect-timeout"
	ConnectError   Code = "connect-error"

	TLSHandshake Code = "tls-handshake" // broken off, or the host does not speak TLS
	TLSVersion   Code = "tls-version"   // nothing newer than TLS 1.1
	TLSTimeout   Code = "tls-timeout"

	CertificateSelfSigned   Code = "certificate-self-signed"
	CertificateIncomplete   Code = "certificate-chain-incomplete" // the host did not send the issuer of its certificate
	CertificateNotTrusted   Code = "certificate-not-trusted"
	CertificateInvalid      Code = "certificate-invalid" // not fit for a server: constraints, usage, signature
	CertificateExpired      Code = "certificate-expired"
	CertificateNotYetValid  Code = "certificate-not-yet-valid"
	CertificateCNOnly       Code = "certificate-cn-only" // has the name as CN, and no DNS-ID
	CertificateHostMismatch Code = "certificate-host-mismatch"

	ConnectionLost  Code = "connection-lost" // after the handshake
	HTTPRedirect    Code = "http-redirect"
	HTTPStatus      Code = "http-status" // FailureReason adds the number: http-status-404
	HTTPMalformed   Code = "http-malformed"
	HeaderTooLarge  Code = "http-header-too-large"
	MediaType       Code = "media-type"       // not text/plain; also a warning, with WarnOfMediaType
	ContentEncoding Code = "content-encoding" // compressed, though not asked for
	BodyTooLarge    Code = "body-too-large"
	BodyTruncated   Code = "body-truncated"
	ResponseTimeout Code = "response-timeout"
)

// Warning is something that is odd about a record, a policy or a response, but
// does not make it invalid.
type Warning struct {
	Code Code   `json:"code"`
	Line int    `json:"line,omitempty"` // of the policy, from 1; 0: not about one line
	Text string `json:"text"`
}

// String returns the text, with the line in front where there is one.
func (w Warning) String() string {
	if w.Line > 0 {
		return fmt.Sprintf("line %d: %s", w.Line, w.Text)
	}
	return w.Text
}
