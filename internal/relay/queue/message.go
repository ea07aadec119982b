package queue

import (
	"net/netip"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Message is what was accepted, without its body.
type Message struct {
	Org         string     `json:"-"`
	ID          string     `json:"id"`
	From        string     `json:"from"` // reverse path; empty: the null sender (RFC 5321 §4.5.5)
	Received    time.Time  `json:"received"`
	Size        int64      `json:"size"` // bytes in wire form
	EightBit    bool       `json:"eight_bit,omitempty"`
	SMTPUTF8    bool       `json:"smtputf8,omitempty"`
	RequireTLS  bool       `json:"requiretls,omitempty"`   // RFC 8689 §2
	TLSOptional bool       `json:"tls_optional,omitempty"` // TLS-Required: No (RFC 8689 §3), granted to this submitter
	Uncounted   bool       `json:"uncounted,omitempty"`    // one of our TLS reports: its sessions are not counted (RFC 8460 §3)
	Bulk        bool       `json:"bulk,omitempty"`         // it lets other mail for its destination go first
	EnvID       string     `json:"envid,omitempty"`        // RFC 3461 §4.4
	Ret         string     `json:"ret,omitempty"`          // RFC 3461 §4.3
	Client      netip.Addr `json:"client,omitzero"`
}

// RecipientState is how far a recipient's delivery has come.
type RecipientState string

// The states of a recipient. All but Pending are final.
const (
	Pending   RecipientState = "pending"
	Delivered RecipientState = "delivered"
	Failed    RecipientState = "failed"
)

// Recipient is one recipient of a delivery.
type Recipient struct {
	Addr   string         `json:"addr"`
	ORcpt  string         `json:"orcpt,omitempty"`  // RFC 3461 §4.2
	Notify string         `json:"notify,omitempty"` // RFC 3461 §4.1
	State  RecipientState `json:"state"`
	Reply  string         `json:"reply,omitempty"` // the last reply about it
	// Relayed: the server that took it does not take over its notifications.
	Relayed bool `json:"relayed,omitempty"`
	// Warned: its sender was told that it waits.
	Warned bool `json:"warned,omitempty"`
}

// State is where a delivery stands.
type State string

// The states of a delivery. Queued and Held wait; the others are final.
const (
	Queued       State = "queued"
	Held         State = "held" // by hand
	AllDelivered State = "delivered"
	SomeFailed   State = "failed" // at least one recipient failed for good
	Dropped      State = "dropped"
)

// Delivery is the part of a message that goes to one destination domain.
type Delivery struct {
	Message
	ID         string      `json:"delivery"`
	Domain     string      `json:"domain"` // A-labels
	Recipients []Recipient `json:"recipients"`
	State      State       `json:"state"`
	Attempts   int         `json:"attempts"`
	Next       time.Time   `json:"next"` // when it is tried
	Expires    time.Time   `json:"expires"`
	ByPolicy   bool        `json:"by_policy,omitempty"` // waits because a policy forbids what was there
	Why        string      `json:"why,omitempty"`
	Do         string      `json:"do,omitempty"`
	Updated    time.Time   `json:"updated"`
}

// Waiting reports whether the delivery has not ended.
func (d *Delivery) Waiting() bool { return d.State == Queued || d.State == Held }

// Pending returns the indexes of the recipients that have not ended.
func (d *Delivery) Pending() []int {
	var open []int
	for i, r := range d.Recipients {
		if r.State == Pending {
			open = append(open, i)
		}
	}
	return open
}

// Result is what one attempt at a delivery came to.
type Result struct {
	// Recipients has an entry for each recipient whose State or Reply changed,
	// by its index in the delivery. The other fields are not taken over.
	Recipients map[int]Recipient
	Why        string // why something is left to do, or failed
	Do         string
	ByPolicy   bool
	// DestinationDown says that no host of the destination could be used, so
	// that other mail for it would fare the same now. A message that failed for
	// what it alone demands (REQUIRETLS) does not say so.
	DestinationDown bool
	// Throttled says that the destination asked for less (421, 4.7.x): fewer
	// deliveries are made to it at once.
	Throttled bool
	Story     Story
}

// Story is the flight recorder's record of one attempt.
type Story struct {
	At          time.Time           `json:"at"`
	Took        time.Duration       `json:"took"`
	Route       string              `json:"route,omitempty"`      // the route by which it went, where there was one
	Transcript  bool                `json:"transcript,omitempty"` // of all that was said: the destination was in transcript mode
	Destination *verify.Destination `json:"destination,omitempty"`
	Tries       []Try               `json:"tries,omitempty"` // one for each host and address, in order
	OK          bool                `json:"ok"`              // at least one recipient was delivered
	Why         string              `json:"why,omitempty"`
	Do          string              `json:"do,omitempty"`
}

// Try is one connection, or one host that was not connected to.
type Try struct {
	At          time.Time         `json:"at"`
	Took        time.Duration     `json:"took"`
	MX          string            `json:"mx"`
	Addr        netip.Addr        `json:"addr,omitzero"`
	Cell        string            `json:"cell,omitempty"` // of decision table 2
	Demand      string            `json:"demand,omitempty"`
	Transport   outcome.Transport `json:"transport"`
	TLS         string            `json:"tls,omitempty"` // version and cipher
	Certificate string            `json:"certificate,omitempty"`
	Policies    []outcome.Policy  `json:"policies,omitempty"`
	WouldHold   string            `json:"would_hold,omitempty"` // observe mode: why it would have been held
	Reused      bool              `json:"reused,omitempty"`     // over a connection that an earlier message opened
	OK          bool              `json:"ok"`
	Why         string            `json:"why"`
	Section     string            `json:"section,omitempty"` // "RFC 8461 §4.2"
	Do          string            `json:"do,omitempty"`
	Steps       []verify.Step     `json:"steps,omitempty"`
	Lines       []string          `json:"lines,omitempty"` // what both sides said, in transcript mode or after a failure
}
