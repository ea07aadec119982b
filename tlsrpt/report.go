package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// PolicyType says which kind of policy was applied (RFC 8460 §4.4).
type PolicyType string

// The policy types.
const (
	TLSA     PolicyType = "tlsa"
	STS      PolicyType = "sts"
	NoPolicy PolicyType = "no-policy-found"
)

// ResultType is the kind of a failure (RFC 8460 §4.3). The list is expected to
// grow, so others are read as well.
type ResultType string

// The result types of RFC 8460 §4.3.
const (
	StartTLSNotSupported    ResultType = "starttls-not-supported"
	CertificateHostMismatch ResultType = "certificate-host-mismatch"
	CertificateExpired      ResultType = "certificate-expired"
	CertificateNotTrusted   ResultType = "certificate-not-trusted"
	ValidationFailure       ResultType = "validation-failure"
	TLSAInvalid             ResultType = "tlsa-invalid"
	DNSSECInvalid           ResultType = "dnssec-invalid"
	DANERequired            ResultType = "dane-required"
	STSPolicyFetchError     ResultType = "sts-policy-fetch-error"
	STSPolicyInvalid        ResultType = "sts-policy-invalid"
	STSWebPKIInvalid        ResultType = "sts-webpki-invalid"
)

// ResultTypes returns the result types of RFC 8460 §4.3 in its order.
func ResultTypes() []ResultType {
	return []ResultType{
		StartTLSNotSupported, CertificateHostMismatch, CertificateExpired, CertificateNotTrusted, ValidationFailure,
		TLSAInvalid, DNSSECInvalid, DANERequired, STSPolicyFetchError, STSPolicyInvalid, STSWebPKIInvalid,
	}
}

// Report is one report: what a sender saw of a domain in a UTC day.
type Report struct {
	Organization string // organization-name
	Contact      string // contact-info: a mailbox
	ID           string // report-id
	Start, End   time.Time
	Policies     []Policy
}

// Policy is what was seen under one policy.
type Policy struct {
	Type      PolicyType
	Domain    string   // policy-domain: of an MTA-STS policy, or the TLSA base domain; A-labels
	Strings   []string // policy-string: the policy's lines, or the TLSA records (RFC 8460 §4.5)
	MXHosts   []string // mx-host: patterns of an MTA-STS policy
	Successes int64    // total-successful-session-count
	Failures  int64    // total-failure-session-count
	Details   []Detail // failure-details
}

// Detail is one kind of failure. Kinds may overlap: the sessions of all details
// need not sum up to [Policy.Failures] (RFC 8460 §4).
type Detail struct {
	Result      ResultType
	SendingIP   netip.Addr // zero: not told
	ReceivingIP netip.Addr
	MXHost      string // receiving-mx-hostname
	MXHelo      string // receiving-mx-helo
	Sessions    int64  // failed-session-count
	Info        string // additional-information: a URI
	Reason      string // failure-reason-code
}

// maxSafe is the largest integer that every reader of JSON takes for itself
// (RFC 7493 §2.2).
const maxSafe = 1<<53 - 1

// Validate says what keeps the report from being sent, all of it joined.
func (r *Report) Validate() error {
	v := validation{}
	v.text("organization-name", r.Organization, true)
	if !IsMailbox(r.Contact) {
		v.fail("contact-info %s is not a mailbox", excerpt(r.Contact))
	}
	v.text("report-id", r.ID, true)
	if !r.Start.Before(r.End) {
		v.fail("the date-range ends before it starts")
	}
	if len(r.Policies) == 0 {
		v.fail("there are no policies")
	}
	for i := range r.Policies {
		v.policy("policies["+strconv.Itoa(i)+"]", &r.Policies[i])
	}
	return errors.Join(v.errs...)
}

// maxValidationErrors caps what is told of one report.
const maxValidationErrors = 20

type validation struct{ errs []error }

func (v *validation) fail(format string, args ...any) {
	if len(v.errs) < maxValidationErrors {
		v.errs = append(v.errs, fmt.Errorf(format, args...))
	}
}

// text checks a string by RFC 7493 §2.1: Unicode without surrogates and
// noncharacters.
func (v *validation) text(name, s string, required bool) {
	if required && s == "" {
		v.fail("%s is missing", name)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef }) {
		v.fail("%s %s is not I-JSON text", name, excerpt(s))
	}
}

func (v *validation) count(name string, n int64) {
	if n < 0 || n > maxSafe {
		v.fail("%s %d is not within 0 and 2^53-1", name, n)
	}
}

func (v *validation) policy(path string, p *Policy) {
	switch p.Type {
	case TLSA, STS, NoPolicy:
	default:
		v.fail("%s: policy-type %s is not one of RFC 8460 §4.4", path, excerpt(string(p.Type)))
	}
	if !IsDomain(p.Domain) {
		v.fail("%s: policy-domain %s is not a domain name in A-labels", path, excerpt(p.Domain))
	}
	for _, s := range p.Strings {
		v.text(path+": policy-string", s, false)
	}
	for _, m := range p.MXHosts {
		if !isPattern(m) {
			v.fail("%s: mx-host %s is not a pattern in A-labels", path, excerpt(m))
		}
	}
	v.count(path+": total-successful-session-count", p.Successes)
	v.count(path+": total-failure-session-count", p.Failures)
	for i := range p.Details {
		v.detail(path+".failure-details["+strconv.Itoa(i)+"]", &p.Details[i])
	}
}

