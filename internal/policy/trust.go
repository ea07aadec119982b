package policy

import (
	"context"

	"github.com/pawl-mail/pawl/internal/event"
)

// trust asks table 4 what holds now. A change makes every answer for Postfix anew,
// and that DANE is off is said once.
func (e *Engine) trust(ctx context.Context) trustDecision {
	d := decideTrust(e.o.DANE, e.o.Resolver.Validation())
	if e.dane.Swap(d.DANE) != d.DANE {
		e.epoch.Add(1)
	}
	switch {
	case d.DANE:
		e.warned.Store(false)
	case e.o.DANE && !e.warned.Swap(true):
		e.raise(ctx, event.Event{
			Kind: event.ResolverUntrusted, Severity: event.Warning,
			Text: d.Why, Do: d.Do, Evidence: map[string]string{"cell": d.Cell},
		})
	}
	return d
}

// watch looks after what changes by itself: the resolver's trust, overrides made
// on other nodes, the age of what is stored.
func (e *Engine) watch(ctx context.Context) {
	e.trust(ctx)
	if err := e.overrides.reload(ctx); err != nil && ctx.Err() == nil {
		e.log.Error("the overrides could not be read; those known hold", "err", err)
	}
	if oldest, err := e.rows.oldest(ctx, micro(e.now())); err == nil {
		e.oldest.Store(oldest)
	}
}
