package queue

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// askBatch is how many deliveries of one destination are read at once.
	askBatch = 64
	// turnLength is how many deliveries a worker makes to one destination before
	// it makes way for another that waits for a slot.
	turnLength = 50
	// attemptTimeout ends an attempt.
	attemptTimeout = 20 * time.Minute
	// slowAttempt is how long an attempt may take without the destination being
	// given less to do.
	slowAttempt = time.Minute
	// paceEvery spaces the beginnings with destinations that are down or not known
	// while there is mail for those that work: a look-up and a connection cost
	// as much as some messages do. paceSpare is how much of it can be saved up,
	// and paceAfter how long after such mail it holds.
	paceEvery = 10 * time.Millisecond
	paceSpare = 100 * time.Millisecond
	paceAfter = time.Second
	// pollEvery is how often a node looks for what no arrival tells it of.
	pollEvery = time.Minute
	// jitter spreads retries by this part of the wait, so that what failed
	// together does not come back together.
	jitter = 0.2
)

// Deliver makes one attempt at a delivery. It is called from many goroutines.
// When its context ends it returns soon, with what has become final.
type Deliver func(context.Context, *Job) Result

// Run hands due deliveries to deliver until ctx ends, then waits for those
// under way; after Options.Grace their context ends too. A queue has one Run at
// a time.
func (q *Queue) Run(ctx context.Context, deliver Deliver) error {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	r := &runner{Queue: q, ctx: ctx, attempts: attempts, deliver: deliver}
	q.begin(ctx)
	r.loop()
	q.mu.Lock()
	q.running = false
	q.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		q.jobs.Wait()
		close(ended)
	}()
	if q.opts.Grace > 0 {
		select {
		case <-ended:
		case <-q.opts.After(q.opts.Grace):
		}
	}
	cut()
	<-ended
	q.end(attempts)
	return nil
}

// begin makes the queue ready to run.
func (q *Queue) begin(ctx context.Context) {
	if q.shared() {
		q.renew(ctx)
	}
	q.mu.Lock()
	q.running = true
	q.mu.Unlock()
}

// end forgets what was not begun, and gives back its leases. What was handed
// over and not delivered is in the database.
func (q *Queue) end(ctx context.Context) {
	q.lastStore(context.WithoutCancel(ctx))
	q.mu.Lock()
	for _, d := range q.dests {
		q.forsake(d)
	}
	q.mu.Unlock()
	if q.shared() {
		q.resign(context.WithoutCancel(ctx))
	}
	q.jobs.Wait()
}

// runner is a queue while it runs.
type runner struct {
	*Queue
	ctx      context.Context // nothing new is begun after its end
	attempts context.Context // of what is under way
	deliver  Deliver
	alarm    alarm
	sweeping atomic.Bool
	renewing atomic.Bool
}

// once runs do beside the loop, unless it still runs.
func (r *runner) once(busy *atomic.Bool, do func(context.Context)) {
	if busy.CompareAndSwap(false, true) {
		r.jobs.Go(func() {
			defer busy.Store(false)
			do(r.ctx)
		})
	}
}

// loop starts what is due and does what is to be done regularly.
func (r *runner) loop() {
	poll, beat := r.opts.After(0), r.opts.After(heartbeat)
	var retry <-chan time.Time
	for {
		r.mu.Lock()
		r.start()
		next := r.earliest()
		if len(r.unstored) > 0 && retry == nil {
			retry = r.opts.After(retryStore)
		}
		r.mu.Unlock()
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		case <-r.alarm.at(next, r.opts):
			r.alarm = alarm{}
		case <-poll:
			poll = r.opts.After(pollEvery)
			r.once(&r.sweeping, r.sweep)
		case <-beat:
			beat = r.opts.After(heartbeat)
			if r.shared() {
				r.once(&r.renewing, r.renew)
			}
		case <-retry:
			retry = nil
			r.storeAgain()
		}
	}
}

// alarm is a timer for the next thing that is due. There is one at a time; one
// that is too early only makes the loop look, and set the next.
type alarm struct {
	when time.Time
	c    <-chan time.Time
}

func (a *alarm) at(when time.Time, o Options) <-chan time.Time {
	if when.IsZero() || a.c != nil && !when.Before(a.when) {
		return a.c
	}
	a.when, a.c = when, o.After(when.Sub(o.Now()))
	return a.c
}

// earliest is when the next destination that cannot be started yet can be; zero
// when the poll comes earlier than that.
func (r *runner) earliest() time.Time {
	now := r.opts.Now()
	first := now.Add(pollEvery)
	for c := range classes {
		h := r.lines[c].heap
		if len(h) == 0 {
			continue
		}
		at := h[0].at
		if r.paced(c, now) && r.pace.After(at) {
			at = r.pace
		}
		if at.After(now) && at.Before(first) {
			first = at
		}
	}
	if first.Equal(now.Add(pollEvery)) {
		return time.Time{}
	}
	return first
}

