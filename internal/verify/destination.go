package verify

import (
	"net/netip"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/mtasts"
)

// Source says where a policy came from.
type Source string

// The sources of a policy.
const (
	FromDANE       Source = "dane"
	FromSTS        Source = "sts"
	FromOverride   Source = "override"
	FromRequireTLS Source = "requiretls"
	FromRoute      Source = "route"
	FromNowhere    Source = "none"
)

// Step is one step of the reasoning behind a decision, as data: what was asked,
// what came back, and which cell of the decision tables it led to.
type Step struct {
	At        time.Time `json:"at"`
	Asked     string    `json:"asked"`  // "TXT _mta-sts.example.com", "GET https://mta-sts.example.com/…", "cache"
	Answer    string    `json:"answer"` // what came back, or the error
	Authentic bool      `json:"authentic,omitempty"`
	Cell      string    `json:"cell,omitempty"` // the cell that decided, as "1/valid-new-id/policy"
	Note      string    `json:"note,omitempty"` // what follows from it, for people
}

// STS is the MTA-STS policy that holds for a domain (decisions table 1).
type STS struct {
	Domain  string          `json:"domain"` // the policy domain
	Found   bool            `json:"found"`  // a policy holds; false: as without MTA-STS
	Policy  mtasts.Policy   `json:"policy,omitzero"`
	ID      string          `json:"id,omitempty"`
	Fetched time.Time       `json:"fetched,omitzero"`
	Expires time.Time       `json:"expires,omitzero"`
	Cached  bool            `json:"cached"`            // answered from the cache
	Failure *outcome.Policy `json:"failure,omitempty"` // discovery failed: what TLS-RPT is told
	Unknown bool            `json:"unknown,omitempty"` // it could not be found out whether there is a policy, and the discovery hold runs
	Cell    string          `json:"cell"`
}

// Hold says that mail must wait because no safe decision can be made now.
type Hold struct {
	Why   string    `json:"why"`
	Do    string    `json:"do"`
	Until time.Time `json:"until,omitzero"` // when it ends at the latest by itself; zero: not by itself
	Cell  string    `json:"cell"`
}

// Destination is what policy decided for mail to one domain, before any of its
// MX hosts is looked at.
type Destination struct {
	Domain      string       `json:"domain"`             // the recipient or next-hop domain, A-labels
	Expanded    string       `json:"expanded,omitempty"` // Domain after all CNAMEs, if there were any
	Source      Source       `json:"source"`
	STS         STS          `json:"sts"`
	MX          []resolve.MX `json:"mx"` // by preference; implicit MX is one entry of preference 0
	MXAuthentic bool         `json:"mx_authentic"`
	ImplicitMX  bool         `json:"implicit_mx,omitempty"` // no MX record: the domain's own address (RFC 5321 §5.1)
	NullMX      bool         `json:"null_mx,omitempty"`     // the domain takes no mail (RFC 7505)
	Hold        *Hold        `json:"hold,omitempty"`
	WouldHold   *Hold        `json:"would_hold,omitempty"` // under observe: the hold that a policy would have meant
	Observe     bool         `json:"observe,omitempty"`
	Override    string       `json:"override,omitempty"` // the override that holds, with its reason and author
	Steps       []Step       `json:"steps"`
	At          time.Time    `json:"at"`
	Port        uint16       `json:"port,omitempty"` // of its hosts; 0: the usual one
}

// Host is one MX host of a destination with what it must show. A host with
// Unreachable set is not to be connected to: the next one is tried
// (RFC 7672 §2.1.2, RFC 8461 §5.1).
type Host struct {
	Name        string           `json:"name"`
	Addrs       []netip.Addr     `json:"addrs"`
	Demand      Demand           `json:"-"`
	Unreachable string           `json:"unreachable,omitempty"` // why, for people; empty: may be tried
	ByPolicy    bool             `json:"by_policy,omitempty"`   // unreachable because a policy says so, not because DNS or the net does
	Observed    string           `json:"observed,omitempty"`    // under observe: why a policy would have made it unreachable
	Policies    []outcome.Policy `json:"policies,omitempty"`    // failures known before connecting, for TLS-RPT
	Steps       []Step           `json:"steps"`
}