func (v *validation) detail(path string, d *Detail) {
	if !slices.Contains(ResultTypes(), d.Result) {
		v.fail("%s: result-type %s is not one of RFC 8460 §4.3", path, excerpt(string(d.Result)))
	}
	v.text(path+": receiving-mx-hostname", d.MXHost, false)
	v.text(path+": receiving-mx-helo", d.MXHelo, false)
	v.text(path+": failure-reason-code", d.Reason, false)
	if u, err := url.Parse(d.Info); d.Info != "" && (err != nil || u.Scheme == "") {
		v.fail("%s: additional-information %s is not a URI", path, excerpt(d.Info))
	}
	v.count(path+": failed-session-count", d.Sessions)
}

// The report's JSON (RFC 8460 §4.4), members in the order of the schema.
type (
	jsonReport struct {
		Organization string       `json:"organization-name"`
		Range        jsonRange    `json:"date-range"`
		Contact      string       `json:"contact-info"`
		ID           string       `json:"report-id"`
		Policies     []jsonResult `json:"policies"` // an array even for one (RFC 8460 §4)
	}
	jsonRange struct {
		Start string `json:"start-datetime"`
		End   string `json:"end-datetime"`
	}
	jsonResult struct {
		Policy  jsonPolicy   `json:"policy"`
		Summary jsonSummary  `json:"summary"`
		Details []jsonDetail `json:"failure-details,omitempty"`
	}
	jsonPolicy struct {
		Type    PolicyType `json:"policy-type"`
		Strings []string   `json:"policy-string,omitempty"`
		Domain  string     `json:"policy-domain"`
		MXHosts []string   `json:"mx-host,omitempty"`
	}
	jsonSummary struct {
		Successes int64 `json:"total-successful-session-count"`
		Failures  int64 `json:"total-failure-session-count"`
	}
	jsonDetail struct {
		Result      ResultType `json:"result-type"`
		SendingIP   netip.Addr `json:"sending-mta-ip,omitzero"`
		MXHost      string     `json:"receiving-mx-hostname,omitempty"`
		MXHelo      string     `json:"receiving-mx-helo,omitempty"`
		ReceivingIP netip.Addr `json:"receiving-ip,omitzero"`
		Sessions    int64      `json:"failed-session-count"`
		Info        string     `json:"additional-information,omitempty"`
		Reason      string     `json:"failure-reason-code,omitempty"`
	}
)

// JSON encodes the report. The same report always gives the same bytes. The
// error is that of [Report.Validate].
func (r *Report) JSON() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("the report is not valid: %w", err)
	}
	out := jsonReport{
		Organization: r.Organization, Contact: r.Contact, ID: r.ID, Policies: make([]jsonResult, len(r.Policies)),
		Range: jsonRange{r.Start.UTC().Format(time.RFC3339), r.End.UTC().Format(time.RFC3339)},
	}
	for i, p := range r.Policies {
		res := jsonResult{
			Policy:  jsonPolicy{p.Type, p.Strings, p.Domain, p.MXHosts},
			Summary: jsonSummary{p.Successes, p.Failures},
		}
		for _, d := range p.Details {
			res.Details = append(res.Details, jsonDetail{
				Result: d.Result, SendingIP: d.SendingIP, MXHost: d.MXHost, MXHelo: d.MXHelo, ReceivingIP: d.ReceivingIP,
				Sessions: d.Sessions, Info: d.Info, Reason: d.Reason,
			})
		}
		out.Policies[i] = res
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("encoding the report: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// packers are kept: what a new one allocates costs more than a report's packing.
var packers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// Compress packs a report by gzip (RFC 8460 §5.2). The same report always gives
// the same bytes.
func Compress(report []byte) ([]byte, error) {
	var b bytes.Buffer
	w, _ := packers.Get().(*gzip.Writer) // there is nothing else in it
	defer packers.Put(w)
	w.Reset(&b)
	if _, err := w.Write(report); err != nil {
		return nil, fmt.Errorf("packing the report: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing the report: %w", err)
	}
	return b.Bytes(), nil
}

// Filename returns the name of a report's file (RFC 8460 §5.1). The unique id
// may be empty; what is not a letter or digit in it is left out.
func Filename(submitter, policyDomain string, start, end time.Time, unique string, compressed bool) string {
	name := submitter + "!" + policyDomain + "!" + strconv.FormatInt(start.Unix(), 10) + "!" + strconv.FormatInt(end.Unix(), 10)
	unique = strings.Map(func(c rune) rune {
		if c < utf8.RuneSelf && isAlphanumeric(byte(c)) {
			return c
		}
		return -1
	}, unique)
	if unique != "" {
		name += "!" + unique
	}
	if compressed {
		return name + ".json.gz"
	}
	return name + ".json"
}
