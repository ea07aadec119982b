package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Resolver is the DNS that [Find] asks. It must ask a validating resolver.
//
// Authentic, in an answer or in a [*NotFound], means that DNSSEC proved it: that
// every record which led to it, CNAMEs too, was secure (RFC 7672 §2.1.3). It may
// be taken from the AD bit only if the validating resolver is trusted and the way
// to it is safe (§2.1.1).
//
// The methods follow CNAMEs, except LookupCNAME. Each returns a [*NotFound], or
// an error that wraps one, if there is no such record. Any other error means that
// it could not be found out: SERVFAIL, a bogus signature, a timeout, a reply that
// makes no sense. Then the host will not be used (§2.1.2), so an
// implementation MUST NOT take the one for the other.
type Resolver interface {
	// LookupAddr asks for the A and AAAA records of a host. The answer is
	// authentic if both answers are.
	LookupAddr(ctx context.Context, host string) (AddrAnswer, error)
	// LookupTLSA asks for the TLSA records at a name like
	// "_25._tcp.mx.example.com".
	LookupTLSA(ctx context.Context, name string) (TLSAAnswer, error)
	// LookupCNAME asks for the CNAME record at a name, without following it.
	LookupCNAME(ctx context.Context, name string) (CNAMEAnswer, error)
}

// AddrAnswer is a host's addresses.
type AddrAnswer struct {
	Addrs     []netip.Addr  // at least one
	Canonical string        // the host's name after all CNAMEs; empty or the host itself: there were none
	Authentic bool          // see [Resolver]
	TTL       time.Duration // the least of the records
}

// TLSAAnswer is the TLSA records at a name.
type TLSAAnswer struct {
	Records   []Record      // at least one
	Authentic bool          // see [Resolver]
	TTL       time.Duration // the least of the records
}

// CNAMEAnswer is the CNAME record at a name.
type CNAMEAnswer struct {
	Target    string
	Authentic bool // see [Resolver]
	TTL       time.Duration
}

// NotFound says that there is no such record: the name has none of the type, or
// does not exist. That is knowledge, and no failure (RFC 7672 §2.1.1).
type NotFound struct {
	Authentic bool          // DNSSEC proved it; see [Resolver]
	TTL       time.Duration // how long it may be remembered
}

// Error says that there is no such record.
func (e *NotFound) Error() string { return "no such record" }

var (
	// ErrNoAddress is wrapped by the error of [Find] if the host has no
	// address: it cannot be reached, DANE or not (RFC 7672 §2.2.2).
	ErrNoAddress = errors.New("the host has no address")

	errEmpty = errors.New("the resolver returned an answer without records")
)

// Find looks up how a host authenticates itself, as RFC 7672 §2.2.2 and §2.2.3
// have it: its addresses first; if they are secure, TLSA records at its
// CNAME-expanded name, and then at its own; if they are not, but the host is a
// CNAME in a signed zone, TLSA records at its own name only.
//
// Host is an MX host, or the next hop itself if it has no MX records; port is 25
// unless the operator says otherwise. Find asks each name in turn, and stops at
// the first secure TLSA RRset. It may be used for hosts of an insecure MX RRset
// too (§2.2.1), if nobody then calls the delivery secure.
//
// The error is [Set.Err], an [*Error], and is set exactly if the state is
// [Failed]. The set is complete all the same.
func Find(ctx context.Context, r Resolver, host string, port uint16) (Set, error) {
	f := finder{r: r, port: port, set: Set{Host: canonical(host)}}
	if err := f.find(ctx); err != nil {
		f.set.State, f.set.Err = Failed, err
		return f.set, err
	}
	return f.set, nil
}

// finder is one call of [Find].
type finder struct {
	r      Resolver
	port   uint16
	set    Set
	hasTTL bool
}

func (f *finder) find(ctx context.Context) *Error {
	if isAddress(f.set.Host) { // RFC 7672 §2.2: DANE does not apply
		f.step(Step{Name: f.set.Host, Answer: "an address, not a host name", Note: "DANE does not apply to addresses"})
		f.set.State = Absent
		return nil
	}
	if !isHost(f.set.Host) {
		return f.fail(validationFailure, ReasonBadHost, fmt.Errorf("%.260q is not a host name", f.set.Host))
	}
	bases, err := f.baseDomains(ctx)
	if err != nil {
		return err
	}
	for _, base := range bases {
		found, err := f.tlsa(ctx, base)
		if found || err != nil {
			return err
		}
	}
	f.set.State = Absent
	return nil
}

// baseDomains looks up the addresses, before any TLSA record, and returns the
// candidate TLSA base domains (RFC 7672 §2.2.2).
func (f *finder) baseDomains(ctx context.Context) ([]string, *Error) {
	host := f.set.Host
	a, err := f.r.LookupAddr(ctx, host)
	none, denied, err := notFound(err)
	step := Step{Type: "A/AAAA", Name: host, Authentic: a.Authentic}
	if denied || err == nil && len(a.Addrs) == 0 {
		if denied {
			step.Authentic = none.Authentic
			f.ttl(none.TTL)
		}
		step.Answer, step.Note = "none", "the host cannot be reached"
		f.step(step)
		return nil, f.fail(validationFailure, ReasonNoAddress, ErrNoAddress)
	}
	if err != nil {
		return nil, f.lookupFailed(step, ReasonAddressLookup, err)
	}
	f.ttl(a.TTL)
	f.set.Addrs = a.Addrs
	expanded := canonical(a.Canonical)
	alias := expanded != "" && expanded != host
	step.Answer = count(len(a.Addrs), "address", "addresses")
	if alias {
		step.Answer += " at " + expanded
	}
	switch {
	case a.Authentic && alias: // secure CNAME
		step.Note = "TLSA records may be at the expanded name, or else at the host's own"
		f.step(step)
		return []string{expanded, host}, nil
	case a.Authentic: // no CNAME
		step.Note = "TLSA records may be at the host's name"
		f.step(step)
		return []string{host}, nil
	case alias: // insecure CNAME: is the first one of the chain secure?
		step.Note = "insecure: the CNAME of the host is asked for by itself"
		f.step(step)
		return f.aliasZone(ctx)
	default:
		step.Note = "insecure: DANE does not apply"
		f.step(step)
		return nil, nil
	}
}

