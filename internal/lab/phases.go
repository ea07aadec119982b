package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// settle is how long after the honest mail the attack begins: connections
	// that are kept and answers of DNS that are cached are old by then.
	settle = 10 * time.Minute
	// nudge is longer than a system waits for a host that does not answer.
	nudge = 130 * time.Second
	// maxSteps ends the wait for mail that never leaves: it is longer than the
	// relay keeps any.
	maxSteps = int(lifetime/retry) + 2
)

// try runs trials together: what is cached is filled, the attacks begin, the
// messages are sent and looked at; then the attacks end and what was held
// leaves; and at last time passes for those that it makes another thing of.
func (w *world) try(ctx context.Context, trials []*trial) error {
	for _, phase := range []func(context.Context, []*trial) error{w.prime, w.attack, w.tell, w.release, w.pass, w.tell} {
		if err := phase(ctx, trials); err != nil {
			return err
		}
	}
	return nil
}

// prime lets honest mail through to those domains whose policy is to be cached.
func (w *world) prime(ctx context.Context, trials []*trial) error {
	var letters []letter
	var attacked []*trial
	for _, t := range trials {
		if !t.Cached() {
			continue
		}
		letters = append(letters, t.prime())
		if t.PrimedUnderAttack() {
			t.Domain.On(t.Variant.Stage...)
			attacked = append(attacked, t)
		}
	}
	if err := w.sendAll(ctx, letters); err != nil {
		return err
	}
	err := w.await(ctx, nudge, func() bool {
		for _, l := range letters {
			if len(w.tries.at(l.to)) == 0 {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("filling the cache: %w", err)
	}
	for _, l := range letters {
		if last := w.tries.at(l.to)[0]; last.State != Delivered {
			return fmt.Errorf("filling the cache: the message to %s was %s: %s", l.to, last.State, last.Result.Why)
		}
	}
	for _, t := range attacked {
		t.Domain.Off()
	}
	w.clock.Advance(settle)
	return nil
}

// attack switches the attacks on, sends the messages and looks at what becomes
// of each at first.
func (w *world) attack(ctx context.Context, trials []*trial) error {
	last := 0
	if s := w.net.Sessions(); len(s) > 0 {
		last = s[len(s)-1].Number
	}
	for _, t := range trials {
		t.Mark(last)
		if err := t.Begin(); err != nil {
			return err
		}
	}
	for _, t := range trials {
		if err := w.send(ctx, t.letter); err != nil {
			return err
		}
	}
	err := w.await(ctx, nudge, func() bool { return all(trials, (*trial).rested) })
	if err != nil {
		return fmt.Errorf("%w: %s", err, unrested(trials))
	}
	if err := w.soon(ctx, func() bool { return all(trials, (*trial).told) }); err != nil {
		return err
	}
	var settled []*trial
	for _, t := range trials {
		t.observe()
		if t.Want.Then == "" {
			settled = append(settled, t)
		}
	}
	return w.noteAll(ctx, settled)
}

// maxTells is how many retries are waited through for the operator to be told.
const maxTells = 4

// tell takes down what the operator was told. Some of it is found out behind
// the mail's back: while the attack is on, retries are waited through for it.
func (w *world) tell(ctx context.Context, trials []*trial) error {
	for range maxTells {
		if err := w.commit(ctx); err != nil {
			return err
		}
		untold := false
		for _, t := range trials {
			if err := t.noteEvents(ctx); err != nil {
				return err
			}
			untold = untold || t.Releases() && t.waiting() && len(t.untold()) > 0
		}
		if !untold {
			return nil
		}
		if err := w.retryOnce(ctx, trials); err != nil {
			return err
		}
	}
	return nil
}

// commit waits until what the relay has said so far is in its database: it lets
// an honest message through, whose commit comes after.
func (w *world) commit(ctx context.Context) error {
	w.commits++
	l := letter{from: "commit@" + SenderZone, to: fmt.Sprintf("commit%d@%s", w.commits, SenderZone)}
	if err := w.send(ctx, l); err != nil {
		return err
	}
	return w.await(ctx, nudge, func() bool { return len(w.net.Delivered(l.to)) > 0 })
}

// release ends the attacks and waits until what was held has left.
func (w *world) release(ctx context.Context, trials []*trial) error {
	var held []*trial
	for _, t := range trials {
		if t.Releases() && t.cell.Observed == Held {
			held = append(held, t)
			if err := t.End(); err != nil {
				return err
			}
		}
	}
	if err := w.passUntil(ctx, trials, held); err != nil {
		return err
	}
	for _, t := range held {
		t.cell.Released = t.state()
	}
	return nil
}

// pass lets time pass, with the attack on, until every message that is to
// become something else has.
func (w *world) pass(ctx context.Context, trials []*trial) error {
	var awaited []*trial
	for _, t := range trials {
		if t.Want.Then != "" {
			awaited = append(awaited, t)
		}
	}
	if err := w.passUntil(ctx, trials, awaited); err != nil {
		return err
	}
	for _, t := range awaited {
		t.observe()
	}
	return w.noteAll(ctx, awaited)
}

// passUntil moves the clock on, a retry at a time, until none of the awaited
// messages waits any more. All that waits in the world is tried each time.
func (w *world) passUntil(ctx context.Context, trials, awaited []*trial) error {
	for range maxSteps {
		if !anyOf(awaited, (*trial).waiting) {
			return w.soon(ctx, func() bool { return all(awaited, (*trial).told) })
		}
		if err := w.retryOnce(ctx, trials); err != nil {
			return err
		}
	}
	return errors.New("mail neither leaves nor comes back: " + unrested(awaited))
}

// retryOnce moves the clock on until all that waits has been tried again.
func (w *world) retryOnce(ctx context.Context, trials []*trial) error {
	tried := make(map[*trial]int)
	for _, t := range trials {
		if t.waiting() {
			tried[t] = len(w.tries.at(t.letter.to))
		}
	}
	w.clock.Advance(step)
	return w.await(ctx, step, func() bool {
		for t, n := range tried {
			if len(w.tries.at(t.letter.to)) == n {
				return false
			}
		}
		return true
	})
}

// all reports whether every trial is so.
func all(trials []*trial, is func(*trial) bool) bool {
	return !anyOf(trials, func(t *trial) bool { return !is(t) })
}

func anyOf(trials []*trial, is func(*trial) bool) bool {
	for _, t := range trials {
		if is(t) {
			return true
		}
	}
	return false
}

// unrested names the trials whose mail is still somewhere.
func unrested(trials []*trial) string {
	var names []string
	for _, t := range trials {
		if !t.rested() || t.waiting() {
			names = append(names, t.letter.to)
		}
	}
	return words(names)
}
