package client

import "time"

// Phase says where in a session something happened.
type Phase string

// The phases of a session, in their order.
const (
	Greeting  Phase = "greeting"
	Hello     Phase = "EHLO"
	StartTLS  Phase = "STARTTLS"
	Handshake Phase = "TLS handshake"
	Auth      Phase = "AUTH"
	Reset     Phase = "RSET"
	Mail      Phase = "MAIL"
	Rcpt      Phase = "RCPT"
	Data      Phase = "DATA"
	Body      Phase = "message"        // the content, on its way out
	End       Phase = "end of message" // from the content's end to the reply to it
	Quit      Phase = "QUIT"
)

// Timeouts are how long each phase may take: a reply from when it is waited for,
// a block of content from when it is handed to the network. Those of RFC 5321
// §4.5.3.2 are minimums that a sender should have; zero means the default.
type Timeouts struct {
	Greeting  time.Duration // 5 min (§4.5.3.2.1)
	Command   time.Duration // 5 min: EHLO, STARTTLS, RSET, MAIL, RCPT (§4.5.3.2.2, §4.5.3.2.3)
	Handshake time.Duration // 1 min, not in the RFC
	Data      time.Duration // 2 min: DATA (§4.5.3.2.4)
	Block     time.Duration // 3 min: each 64 KiB of content (§4.5.3.2.5)
	End       time.Duration // 10 min (§4.5.3.2.6)
	Quit      time.Duration // 5 s: nothing depends on it
}

// The defaults of [Timeouts].
const (
	GreetingTimeout  = 5 * time.Minute
	CommandTimeout   = 5 * time.Minute
	HandshakeTimeout = time.Minute
	DataTimeout      = 2 * time.Minute
	BlockTimeout     = 3 * time.Minute
	EndTimeout       = 10 * time.Minute
	QuitTimeout      = 5 * time.Second
)

func (t Timeouts) of(p Phase) time.Duration {
	pick := func(set, otherwise time.Duration) time.Duration {
		if set > 0 {
			return set
		}
		return otherwise
	}
	switch p {
	case Greeting:
		return pick(t.Greeting, GreetingTimeout)
	case Handshake:
		return pick(t.Handshake, HandshakeTimeout)
	case Data:
		return pick(t.Data, DataTimeout)
	case Body:
		return pick(t.Block, BlockTimeout)
	case End:
		return pick(t.End, EndTimeout)
	case Quit:
		return pick(t.Quit, QuitTimeout)
	}
	return pick(t.Command, CommandTimeout)
}
