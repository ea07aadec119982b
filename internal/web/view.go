package web

import (
	"context"
	"io"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Source is what the page shows. The node implements it over the packages that
// do the work; the page itself computes nothing but layout.
type Source interface {
	Overview(ctx context.Context) (Overview, error)
	// Destination explains how mail to a domain goes now; ErrNotFound if pawl
	// has never heard of it.
	Destination(ctx context.Context, domain string) (DestinationPage, error)
	// Message shows a queued or finished delivery; ErrNotFound if there is none.
	Message(ctx context.Context, id string) (MessagePage, error)
}

// Lab is the attacker of the demo; nil outside it.
type Lab interface {
	Attack(ctx context.Context) (LabState, error)
	SetAttack(ctx context.Context, on bool) error
}

// Overview is the front page.
type Overview struct {
	Hostname string
	Version  string
	Mode     string // enforce, observe
	Started  time.Time
	Now      time.Time
	Checks   []Check
	Totals   Totals

	Held         []Held
	Destinations []Destination
	Outcomes     []Outcomes
	Events       []event.Event
	Reports      []Report // TLS reports of the last days
	Overrides    []Override
}

// LabRun is what the lab came to the last time that it was run here.
type LabRun struct {
	Sender string // what was attacked
	At     time.Time
	Cells  int
	Wrong  int // of these, how many ended otherwise than they must
}

// Runs knows the lab's runs. Implementations must be safe for concurrent use.
type Runs interface {
	// LastRun returns the last one, and [ErrNotFound] before the first.
	LastRun() (LabRun, error)
	// WriteLastRun writes the page of the last one, which needs nothing beside
	// itself and has no script.
	WriteLastRun(w io.Writer) error
}

// Override is the operator's word for one destination, in the place of what it demands.
type Override struct {
	Domain  string
	Text    string // what holds, until when, why and by whom
	Weakens string // what of the destination's own demands it lifts; empty: nothing
}

// Report is one TLS report about a domain, and where it went.
type Report struct {
	Day, Domain string
	State       string // waiting, sending, sent, failed, skipped
	Why         string
	To          []ReportTo
}

// ReportTo is a report at one destination.
type ReportTo struct {
	RUA, State, Answer string
	Tried              time.Time
}

// Check is one of the node's checks of itself.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"` // what was found
	Do   string `json:"do,omitempty"`
}

// Totals are the figures at the top of the page; sessions are of the last 24 hours.
type Totals struct {
	Queued, Held                        int64
	Destinations                        int64
	Verified, Encrypted, Clear, Refused int64
	WouldHold                           int64
}

// Held is a delivery that waits.
type Held struct {
	ID         string
	From       string
	Domain     string
	Recipients int
	Since      time.Time
	Next       time.Time
	Attempts   int
	Why        string
	Do         string
	ByPolicy   bool
	ByHand     bool
}

// Destination is a domain that mail was or may be sent to.
type Destination struct {
	Domain   string
	Source   string // dane, sts, override, none
	Mode     string // enforce, testing, none; empty without MTA-STS
	ID       string
	MX       []string // names, or the policy's patterns
	Fetched  time.Time
	Expires  time.Time
	Failing  string // why the last refresh failed; empty: it did not
	Failed   int    // refreshes that failed in a row
	Vanished bool   // the policy holds, and its record is gone
	Override string
	Observe  bool
}

// Outcomes are one destination's sessions of the last 24 hours.
type Outcomes struct {
	Domain                              string
	Verified, Encrypted, Clear, Refused int64
	WouldHold                           int64 // of those, sessions that only observing let through
	Failures                            []Failure
	Last                                time.Time
}

// Total is the number of sessions.
func (o Outcomes) Total() int64 { return o.Verified + o.Encrypted + o.Clear + o.Refused }

// Failure is a result type with how often it was seen.
type Failure struct {
	Result   string
	Reason   string
	MX       string
	Sessions int64
}

// DestinationPage explains one destination.
type DestinationPage struct {
	Domain   string
	Summary  string // one sentence: which policy holds and why
	Override *Override
	Observed string // what observing keeps from happening; empty: it is enforced, or nothing would
	Postfix  string // what Postfix is told
	Policy   []string
	Steps    []verify.Step
	Hosts    []Host
	Outcomes Outcomes
	Events   []event.Event
	Held     []Held
}

// Host is one MX host of a destination.
type Host struct {
	Name        string
	Preference  uint16
	Addrs       []string
	Demand      string // in words
	TLSA        []string
	Unreachable string
	Observed    string // why a policy would have made it unreachable, were it not observed
	Cell        string
	Steps       []verify.Step
}

// MessagePage is one delivery with the story of its attempts.
type MessagePage struct {
	Held
	State      string
	Size       int64
	Received   time.Time
	Expires    time.Time
	Recipients []Recipient
	Attempts   []Attempt
}

// Recipient is one recipient of a delivery.
type Recipient struct {
	Addr  string
	State string
	Reply string
}

// Attempt is one try, as the flight recorder kept it.
type Attempt struct {
	At        time.Time
	Took      time.Duration
	MX        string
	Addr      string
	Reused    bool // over a connection that an earlier message opened
	Transport string
	Demand    string // what the host had to show, in words
	Judged    []Judged
	TLS       string // version and cipher
	Cert      string // the certificate that was seen
	OK        bool
	Why       string
	WouldHold string // why it was let through only by observing
	Do        string
	Section   string
	Cell      string
	Steps     []verify.Step
	Lines     []string // what both sides said
}

// Judged is a policy that an attempt was held against.
type Judged struct {
	Policy string // "MTA-STS of example.com"
	Failed string // the result type (RFC 8460 §4.3) and its reason; empty: satisfied
}

// LabState is what the demo's attacker does.
type LabState struct {
	On      bool
	Attack  string // what it does, for people
	Domain  string // whom it attacks
	Domains []LabDomain
}

// LabDomain is one domain of the demo's small Internet.
type LabDomain struct {
	Domain    string
	Kind      string // "MTA-STS enforce", "DANE", "no policy" …
	Delivered int64  // messages that reached the real host
	Stolen    int64  // messages that reached the attacker
}
