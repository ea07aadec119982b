package resolve

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/pawl-mail/pawl/dane"
)

// The most that is taken of one answer. What is more is dropped, counted in
// [Answer].Dropped and told in [Answer].Notes.
const (
	maxMX    = 100 // those of the best preference are kept
	maxAddrs = 100 // of each family
	maxTXT   = 100
	maxTLSA  = 100 // more than dane.MaxRecords: it refuses a host with more
	// maxTXTBytes is where one TXT record is cut. A record that begins like a
	// policy still does after the cut, so that the number of policies at a name
	// is not changed by their size.
	maxTXTBytes = 8 << 10
)

// read turns the records at the end of a walk into those of the result, all of
// one type and name. It leaves them nil if none is any good.
func read(rrs []dns.RR, res *result) {
	switch res.qtype {
	case dns.TypeMX:
		keep(res, readMX(rrs, res), maxMX)
	case dns.TypeA, dns.TypeAAAA:
		keep(res, readAddrs(rrs, res), maxAddrs)
	case dns.TypeTXT:
		keep(res, readTXT(rrs, res), maxTXT)
	case dns.TypeTLSA:
		keep(res, readTLSA(rrs, res), maxTLSA)
	case dns.TypeCNAME:
		keep(res, readCNAME(rrs, res), 1)
	}
}

// keep stores the records, no more than limit.
func keep[T any](res *result, records []T, limit int) {
	if len(records) > limit {
		res.drop(len(records)-limit, fmt.Sprintf("%d %s records; the first %d are used", len(records), typeName(res.qtype), limit))
		records = slices.Clone(records[:limit])
	}
	if len(records) > 0 {
		res.records = records
	}
}

func (r *result) drop(n int, note string) {
	r.dropped += n
	if len(r.notes) < maxNotes {
		r.notes = append(r.notes, note)
	}
}

// maxNotes is how many remarks on one answer are kept.
const maxNotes = 5

// readMX returns the exchangers, best preference first; those of the same by name.
func readMX(rrs []dns.RR, res *result) []MX {
	var records []MX
	nulls := 0
	for _, rr := range rrs {
		mx, ok := rr.(*dns.MX)
		if !ok {
			continue
		}
		if mx.Mx == "." {
			nulls++
			continue
		}
		host, ok := wireName(mx.Mx)
		if !ok {
			res.drop(1, fmt.Sprintf("MX %.100q is not a host name", mx.Mx))
			continue
		}
		records = append(records, MX{Preference: mx.Preference, Host: host})
	}
	if nulls > 0 {
		// RFC 7505 §3: the null MX stands alone. Beside others it is a mistake,
		// and the others are meant.
		if nulls == len(rrs) {
			return []MX{{}}
		}
		res.drop(nulls, "a null MX beside other MX records is left out")
	}
	slices.SortFunc(records, func(a, b MX) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Host, b.Host))
	})
	return slices.Compact(records)
}

func readAddrs(rrs []dns.RR, res *result) []netip.Addr {
	records := make([]netip.Addr, 0, len(rrs))
	for _, rr := range rrs {
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if !addr.IsValid() || addr.Is4In6() { // a mapped address is never on the wire (RFC 4291 §2.5.5.2)
			res.drop(1, fmt.Sprintf("%s %v is not an address", typeName(res.qtype), addr))
			continue
		}
		records = append(records, addr)
	}
	return records
}

// readTXT joins the strings of each record with nothing between them
// (RFC 8461 §3.1, RFC 7208 §3.3).
func readTXT(rrs []dns.RR, res *result) []string {
	records := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		var text []byte
		for _, s := range txt.Txt {
			text = appendUnescaped(text, s)
		}
		if len(text) > maxTXTBytes {
			res.drop(0, fmt.Sprintf("a TXT record of %d bytes is cut after %d", len(text), maxTXTBytes))
			text = text[:maxTXTBytes]
		}
		records = append(records, string(text))
	}
	return records
}

// appendUnescaped undoes the escapes of presentation format (RFC 1035 §5.1), in
// which the message library hands out strings.
func appendUnescaped(b []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+1 == len(s) {
			return append(b, s...)
		}
		b = append(b, s[:i]...)
		s = s[i+1:]
		if len(s) >= 3 && numeric(s[:3]) {
			b = append(b, (s[0]-'0')*100+(s[1]-'0')*10+(s[2]-'0'))
			s = s[3:]
			continue
		}
		b = append(b, s[0])
		s = s[1:]
	}
}

func readTLSA(rrs []dns.RR, res *result) []dane.Record {
	records := make([]dane.Record, 0, len(rrs))
	for _, rr := range rrs {
		tlsa, ok := rr.(*dns.TLSA)
		if !ok {
			continue
		}
		data, err := hex.DecodeString(tlsa.Certificate)
		if err != nil {
			res.drop(1, "a TLSA record cannot be read")
			continue
		}
		records = append(records, dane.Record{Usage: tlsa.Usage, Selector: tlsa.Selector, MatchingType: tlsa.MatchingType, Data: data})
	}
	return records
}

func readCNAME(rrs []dns.RR, res *result) []string {
	var records []string
	for _, rr := range rrs {
		cname, ok := rr.(*dns.CNAME)
		if !ok {
			continue
		}
		target, ok := wireName(cname.Target)
		if !ok {
			res.drop(1, fmt.Sprintf("CNAME %.100q is not a host name", cname.Target))
			continue
		}
		if !slices.Contains(records, target) {
			records = append(records, target)
		}
	}
	return records
}
