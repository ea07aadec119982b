package host

import (
	"net/netip"
	"slices"
	"time"
)

// Run is one sender's test: what is known of it, as it is kept.
type Run struct {
	Token  string       `json:"token"`  // local part of the tests' addresses
	Sender string       `json:"sender"` // return path of the mail that began it
	Proof  string       `json:"proof"`  // by what that was believed: "SPF", "DKIM"
	From   netip.Addr   `json:"from"`   // the client that brought it
	Also   []netip.Addr `json:"also,omitempty"`
	Began  time.Time    `json:"began"`

	Addressed []string  `json:"addressed,omitempty"` // tests known to have been written to
	Arrivals  []Arrival `json:"arrivals,omitempty"`
	First     time.Time `json:"first,omitzero"` // when the first mail arrived at a test

	Answered time.Time `json:"answered,omitzero"` // when the mails were handed to the relay
	Told     time.Time `json:"told,omitzero"`
	ToldOf   int       `json:"told_of,omitempty"` // how many of Arrivals the last verdict knew
	Amended  int       `json:"amended,omitempty"` // how often a verdict was amended
}

// Arrival is one message at one test.
type Arrival struct {
	Test    string     `json:"test"`
	At      time.Time  `json:"at"`
	Client  netip.Addr `json:"client"`
	Hello   string     `json:"hello,omitempty"`
	Host    string     `json:"host,omitempty"`    // the name in the TLS handshake (SNI), "" for none
	Version string     `json:"version,omitempty"` // "TLS 1.3"; "" in clear
	Cipher  string     `json:"cipher,omitempty"`
}

const (
	// maxArrivals is how many arrivals of one test are kept, and as many that
	// leaked: a sender with several ways to one goal has few.
	maxArrivals = 4
	// maxAmended is how often a verdict is amended.
	maxAmended = 3
	// maxClients is how many of a sender's addresses are kept.
	maxClients = 16
	// Lifetime is how long a run is kept, and its addresses taken: longer than
	// senders try (RFC 5321 §4.5.4.1).
	Lifetime = 7 * 24 * time.Hour
	// Unused is how long a run is kept that nothing came of.
	Unused = 24 * time.Hour
)

// over reports whether a run need not be kept any longer.
func (r Run) over(now time.Time) bool {
	age := now.Sub(r.Began)
	return age > Lifetime || r.First.IsZero() && age > Unused
}

// arrived notes a message. It is one transaction, which may be for several tests.
// Leaks tells which arrivals leaked.
func (r *Run) arrived(arrivals []Arrival, addressed []string, leaks func(Arrival) bool) {
	for _, a := range arrivals {
		count := 0
		for _, b := range r.Arrivals {
			if b.Test == a.Test && leaks(b) == leaks(a) {
				count++
			}
		}
		if count < maxArrivals {
			r.Arrivals = append(r.Arrivals, a)
		}
		r.client(a.Client)
		r.address(a.Test)
		if r.First.IsZero() {
			r.First = a.At
		}
	}
	for _, name := range addressed {
		r.address(name)
	}
}

func (r *Run) client(a netip.Addr) {
	if a != r.From && !slices.Contains(r.Also, a) && len(r.Also) < maxClients {
		r.Also = append(r.Also, a)
	}
}

func (r *Run) address(test string) {
	if !slices.Contains(r.Addressed, test) {
		r.Addressed = append(r.Addressed, test)
	}
}

// clone is a copy that shares nothing that changes.
func (r Run) clone() Run {
	r.Also, r.Addressed, r.Arrivals = slices.Clone(r.Also), slices.Clone(r.Addressed), slices.Clone(r.Arrivals)
	return r
}

// letter is one of the mails that a run is answered with.
type letter string

const (
	answer    letter = "answer"
	verdict   letter = "verdict"
	amendment letter = "amendment"
)

// due returns the letter that is to be sent next, and from when on; no letter is
// "". A verdict waits for the sender's retries, unless all has arrived; what leaks
// after it is told at once, and what arrives late that must arrive, a while after.
func (s Site) due(r Run, wait time.Duration) (letter, time.Time) {
	switch {
	case r.Answered.IsZero():
		return answer, r.Began
	case r.First.IsZero():
		return "", time.Time{}
	case r.Told.IsZero():
		if tests, _ := s.Tests(); r.tests(len(r.Arrivals)) == len(tests) {
			return verdict, r.First
		}
		return verdict, r.First.Add(wait)
	case r.Amended == maxAmended:
		return "", time.Time{}
	}
	for _, a := range r.Arrivals[r.ToldOf:] {
		if s.leaks(a) {
			return amendment, r.Told
		}
	}
	if r.tests(len(r.Arrivals)) > r.tests(r.ToldOf) {
		return amendment, r.Arrivals[len(r.Arrivals)-1].At.Add(wait)
	}
	return "", time.Time{}
}

// tests is at how many tests one of the first so many arrivals was.
func (r Run) tests(first int) int {
	seen := make(map[string]bool)
	for _, a := range r.Arrivals[:first] {
		seen[a.Test] = true
	}
	return len(seen)
}

// handed notes that a letter, which knew of so many arrivals, was handed to the
// relay.
func (r *Run) handed(l letter, knew int, at time.Time) {
	switch l {
	case answer:
		r.Answered = at
	case verdict:
		r.Told, r.ToldOf = at, knew
	case amendment:
		r.Told, r.ToldOf = at, knew
		r.Amended++
	}
}
