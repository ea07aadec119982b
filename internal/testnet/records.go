package testnet

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxTXTString is the length of one character string (RFC 1035 §3.3.14).
const maxTXTString = 255

// MX is one mail exchanger: an empty Host is the null MX (RFC 7505).
type MX struct {
	Preference uint16
	Host       string
}

// TLSA is one TLSA record (RFC 6698 §2.1).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// Record makes the resource records of one RRset for the name they stand at:
// what a zone holds, or what a forger puts in its place.
type Record func(name string) []dns.RR

// MXs is an MX RRset.
func MXs(mxs ...MX) Record {
	return func(name string) []dns.RR {
		rrs := make([]dns.RR, 0, len(mxs))
		for _, mx := range mxs {
			rrs = append(rrs, &dns.MX{Hdr: header(name, dns.TypeMX), Preference: mx.Preference, Mx: dns.Fqdn(mx.Host)})
		}
		return rrs
	}
}

// TXTs is a TXT RRset of one record for each text.
func TXTs(texts ...string) Record {
	return func(name string) []dns.RR {
		rrs := make([]dns.RR, 0, len(texts))
		for _, t := range texts {
			rrs = append(rrs, &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: chunks(t)})
		}
		return rrs
	}
}

// TXTStrings is one TXT record of several strings, which its reader joins.
func TXTStrings(parts ...string) Record {
	return func(name string) []dns.RR {
		return []dns.RR{&dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: parts}}
	}
}

// TLSAs is a TLSA RRset.
func TLSAs(records ...TLSA) Record {
	return func(name string) []dns.RR {
		rrs := make([]dns.RR, 0, len(records))
		for _, t := range records {
			rrs = append(rrs, &dns.TLSA{
				Hdr: header(name, dns.TypeTLSA), Usage: t.Usage, Selector: t.Selector,
				MatchingType: t.MatchingType, Certificate: hex.EncodeToString(t.Data),
			})
		}
		return rrs
	}
}

// Alias is a CNAME to target.
func Alias(target string) Record {
	return func(name string) []dns.RR {
		return []dns.RR{&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: dns.Fqdn(target)}}
	}
}

// addresses is an A or AAAA RRset of those of addrs that are of the type.
func addresses(rrtype uint16, addrs []netip.Addr) Record {
	return func(name string) []dns.RR {
		var rrs []dns.RR
		for _, a := range addrs {
			switch {
			case a.Is4() && rrtype == dns.TypeA:
				rrs = append(rrs, &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
			case a.Is6() && rrtype == dns.TypeAAAA:
				rrs = append(rrs, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
			}
		}
		return rrs
	}
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: rrtype, Class: dns.ClassINET}
}

func chunks(s string) []string {
	if s == "" {
		return []string{""}
	}
	var parts []string
	for len(s) > maxTXTString {
		parts = append(parts, s[:maxTXTString])
		s = s[maxTXTString:]
	}
	return append(parts, s)
}

// rrtype reads a type's name: "MX", "TXT". An empty one is every type, as is
// a name that DNS does not know.
func rrtype(name string) uint16 {
	if t, ok := dns.StringToType[strings.ToUpper(name)]; ok {
		return t
	}
	return dns.TypeANY
}

// canonical is the form in which names are kept: lower case, no final dot.
func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// Set replaces the RRset of a name and type ("MX", "TLSA") by what record
// makes; nil takes it away.
func (d *DNS) Set(name, rrType string, record Record) {
	var rrs []dns.RR
	if record != nil {
		rrs = record(canonical(name))
	}
	d.store(canonical(name), rrtype(rrType), rrs)
}

// SetMX replaces a name's MX records; without any there is none.
func (d *DNS) SetMX(name string, mxs ...MX) { d.Set(name, "MX", MXs(mxs...)) }

// SetTXT replaces a name's TXT records, one for each text.
func (d *DNS) SetTXT(name string, texts ...string) { d.Set(name, "TXT", TXTs(texts...)) }

// SetTLSA replaces the TLSA records of a name as "_25._tcp.mx.example.com".
func (d *DNS) SetTLSA(name string, records ...TLSA) { d.Set(name, "TLSA", TLSAs(records...)) }

// SetCNAME makes name an alias of target; an empty target takes it away.
func (d *DNS) SetCNAME(name, target string) {
	if target == "" {
		d.Set(name, "CNAME", nil)
		return
	}
	d.Set(name, "CNAME", Alias(target))
}

// SetAddrs replaces a name's A and AAAA records.
func (d *DNS) SetAddrs(name string, addrs ...netip.Addr) {
	d.Set(name, "A", addresses(dns.TypeA, addrs))
	d.Set(name, "AAAA", addresses(dns.TypeAAAA, addrs))
}

// SetTTL sets the TTL of a name's records of a type, or of all its types with
// an empty one. The default is [DefaultTTL].
func (d *DNS) SetTTL(name, rrType string, ttl time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ttls[question{canonical(name), rrtype(rrType)}] = uint32(ttl / time.Second)
}

// SetZone says that the names at and below name are a zone of its own, signed
// or not. A zone below a signed one may be unsigned.
func (d *DNS) SetZone(name string, signed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zones[canonical(name)] = signed
}

func (d *DNS) store(name string, t uint16, rrs []dns.RR) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := question{name, t}
	_, had := d.records[q]
	switch has := len(rrs) > 0; {
	case has:
		d.records[q] = rrs
		if !had {
			d.count(name, 1)
		}
	case had:
		delete(d.records, q)
		d.count(name, -1)
	}
}

// count keeps which names exist, empty non-terminals among them (RFC 8020).
func (d *DNS) count(name string, by int) {
	for {
		if d.names[name] += by; d.names[name] == 0 {
			delete(d.names, name)
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return
		}
		name = parent
	}
}
