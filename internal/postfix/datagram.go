package postfix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
)

const (
	// maxDatagram is what one datagram may have, in bytes. Linux lets a sender
	// have net.core.wmem_max, 208 KiB by default.
	maxDatagram = 256 << 10
	// maxPolicies and maxDetails cap what one datagram may tell: a session is held
	// to a policy or two, and libtlsrpt itself is asked for a detail a failure.
	maxPolicies = 64
	maxDetails  = 64
	// maxStrings caps a policy's lines and patterns.
	maxStrings = 128
	// maxDatagramText caps each text, in bytes.
	maxDatagramText = 1024
)

// BadDatagram is a kind of datagram that says nothing that can be counted.
type BadDatagram string

// The kinds of bad datagrams.
const (
	BadEmpty    BadDatagram = "empty"
	BadTooLong  BadDatagram = "too-long"
	BadJSON     BadDatagram = "not-json"
	BadObject   BadDatagram = "not-an-object" // JSON of another sort: a number, a list, null
	BadType     BadDatagram = "wrong-type"    // a field of another sort than libtlsrpt sends
	BadVersion  BadDatagram = "unknown-version"
	BadDomain   BadDatagram = "no-domain"
	BadPolicies BadDatagram = "no-policies"
	BadPolicy   BadDatagram = "unknown-policy-type"
	BadTooMany  BadDatagram = "too-many" // policies, details, lines
)

// badDatagrams are all kinds, in the order in which they are shown.
var badDatagrams = [...]BadDatagram{
	BadEmpty, BadTooLong, BadJSON, BadObject, BadType, BadVersion, BadDomain, BadPolicies, BadPolicy, BadTooMany,
}

// DatagramError says why a datagram cannot be counted.
type DatagramError struct {
	Kind BadDatagram
	Err  error
}

// Error implements error.
func (e *DatagramError) Error() string { return fmt.Sprintf("%s: %v", e.Kind, e.Err) }

// Unwrap returns what was wrong.
func (e *DatagramError) Unwrap() error { return e.Err }

// wireDatagram is what libtlsrpt sends: one JSON object for each session.
type wireDatagram struct {
	Version  string       `json:"dpv"` // "1"; Postfix 3.10 leaves it out
	Domain   string       `json:"d"`   // the recipient's domain
	Policies []wirePolicy `json:"policies"`
}

type wirePolicy struct {
	Type    int          `json:"policy-type"`
	Domain  string       `json:"policy-domain"`
	Strings []string     `json:"policy-string"`
	MXHosts []string     `json:"mx-host"`
	Details []wireDetail `json:"failure-details"`
	Failed  int          `json:"f"` // 0: the policy was satisfied
}

type wireDetail struct {
	Code   int    `json:"c"`
	Source string `json:"s"` // sending-mta-ip
	MX     string `json:"n"` // receiving-mx-hostname
	Helo   string `json:"h"` // the whole reply to EHLO, lines joined by CR LF
	IP     string `json:"r"` // receiving-ip
	Info   string `json:"a"` // additional-information
	Reason string `json:"f"` // failure-reason-code
}

// policyTypes are libtlsrpt's numbers (tlsrpt_policy_type_t).
var policyTypes = map[int]outcome.PolicyType{1: outcome.TLSA, 2: outcome.STS, 9: outcome.NoPolicy}

// resultTypes are libtlsrpt's numbers (tlsrpt_failure_t).
var resultTypes = map[int]outcome.ResultType{
	201: outcome.StartTLSNotSupported, 202: outcome.CertificateHostMismatch, 203: outcome.CertificateNotTrusted,
	204: outcome.CertificateExpired, 205: outcome.ValidationFailure, 301: outcome.STSPolicyFetchError,
	302: outcome.STSPolicyInvalid, 303: outcome.STSWebPKIInvalid, 304: outcome.TLSAInvalid,
	305: outcome.DNSSECInvalid, 306: outcome.DANERequired,
}

