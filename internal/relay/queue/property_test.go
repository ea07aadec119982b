package queue_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// step is one thing that happens to the queue, of a kind, with two free choices.
type step struct{ Kind, A, B int }

const (
	stepSend = iota
	stepWait
	stepDelivered
	stepPartly
	stepFailed
	stepLater
	stepDown
	stepForbidden
	stepThrottled
	stepHold
	stepRelease
	stepRetry
	stepDrop
	stepKick
	stepRestart
	stepKinds
)

// model is what must hold of a delivery, told from outside.
type model struct {
	message string
	to      []string
	final   map[string]queue.RecipientState // recipients of whom the last word was said
	state   queue.State
	under   *try // the attempt under way
	byHand  bool // it was changed by hand since that began
}

// play is a queue with the model of every delivery in it.
type play struct {
	*world
	all   map[string]*model // by delivery
	order []string
	under []*try // attempts under way, oldest first
}

// TestNothingIsLostAndNothingGoesTwiceWhateverHappens plays random stories and
// compares the queue with a model of each delivery.
func TestNothingIsLostAndNothingGoesTwiceWhateverHappens(t *testing.T) {
	for dialect, stories := range map[db.Dialect]string{db.SQLite: "40", db.Postgres: "8"} {
		t.Run(string(dialect), func(t *testing.T) {
			if os.Getenv("PAWL_SOAK") == "" {
				few(t, stories)
			}
			rapid.Check(t, func(rt *rapid.T) {
				one := rapid.Custom(func(rt *rapid.T) step {
					return step{rapid.IntRange(0, stepKinds-1).Draw(rt, "kind"), rapid.IntRange(0, 99).Draw(rt, "a"), rapid.IntRange(0, 99).Draw(rt, "b")}
				})
				story := rapid.SliceOfN(one, 1, 60).Draw(rt, "story")
				o := databaseOf(t, dialect)
				var wrong []string
				synctest.Test(t, func(t *testing.T) {
					change := func(o *queue.Options) { o.Lifetime, o.Concurrency = 4*time.Hour, 6 }
					p := &play{world: newWorld(t, dbtest.Open(t, o), t.TempDir(), change), all: map[string]*model{}}
					p.start()
					for i, s := range story {
						if wrong = p.step(s); len(wrong) > 0 {
							wrong = append(wrong, fmt.Sprintf("in step %d", i))
							break
						}
					}
					if len(wrong) == 0 {
						wrong = p.finish()
					}
					p.stop()
				})
				if len(wrong) > 0 {
					rt.Fatal(wrong)
				}
			})
		})
	}
}

// few makes rapid play few stories.
func few(t *testing.T, stories string) {
	t.Helper()
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	if before != checks.DefValue {
		return // somebody said how many
	}
	if err := checks.Value.Set(stories); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = checks.Value.Set(before) })
}

// step does one step and says what is wrong after it.
func (p *play) step(s step) []string {
	switch s.Kind {
	case stepSend:
		p.post(s)
	case stepWait:
		<-time.After(time.Duration(s.A) * time.Minute)
	case stepHold, stepRelease, stepRetry, stepDrop:
		p.hand(s)
	case stepKick:
		if err := p.q.Kick(p.Context(), fmt.Sprintf("d%d.example", s.A%3)); err != nil {
			p.Fatal(err)
		}
	case stepRestart:
		p.stop()
		for _, try := range p.under {
			p.all[try.Delivery.ID].under = nil // it was cut short
		}
		p.under = nil
		p.start()
	default:
		p.answer(s)
	}
	p.settle()
	return p.look()
}

func (p *play) post(s step) {
	var to []string
	for i := range 1 + s.B%3 {
		to = append(to, fmt.Sprintf("r%d.%d@d%d.example", len(p.order), i, (s.A+i*(s.B%2))%3))
	}
	body := letter
	if s.A%10 == 0 {
		body = large
	}
	id := p.submit(queue.Message{From: "ann@example.org"}, body, to...)
	found, err := p.q.OfMessage(p.Context(), "", id)
	if err != nil {
		p.Fatal(err)
	}
	for _, d := range found {
		m := &model{message: id, state: queue.Queued, final: map[string]queue.RecipientState{}}
		for _, r := range d.Recipients {
			m.to = append(m.to, r.Addr)
		}
		p.all[d.ID] = m
		p.order = append(p.order, d.ID)
	}
}

// hand does an act to one delivery.
func (p *play) hand(s step) {
	if len(p.order) == 0 {
		return
	}
	act := map[int]queue.Act{stepHold: queue.Hold, stepRelease: queue.Release, stepRetry: queue.Retry, stepDrop: queue.Drop}[s.Kind]
	id := p.order[s.A%len(p.order)]
	m := p.all[id]
	n, err := p.q.Do(p.Context(), act, queue.Filter{ID: id}, "ann", "")
	if err != nil {
		p.Fatal(err)
	}
	to, applies := map[queue.Act]map[queue.State]queue.State{
		queue.Hold:    {queue.Queued: queue.Held},
		queue.Release: {queue.Held: queue.Queued},
		queue.Retry:   {queue.Queued: queue.Queued},
		queue.Drop:    {queue.Queued: queue.Dropped, queue.Held: queue.Dropped},
	}[act][m.state]
	if applies != (n == 1) {
		p.Errorf("%s of a delivery that is %s was done to %d", act, m.state, n)
	}
	if applies {
		m.state, m.byHand = to, true
	}
}

