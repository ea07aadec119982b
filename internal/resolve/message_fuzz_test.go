package resolve

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/pawl-mail/pawl/dane"
)

// FuzzMessage takes any bytes for an answer to the question that they contain,
// down to records: it must end, within the caps, without a panic.
func FuzzMessage(f *testing.F) {
	query := new(dns.Msg).SetQuestion("a.test.", dns.TypeMX)
	for _, rep := range []reply{
		{answer: []string{"a.test. 300 IN MX 10 mx.test.", "a.test. 300 IN MX 0 ."}},
		{answer: []string{"a.test. 300 IN CNAME b.test.", "b.test. 300 IN CNAME a.test."}},
		{rcode: dns.RcodeNameError, ns: []string{"test. 300 IN SOA ns.test. h.test. 1 1 1 1 30"}},
		{rcode: dns.RcodeServerFailure, edit: func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 6, ExtraText: "bogus"}}
		}},
	} {
		raw, err := rep.message(query).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	for qtype, text := range map[uint16]string{
		dns.TypeTXT:   `a.test. 300 IN TXT "v=STSv1; \195\"" "x\\"`,
		dns.TypeTLSA:  "a.test. 300 IN TLSA 3 1 1 00",
		dns.TypeA:     "a.test. 300 IN A 192.0.2.1",
		dns.TypeAAAA:  "a.test. 300 IN AAAA 2001:db8::1",
		dns.TypeCNAME: "a.test. 300 IN CNAME b.test.",
	} {
		raw, err := reply{answer: []string{text}}.message(new(dns.Msg).SetQuestion("a.test.", qtype)).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := readResponse(raw, 1, question{"a.test", dns.TypeMX}); err == nil && binary.BigEndian.Uint16(raw) != 1 {
			t.Fatal("an answer with another id was taken")
		}
		id, q, ok := questionOf(raw)
		if !ok {
			return
		}
		resp, err := readResponse(raw, id, q)
		if err != nil || resp.truncated || resp.failure(q, "") != nil {
			return
		}
		w := newWalk(q)
		for { // the same message in answer to all that follows from it
			more, f := w.take(resp)
			if f != nil {
				return
			}
			if !more {
				break
			}
		}
		res, failure := w.result()
		if failure == nil {
			withinCaps(t, res)
		}
	})
}

// questionOf reads the question out of a message, if it is one that we could ask.
func questionOf(raw []byte) (uint16, question, bool) {
	if len(raw) < headerSize {
		return 0, question{}, false
	}
	name, off, err := dns.UnpackDomainName(raw, headerSize)
	if err != nil || off+2 > len(raw) {
		return 0, question{}, false
	}
	name, err = Name(name)
	return binary.BigEndian.Uint16(raw), question{name, binary.BigEndian.Uint16(raw[off:])}, err == nil
}

func withinCaps(t *testing.T, res *result) {
	t.Helper()
	if len(res.chain) > maxChain || len(res.notes) > maxNotes || res.ttl < 0 || res.ttl > maxTTL {
		t.Errorf("beyond the caps: %d aliases, %d notes, TTL %v", len(res.chain), len(res.notes), res.ttl)
	}
	for _, name := range append(res.chain, res.canonical) {
		if _, ok := wireName(name); !ok {
			t.Errorf("%q is not a name", name)
		}
	}
	n, limit := 0, 1
	switch records := res.records.(type) {
	case []MX:
		n, limit = len(records), maxMX
	case []netip.Addr:
		n, limit = len(records), maxAddrs
	case []string:
		n, limit = len(records), maxTXT
	case []dane.Record:
		n, limit = len(records), maxTLSA
	}
	if n > limit {
		t.Errorf("%d records, more than %d", n, limit)
	}
}
