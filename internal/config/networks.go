package config

import (
	"fmt"
	"math"
	"net/netip"
)

// How much of the public address space an organisation's own machines can be in:
// in IPv4 a /8, in IPv6 a /24. Whoever names more would relay for the world, and
// an open relay is abused within hours of being found.
const (
	widest4 = 8
	widest6 = 24
)

// ownNetworks checks a list of the operator's own networks: none of them, and not
// all of them together, may be so wide that they are the world's.
func (ps *problems) ownNetworks(key string, list []Network) {
	var public4, public6 float64 // shares of the address space
	for i, n := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case !n.IsValid():
			ps.add(at, "is not a network; write it as 192.0.2.0/24")
		case n.Addr().Is4In6():
			ps.add(at, "%s is IPv4 in the dress of IPv6; write it as 192.0.2.0/24", n)
		case translates(n.Prefix):
			ps.add(at, "%s stands for all of IPv4 behind a translator, and would relay for the world; name the networks of your own machines", n)
		case n.Bits() < narrowest(n.Addr()):
			ps.add(at, "%s would relay for the world; name the networks of your own machines, /%d or narrower", n, narrowest(n.Addr()))
		case private(n.Addr()) || covered(list, i):
		case n.Addr().Is4():
			public4 += math.Pow(2, -float64(n.Bits()))
		default:
			public6 += math.Pow(2, -float64(n.Bits()))
		}
	}
	if public4 > math.Pow(2, -widest4) || public6 > math.Pow(2, -widest6) {
		ps.add(key, "together these networks would relay for the world: they cover more than a /%d of public IPv4 or a /%d of IPv6; name the networks of your own machines", widest4, widest6)
	}
}

// covered reports whether a network lies in another one of the list.
func covered(list []Network, i int) bool {
	n := list[i]
	for j, o := range list {
		wider := o.Bits() < n.Bits() || o.Bits() == n.Bits() && j < i
		if wider && o.IsValid() && o.Contains(n.Addr()) {
			return true
		}
	}
	return false
}

// translates reports whether a network holds all of IPv4 (RFC 6052, RFC 3056).
func translates(n netip.Prefix) bool {
	for _, whole := range []string{"64:ff9b::/96", "2002::/16"} {
		w := netip.MustParsePrefix(whole)
		if n.Bits() <= w.Bits() && n.Contains(w.Addr()) {
			return true
		}
	}
	return false
}

// narrowest is the widest prefix that one network may have, in bits.
func narrowest(a netip.Addr) int {
	switch {
	case a.Is4():
		return widest4
	case private(a):
		return 7
	default:
		return widest6
	}
}

// private reports whether an address is nobody's on the Internet.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || netip.MustParsePrefix("100.64.0.0/10").Contains(a)
}

func (l RelayLimits) check(ps *problems) {
	const most = 1_000_000_000
	for _, limit := range []struct {
		key   string
		value int
		least int
	}{
		{"client_messages", l.ClientMessages, 0},
		{"client_recipients", l.ClientRecipients, 0},
		{"sender_messages", l.SenderMessages, 0},
		{"sender_recipients", l.SenderRecipients, 0},
		{"submitter_messages", l.SubmitterMessages, 0},
		{"submitter_recipients", l.SubmitterRecipients, 0},
		{"null_recipients", l.NullRecipients, 1},
		{"bounces", l.Bounces, 1},
	} {
		ps.between("relay.limits."+limit.key, limit.value, limit.least, most)
	}
}
