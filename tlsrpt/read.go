package tlsrpt

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Defaults of [Limits], and limits that nobody needs to change.
const (
	DefaultPacked   = 16 << 20  // bytes as they arrive; receivers commonly take ten megabytes (RFC 8460 §5.2)
	DefaultSize     = 128 << 20 // bytes of JSON: what gzip unpacks to
	DefaultPolicies = 100000
	DefaultDetails  = 100000 // of all policies

	maxDepth   = 16   // of JSON in JSON; a report has five levels
	maxText    = 4096 // bytes of one text
	maxStrings = 1000 // texts of one policy-string or mx-host
	maxNotes   = 100
)

// Limits cap what one report may be. The zero value has the defaults.
type Limits struct {
	Packed   int64 // bytes as they arrive
	Size     int64 // bytes of JSON
	Policies int   // beyond it reading fails
	Details  int   // of all policies together; beyond it reading fails
}

func (l Limits) withDefaults() Limits {
	if l.Packed <= 0 {
		l.Packed = DefaultPacked
	}
	if l.Size <= 0 {
		l.Size = DefaultSize
	}
	if l.Policies <= 0 {
		l.Policies = DefaultPolicies
	}
	if l.Details <= 0 {
		l.Details = DefaultDetails
	}
	return l
}

// The errors of reading.
var (
	ErrNotReport = errors.New("this is not a TLS report")         // not JSON, or not an object
	ErrTooLarge  = errors.New("the report is too large")          // beyond one of [Limits]
	ErrTooDeep   = errors.New("the report is nested too deeply")  // JSON that no report is
	ErrTruncated = errors.New("the report ends before its end")   // cut off on its way
	ErrPacking   = errors.New("the report's gzip data is broken") // not to be unpacked
)

// Read reads a report, plain or packed by gzip, within the default [Limits].
// The notes say what was off. The error wraps one of this package's or is that
// of src; what had been read by then is returned with it.
func Read(src io.Reader) (*Report, []Note, error) {
	var policies []Policy
	report, notes, err := Limits{}.Stream(src, func(p Policy) error {
		policies = append(policies, p)
		return nil
	})
	report.Policies = policies
	return report, notes, err
}

// Stream reads a report as [Read] does, but hands each policy to a function as
// soon as it is read, so that memory does not grow with the report. The report
// that it returns has no policies; where it is written behind them its other
// members are known only then. An error of the function ends the reading and is
// returned.
func (l Limits) Stream(src io.Reader, each func(Policy) error) (*Report, []Note, error) {
	r := &reader{limits: l.withDefaults(), each: each}
	err := r.read(src)
	return &r.report, r.notes, err
}

// reader reads one report.
type reader struct {
	limits   Limits
	each     func(Policy) error
	scan     scanner
	report   Report
	notes    notes
	policies int
	details  int
}

func (r *reader) read(src io.Reader) error {
	in, err := r.open(src)
	if err != nil {
		return err
	}
	r.scan = scanner{in: in}
	token, err := r.next()
	if err != nil {
		return err
	}
	if token != delim('{') {
		return fmt.Errorf("%w: it is not a JSON object", ErrNotReport)
	}
	if err := r.top(); err != nil {
		return err
	}
	switch _, err := r.scan.next(); {
	case err == nil:
		r.notes.add(NoteTrailingData, "", "something follows the report; it is ignored")
	case !errors.Is(err, io.EOF):
		r.notes.add(NoteTrailingData, "", "what follows the report is broken: %s", excerpt(err.Error()))
	}
	r.judge()
	return nil
}

// open finds out how the report is packed.
func (r *reader) open(src io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReader(&capped{src, r.limits.Packed})
	magic, err := in.Peek(2)
	if err != nil && len(magic) == 0 {
		return nil, r.broken(err)
	}
	var plain io.Reader = in
	if bytes.Equal(magic, []byte{0x1f, 0x8b}) { // RFC 1952 §2.3.1
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return nil, r.broken(err)
		}
		plain = &capped{unpacked, r.limits.Size}
	}
	text := bufio.NewReader(plain)
	// RFC 8259 §8.1: a parser may ignore a byte order mark.
	if mark, _ := text.Peek(3); bytes.Equal(mark, []byte{0xef, 0xbb, 0xbf}) {
		_, _ = text.Discard(len(mark)) // they are there
		r.notes.add(NoteByteOrderMark, "", "the report begins with a byte order mark")
	}
	return text, nil
}

// capped fails with [ErrTooLarge] once more than left bytes were read.
type capped struct {
	src  io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left < 0 {
		return 0, ErrTooLarge
	}
	n, err := c.src.Read(p[:min(int64(len(p)), c.left+1)])
	if c.left -= int64(n); c.left < 0 {
		return n - 1, ErrTooLarge
	}
	return n, err
}

