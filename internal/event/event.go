// Package event says what happened that someone may want to know: a policy that
// weakened, a record that vanished, a refresh that keeps failing. Whoever sees
// it makes an Event and gives it to a Sink; the page and the alerts read it.
package event

import (
	"context"
	"time"
)

// Kind is an event's stable name.
type Kind string

// The kinds of events about policies (decisions.md table 1 in the design names them).
const (
	PolicyNew            Kind = "policy-new"             // a policy was adopted where none was cached
	PolicyChanged        Kind = "policy-changed"         // a policy was replaced by one no weaker
	PolicyWeakened       Kind = "policy-weakened"        // enforce to less, a shorter max_age, other MX names
	PolicyRecordVanished Kind = "policy-record-vanished" // no valid record any more, the cached policy holds
	PolicyRefreshFailing Kind = "policy-refresh-failing" // repeated failures to refresh (RFC 8461 §9)
	PolicyExpired        Kind = "policy-expired"         // the cached policy ended with nothing to replace it
	DiscoveryHeld        Kind = "discovery-held"         // it could not be found out whether there is a policy: mail waits
	DiscoveryReleased    Kind = "discovery-released"     // the hold ended without an answer: mail goes as without a policy
	OverrideUsed         Kind = "override-used"          // the operator's override decided
	ResolverUntrusted    Kind = "resolver-untrusted"     // the resolver does not validate: DANE is off
	MessageHeld          Kind = "message-held"           // a message waits because of a policy
	NodesDisagree        Kind = "nodes-disagree"         // an MX host fails on one node and not on another
	OutcomeChanged       Kind = "outcome-changed"        // an MX host fails that had not for days
	RelayFull            Kind = "relay-full"             // disk or queue are nearly full: mail is refused for now
	RelayReopened        Kind = "relay-reopened"         // and is taken again
	MessageReleased      Kind = "message-released"       // a message that was held went out, or was released by hand
)

// Severity orders events for people.
type Severity string

// The severities.
const (
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Event is one thing that happened.
type Event struct {
	ID       string            `json:"id"` // UUIDv7, set by the store when empty
	Org      string            `json:"-"`
	At       time.Time         `json:"at"`
	Kind     Kind              `json:"kind"`
	Severity Severity          `json:"severity"`
	Domain   string            `json:"domain,omitempty"`
	Text     string            `json:"text"`         // one sentence: what happened
	Do       string            `json:"do,omitempty"` // one sentence: what to do
	Evidence map[string]string `json:"evidence,omitempty"`
}

// Sink takes events. Implementations are safe for concurrent use and do not
// make the caller wait for storage.
type Sink interface {
	Record(ctx context.Context, e Event)
}
