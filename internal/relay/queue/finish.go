package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// maxStory caps a story in bytes; what a hostile server said at length is cut.
	maxStory = 64 << 10
	// maxFullStory takes its place in transcript mode.
	maxFullStory = 1 << 20
	// maxSentence caps what is kept of a reason, in bytes.
	maxSentence = 2000
	// bounceTime bounds the making of a bounce.
	bounceTime = time.Minute
)

// finish writes down what an attempt came to and tells the schedule. The mark
// rides on the next commit; until it is durable the delivery counts as under
// way, so that it is not tried again.
func (q *Queue) finish(ctx context.Context, d *dest, j *Job, r Result) {
	// The mark is written even while the queue ends: the mail has gone.
	ctx = context.WithoutCancel(ctx)
	now := q.opts.Now()
	m := q.outcome(j, r, now)
	m.dest, m.shared = d, q.shared()
	if q.opts.Bounce != nil {
		n := q.news(j, &m.after, now)
		m.bounce, m.delayOnly = q.bounce(ctx, j, n), len(n.Failed)+len(n.Relayed) == 0
	}
	if m.after.ByPolicy && !j.ByPolicy && m.after.Waiting() && q.opts.OnHeld != nil {
		q.opts.OnHeld(ctx, m.after)
	}
	q.mu.Lock()
	var back []*Job
	m.known, back = q.judge(d, j, r, now)
	d.active--
	q.drop(d, j)
	j.body = nil
	q.replace(d)
	q.mu.Unlock()
	q.release(d, back)
	q.store(m)
}

// outcome makes the mark of an attempt.
func (q *Queue) outcome(j *Job, r Result, now time.Time) *mark {
	after := j.Delivery
	after.Recipients = slices.Clone(j.Recipients)
	after.apply(r, now)
	if j.Last {
		after.giveUp()
	}
	next := now.Add(q.backoff(after.Attempts))
	if r.DestinationDown {
		next = now // it waits behind the gate, and others are tried before it
	}
	after.settle(next)
	story, err := storyText(r.Story)
	if err != nil {
		q.opts.Log.Warn("the story of an attempt could not be written", "delivery", j.ID, "err", err)
	}
	return &mark{job: j, after: after, id: db.NewID(), story: story}
}

// final reports whether the attempt ended something for good.
func (r Result) final() bool {
	for _, rcpt := range r.Recipients {
		if rcpt.State != Pending {
			return true
		}
	}
	return false
}

// apply takes over what the attempt said of each recipient.
func (d *Delivery) apply(r Result, now time.Time) {
	for i, said := range r.Recipients {
		if i < 0 || i >= len(d.Recipients) || d.Recipients[i].State != Pending {
			continue
		}
		switch said.State {
		case Pending, Delivered, Failed:
			d.Recipients[i].State, d.Recipients[i].Reply = said.State, clean(said.Reply)
			d.Recipients[i].Relayed = said.Relayed && said.State == Delivered
		}
	}
	d.Attempts++
	d.Why, d.Do, d.ByPolicy, d.Updated = clean(r.Why), clean(r.Do), r.ByPolicy, now
}

// giveUp ends what is left of a delivery whose lifetime is over (RFC 5321 §4.5.4.1).
func (d *Delivery) giveUp() {
	for i := range d.Recipients {
		if d.Recipients[i].State == Pending {
			d.Recipients[i].State = Failed
			if d.Recipients[i].Reply == "" {
				d.Recipients[i].Reply = d.Why
			}
		}
	}
}

// settle sets the delivery's state from its recipients', and the next try.
func (d *Delivery) settle(next time.Time) {
	if len(d.Pending()) > 0 {
		d.State, d.Next = Queued, next
		if d.Next.After(d.Expires) {
			d.Next = d.Expires // the last try is made at the end of the lifetime, not after it
		}
		return
	}
	d.State = AllDelivered
	for _, r := range d.Recipients {
		if r.State == Failed {
			d.State = SomeFailed
			d.Why = cmp.Or(d.Why, r.Reply)
		}
	}
	if d.State == AllDelivered {
		d.Why, d.Do = "", ""
	}
	d.ByPolicy = false // it does not wait any more
}

// news is what an attempt changed that a sender may want to hear of. Who is told
// of now that waits is not told of again.
func (q *Queue) news(j *Job, after *Delivery, now time.Time) News {
	n := News{Why: after.Why}
	late := q.opts.DelayNotice > 0 && after.State == Queued && now.Sub(after.Received) >= q.opts.DelayNotice
	for i := range after.Recipients {
		r := &after.Recipients[i]
		changed := r.State != j.Recipients[i].State
		switch {
		case changed && r.State == Failed:
			n.Failed = append(n.Failed, *r)
		case changed && r.State == Delivered && r.Relayed:
			n.Relayed = append(n.Relayed, *r)
		case late && r.State == Pending && !r.Warned:
			r.Warned = true
			n.Delayed = append(n.Delayed, *r)
		}
	}
	n.Delivery = *after
	return n
}

// bounce makes the rows of a delivery status notification; nil if none is due.
// A notification that cannot be made does not keep what happened from being
// recorded.
func (q *Queue) bounce(ctx context.Context, j *Job, n News) *newRows {
	if len(n.Failed)+len(n.Delayed)+len(n.Relayed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bounceTime)
	defer cancel()
	j.open = q.bodyOf(ctx, j)
	n.Open = j.all
	s, err := q.opts.Bounce(ctx, n)
	if err == nil && s == nil {
		return nil
	}
	var rows *newRows
	if err == nil {
		rows, err = q.prepare(ctx, s)
		s.Body.Discard()
	}
	if err != nil {
		q.opts.Log.Error("a notification could not be made; tell the sender by hand", "sender", j.From, "delivery", j.ID, "err", err)
		return nil
	}
	return rows
}

// clean makes a sentence fit to be stored: PostgreSQL takes neither NUL nor
// broken UTF-8, and a hostile server must not fill the disk.
func clean(s string) string {
	if len(s) > maxSentence {
		s = s[:maxSentence] + "…"
	}
	if text(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}

func storyText(s Story) (string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "{}", err
	}
	most := maxStory
	if s.Transcript {
		most = maxFullStory
	}
	if len(text) <= most {
		return string(text), nil
	}
	s.Destination = nil
	s.Tries = slices.Clone(s.Tries)
	for i := range s.Tries {
		s.Tries[i].Lines, s.Tries[i].Steps = []string{fmt.Sprintf("cut: the story is over %d KiB", most>>10)}, nil
	}
	if text, err = json.Marshal(s); err != nil || len(text) > most {
		return "{}", err
	}
	return string(text), nil
}
