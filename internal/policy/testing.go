package policy

import "github.com/pawl-mail/pawl/mtasts"

// Testing reports whether a domain is known to have an MTA-STS policy in mode
// testing. It answers from memory, at once: what has been told to Postfix lately
// is there.
func (e *Engine) Testing(domain string) bool {
	name, err := domainOf(domain)
	if err != nil {
		return false
	}
	s, ok := e.memory.GetIfPresent(name)
	if !ok {
		return false
	}
	st := s.state.Load()
	return st != nil && st.live(micro(e.now())) && st.policy != nil && st.policy.Mode == mtasts.Testing
}
