package relay

import "sync/atomic"

// Reason says why mail was refused.
type Reason string

// The reasons. Mail refused for the last three may come again.
const (
	NotAllowed   Reason = "relay"     // the client may not relay
	WrongSender  Reason = "sender"    // the submitter may not send as this
	BadRecipient Reason = "recipient" // there is no way to the recipient
	Loop         Reason = "loop"      // the message goes in circles
	BadContent   Reason = "content"   // the message breaks the protocol, or is too large
	OverLimit    Reason = "limit"     // more than the client or sender may
	NoRoom       Reason = "room"      // the disk or the queue is nearly full
	NotStored    Reason = "storage"   // the queue could not take it
)

// reasons lists them for the counters.
func reasons() []Reason {
	return []Reason{NotAllowed, WrongSender, BadRecipient, Loop, BadContent, OverLimit, NoRoom, NotStored}
}

// tally counts by reason.
type tally map[Reason]*atomic.Int64

func newTally() tally {
	t := tally{}
	for _, r := range reasons() {
		t[r] = new(atomic.Int64)
	}
	return t
}

// Stats are the relay's counters since its start.
type Stats struct {
	Accepted     int64            // messages taken into the queue
	Refused      map[Reason]int64 // messages, and recipients, refused
	Connections  int              // open now
	TurnedAway   int64            // connections over the limits
	BadHandshake int64            // TLS handshakes that came to nothing
	Waived       int64            // messages with TLS-Required: No that was granted
	NotWaived    int64            // and that was not
}

// Stats returns the counters as they are now.
func (r *Relay) Stats() Stats {
	wire := r.smtp.Stats()
	s := Stats{
		Accepted: r.accepted.Load(), Refused: map[Reason]int64{}, Connections: wire.Connections, TurnedAway: wire.TurnedAway,
		BadHandshake: wire.BadHandshake, Waived: r.waived.Load(), NotWaived: r.notWaived.Load(),
	}
	for reason, n := range r.refused {
		s.Refused[reason] = n.Load()
	}
	s.Refused[BadContent] += wire.BadContent
	return s
}
