package testnet

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Epoch is the time at which a fake [Clock] starts when nothing else is said.
var Epoch = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

// Clock is the time of the small Internet. A fake one stands still until
// [Clock.Advance] moves it; a real one runs with the machine's time, and
// Advance moves it ahead of that. Timers fire in both. It is safe for
// concurrent use.
type Clock struct {
	mu      sync.Mutex
	real    bool
	now     time.Time     // of a fake clock
	ahead   time.Duration // of a real clock: how far it is ahead of the machine's
	timers  timerHeap
	wake    *time.Timer // of a real clock: fires for the earliest timer
	changed broadcast   // the number of timers changed
}

// NewClock returns a fake clock that stands at start. A zero start is [Epoch].
func NewClock(start time.Time) *Clock {
	if start.IsZero() {
		start = Epoch
	}
	return &Clock{now: start}
}

// NewRealClock returns a clock that runs with the machine's.
func NewRealClock() *Clock { return &Clock{real: true} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read()
}

func (c *Clock) read() time.Time {
	if c.real {
		return time.Now().Add(c.ahead)
	}
	return c.now
}

// Advance moves the clock by d and fires every timer that comes due, in the
// order of their times.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real {
		c.ahead += d
	} else {
		c.now = c.now.Add(d)
	}
	c.fire()
}

// AdvanceToNext moves the clock to its earliest timer and fires it. It returns
// how far that was, and false if there is no timer.
func (c *Clock) AdvanceToNext() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 {
		return 0, false
	}
	d := max(0, c.timers[0].at.Sub(c.read()))
	if c.real {
		c.ahead += d
	} else {
		c.now = c.now.Add(d)
	}
	c.fire()
	return d, true
}

// After returns a channel that gets the time once d has passed on this clock,
// like time.After. Code under test takes it as its After function.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	ch, _ := c.Timer(d)
	return ch
}

// Timer is After with a function that takes the timer back; a timer that is
// no longer waited for should be, since [Clock.Timers] counts it.
func (c *Clock) Timer(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{at: c.read().Add(d), ch: make(chan time.Time, 1)}
	if d <= 0 {
		t.ch <- t.at
		return t.ch, func() {}
	}
	heap.Push(&c.timers, t)
	c.rearm()
	c.changed.send()
	return t.ch, func() { c.stop(t) }
}

// Sleep waits until d has passed on this clock, or ctx ends.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	ch, stop := c.Timer(d)
	defer stop()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Timers returns how many timers wait.
func (c *Clock) Timers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

// WaitTimers waits until at least n timers wait: what a test does before
// Advance, so that the code under test has come to rest.
func (c *Clock) WaitTimers(ctx context.Context, n int) error {
	for {
		changed := c.changed.wait()
		if c.Timers() >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *Clock) stop(t *timer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.index < 0 {
		return
	}
	heap.Remove(&c.timers, t.index)
	c.rearm()
	c.changed.send()
}

// fire lets every timer go whose time has come. The lock is held.
func (c *Clock) fire() {
	now := c.read()
	for len(c.timers) > 0 && !c.timers[0].at.After(now) {
		t, _ := heap.Pop(&c.timers).(*timer)
		t.ch <- t.at
	}
	c.rearm()
	c.changed.send()
}

// rearm sets a real clock's wake-up to the earliest timer. The lock is held.
func (c *Clock) rearm() {
	if !c.real {
		return
	}
	if c.wake != nil {
		c.wake.Stop()
		c.wake = nil
	}
	if len(c.timers) > 0 {
		c.wake = time.AfterFunc(c.timers[0].at.Sub(c.read()), func() { c.Advance(0) })
	}
}

type timer struct {
	at    time.Time
	ch    chan time.Time
	index int // in the heap; -1 once it has left
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t, _ := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	t.index = -1
	*h = old[:len(old)-1]
	return t
}

// broadcast tells everyone who waits that something changed. The zero value is
// ready.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next send. Take it before
// looking at the state it guards.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