// start gives workers to the destinations that have something to do, as far as
// there are slots. The caller holds the lock.
func (r *runner) start() {
	now := r.opts.Now()
	if r.ctx.Err() != nil || !r.fit(now) {
		return
	}
	for d := r.pick(now); d != nil; d = r.pick(now) {
		c := d.class
		r.step(c, now)
		d.starting = true
		r.replace(d)
		r.lines[c].taken++
		r.jobs.Go(func() { r.work(d, c) })
	}
}

// fit reports whether attempts may be begun: what they come to can be stored,
// and the deliveries are ours.
func (q *Queue) fit(now time.Time) bool {
	return q.running && !q.paused && len(q.unstored)+q.offered == 0 && (!q.shared() || now.Before(q.tenure.until))
}

// room reports whether a class may have one more slot. Destinations that are
// down have half of them at most, and together with those of which nothing is
// known yet three quarters; the rest is kept for those that work.
func (q *Queue) room(c class) bool {
	all := q.tuning().Concurrency
	ill, new := q.lines[down].taken, q.lines[unknown].taken
	if q.lines[live].taken+new+ill >= all {
		return false
	}
	switch c {
	case down:
		return ill < max(1, all/2) && new+ill < max(1, all*3/4)
	case unknown:
		return new+ill < max(1, all*3/4)
	default:
		return true
	}
}

// paced reports whether a class has to wait for its next beginning.
func (q *Queue) paced(c class, now time.Time) bool {
	return c != live && now.Before(q.pace) && now.Sub(q.lively) < paceAfter
}

// step notes that a destination of a class is begun with, or is gone on with.
func (q *Queue) step(c class, now time.Time) {
	if c == live {
		q.lively = now
		return
	}
	if saved := now.Add(-paceSpare); q.pace.Before(saved) {
		q.pace = saved
	}
	q.pace = q.pace.Add(paceEvery)
}

// pick chooses the destination that is given a slot: of those for whose class
// there is room, the one that has waited longest; nil if none is due.
func (q *Queue) pick(now time.Time) *dest {
	var best *dest
	for c := range classes {
		if h := q.lines[c].heap; len(h) > 0 && !h[0].at.After(now) && q.room(c) && !q.paced(c, now) && (best == nil || h[0].at.Before(best.at)) {
			best = h[0]
		}
	}
	if best != nil && best.class == unknown {
		return q.pickUnknown(best, now)
	}
	return best
}

// pickUnknown chooses, of the destinations that nothing is known of, the one
// that has waited longest and the one that came last by turns: when there are
// thousands that turn out to be dead, a live one that comes after them is not
// kept waiting by all of them.
func (q *Queue) pickUnknown(longest *dest, now time.Time) *dest {
	q.latest = !q.latest
	for q.latest && len(q.newcomers) > 0 {
		last := len(q.newcomers) - 1
		d := q.newcomers[last]
		q.newcomers[last] = nil
		q.newcomers = q.newcomers[:last]
		if d.place >= 0 && d.class == unknown && !d.at.After(now) {
			return d
		}
	}
	return longest
}

// work makes deliveries to a destination until there is none left to make, or
// another destination has waited long enough for the slot.
func (r *runner) work(d *dest, c class) {
	for n := 0; ; n++ {
		j := r.take(d, c, n)
		if j == nil {
			break
		}
		r.attempt(d, j)
	}
	r.mu.Lock()
	r.lines[c].taken--
	r.replace(d)
	r.start()
	r.mu.Unlock()
	r.wakeUp()
}

// take gives a worker its nth job, asking the database where none is in memory;
// nil ends the worker.
func (r *runner) take(d *dest, c class, n int) *Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n == 0 {
		d.starting = false
	}
	for {
		now := r.opts.Now()
		switch {
		case r.ctx.Err() != nil || !r.fit(now) || d.gate.until.After(now) || d.active >= d.limit:
			return nil
		case n >= turnLength && r.awaited(c, now):
			return nil
		case len(d.ready) > 0:
			j := d.ready[0]
			d.ready[0] = nil
			d.ready = d.ready[1:]
			d.active++
			d.turn, d.seen = now, now
			if d.proven {
				r.lively = now
			}
			j.look = j.doubt || now.Sub(j.read) >= staleAfter
			r.replace(d)
			r.start()
			return j
		case d.asking || d.due.IsZero() || d.due.After(now):
			return nil
		}
		r.refill(d, now)
	}
}

// awaited reports whether another destination waits for the slot of a worker.
func (q *Queue) awaited(of class, now time.Time) bool {
	full := q.lines[live].taken+q.lines[unknown].taken+q.lines[down].taken >= q.tuning().Concurrency
	for c := range classes {
		h := q.lines[c].heap
		if len(h) > 0 && !h[0].at.After(now) && (c == of || full) && !q.room(c) {
			return true
		}
	}
	return false
}