// answer ends the oldest attempt, or one of the others.
func (p *play) answer(s step) {
	if len(p.under) == 0 {
		return
	}
	i := s.A % len(p.under)
	try := p.under[i]
	p.under = append(p.under[:i], p.under[i+1:]...)
	m := p.all[try.Delivery.ID]
	m.under = nil
	r := queue.Result{Why: "why", Recipients: map[int]queue.Recipient{}, Story: queue.Story{At: time.Now()}}
	say := func(i int, state queue.RecipientState) {
		r.Recipients[i] = queue.Recipient{State: state, Reply: "said " + string(state)}
		if state == queue.Delivered || state == queue.Failed && m.state == queue.Queued {
			m.final[try.Recipients[i].Addr] = state
		}
	}
	for n, i := range try.Pending() {
		switch {
		case s.Kind == stepDelivered, s.Kind == stepPartly && n == 0:
			say(i, queue.Delivered)
		case s.Kind == stepFailed, s.Kind == stepPartly && n == 1, try.Last:
			if s.Kind == stepFailed || s.Kind == stepPartly && n == 1 {
				say(i, queue.Failed)
			} else if m.state == queue.Queued { // its lifetime is over
				m.final[try.Recipients[i].Addr] = queue.Failed
			}
		}
	}
	r.DestinationDown = s.Kind == stepDown || s.Kind == stepForbidden
	r.ByPolicy, r.Throttled = s.Kind == stepForbidden, s.Kind == stepThrottled
	if len(m.final) == len(m.to) && m.state != queue.Dropped {
		m.state = queue.AllDelivered
		for _, f := range m.final {
			if f == queue.Failed {
				m.state = queue.SomeFailed
			}
		}
	}
	try.answer <- r
}

// look takes in the attempts that have begun, and compares the queue with the
// model.
func (p *play) look() (wrong []string) {
	for {
		synctest.Wait()
		select {
		case try := <-p.tries:
			wrong = append(wrong, p.began(try)...)
			continue
		default:
		}
		break
	}
	for i := 0; i < len(p.under); i++ { // what ran into the attempt's own limit
		if p.under[i].ctx.Err() != nil {
			p.all[p.under[i].Delivery.ID].under = nil
			p.under = append(p.under[:i], p.under[i+1:]...)
			i--
		}
	}
	for _, id := range p.order {
		d, err := p.q.Show(p.Context(), "", id)
		if err != nil {
			return append(wrong, err.Error())
		}
		m := p.all[id]
		p.lifetime(m, d)
		if d.State != m.state {
			wrong = append(wrong, fmt.Sprintf("delivery %s is %s, want %s", id, d.State, m.state))
		}
		for _, r := range d.Recipients {
			want := m.final[r.Addr]
			if want == "" {
				want = queue.Pending
			}
			if r.State != want {
				wrong = append(wrong, fmt.Sprintf("recipient %s is %s, want %s", r.Addr, r.State, want))
			}
		}
	}
	return wrong
}

// lifetime follows what ends by itself: a delivery whose lifetime was over when
// its destination was found down, or when an attempt at it ran out of time.
func (p *play) lifetime(m *model, d queue.Delivery) {
	if m.state != queue.Queued || m.under != nil || d.State != queue.SomeFailed || d.Expires.After(time.Now()) {
		return
	}
	m.state = queue.SomeFailed
	for _, addr := range m.to {
		if m.final[addr] == "" {
			m.final[addr] = queue.Failed
		}
	}
}

// began checks an attempt that was begun.
func (p *play) began(try *try) (wrong []string) {
	m := p.all[try.Delivery.ID]
	if m.under != nil && m.under.ctx.Err() == nil {
		wrong = append(wrong, "a second attempt was begun beside the first")
	}
	if m.state != queue.Queued {
		wrong = append(wrong, fmt.Sprintf("an attempt was begun at a delivery that is %s", m.state))
	}
	for _, r := range try.Recipients {
		if (r.State == queue.Pending) != (m.final[r.Addr] == "") {
			wrong = append(wrong, fmt.Sprintf("recipient %s is tried as %s after the last word %q", r.Addr, r.State, m.final[r.Addr]))
		}
	}
	if got := len(try.body(p)); got != len(letter) && got != len(large) {
		wrong = append(wrong, fmt.Sprintf("the body has %d bytes", got))
	}
	m.under, m.byHand = try, false
	p.under = append(p.under, try)
	return wrong
}

// finish releases all and delivers all that is tried, and then nothing may be left.
func (p *play) finish() (wrong []string) {
	if _, err := p.q.Do(p.Context(), queue.Release, queue.Filter{}, "ann", ""); err != nil {
		p.Fatal(err)
	}
	for _, m := range p.all {
		if m.state == queue.Held {
			m.state = queue.Queued
		}
	}
	for range len(p.order) + 1 {
		for len(p.under) > 0 {
			p.answer(step{Kind: stepDelivered})
			p.settle()
			if wrong = p.look(); len(wrong) > 0 {
				return append(wrong, "at the end")
			}
		}
		if _, err := p.q.Do(p.Context(), queue.Retry, queue.Filter{}, "ann", ""); err != nil {
			p.Fatal(err)
		}
		p.settle()
		if wrong = p.look(); len(wrong) > 0 {
			return append(wrong, "at the end")
		}
		if len(p.under) == 0 {
			break
		}
	}
	for id, m := range p.all {
		if m.state == queue.Queued {
			wrong = append(wrong, fmt.Sprintf("delivery %s is left", id))
		}
	}
	if n := p.rows("body"); n != 0 {
		wrong = append(wrong, fmt.Sprintf("%d bodies are left", n))
	}
	if files := p.files(); len(files) != 0 {
		wrong = append(wrong, fmt.Sprintf("the spool holds %q", files))
	}
	return wrong
}
