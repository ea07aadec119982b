package resolve

import (
	"slices"
	"time"
)

// Answer is the records of one type at a name, at least one.
type Answer[T any] struct {
	Name      string   // as asked, in the form of [Name]
	Canonical string   // the name after all aliases, at which the records are; Name if there were none
	Chain     []string // the targets of the aliases walked, in order; the last is Canonical
	Records   []T
	// Authentic means that DNSSEC proved every record that is here and every
	// alias that led to it, and that the upstream is trusted to say so.
	Authentic bool
	TTL       time.Duration // for how long from now the answer may still be kept
	At        time.Time     // when the upstream gave it
	Upstream  string        // who gave it
	// Dropped is how many records were left out: over the cap, or no good.
	// Notes says which, and what else was off, for people.
	Dropped int
	Notes   []string
	// Partial is set by [Resolver.Addrs] if one family of addresses could not
	// be looked up. The records are those of the other.
	Partial *Failure
}

// MX is one mail exchanger.
type MX struct {
	Preference uint16 `json:"preference"` // the lowest is tried first
	Host       string `json:"host"`       // "" is the null MX: the domain takes no mail (RFC 7505)
}

// question is a name, in the form of [Name], and a type.
type question struct {
	name  string
	qtype uint16
}

// result is what a lookup came to, as it lies in the cache: records, the
// knowledge that there are none, or a failure. It does not change once made.
type result struct {
	question
	canonical string
	chain     []string
	records   any // []MX, []netip.Addr, []string or []dane.Record; nil: there are none
	authentic bool
	nxdomain  bool
	failure   *Failure // nil: it was found out
	dropped   int
	notes     []string

	upstream   string
	at         int64 // unix nanoseconds
	ttl        time.Duration
	generation uint64 // of the trust under which it was asked
}

// remaining returns for how long the result may still be kept.
func (r *result) remaining(now time.Time) time.Duration {
	return max(0, r.ttl-time.Duration(now.UnixNano()-r.at))
}

// missing returns the result as the error that there is no such record.
func (r *result) missing(now time.Time) *NotFound {
	return &NotFound{
		Name: r.name, Type: typeName(r.qtype), NXDomain: r.nxdomain, Authentic: r.authentic,
		Canonical: r.canonical, Chain: slices.Clone(r.chain), TTL: r.remaining(now),
		At: time.Unix(0, r.at).UTC(), Upstream: r.upstream,
	}
}

// asAnswer gives the caller a copy of its own.
func asAnswer[T any](r *result, now time.Time) (Answer[T], error) {
	if r.failure != nil {
		return Answer[T]{}, r.failure
	}
	records, _ := r.records.([]T)
	if len(records) == 0 {
		return Answer[T]{}, r.missing(now)
	}
	return Answer[T]{
		Name: r.name, Canonical: r.canonical, Chain: slices.Clone(r.chain), Records: slices.Clone(records),
		Authentic: r.authentic, TTL: r.remaining(now), At: time.Unix(0, r.at).UTC(), Upstream: r.upstream,
		Dropped: r.dropped, Notes: slices.Clone(r.notes),
	}, nil
}
