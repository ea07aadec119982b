package lab

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// Attempt is one try of the relay at a message, as its flight recorder has it.
type Attempt struct {
	At     time.Time
	Last   bool // the message's lifetime was over
	Result queue.Result
	State  Outcome // Delivered as the relay says: only the receiving end knows to whom
	Asked  int     // DNS lookups of _mta-sts that the attempt made
}

// attempts watches the relay's attempts, by recipient. The zero value is ready.
type attempts struct {
	asked func(domain string) int // lookups of _mta-sts so far

	mu      sync.Mutex
	of      map[string][]Attempt
	changed chan struct{}
}

// watch stands between the relay's queue and what delivers.
func (a *attempts) watch(next queue.Deliver) queue.Deliver {
	return func(ctx context.Context, j *queue.Job) queue.Result {
		before := a.asked(j.Domain)
		r := next(ctx, j)
		if ctx.Err() != nil {
			return r // cut short by the end of the lab
		}
		for i, rcpt := range j.Recipients {
			if rcpt.State == queue.Pending {
				a.note(rcpt.Addr, Attempt{
					At: r.Story.At, Last: j.Last, Result: r, State: stateOf(r, i, j.Last), Asked: a.asked(j.Domain) - before,
				})
			}
		}
		return r
	}
}

// stateOf is where an attempt left a recipient.
func stateOf(r queue.Result, i int, last bool) Outcome {
	switch rcpt := r.Recipients[i]; {
	case rcpt.State == queue.Delivered:
		return Delivered
	case rcpt.State == queue.Failed, last:
		return Bounced
	default:
		return Held
	}
}

func (a *attempts) note(rcpt string, one Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = make(map[string][]Attempt)
	}
	rcpt = strings.ToLower(rcpt)
	a.of[rcpt] = append(a.of[rcpt], one)
	a.tell()
}

// wake tells whoever waits that something happened elsewhere.
func (a *attempts) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell()
}

func (a *attempts) tell() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// wait returns a channel that is closed when something happens. Take it before
// looking.
func (a *attempts) wait() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.changed
}

// at returns the attempts at a recipient's message so far.
func (a *attempts) at(rcpt string) []Attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.of[strings.ToLower(rcpt)]
	return list[:len(list):len(list)]
}
