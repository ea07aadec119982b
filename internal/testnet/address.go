package testnet

import (
	"net/netip"
	"sync"
)

// Where on the small Internet things stand. All of it is documentation space
// (RFC 5737, RFC 3849) and, when that is used up, the space for measurements
// ([Benchmarking]): honest hosts get 192.0.2.0/24, 198.51.100.0/24 and
// 198.18.0.0/15, in this order, and 2001:db8:1::/48; the sender and the attacker
// 203.0.113.0/24.
var (
	// SenderAddr is the address from which [Net.Dial] dials.
	SenderAddr = netip.MustParseAddr("203.0.113.1")
	// NobodyAddr is an address that nobody has: connections are refused.
	NobodyAddr = netip.MustParseAddr("203.0.113.13")

	honest4 = [...]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), Benchmarking()}
	honest6 = netip.MustParseAddr("2001:db8:1::")
	// hostile is where the attacker's own hosts are.
	hostileMX  = netip.MustParseAddr("203.0.113.66")
	hostileWeb = netip.MustParseAddr("203.0.113.67")
)

// Benchmarking is the address block for measurements (RFC 2544 appendix C.2.2),
// which no host of the Internet has.
func Benchmarking() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/15") }

// allocator hands out addresses, each once.
type allocator struct {
	mu    sync.Mutex
	block int        // of honest4
	last4 netip.Addr // given out last in that block
	last6 netip.Addr
}

// honest returns an IPv4 address while there are any, and an IPv6 address
// where both are wanted or IPv4 is used up.
func (a *allocator) honest(both bool) []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	var addrs []netip.Addr
	for a.block < len(honest4) {
		p := honest4[a.block]
		if !a.last4.IsValid() {
			a.last4 = p.Addr()
		}
		next := a.last4.Next()
		if !p.Contains(next.Next()) { // the last one is the broadcast address
			a.block, a.last4 = a.block+1, netip.Addr{}
			continue
		}
		a.last4 = next
		addrs = append(addrs, next)
		break
	}
	if both || len(addrs) == 0 {
		if !a.last6.IsValid() {
			a.last6 = honest6
		}
		a.last6 = a.last6.Next()
		addrs = append(addrs, a.last6)
	}
	return addrs
}