// aliasZone asks whether the zone is signed in which the host is a CNAME, though
// its addresses are insecure. If so, TLSA records may be at the original name, and
// there only (RFC 7672 §2.1.3 and §2.2.2).
func (f *finder) aliasZone(ctx context.Context) ([]string, *Error) {
	host := f.set.Host
	c, err := f.r.LookupCNAME(ctx, host)
	none, denied, err := notFound(err)
	step := Step{Type: "CNAME", Name: host, Answer: canonical(c.Target), Authentic: c.Authentic}
	switch {
	case err != nil:
		return nil, f.lookupFailed(step, ReasonCNAMELookup, err)
	case denied: // gone since; a zone that proves so is signed, and is asked all the same
		step.Answer, step.Authentic = "none", none.Authentic
		f.ttl(none.TTL)
	default:
		f.ttl(c.TTL)
	}
	if !step.Authentic {
		step.Note = "insecure: DANE does not apply"
		f.step(step)
		return nil, nil
	}
	step.Note = "secure: TLSA records may be at the host's own name"
	f.step(step)
	return []string{host}, nil
}

// tlsa looks for TLSA records at one candidate base domain, and reports whether
// they settle the matter (RFC 7672 §2.2.3).
func (f *finder) tlsa(ctx context.Context, base string) (bool, *Error) {
	name := QueryName(base, f.port)
	step := Step{Type: "TLSA", Name: name}
	if !isHost(name) { // DNS has no name that long
		step.Answer, step.Note = "none", "no such name can exist"
		f.step(step)
		return false, nil
	}
	a, err := f.r.LookupTLSA(ctx, name)
	none, denied, err := notFound(err)
	switch {
	case err != nil:
		return false, f.lookupFailed(step, ReasonTLSALookup, err)
	case denied: // proven, or in an insecure zone: the same
		f.ttl(none.TTL)
		step.Answer, step.Authentic = "none", none.Authentic
		f.step(step)
		return false, nil
	case len(a.Records) == 0:
		return false, f.lookupFailed(step, ReasonTLSALookup, errEmpty)
	}
	f.ttl(a.TTL)
	step.Authentic = a.Authentic
	step.Answer = count(len(a.Records), "record", "records")
	if !a.Authentic {
		step.Note = "insecure: not taken"
		f.step(step)
		return false, nil
	}
	f.set.BaseDomain = base
	if len(a.Records) > MaxRecords {
		step.Note = "too many"
		f.step(step)
		return false, f.fail(tlsaInvalid, ReasonTooManyRecords, fmt.Errorf("%d TLSA records, more than %d", len(a.Records), MaxRecords))
	}
	f.set.Records = a.Records
	if usable := len(UsableRecords(a.Records)); usable > 0 {
		f.set.State = Usable
		step.Note = fmt.Sprintf("%d usable: TLS with authentication", usable)
	} else {
		f.set.State = Unusable
		step.Note = "none usable: TLS without authentication"
	}
	f.step(step)
	return true, nil
}

func (f *finder) step(s Step) { f.set.Steps = append(f.set.Steps, s) }

// ttl keeps the least of all answers.
func (f *finder) ttl(ttl time.Duration) {
	ttl = max(ttl, 0)
	if !f.hasTTL || ttl < f.set.TTL {
		f.set.TTL, f.hasTTL = ttl, true
	}
}

func (f *finder) fail(result, reason string, err error) *Error {
	host := f.set.BaseDomain
	if host == "" {
		host = f.set.Host
	}
	return &Error{Host: host, Result: result, Reason: reason, Err: err}
}

// lookupFailed is for whatever could not be found out: the host must be treated
// as unreachable (RFC 7672 §2.1.2).
func (f *finder) lookupFailed(step Step, reason string, err error) *Error {
	step.Answer, step.Authentic, step.Note = err.Error(), false, "the lookup failed: the host must not be used"
	f.step(step)
	return f.fail(dnssecInvalid, reason, fmt.Errorf("%s %s could not be looked up: %w", step.Type, step.Name, err))
}

// notFound parts "there is none", which is knowledge, from an error, which is not.
func notFound(err error) (none NotFound, denied bool, failure error) {
	var nf *NotFound
	if errors.As(err, &nf) {
		return *nf, true, nil
	}
	return NotFound{}, false, err
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// QueryName returns the name at which TLSA records for a base domain and TCP port
// are, as "_25._tcp.mx.example.com" (RFC 6698 §3).
func QueryName(baseDomain string, port uint16) string {
	return "_" + strconv.Itoa(int(port)) + "._tcp." + canonical(baseDomain)
}

// isAddress tells address literals, as RFC 5321 §4.1.3 writes them or bare.
func isAddress(host string) bool {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(strings.TrimPrefix(host, "ipv6:"))
	return err == nil
}

// isHost tells what can be a name in DNS from what cannot: labels of 1 to 63
// octets, 253 in all. What characters are in them is the resolver's business.
func isHost(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}