// broken says what is wrong with the bytes.
func (r *reader) broken(err error) error {
	var syntax *syntaxError
	switch {
	case errors.Is(err, ErrTooDeep):
		return err
	case errors.Is(err, ErrTooLarge):
		return fmt.Errorf("reading a TLS report: %w", ErrTooLarge)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return fmt.Errorf("%w: %w", ErrPacking, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: %w", ErrNotReport, syntax)
	case isFlate(err):
		return fmt.Errorf("%w: %w", ErrPacking, err)
	}
	return fmt.Errorf("reading a TLS report: %w", err)
}

// top reads the members of the report itself.
func (r *reader) top() error {
	return r.members("", topNames, names{}, func(name string) error {
		switch name {
		case "organization-name":
			return r.text(name, &r.report.Organization)
		case "contact-info":
			return r.text(name, &r.report.Contact)
		case "report-id":
			return r.text(name, &r.report.ID)
		case "date-range":
			return r.object(name, rangeNames, func(member string) error {
				if member == "start-datetime" {
					return r.date(name+"."+member, &r.report.Start)
				}
				return r.date(name+"."+member, &r.report.End)
			})
		default: // policies
			return r.list(name, r.policy)
		}
	})
}

// judge looks at the report as a whole.
func (r *reader) judge() {
	for _, m := range []struct{ name, value string }{
		{"organization-name", r.report.Organization}, {"contact-info", r.report.Contact}, {"report-id", r.report.ID},
	} {
		if m.value == "" {
			r.notes.add(NoteMissing, m.name, "it is missing or empty")
		}
	}
	if r.report.Contact != "" && !IsMailbox(r.report.Contact) {
		r.notes.add(NoteContact, "contact-info", "%s is not a mailbox", excerpt(r.report.Contact))
	}
	switch {
	case r.report.Start.IsZero() || r.report.End.IsZero():
		r.notes.add(NoteMissing, "date-range", "the report does not say, or not readably, from when to when it tells")
	case !r.report.Start.Before(r.report.End):
		r.notes.add(NoteRange, "date-range", "the report does not end after it starts")
	}
	if r.policies == 0 {
		r.notes.add(NoteMissing, "policies", "there are none")
	}
}

// policy reads one element of policies.
func (r *reader) policy(path string) error {
	if r.policies++; r.policies > r.limits.Policies {
		return fmt.Errorf("%w: it has more than %d policies", ErrTooLarge, r.limits.Policies)
	}
	var p Policy
	err := r.object(path, resultNames, func(name string) error {
		at := path + "." + name
		switch name {
		case "policy":
			return r.object(at, policyNames, func(member string) error {
				return r.policyMember(at+"."+member, member, &p)
			})
		case "summary":
			return r.object(at, summaryNames, func(member string) error {
				if member == "total-successful-session-count" {
					return r.number(at+"."+member, &p.Successes)
				}
				return r.number(at+"."+member, &p.Failures)
			})
		default: // failure-details
			return r.list(at, func(path string) error { return r.detail(path, &p) })
		}
	})
	if err != nil {
		return err
	}
	if p.Domain == "" {
		r.notes.add(NoteMissing, path+".policy.policy-domain", "it is missing or empty")
	} else if !IsDomain(p.Domain) {
		r.notes.add(NoteDomain, path+".policy.policy-domain", "%s is not a domain name in A-labels", excerpt(p.Domain))
	}
	if p.Type != TLSA && p.Type != STS && p.Type != NoPolicy {
		r.notes.add(NotePolicyType, path+".policy.policy-type", "%s is not one of RFC 8460 §4.4", excerpt(string(p.Type)))
	}
	for i, m := range p.MXHosts {
		if isPattern(m) {
			continue
		}
		r.notes.add(NoteDomain, index(path+".policy.mx-host", i), "%s is not a pattern in A-labels", excerpt(m))
		// Some write the policy's line there.
		p.MXHosts[i] = strings.TrimSpace(strings.TrimPrefix(m, "mx:"))
	}
	return r.each(p)
}

func (r *reader) policyMember(path, name string, p *Policy) error {
	switch name {
	case "policy-type":
		return r.text(path, (*string)(&p.Type))
	case "policy-domain":
		return r.text(path, &p.Domain)
	case "policy-string":
		return r.texts(path, &p.Strings)
	default: // mx-host
		return r.texts(path, &p.MXHosts)
	}
}

func (r *reader) detail(path string, p *Policy) error {
	if r.details++; r.details > r.limits.Details {
		return fmt.Errorf("%w: it has more than %d failure-details", ErrTooLarge, r.limits.Details)
	}
	var d Detail
	err := r.object(path, detailNames, func(name string) error {
		at := path + "." + name
		switch name {
		case "result-type":
			return r.text(at, (*string)(&d.Result))
		case "sending-mta-ip":
			return r.address(at, &d.SendingIP)
		case "receiving-ip":
			return r.address(at, &d.ReceivingIP)
		case "receiving-mx-hostname":
			return r.text(at, &d.MXHost)
		case "receiving-mx-helo":
			return r.text(at, &d.MXHelo)
		case "failed-session-count":
			return r.number(at, &d.Sessions)
		case "additional-information":
			return r.text(at, &d.Info)
		default: // failure-reason-code
			return r.text(at, &d.Reason)
		}
	})
	if err != nil {
		return err
	}
	if !isResultType(d.Result) {
		r.notes.add(NoteResultType, path+".result-type", "%s is not one of RFC 8460 §4.3", excerpt(string(d.Result)))
	}
	p.Details = append(p.Details, d)
	return nil
}

func isResultType(t ResultType) bool {
	for _, known := range ResultTypes() {
		if t == known {
			return true
		}
	}
	return false
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
