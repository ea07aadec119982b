package resolve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Addrs returns a host's IPv4 addresses, and after them its IPv6 addresses. Both
// are asked for at once.
//
// If one family could not be looked up, the answer has the other, with Partial
// set; if the other has no records, it is a failure: there may be addresses.
//
// Authentic speaks of the answers that came: if both did, both must be. An answer
// that did not come does not count, because whoever can drop it could otherwise
// make an authentic host look insecure, and so switch DANE off for it.
func (r *Resolver) Addrs(ctx context.Context, host string) (Answer[netip.Addr], error) {
	name, bad := r.name(host, "A/AAAA")
	if bad != nil {
		return Answer[netip.Addr]{}, bad
	}
	q4, q6 := question{name, dns.TypeA}, question{name, dns.TypeAAAA}
	f4, v4 := r.begin(ctx, q4)
	f6, v6 := r.begin(ctx, q6)
	if f4 != nil {
		v4 = r.flights.wait(ctx, q4, f4)
	}
	if f6 != nil {
		v6 = r.flights.wait(ctx, q6, f6)
	}
	return merge(v4, v6, r.now())
}

// merge makes one answer of those for A and AAAA.
func merge(v4, v6 *result, now time.Time) (Answer[netip.Addr], error) {
	a4, _ := v4.records.([]netip.Addr)
	a6, _ := v6.records.([]netip.Addr)
	first, second := v4, v6 // first speaks for the name
	if len(a4) == 0 && (len(a6) > 0 || v4.failure != nil) {
		first, second = v6, v4
	}
	switch {
	case first.failure != nil: // both failed
		if second.failure.Kind.rank() < first.failure.Kind.rank() {
			first = second
		}
		return Answer[netip.Addr]{}, first.failure
	case len(a4)+len(a6) == 0 && second.failure != nil:
		return Answer[netip.Addr]{}, second.failure
	case len(a4)+len(a6) == 0:
		missing := first.missing(now)
		missing.Type = "A/AAAA"
		missing.NXDomain = first.nxdomain || second.nxdomain
		missing.Authentic = first.authentic && second.authentic
		missing.TTL = min(missing.TTL, second.remaining(now))
		return Answer[netip.Addr]{}, missing
	}
	answer, _ := asAnswer[netip.Addr](first, now)
	if second.failure != nil {
		answer.Partial = second.failure
		answer.Notes = append(answer.Notes, "only one family of addresses: "+second.failure.Error())
		answer.TTL = min(answer.TTL, failureTTL)
		return answer, nil //nolint:nilerr // it is told in Partial
	}
	answer.Authentic = first.authentic && second.authentic
	answer.TTL = min(answer.TTL, second.remaining(now))
	answer.Dropped += second.dropped
	answer.Notes = append(answer.Notes, second.notes...)
	if len(a4) > 0 && len(a6) > 0 {
		answer.Records = slices.Concat(a4, a6)
		if first.canonical != second.canonical {
			answer.Notes = append(answer.Notes, fmt.Sprintf("IPv4 leads to %s, but IPv6 to %s", first.canonical, second.canonical))
		}
	}
	return answer, nil
}