// refill reads deliveries of a destination. The caller holds the lock, which is
// given up while the database is asked.
func (r *runner) refill(d *dest, now time.Time) {
	d.asking, d.gone = true, map[string]bool{}
	d.due = time.Time{} // what arrives from here on sets it again
	probe, n := d.gate.down > 0, askBatch
	if !d.proven {
		n = 1 // it shows whether there is any use in reading more
	}
	r.replace(d)
	r.mu.Unlock()
	var b batch
	var err error
	if probe {
		b, err = r.probe(d.target, now)
	} else {
		b, err = r.ask(r.ctx, d.target, false, n, now)
	}
	r.mu.Lock()
	if err != nil {
		if r.ctx.Err() == nil {
			r.opts.Log.Error("the queue could not be read; it is tried again in a minute", "destination", d.domain, "err", err)
		}
		b.next = now.Add(pollEvery)
	}
	if jobs := r.admit(d, b.jobs); r.paused {
		r.mu.Unlock()
		r.release(d, jobs)
		r.mu.Lock()
	} else {
		d.ready = append(d.ready, jobs...)
	}
	if !b.next.IsZero() && (d.due.IsZero() || b.next.Before(d.due)) {
		d.due = b.next
	}
	r.replace(d)
}

// admit ends the asking and takes over what it brought, but for what is under
// way or came to an end while the database was read: that was seen as it stood
// before. A lease is not mistaken in that way. The caller holds the lock.
func (q *Queue) admit(d *dest, jobs []*Job) []*Job {
	ours := jobs[:0]
	for _, j := range jobs {
		if q.shared() || d.running[j.ID] == nil && !d.gone[j.ID] {
			d.running[j.ID] = j
			ours = append(ours, j)
		}
	}
	d.asking, d.gone = false, nil
	q.calm.Broadcast()
	return ours
}

// probe reads the one delivery with which a destination that was down is tried:
// one whose lifetime is over, if there is any, since that is tried once more
// before it is given up.
func (r *runner) probe(t target, now time.Time) (batch, error) {
	b, err := r.ask(r.ctx, t, true, 1, now)
	if err != nil || len(b.jobs) > 0 {
		return b, err
	}
	return r.ask(r.ctx, t, false, 1, now)
}

// attempt makes one attempt and sees to what came of it.
func (r *runner) attempt(d *dest, j *Job) {
	if j.look {
		still, err := r.still(r.attempts, j)
		if err != nil {
			r.opts.Log.Error("a delivery could not be looked at; it is tried later", "delivery", j.ID, "err", err)
		}
		if !still {
			r.abandon(d, j)
			return
		}
	}
	now := r.opts.Now()
	ctx, cancel := context.WithTimeout(r.attempts, attemptTimeout)
	defer cancel()
	j.Last = !j.Expires.After(now)
	j.began = now
	j.open = r.bodyOf(r.attempts, j)
	result := r.deliver(ctx, j)
	if r.attempts.Err() != nil && !result.final() {
		// Cut short by our own end: that says nothing about the destination.
		r.abandon(d, j)
		return
	}
	r.finish(r.attempts, d, j, result)
	if j.Last && result.DestinationDown {
		r.endExpired(r.attempts, d, result)
	}
}

// endExpired ends the other deliveries of a destination whose lifetime is over:
// the attempt that just found all of it unusable, with DNS asked afresh, was the
// last one of each of them.
func (r *runner) endExpired(ctx context.Context, d *dest, result Result) {
	for r.ctx.Err() == nil {
		now := r.opts.Now()
		r.mu.Lock()
		if d.asking || !r.fit(now) {
			r.mu.Unlock()
			return
		}
		d.asking, d.gone = true, map[string]bool{}
		r.mu.Unlock()
		b, err := r.ask(ctx, d.target, true, askBatch, now)
		if err != nil {
			r.opts.Log.Error("deliveries at the end of their lifetime could not be read; they are tried again", "destination", d.domain, "err", err)
		}
		r.mu.Lock()
		ours := r.admit(d, b.jobs)
		d.active += len(ours)
		r.replace(d)
		r.mu.Unlock()
		if len(ours) == 0 {
			return
		}
		for _, j := range ours {
			j.Last, j.began, j.open = true, now, r.bodyOf(ctx, j)
			shared := Result{Why: result.Why, Do: result.Do, ByPolicy: result.ByPolicy, DestinationDown: true}
			shared.Story = Story{At: now, Why: "tried for the last time together with other mail for " + d.domain + ": " + result.Why, Do: result.Do}
			r.finish(ctx, d, j, shared)
		}
	}
}

// abandon puts back a delivery that was taken and not tried to the end.
func (q *Queue) abandon(d *dest, j *Job) {
	q.mu.Lock()
	d.active--
	q.replace(d)
	q.mu.Unlock()
	q.release(d, []*Job{j})
}

func (q *Queue) wakeUp() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// backoff is the wait after the nth failure in a row, n from 1 on.
func (q *Queue) backoff(n int) time.Duration {
	t := q.tuning()
	wait := min(t.RetryFirst, t.RetryMax)
	for i := 1; i < n && wait < t.RetryMax; i++ {
		wait = min(2*wait, t.RetryMax)
	}
	return wait + time.Duration(jitter*rand.Float64()*float64(wait))
}
