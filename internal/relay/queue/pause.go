package queue

import (
	"context"
)

// Pause begins no delivery from here on, and gives back what was leased and not
// begun. Mail is still taken in. What is under way goes on; [Queue.Quiet] waits
// for its end, [Queue.Resume] goes on.
func (q *Queue) Pause() {
	type handed struct {
		dest *dest
		jobs []*Job
	}
	q.mu.Lock()
	q.paused = true
	var back []handed
	for _, d := range q.dests {
		if len(d.ready) > 0 {
			back = append(back, handed{d, d.ready})
			d.ready = nil
			q.replace(d)
		}
	}
	q.mu.Unlock()
	for _, h := range back {
		q.release(h.dest, h.jobs)
	}
}

// Resume makes deliveries again after a [Queue.Pause].
func (q *Queue) Resume() {
	q.mu.Lock()
	q.paused = false
	q.calm.Broadcast() // nobody waits for the quiet any longer
	q.mu.Unlock()
	q.wakeUp()
}

// UnderWay is how many deliveries this process has in its hands: begun, or
// ended and not yet durable.
func (q *Queue) UnderWay() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.underWay()
}

func (q *Queue) underWay() int {
	n := 0
	for _, d := range q.dests {
		if n += len(d.running); d.asking {
			n++
		}
	}
	return n
}

// Quiet waits until a paused queue has nothing in its hands any longer: no
// attempt is under way, the result of each is durable, and on PostgreSQL none
// of its deliveries is leased. It returns at once if the queue is resumed.
func (q *Queue) Quiet(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.calm.Broadcast()
	})()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.paused && q.underWay() > 0 && ctx.Err() == nil {
		q.calm.Wait()
	}
	return ctx.Err()
}