// betterType says, for reasons that Postfix gives under validation-failure,
// which result type RFC 8460 §4.3.1 has for them. They are OpenSSL's texts of
// verification errors, with _ for blanks; it has written "self signed" both ways.
var betterType = map[string]outcome.ResultType{
	"self-signed_certificate":                      outcome.CertificateNotTrusted,
	"self_signed_certificate":                      outcome.CertificateNotTrusted,
	"self-signed_certificate_in_certificate_chain": outcome.CertificateNotTrusted,
	"self_signed_certificate_in_certificate_chain": outcome.CertificateNotTrusted,
	"unable_to_get_issuer_certificate":             outcome.CertificateNotTrusted,
	"unable_to_get_local_issuer_certificate":       outcome.CertificateNotTrusted,
	"unable_to_verify_the_first_certificate":       outcome.CertificateNotTrusted,
	"certificate_not_trusted":                      outcome.CertificateNotTrusted,
	"certificate_has_expired":                      outcome.CertificateExpired,
	"hostname_mismatch":                            outcome.CertificateHostMismatch,
	"Hostname_mismatch":                            outcome.CertificateHostMismatch,
}

// parseDatagram reads one datagram of libtlsrpt, received at a time. The errors
// are of type *[DatagramError].
func parseDatagram(b []byte, at time.Time) (outcome.Attempt, error) {
	var a outcome.Attempt
	d, err := decodeDatagram(b)
	if err != nil {
		return a, err
	}
	switch {
	case d.Version != "" && d.Version != "1":
		return a, &DatagramError{BadVersion, fmt.Errorf("dpv is %.20q", d.Version)}
	case len(d.Policies) == 0:
		return a, &DatagramError{BadPolicies, errors.New("there is no policy in it")}
	case len(d.Policies) > maxPolicies:
		return a, &DatagramError{BadTooMany, fmt.Errorf("%d policies", len(d.Policies))}
	}
	domain, err := resolve.Name(d.Domain)
	if err != nil {
		return a, &DatagramError{BadDomain, err}
	}
	a = outcome.Attempt{At: at, Source: "postfix", Domain: domain, Transport: outcome.Verified}
	for _, p := range d.Policies {
		if err := take(&a, p); err != nil {
			return outcome.Attempt{}, err
		}
	}
	return a, nil
}

// decodeDatagram decodes the JSON, and says which sort of wrong it is.
func decodeDatagram(b []byte) (d wireDatagram, err error) {
	text := bytes.TrimSpace(b)
	switch {
	case len(text) == 0:
		return d, &DatagramError{BadEmpty, errors.New("nothing was in it")}
	case len(b) > maxDatagram:
		return d, &DatagramError{BadTooLong, fmt.Errorf("it is longer than %d bytes", maxDatagram)}
	}
	// Invalid UTF-8, which passes through libtlsrpt, is replaced (RFC 8460 §4: I-JSON).
	if err = json.Unmarshal(text, &d); err == nil {
		if text[0] != '{' { // null
			return d, &DatagramError{BadObject, fmt.Errorf("it is %.20q", text)}
		}
		return d, nil
	}
	var mistyped *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &mistyped):
		return d, &DatagramError{BadJSON, err}
	case text[0] != '{':
		return d, &DatagramError{BadObject, err}
	default:
		return d, &DatagramError{BadType, err}
	}
}

// mxPatterns are the patterns of an MTA-STS policy's lines: the mx-host of RFC 8460
// §4.4. What Postfix says of it are the hosts that it was told it may use.
func mxPatterns(lines []string) (patterns []string) {
	for _, l := range lines {
		if value, ok := strings.CutPrefix(l, "mx:"); ok {
			patterns = append(patterns, strings.TrimSpace(value))
		}
	}
	return patterns
}

