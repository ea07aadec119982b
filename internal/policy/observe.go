package policy

import (
	"fmt"

	"github.com/pawl-mail/pawl/internal/resolve"
)

// observing is which destinations are only observed.
type observing struct {
	all  bool
	only map[string]bool
}

// PrepareObserve returns what makes all destinations, or the named ones, be
// only observed.
func (e *Engine) PrepareObserve(all bool, only []string) (apply func(), err error) {
	o := observing{all: all, only: make(map[string]bool, len(only))}
	for _, name := range only {
		domain, err := resolve.Name(name)
		if err != nil {
			return nil, fmt.Errorf("policy: the observed destination %q: %w", name, err)
		}
		o.only[domain] = true
	}
	return func() {
		e.observe.Store(&o)
		e.epoch.Add(1) // Postfix is told anew
	}, nil
}

// observed reports whether nothing may be stopped on the way to a domain.
func (e *Engine) observed(domain string, o *Override) bool {
	now := e.observe.Load()
	return now.all || now.only[domain] || o != nil && o.Kind == OverrideObserve
}
