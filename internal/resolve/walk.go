package resolve

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// What an answer may ask of us, and for how long it is believed.
const (
	maxChain = 12 // aliases in a row; more are a mistake or a trap

	maxTTL = 24 * time.Hour
	// maxNegativeTTL is within what RFC 2308 §5 found to work well.
	maxNegativeTTL = time.Hour
	// failureTTL is how long a failure is remembered. RFC 2308 §7 allows five
	// minutes, and RFC 9520 §3.2 asks for at least a second, so that a broken
	// domain with much mail does not become a storm of questions. A few seconds
	// do that. More would let whoever forges one SERVFAIL hold up mail for long,
	// and mail is held for minutes after a failure anyhow.
	failureTTL = 3 * time.Second
)

// walk follows a name through answers, alias by alias, to its records
// (RFC 1034 §3.6.2, RFC 7672 §2.1.3).
type walk struct {
	question // what was asked first
	at       string
	chain    []string
	ttl      uint32

	authentic bool // every answer so far was
	records   []dns.RR
	nxdomain  bool
}

func newWalk(q question) *walk {
	return &walk{question: q, at: q.name, ttl: math.MaxUint32, authentic: true}
}

// next is what must be asked now.
func (w *walk) next() question { return question{w.at, w.qtype} }

// take takes the answer to next. It returns true if the walk goes on: then next
// must be asked too. Otherwise records has what is at its end.
func (w *walk) take(resp response) (more bool, f *Failure) {
	// One insecure alias makes all that follows insecure (RFC 7672 §2.1.3).
	w.authentic = w.authentic && resp.ad
	moved := false
	for {
		if w.collect(resp.answer) {
			if resp.rcode == dns.RcodeNameError {
				return false, w.failed(Malformed, "", fmt.Errorf("it says that %s does not exist, and has records of it", w.at))
			}
			return false, nil
		}
		target, f := w.alias(resp.answer)
		if f != nil {
			return false, f
		}
		if target == "" {
			break
		}
		if f := w.follow(target); f != nil {
			return false, f
		}
		moved = true
	}
	// RFC 6604 §3: the response code is about the last name of the chain.
	w.nxdomain = resp.rcode == dns.RcodeNameError
	ttl, soa := w.negativeTTL(resp.authority)
	switch {
	case w.nxdomain || soa:
	case moved: // the chain goes on where this answer ends
		return true, nil
	case slices.ContainsFunc(resp.authority, isNS): // RFC 2308 §2.2: a referral
		return false, w.failed(Malformed, "", errors.New("it answers with a referral: it is not a recursive resolver"))
	}
	w.ttl = min(w.ttl, ttl)
	return false, nil
}

// collect takes the records of the wanted type at the current name.
func (w *walk) collect(answer []dns.RR) bool {
	for _, rr := range answer {
		h := rr.Header()
		if h.Rrtype == w.qtype && h.Class == dns.ClassINET && sameName(h.Name, w.at) {
			w.records = append(w.records, rr)
			w.ttl = min(w.ttl, saneTTL(h.Ttl))
		}
	}
	return len(w.records) > 0
}

// alias returns what the current name is an alias of, if it is one.
func (w *walk) alias(answer []dns.RR) (string, *Failure) {
	if w.qtype == dns.TypeCNAME {
		return "", nil // the alias itself was asked for
	}
	found := ""
	for _, rr := range answer {
		cname, ok := rr.(*dns.CNAME)
		if !ok || cname.Hdr.Class != dns.ClassINET || !sameName(cname.Hdr.Name, w.at) {
			continue
		}
		target, ok := wireName(cname.Target)
		if !ok {
			return "", w.failed(Malformed, "", fmt.Errorf("%s is an alias of %.100q, which is not a host name", w.at, cname.Target))
		}
		if found != "" && found != target { // RFC 2181 §10.1
			return "", w.failed(Malformed, "", fmt.Errorf("%s is an alias of both %s and %s", w.at, found, target))
		}
		found = target
		w.ttl = min(w.ttl, saneTTL(cname.Hdr.Ttl))
	}
	return found, nil
}

// follow goes to the target of an alias.
func (w *walk) follow(target string) *Failure {
	if target == w.name || slices.Contains(w.chain, target) {
		path := strings.Join(append(append([]string{w.name}, w.chain...), target), " → ")
		return w.failed(Loop, "", fmt.Errorf("its aliases go round: %s", path))
	}
	if len(w.chain) == maxChain {
		return w.failed(Loop, "", fmt.Errorf("more than %d aliases in a row", maxChain))
	}
	w.chain = append(w.chain, target)
	w.at = target
	return nil
}

// negativeTTL returns how long it may be believed that there is no such record:
// the lesser of the SOA's TTL and its minimum field (RFC 2308 §5). Without the
// SOA of a zone that the name is in, that is not at all.
func (w *walk) negativeTTL(authority []dns.RR) (uint32, bool) {
	for _, rr := range authority {
		if soa, ok := rr.(*dns.SOA); ok && within(w.at, soa.Hdr.Name) {
			return min(saneTTL(soa.Hdr.Ttl), saneTTL(soa.Minttl)), true
		}
	}
	return 0, false
}

// within reports whether a name is in or below a zone.
func within(name, zone string) bool {
	zone = strings.ToLower(strings.TrimSuffix(zone, "."))
	return zone == "" || name == zone || strings.HasSuffix(name, "."+zone)
}

func isNS(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS }

// saneTTL reads a TTL with the highest bit set as zero (RFC 2181 §8).
func saneTTL(ttl uint32) uint32 {
	if ttl > math.MaxInt32 {
		return 0
	}
	return ttl
}

// result returns what the walk came to.
func (w *walk) result() (*result, *Failure) {
	res := &result{question: w.question, canonical: w.at, chain: w.chain, authentic: w.authentic, nxdomain: w.nxdomain}
	limit := maxNegativeTTL
	if len(w.records) > 0 {
		limit = maxTTL
		read(w.records, res)
		if res.records == nil {
			return nil, w.failed(Malformed, "", fmt.Errorf("none of its %d records is any good: %s", len(w.records), strings.Join(res.notes, "; ")))
		}
	}
	res.ttl = min(time.Duration(w.ttl)*time.Second, limit)
	return res, nil
}
