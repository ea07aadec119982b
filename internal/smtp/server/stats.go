package server

import "sync/atomic"

// Stats are what a server counted since its start, of what its backend does not
// see.
type Stats struct {
	Connections  int   // open now
	TurnedAway   int64 // connections over the limits
	BadHandshake int64 // TLS handshakes that came to nothing
	BadContent   int64 // messages whose content was refused: bare line ends, too large
}

type counts struct{ turnedAway, badHandshake, badContent atomic.Int64 }

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return Stats{
		Connections: open, TurnedAway: s.counts.turnedAway.Load(),
		BadHandshake: s.counts.badHandshake.Load(), BadContent: s.counts.badContent.Load(),
	}
}
