package mtasts

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	byteOrderMark   = "\xef\xbb\xbf"
	maxMaxAgeDigits = 10 // sts-policy-max-age-value = 1*10(DIGIT)
)

// PolicyError says why a text is not a valid policy.
type PolicyError struct {
	Line   int    // from 1; 0: the policy as a whole
	Key    string // the field it is about, if it is about one
	Code   Code
	Reason string // for people
}

func (e *PolicyError) Error() string {
	text := "invalid MTA-STS policy: "
	if e.Line > 0 {
		text += "line " + strconv.Itoa(e.Line) + ": "
	}
	return text + e.Reason
}

// ResultType returns [ResultPolicyInvalid].
func (e *PolicyError) ResultType() string { return ResultPolicyInvalid }

// FailureReason returns the code.
func (e *PolicyError) FailureReason() string { return string(e.Code) }

// ParsePolicy parses the body that a policy host serves. The error is a
// [*PolicyError].
//
// Lines end in LF or CRLF, the last may end in neither, and one blank line may
// follow it. Unknown keys are accepted; of a key that is given twice, mx
// excepted, the first counts.
func ParsePolicy(body []byte) (Policy, error) {
	p, _, err := InspectPolicy(body)
	return p, err
}

// InspectPolicy does what [ParsePolicy] does and also tells what is odd about
// the policy.
func InspectPolicy(body []byte) (Policy, []Warning, error) {
	if len(body) > MaxPolicySize {
		return Policy{}, nil, &PolicyError{Code: PolicyTooLarge, Reason: fmt.Sprintf("it is larger than %d bytes", MaxPolicySize)}
	}
	if bytes.HasPrefix(body, []byte(byteOrderMark)) {
		return Policy{}, nil, &PolicyError{Line: 1, Code: PolicyBOM, Reason: "it begins with a byte order mark"}
	}
	p := policyParser{oneLine: bytes.Count(bytes.TrimRight(body, "\r\n"), []byte("\n")) == 0}
	err := p.parse(string(body))
	if err != nil {
		return Policy{}, p.warnings, err
	}
	return p.policy, p.warnings, nil
}

type policyParser struct {
	policy     Policy
	line       int
	oneLine    bool // the whole policy is one line
	hasVersion bool
	hasMode    bool
	hasMaxAge  bool
	hasMX      bool
	warnings   []Warning
}

// parse walks sts-policy-record of RFC 8461 §3.2.
func (p *policyParser) parse(rest string) error {
	for rest != "" {
		p.line++
		line, after, terminated := strings.Cut(rest, "\n")
		rest = after
		if terminated { // sts-policy-term = LF / CRLF
			line = strings.TrimSuffix(line, "\r")
		}
		if strings.IndexByte(line, '\r') >= 0 {
			return p.fail(PolicyBareCR, "", "a CR without its LF: lines end in CRLF or LF")
		}
		if strings.Trim(line, blanks) == "" {
			if rest == "" { // the erratum: one blank line may end the policy
				break
			}
			return p.fail(PolicyBlankLine, "", "a blank line: only one is allowed, at the end")
		}
		if err := p.field(line); err != nil {
			return err
		}
	}
	return p.complete()
}

func (p *policyParser) field(line string) error {
	if !utf8.ValidString(line) {
		return p.fail(PolicyNotUTF8, "", "%s is not UTF-8", excerpt(line))
	}
	key, value, ok := strings.Cut(line, ":")
	if !ok || !extensionName(key) {
		return p.fail(PolicyLineInvalid, "", "%s is not key: value", excerpt(line))
	}
	value = strings.Trim(value, blanks)
	switch key {
	case "version":
		return p.version(value)
	case "mode":
		return p.mode(value)
	case "max_age":
		return p.maxAge(value)
	case "mx":
		return p.mx(value)
	default:
		return p.extension(key, value)
	}
}

func (p *policyParser) version(value string) error {
	if p.hasVersion {
		return p.duplicate("version", value)
	}
	p.hasVersion = true
	if value == policyVersion {
		return nil
	}
	if p.oneLine && strings.HasPrefix(value, policyVersion) && strings.Contains(value, "mode:") {
		return p.fail(PolicyOneLine, "version", "the whole policy is on one line: each field needs its own")
	}
	return p.fail(PolicyVersionInvalid, "version", "the version is %s, not STSv1", excerpt(value))
}

