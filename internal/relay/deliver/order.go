package deliver

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/pawl-mail/pawl/internal/resolve"
)

const (
	// maxHosts caps the MX hosts of one attempt, and maxAddrs the addresses of
	// one host: a hostile zone must not keep a worker busy for hours.
	maxHosts = 20
	maxAddrs = 4
)

// ordered are the MX hosts to be tried, in their order.
type ordered struct {
	hosts []string
	self  bool // this host is among the MX hosts, and ends the list
	more  bool // there are more than are tried
}

// order sorts MX hosts by preference, those of the same in random order, and
// ends before this host itself: what is at or behind it would come back
// (RFC 5321 §5.1).
func order(mxs []resolve.MX, self string) ordered {
	if len(mxs) == 1 && mxs[0].Host != self {
		return ordered{hosts: []string{mxs[0].Host}}
	}
	shuffled := slices.Clone(mxs)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortStableFunc(shuffled, func(a, b resolve.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	var o ordered
	if i := slices.IndexFunc(shuffled, func(mx resolve.MX) bool { return mx.Host == self }); i >= 0 {
		o.self = true
		limit := shuffled[i].Preference
		shuffled = slices.DeleteFunc(shuffled, func(mx resolve.MX) bool { return mx.Preference >= limit })
	}
	for _, mx := range shuffled {
		if slices.Contains(o.hosts, mx.Host) {
			continue
		}
		if o.more = len(o.hosts) == maxHosts; o.more {
			break
		}
		o.hosts = append(o.hosts, mx.Host)
	}
	return o
}

// addresses are those of a host that are tried: both families in turn, so that
// one that does not work here cannot use up all the tries.
func addresses(all []netip.Addr) []netip.Addr {
	if len(all) < 2 {
		return all
	}
	same := func(a netip.Addr) bool { return a.Unmap().Is4() == all[0].Unmap().Is4() }
	var picked, other []netip.Addr
	for _, a := range all {
		if same(a) {
			picked = append(picked, a)
		} else {
			other = append(other, a)
		}
	}
	for i, a := range other {
		picked = slices.Insert(picked, min(2*i+1, len(picked)), a)
	}
	return picked[:min(len(picked), maxAddrs)]
}
