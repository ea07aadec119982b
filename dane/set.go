package dane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// State is what [Find] came to. The zero value is [Failed], so that what nobody
// filled in weakens nothing.
type State int

// The states (RFC 7672 §2.2).
const (
	// Failed: it could not be found out, or the host has no address. The host
	// must be treated as unreachable.
	Failed State = iota
	// Absent: there are no secure TLSA records. DANE does not apply, and TLS
	// is opportunistic as far as DANE goes.
	Absent
	// Unusable: there are secure TLSA records, and none is usable. TLS is
	// needed, authentication is not.
	Unusable
	// Usable: there is a secure TLSA record that is usable. TLS is needed, and
	// [Verify] must authenticate the server.
	Usable
)

var stateNames = [...]string{"failed", "absent", "unusable", "usable"}

// String returns the state's name in lower case.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", int(s))
	}
	return stateNames[s]
}

// MarshalText returns what [State.String] returns.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("%.20q is not a state of TLSA records", text)
}

// Set is what [Find] found for one host.
type Set struct {
	State State  `json:"state"`
	Host  string `json:"host"` // as asked for
	// BaseDomain is the TLSA base domain: the name of the host, or its
	// CNAME-expanded name, at which Records were found. It is the name to send
	// as SNI (RFC 7672 §8.1). Empty if there are no secure records.
	BaseDomain string `json:"base_domain,omitempty"`
	// Records is the secure TLSA RRset, unusable records and all.
	Records []Record     `json:"records,omitempty"`
	Addrs   []netip.Addr `json:"addrs,omitempty"` // the host's addresses
	// TTL is for how long all of this may be remembered: the least of all
	// answers, those that there is nothing too.
	TTL   time.Duration `json:"ttl"`
	Err   error         `json:"-"`     // why the state is Failed, an [*Error]
	Steps []Step        `json:"steps"` // what was asked, in order
}

// Step is one question to the resolver, and what follows from the answer.
type Step struct {
	Type      string `json:"type,omitempty"` // "A/AAAA", "CNAME" or "TLSA"; empty: nothing was asked
	Name      string `json:"name"`
	Answer    string `json:"answer"` // what came back, or the error
	Authentic bool   `json:"authentic"`
	Note      string `json:"note,omitempty"` // what follows from it
}

// Strings returns the records in presentation format, as the policy-string of a
// TLS report has them (RFC 8460 §4.4).
func (s Set) Strings() []string {
	var texts []string
	for _, r := range s.Records {
		texts = append(texts, r.String())
	}
	return texts
}

// Require returns nil if the host can be authenticated, and otherwise the error
// that holds mail where the operator demands DANE (RFC 7672 §6): dane-required if
// there are no TLSA records, tlsa-invalid if none is usable, or Err.
func (s Set) Require() error {
	switch s.State {
	case Usable:
		return nil
	case Unusable:
		return &Error{
			Host: s.BaseDomain, Result: tlsaInvalid, Reason: ReasonUnusable,
			Err: fmt.Errorf("none of %d TLSA records is usable, and DANE is required", len(s.Records)),
		}
	case Absent:
		return &Error{
			Host: s.Host, Result: daneRequired, Reason: ReasonNoRecords,
			Err: errors.New("there are no secure TLSA records, and DANE is required"),
		}
	}
	if s.Err != nil {
		return s.Err
	}
	return &Error{
		Host: s.Host, Result: dnssecInvalid, Reason: ReasonTLSALookup,
		Err: errors.New("the TLSA records were not looked up"),
	}
}

// NextHop is how a host was come by: the domain that mail is for, or the relay
// that the operator set in its place.
type NextHop struct {
	Domain   string // the original next-hop domain
	Expanded string // Domain after all CNAMEs; empty if there were none
	MX       bool   // the host is from an MX record of Domain; false: the host is Domain itself
	Secure   bool   // the MX records, and all CNAMEs that led to them, were authentic
}

// Reference returns the names that the host's certificate may have
// (RFC 7672 §3.2.2): the TLSA base domain, and the next-hop domain with its
// expanded name if a secure MX lookup led from there to the host. If it was
// insecure, anyone may have written it, and the names say nothing.
func (s Set) Reference(h NextHop) Reference {
	ref := Reference{BaseDomain: s.BaseDomain}
	if ref.BaseDomain == "" {
		ref.BaseDomain = s.Host
	}
	names := []string{s.Host} // of a next hop without MX: the original, if the base domain is its expansion
	if h.MX {
		names = nil
		if h.Secure {
			names = []string{h.Domain, h.Expanded}
		}
	}
	seen := map[string]bool{"": true, ref.BaseDomain: true}
	for _, name := range names {
		if name = canonical(name); !seen[name] {
			seen[name] = true
			ref.Names = append(ref.Names, name)
		}
	}
	return ref
}
