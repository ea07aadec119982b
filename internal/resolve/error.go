package resolve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// NotFound is the knowledge that there is no such record: the name does not
// exist, or has none of the type.
type NotFound struct {
	Name      string // as asked
	Type      string // "MX", "TXT"; "A/AAAA" for addresses
	NXDomain  bool   // the name does not exist at all, or its alias leads to one that does not
	Authentic bool   // DNSSEC proved it, and the upstream is trusted to say so
	Canonical string // the name after all aliases; Name if there were none
	Chain     []string
	TTL       time.Duration // for how long from now it may still be believed
	At        time.Time
	Upstream  string
}

// Error says which record there is not.
func (e *NotFound) Error() string {
	name := e.Name
	if e.Canonical != "" && e.Canonical != e.Name {
		name = fmt.Sprintf("%s, to which %s leads,", e.Canonical, e.Name)
	}
	if e.NXDomain {
		return name + " does not exist"
	}
	return fmt.Sprintf("%s has no %s record", name, e.Type)
}

// IsNotFound reports whether err says that there is no such record.
func IsNotFound(err error) bool {
	var missing *NotFound
	return errors.As(err, &missing)
}

// Kind says why something could not be found out.
type Kind string

// The kinds of failure.
const (
	Timeout   Kind = "timeout"   // nobody answered in time
	ServFail  Kind = "servfail"  // the upstream could not find out, or found a bogus signature
	Refused   Kind = "refused"   // the upstream does not answer such questions: REFUSED, NOTIMP and the like
	Malformed Kind = "malformed" // an answer that makes no sense, or that is a referral
	Loop      Kind = "loop"      // the aliases go round, or on for too long
	Network   Kind = "network"   // the upstream cannot be reached
	BadName   Kind = "bad-name"  // what was asked for is not a domain name
	Canceled  Kind = "canceled"  // the caller went away, or the resolver was closed
)

// kinds is in order of how much a failure tells: of several, the first is shown.
var kinds = [...]Kind{ServFail, Loop, Malformed, Refused, Timeout, Network, BadName, Canceled}

// rank is the place of a kind in kinds.
func (k Kind) rank() int {
	for i, kind := range kinds {
		if kind == k {
			return i
		}
	}
	return len(kinds) - 1
}

// Failure says that it could not be found out whether there is such a record. It
// is shared between callers and must not be changed.
type Failure struct {
	Name     string
	Type     string
	Kind     Kind
	Upstream string // whose answer, or silence, it was
	Bogus    bool   // the upstream says that a signature is bogus (RFC 8914); it need not say so
	Err      error  // what happened
}

// Error says what was asked, of whom, and what happened.
func (e *Failure) Error() string {
	at := ""
	if e.Upstream != "" {
		at = " at " + e.Upstream
	}
	return fmt.Sprintf("%s %s could not be looked up%s: %v", e.Type, e.Name, at, e.Err)
}

// Unwrap returns Err.
func (e *Failure) Unwrap() error { return e.Err }

// ErrClosed is wrapped by failures of a resolver that was closed.
var ErrClosed = errors.New("the resolver is closed")

var (
	errSilent     = errors.New("no answer in time")
	errNoUpstream = errors.New("there is no resolver to ask; set dns.upstreams")
)

// canceled is the failure of a caller whose context ended.
func (q question) canceled(ctx context.Context) *Failure {
	kind := Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = Timeout
	}
	return q.failed(kind, "", context.Cause(ctx))
}

func (q question) failed(kind Kind, upstream string, err error) *Failure {
	return &Failure{Name: q.name, Type: typeName(q.qtype), Kind: kind, Upstream: upstream, Err: err}
}

func typeName(qtype uint16) string {
	if name, ok := dns.TypeToString[qtype]; ok {
		return name
	}
	return fmt.Sprintf("TYPE%d", qtype)
}
