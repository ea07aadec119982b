package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/outcome"
)

const (
	// maxRowsPerDomain caps the different rows of one domain and day: a hostile
	// server that changes its reply each time must not fill the table. What is
	// over is counted without its details, as [Other].
	maxRowsPerDomain = 256
	// maxText caps texts that come from the other side.
	maxText = 512
)

// Other is the reason of what is counted without its details.
const Other = "other"

// The sources of an attempt ([outcome.Attempt.Source]).
const (
	fromPostfix = "postfix"
	fromPolicy  = "policy"
)

// row is the identity of a count: a column each of the table outcome.
type row struct {
	org, day, domain                                 string
	source, node, policyType, policyDomain, policy   string
	result, reason, info, mx, helo, ip, sourceIP, to string // to: the transport
	unverified                                       bool
}

// dayOf is the UTC day that a time lies in, as it is stored.
func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (l *Ledger) rowOf(a *outcome.Attempt, p *outcome.Policy) row {
	r := row{
		org: a.Org, day: dayOf(a.At), domain: a.Domain, source: a.Source, node: l.node,
		policyType: string(p.Type), policyDomain: p.Domain, policy: policyText(p),
		mx: clip(a.MX), helo: clip(a.Helo), to: string(a.Transport),
	}
	if r.org == "" {
		r.org = db.DefaultOrg
	}
	if a.IP.IsValid() {
		r.ip = a.IP.String()
	}
	if a.SourceIP.IsValid() {
		r.sourceIP = a.SourceIP.String()
	}
	if f := p.Failure; f != nil {
		r.result, r.reason, r.info = string(resultOf(a, f)), clip(f.Reason), clip(f.Info)
	} else {
		r.helo = "" // told of failures only (RFC 8460 §4.4)
		r.unverified = l.falseWitness(a, p)
	}
	return r
}

// untrusted are Postfix's reason codes of certificates that no trusted authority
// vouches for. Postfix gives them under validation-failure, where RFC 8460
// §4.3.1 has certificate-not-trusted.
var untrusted = []string{
	"self-signed_certificate", "self-signed_certificate_in_certificate_chain",
	"unable_to_get_local_issuer_certificate", "unable_to_get_issuer_certificate", "unable_to_verify_the_first_certificate",
	"certificate_not_trusted", "invalid_CA_certificate",
}

// resultOf is a failure's result type; the reason stays what it was.
func resultOf(a *outcome.Attempt, f *outcome.Failure) outcome.ResultType {
	if a.Source == fromPostfix && f.Result == outcome.ValidationFailure && slices.Contains(untrusted, f.Reason) {
		return outcome.CertificateNotTrusted
	}
	return f.Result
}

// falseWitness says that a success is none that could be vouched for: at level
// may Postfix looks at no certificate, and that is how it sends to a domain with
// a policy in testing. It calls that a success under the policy where it is
// given the policy's attributes, and one without a policy where it is not.
func (l *Ledger) falseWitness(a *outcome.Attempt, p *outcome.Policy) bool {
	if a.Source != fromPostfix || a.Transport == outcome.Verified {
		return false
	}
	switch p.Type {
	case outcome.STS:
		return slices.ContainsFunc(p.Strings, func(line string) bool {
			key, value, _ := strings.Cut(line, ":")
			return strings.TrimSpace(key) == "mode" && strings.TrimSpace(value) == "testing"
		})
	case outcome.NoPolicy:
		return l.testing(a.Domain)
	}
	return false
}

// other is the row without what a hostile server could vary. So that there are
// few of them, the policy is left out as well.
func (r row) other() row {
	r.policyDomain, r.policy, r.mx, r.helo, r.ip, r.sourceIP = r.domain, "{}", "", "", "", ""
	r.reason, r.info = Other, "more different outcomes than are told apart"
	return r
}

// policyJSON is how a policy's text is stored.
type policyJSON struct {
	Strings []string `json:"strings,omitempty"`
	MX      []string `json:"mx,omitempty"`
}

func policyText(p *outcome.Policy) string {
	text, err := json.Marshal(policyJSON{p.Strings, p.MXHosts})
	if err != nil { // strings always encode
		return "{}"
	}
	return string(text)
}

// clip makes a text from the other side fit to be kept: short, and without what
// a database refuses.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}

// digest names the row's details in the key, so that the key stays short.
func (r row) digest() string {
	h := sha256.New()
	for _, s := range []string{
		r.source, r.node, r.policyType, r.policyDomain, r.policy, r.result, r.reason, r.info,
		r.mx, r.helo, r.ip, r.sourceIP, r.to, strconv.FormatBool(r.unverified),
	} {
		// A length before each text: no two rows can read the same.
		h.Write([]byte(strconv.Itoa(len(s)) + ":" + s))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