func (p *policyParser) mode(value string) error {
	if p.hasMode {
		return p.duplicate("mode", value)
	}
	p.hasMode = true
	for _, mode := range [...]Mode{Enforce, Testing, None} {
		if value == string(mode) { // case-sensitive: %s in the grammar
			p.policy.Mode = mode
			return nil
		}
	}
	return p.fail(PolicyModeInvalid, "mode", "the mode is %s, not enforce, testing or none", excerpt(value))
}

func (p *policyParser) maxAge(value string) error {
	if p.hasMaxAge {
		return p.duplicate("max_age", value)
	}
	p.hasMaxAge = true
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return p.fail(PolicyMaxAgeInvalid, "max_age", "%s is not a whole number of seconds", excerpt(value))
		}
	}
	if value == "" {
		return p.fail(PolicyMaxAgeInvalid, "max_age", "it has no value")
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || len(value) > maxMaxAgeDigits || seconds > int64(MaxMaxAge/time.Second) {
		return p.fail(PolicyMaxAgeTooLong, "max_age", "%s seconds are more than the 31557600 that are allowed", excerpt(value))
	}
	p.policy.MaxAge = time.Duration(seconds) * time.Second
	return nil
}

func (p *policyParser) mx(value string) error {
	p.hasMX = true
	code, reason := checkPattern(value)
	switch code {
	case "":
	case PolicyMXULabel, PolicyMXAddress:
		p.warn(code, "%s", reason)
	default:
		return p.fail(code, "mx", "%s", reason)
	}
	// Cloned, as all that is kept: a pattern of 20 bytes must not keep a body of 64 KiB.
	p.policy.MX = append(p.policy.MX, strings.Clone(lowerASCII(value)))
	return nil
}

func (p *policyParser) extension(key, value string) error {
	if !policyValue(value) {
		return p.fail(PolicyLineInvalid, key, "%s has no value, or one with a control character", excerpt(key))
	}
	for _, known := range [...]string{"version", "mode", "max_age", "mx"} {
		if equalFoldASCII(key, known) {
			p.warn(PolicyKeyCase, "the key %q is ignored: keys are in lower case, %q", key, known)
		}
	}
	extensions, duplicate := appendFirst(p.policy.Extensions, key, value)
	if duplicate {
		p.warnDuplicate(key)
	}
	p.policy.Extensions = extensions
	return nil
}

// duplicate ignores what it must, but the line must be one (RFC 8461 §3.2).
func (p *policyParser) duplicate(key, value string) error {
	if !policyValue(value) {
		return p.fail(PolicyLineInvalid, key, "%s has no value, or one with a control character", key)
	}
	p.warnDuplicate(key)
	return nil
}

func (p *policyParser) warnDuplicate(key string) {
	p.warn(PolicyKeyDuplicate, "%q is given more than once, the first counts", key)
}

// complete looks for what is required once, and for mx.
func (p *policyParser) complete() error {
	switch {
	case !p.hasVersion:
		return p.missing(PolicyVersionMissing, "version")
	case !p.hasMode:
		return p.missing(PolicyModeMissing, "mode")
	case !p.hasMaxAge:
		return p.missing(PolicyMaxAgeMissing, "max_age")
	case !p.hasMX && p.policy.Mode != None:
		return p.missing(PolicyMXMissing, "mx")
	}
	return nil
}

func (p *policyParser) missing(code Code, key string) error {
	reason := "it has no " + key
	for _, f := range p.policy.Extensions {
		if equalFoldASCII(f.Name, key) {
			reason += fmt.Sprintf(" (%q does not count: keys are in lower case)", f.Name)
		}
	}
	return &PolicyError{Key: key, Code: code, Reason: reason}
}

func (p *policyParser) fail(code Code, key, format string, args ...any) error {
	return &PolicyError{p.line, key, code, fmt.Sprintf(format, args...)}
}

func (p *policyParser) warn(code Code, format string, args ...any) {
	p.warnings = appendWarning(p.warnings, Warning{code, p.line, fmt.Sprintf(format, args...)})
}