// take adds one policy, and what is known of the session by it.
func take(a *outcome.Attempt, w wirePolicy) error {
	kind, known := policyTypes[w.Type]
	switch {
	case !known:
		return &DatagramError{BadPolicy, fmt.Errorf("policy-type is %d", w.Type)}
	case len(w.Details) > maxDetails, len(w.Strings) > maxStrings, len(w.MXHosts) > maxStrings:
		return &DatagramError{BadTooMany, fmt.Errorf("%d details, %d lines, %d patterns", len(w.Details), len(w.Strings), len(w.MXHosts))}
	}
	p := outcome.Policy{Type: kind, Domain: a.Domain, Strings: clipAll(w.Strings), MXHosts: clipAll(w.MXHosts)}
	if patterns := mxPatterns(p.Strings); kind == outcome.STS && len(patterns) > 0 {
		p.MXHosts = patterns
	}
	if name, err := resolve.Name(w.Domain); err == nil { // RFC 8460 §4.4: A-labels
		p.Domain = name
	}
	if len(w.Details) > 0 {
		locate(a, w.Details[0])
	}
	switch {
	case w.Failed != 0:
		a.Transport = outcome.NotSent
		p.Failure = failureOf(w.Details)
	case a.Transport == outcome.Verified && !witnessed(p):
		a.Transport = outcome.Encrypted
	}
	a.Policies = append(a.Policies, p)
	return nil
}

// witnessed reports whether a success means that the host was authenticated. At
// level may, which is what Postfix uses without a policy and for one in mode
// testing, it reports success for any certificate.
func witnessed(p outcome.Policy) bool {
	switch p.Type {
	case outcome.TLSA:
		return true
	case outcome.STS:
		return slices.ContainsFunc(p.Strings, func(line string) bool {
			key, value, _ := strings.Cut(line, ":")
			return strings.TrimSpace(key) == "mode" && strings.TrimSpace(value) == "enforce"
		})
	default:
		return false
	}
}

// locate notes between which hosts the session was.
func locate(a *outcome.Attempt, d wireDetail) {
	if name, err := resolve.Name(d.MX); err == nil {
		a.MX = name
	}
	// An address that is none is left out; the outcome counts all the same.
	if ip, err := netip.ParseAddr(d.IP); err == nil {
		a.IP = ip.Unmap()
	}
	if ip, err := netip.ParseAddr(d.Source); err == nil {
		a.SourceIP = ip.Unmap()
	}
	a.Helo = heloOf(d.Helo)
}

// heloOf is the name in the first line of a reply to EHLO, as
// "250-mx.example.com greets you".
func heloOf(reply string) string {
	line, _, _ := strings.Cut(reply, "\r\n")
	line = strings.TrimPrefix(strings.TrimPrefix(line, "250-"), "250 ")
	return clipText(line)
}

// failureOf is the failure of one policy. A session counts once, by the first of
// its details; the others are told in the additional information.
func failureOf(details []wireDetail) *outcome.Failure {
	if len(details) == 0 {
		return &outcome.Failure{Result: outcome.ValidationFailure, Reason: "unspecified"}
	}
	first := details[0]
	f := &outcome.Failure{Result: resultType(first), Reason: clipText(first.Reason), Info: clipText(first.Info)}
	if f.Reason == "" && resultTypes[first.Code] == "" {
		f.Reason = fmt.Sprintf("libtlsrpt-%d", first.Code) // a newer libtlsrpt's
	}
	var more []string
	for _, d := range details[1:] {
		more = append(more, strings.TrimSpace(string(resultType(d))+" "+clipText(d.Reason)))
	}
	if len(more) > 0 {
		f.Info = clipText(strings.TrimSpace(f.Info + " also: " + strings.Join(more, ", ")))
	}
	return f
}

func resultType(d wireDetail) outcome.ResultType {
	result, known := resultTypes[d.Code]
	switch {
	case !known:
		return outcome.ValidationFailure
	case result == outcome.ValidationFailure:
		if better, known := betterType[d.Reason]; known {
			return better
		}
	}
	return result
}

func clipAll(texts []string) []string {
	for i, s := range texts {
		texts[i] = clipText(s)
	}
	return texts
}

// clipText shortens a text that may be the other side's, at a letter's end, and
// keeps control characters out of logs and pages.
func clipText(s string) string {
	if len(s) > maxDatagramText {
		s = strings.ToValidUTF8(s[:maxDatagramText], "")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
