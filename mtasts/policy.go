package mtasts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxPolicySize caps a policy, in bytes: the 64 kilobytes that RFC 8461
	// §3.3 suggests.
	MaxPolicySize = 64 << 10
	// MaxMaxAge is the longest max_age, a year (RFC 8461 §3.2).
	MaxMaxAge = 31557600 * time.Second

	policyVersion = "STSv1"
)

// Mode is what a sender does with a host that does not meet the policy
// (RFC 8461 §5).
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // do not deliver to it
	Testing Mode = "testing" // deliver, and report
	None    Mode = "none"    // as if there were no policy
)

// Policy is a domain's MTA-STS policy. A Policy that [ParsePolicy] returned is
// valid; one that was put together by hand is what [Policy.Validate] says.
type Policy struct {
	Mode Mode
	// MX are the patterns of the allowed MX hosts, in their order and in lower
	// case: host names, or "*." before one. A pattern with characters outside
	// ASCII (see [PolicyMXULabel]) matches nothing.
	MX         []string
	MaxAge     time.Duration // whole seconds, at most MaxMaxAge
	Extensions []Field       // unknown fields in their order, the first of each name
}

// Strings returns the policy's lines, as TLS reports carry them in
// policy-string (RFC 8460 §4.4): "version: STSv1", "mode: enforce",
// "mx: mail.example.com", "max_age: 604800". Unknown fields come last.
func (p Policy) Strings() []string {
	lines := make([]string, 0, 3+len(p.MX)+len(p.Extensions))
	lines = append(lines, "version: "+policyVersion, "mode: "+string(p.Mode))
	for _, mx := range p.MX {
		lines = append(lines, "mx: "+mx)
	}
	lines = append(lines, "max_age: "+strconv.FormatInt(int64(p.MaxAge/time.Second), 10))
	for _, f := range p.Extensions {
		lines = append(lines, f.Name+": "+f.Value)
	}
	return lines
}

// Text returns the policy as a policy host serves it, with lines that end in
// CRLF.
func (p Policy) Text() []byte {
	return []byte(strings.Join(p.Strings(), "\r\n") + "\r\n")
}

// Validate reports whether [Policy.Text] is a valid policy that parses to p.
// The error is a [*PolicyError]; its line is that of the text.
func (p Policy) Validate() error {
	if p.MaxAge%time.Second != 0 {
		return &PolicyError{Code: PolicyMaxAgeInvalid, Key: "max_age", Reason: fmt.Sprintf("%v is not a whole number of seconds", p.MaxAge)}
	}
	text := p.Text()
	parsed, warnings, err := InspectPolicy(text)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if w.Code == PolicyMXULabel { // RFC 8461 §3.2: whoever publishes MUST give the A-label
			return &PolicyError{Line: w.Line, Code: w.Code, Key: "mx", Reason: w.Text}
		}
	}
	if !slices.EqualFunc(parsed.Strings(), p.Strings(), equalFoldASCII) {
		return &PolicyError{Code: PolicyLineInvalid, Reason: "its text would be read as another policy"}
	}
	return nil
}

// Equal reports whether both policies demand the same: the same mode and
// max_age, and the same patterns in whatever order. Unknown fields demand
// nothing.
func (p Policy) Equal(q Policy) bool {
	return p.Mode == q.Mode && p.MaxAge == q.MaxAge && slices.Equal(patternSet(p.MX), patternSet(q.MX))
}

func patternSet(patterns []string) []string {
	set := make([]string, len(patterns))
	for i, pattern := range patterns {
		set[i] = lowerASCII(pattern)
	}
	slices.Sort(set)
	return slices.Compact(set)
}

type policyJSON struct {
	Mode       Mode     `json:"mode"`
	MX         []string `json:"mx,omitempty"`
	MaxAge     int64    `json:"max_age"`
	Extensions []Field  `json:"extensions,omitempty"`
}

// MarshalJSON writes the policy as an object with the keys mode, mx, max_age
// (in seconds) and extensions.
func (p Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(policyJSON{p.Mode, p.MX, int64(p.MaxAge / time.Second), p.Extensions})
}

// UnmarshalJSON reads what [Policy.MarshalJSON] writes. Whether that is a valid
// policy is for [Policy.Validate] to say.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var q policyJSON
	if err := json.Unmarshal(data, &q); err != nil {
		return err
	}
	if q.MaxAge < 0 || q.MaxAge > int64(MaxMaxAge/time.Second) {
		return fmt.Errorf("max_age %d of an MTA-STS policy is not between 0 and %d", q.MaxAge, int64(MaxMaxAge/time.Second))
	}
	*p = Policy{q.Mode, q.MX, time.Duration(q.MaxAge) * time.Second, q.Extensions}
	return nil
}
