package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// The header of a message (RFC 1035 §4.1.1).
const (
	headerSize   = 12
	flagResponse = 0x80 // of byte 2
	flagOpcode   = 0x78
	flagTC       = 0x02
)

// maxExtendedText is how much of an upstream's explanation is shown.
const maxExtendedText = 120

var (
	// errStray is a message that does not answer the question: late, or false.
	errStray = errors.New("a message that does not answer the question")
	// errMessage is an answer that cannot be read.
	errMessage = errors.New("the answer cannot be read")
)

// response is one message that answers a question.
type response struct {
	rcode     int
	ad        bool // the upstream says that DNSSEC proved it
	truncated bool // nothing but the header is to be relied on
	answer    []dns.RR
	authority []dns.RR
	extended  string // the upstream's explanation (RFC 8914), made fit to show
	bogus     bool   // it says that a signature is bogus
}

// packQuery returns the message that asks q: recursion wanted, DO and AD set, so
// that the answer says whether it is authentic (RFC 6840 §5.7).
func packQuery(q question, id uint16, udpSize uint16) ([]byte, error) {
	m := dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: id, RecursionDesired: true, AuthenticatedData: true},
		Question: []dns.Question{{Name: q.name + ".", Qtype: q.qtype, Qclass: dns.ClassINET}},
	}
	m.SetEdns0(udpSize, true)
	return m.Pack()
}

// readResponse reads a message that came in reply to question q of this id. It
// returns errStray for one that answers something else, and an error that wraps
// errMessage for one that cannot be read.
func readResponse(raw []byte, id uint16, q question) (response, error) {
	if !answers(raw, id, q) {
		return response{}, errStray
	}
	if raw[2]&flagTC != 0 {
		return response{truncated: true}, nil // the rest may be cut anywhere
	}
	var m dns.Msg
	if err := m.Unpack(raw); err != nil {
		return response{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	resp := response{rcode: m.Rcode, ad: m.AuthenticatedData, answer: m.Answer, authority: m.Ns}
	resp.readExtended(m.Extra)
	return resp, nil
}

// answers reports whether a message is a reply with this id to exactly this
// question (RFC 5452 §9.1), letter case aside.
func answers(raw []byte, id uint16, q question) bool {
	if len(raw) < headerSize || binary.BigEndian.Uint16(raw) != id ||
		raw[2]&flagResponse == 0 || raw[2]&flagOpcode != 0 || binary.BigEndian.Uint16(raw[4:]) != 1 {
		return false
	}
	name, off, err := dns.UnpackDomainName(raw, headerSize)
	if err != nil || off+4 > len(raw) {
		return false
	}
	return sameName(name, q.name) &&
		binary.BigEndian.Uint16(raw[off:]) == q.qtype && binary.BigEndian.Uint16(raw[off+2:]) == dns.ClassINET
}

// sameName compares the owner of a record with a name in its one form.
func sameName(owner, name string) bool {
	return len(owner) == len(name)+1 && owner[len(name)] == '.' && strings.EqualFold(owner[:len(name)], name)
}

// readExtended takes the extended error out of the OPT record (RFC 8914).
func (r *response) readExtended(extra []dns.RR) {
	for _, rr := range extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		for _, o := range opt.Option {
			ede, ok := o.(*dns.EDNS0_EDE)
			if !ok {
				continue
			}
			r.bogus = r.bogus || isBogus(ede.InfoCode)
			if r.extended == "" {
				r.extended = extendedText(ede)
			}
		}
	}
}

// isBogus tells the extended errors of failed validation.
func isBogus(code uint16) bool {
	switch code {
	case dns.ExtendedErrorCodeDNSBogus, dns.ExtendedErrorCodeSignatureExpired, dns.ExtendedErrorCodeSignatureNotYetValid,
		dns.ExtendedErrorCodeDNSKEYMissing, dns.ExtendedErrorCodeRRSIGsMissing, dns.ExtendedErrorCodeNoZoneKeyBitSet,
		dns.ExtendedErrorCodeNSECMissing:
		return true
	}
	return false
}

func extendedText(ede *dns.EDNS0_EDE) string {
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' { // it ends up in logs and on terminals
			return -1
		}
		return c
	}, ede.ExtraText)
	if len(text) > maxExtendedText {
		text = text[:maxExtendedText]
	}
	name := dns.ExtendedErrorCodeToString[ede.InfoCode]
	if name == "" {
		name = fmt.Sprintf("extended error %d", ede.InfoCode)
	}
	if text == "" {
		return name
	}
	return name + ": " + text
}

// failure returns the failure that a response code stands for, and nil for the
// two that are answers (RFC 2308 §2).
func (r response) failure(q question, upstream string) *Failure {
	kind := Refused
	switch r.rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return nil
	case dns.RcodeServerFailure:
		kind = ServFail
	}
	what := dns.RcodeToString[r.rcode]
	if what == "" {
		what = fmt.Sprintf("RCODE %d", r.rcode)
	}
	if r.extended != "" {
		what += " (" + r.extended + ")"
	}
	f := q.failed(kind, upstream, errors.New("it answers "+what))
	f.Bogus = r.bogus && kind == ServFail
	return f
}
