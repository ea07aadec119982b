package testnet

import (
	"slices"
	"sync"
	"time"
)

// Stage is a point in an SMTP session at which an MX host may misbehave.
type Stage int

// The stages, in the order of a session.
const (
	AtConnect   Stage = iota // the greeting
	AtEHLO                   // EHLO or HELO in clear
	AtSTARTTLS               // the reply to STARTTLS
	AtHandshake              // the handshake after it
	AtEHLOTLS                // EHLO under TLS
	AtMAIL
	AtRCPT
	AtDATA    // the reply to DATA
	AtMessage // the reply to the message itself
	AtRSET
	AtQUIT
	AtAUTH // honest hosts know no AUTH
)

// Action is what an MX host does at a [Stage] in place of the honest thing.
// Wait and Delay come first, then Hang, Drop or Reply.
type Action struct {
	Reply string                 // lines joined by "\n", as "451 4.3.0 later"; after a 421 the host closes
	Only  func(line string) bool // the command lines it applies to; nil: all
	Times int                    // how often; 0: always
	Wait  <-chan struct{}        // not before it is closed
	Delay time.Duration          // on the Net's clock
	Hang  bool                   // says nothing more, until the client goes
	Drop  bool                   // resets the connection
}

// script holds what a host was told to do.
type script struct {
	mu      sync.Mutex
	number  int
	actions map[Stage][]*scripted
}

type scripted struct {
	Action
	number, used int
}

// Script makes the host do a at a stage, for every session from now on; of
// several actions the one added last holds. The function returned takes it
// back.
func (h *Host) Script(at Stage, a Action) (remove func()) {
	s := &h.script
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.actions == nil {
		s.actions = make(map[Stage][]*scripted)
	}
	s.number++
	number := s.number
	s.actions[at] = append(s.actions[at], &scripted{Action: a, number: number})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.actions[at] = slices.DeleteFunc(s.actions[at], func(x *scripted) bool { return x.number == number })
	}
}

// next returns what is to be done at a stage, and counts it; nil: the honest
// thing. A nil script is an honest one.
func (s *script) next(at Stage, line string) *Action {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range slices.Backward(s.actions[at]) {
		if (x.Times > 0 && x.used >= x.Times) || (x.Only != nil && !x.Only(line)) {
			continue
		}
		x.used++
		return &x.Action
	}
	return nil
}
