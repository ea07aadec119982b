package testnet

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// faultKind says what goes wrong with a DNS answer.
type faultKind int

const (
	faultNXDomain faultKind = iota
	faultNoData
	faultServFail
	faultBogus
	faultRefused
	faultDrop
	faultTruncate
	faultDelay
	faultForge
)

// DNSFault is something that goes wrong with the answers for one name, put in
// place by [DNS.Break].
//
// NXDomain, NoData and Forge are lies from the path: where the name lies in a
// signed zone the resolver sees through them and answers SERVFAIL, unless the
// query had the CD bit, the resolver does not validate ([DNS.SetValidating]),
// or the fault is [DNSFault.Believed]. To have the truth be "no such name",
// take the records away instead.
type DNSFault struct {
	kind     faultKind
	record   Record
	release  <-chan struct{}
	believed bool
}

// NXDomain denies the name.
func NXDomain() DNSFault { return DNSFault{kind: faultNXDomain} }

// NoData denies the type at the name: NOERROR, no answer, a SOA.
func NoData() DNSFault { return DNSFault{kind: faultNoData} }

// ServFail is what the resolver says when the zone's servers fail.
func ServFail() DNSFault { return DNSFault{kind: faultServFail} }

// Bogus is SERVFAIL for a failed validation: with the CD bit, or where the
// resolver does not validate, the records come through.
func Bogus() DNSFault { return DNSFault{kind: faultBogus} }

// Refused is the resolver's REFUSED.
func Refused() DNSFault { return DNSFault{kind: faultRefused} }

// Drop gives no answer at all. A client that dialled the resolver through
// [Net.Dial] gets its timeout at once.
func Drop() DNSFault { return DNSFault{kind: faultDrop} }

// Truncate answers TC and nothing else over UDP, and the truth over TCP.
func Truncate() DNSFault { return DNSFault{kind: faultTruncate} }

// Delay answers the truth, but not before release is closed.
func Delay(release <-chan struct{}) DNSFault { return DNSFault{kind: faultDelay, release: release} }

// Forge answers with records of the forger's choice.
func Forge(r Record) DNSFault { return DNSFault{kind: faultForge, record: r} }

// ForgeAddrs forges A or AAAA records, whichever is asked for.
func ForgeAddrs(addrs ...netip.Addr) DNSFault {
	return Forge(func(name string) []dns.RR {
		return append(addresses(dns.TypeA, addrs)(name), addresses(dns.TypeAAAA, addrs)(name)...)
	})
}

// Believed makes a lie one that the resolver takes for validated: in a signed
// zone it is answered with AD. It stages a resolver that lies itself.
func (f DNSFault) Believed() DNSFault {
	f.believed = true
	return f
}

// lie reports whether validation would catch the fault.
func (f DNSFault) lie() bool {
	switch f.kind {
	case faultNXDomain, faultNoData, faultForge:
		return !f.believed
	case faultBogus:
		return true
	default:
		return false
	}
}

// placed is a fault in its place; the one placed last holds.
type placed struct {
	DNSFault
	number int
}

// Break puts a fault on the answers for a name and type; an empty type is
// every type. Of several faults the one placed last holds. The function it
// returns takes this fault away again, and only this one.
func (d *DNS) Break(name, rrType string, f DNSFault) (mend func()) {
	q := question{canonical(name), rrtype(rrType)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.placed++
	number := d.placed
	d.faults[q] = append(d.faults[q], placed{f, number})
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.faults[q] = slices.DeleteFunc(d.faults[q], func(p placed) bool { return p.number == number })
	}
}

// fault returns the fault that holds for a question. The lock is held.
func (d *DNS) fault(q question) *DNSFault {
	var last *placed
	for _, key := range [2]question{q, {q.name, dns.TypeANY}} {
		if list := d.faults[key]; len(list) > 0 {
			if p := &list[len(list)-1]; last == nil || p.number > last.number {
				last = p
			}
		}
	}
	if last == nil {
		return nil
	}
	f := last.DNSFault // a copy: the list may change
	return &f
}
