package db

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// request is one write function on its way through the writer.
type request struct {
	ctx  context.Context
	fn   func(context.Context, Tx) error
	done chan error  // of a Write: gets its result
	soon func(error) // of a WriteSoon: called with its result

	state    atomic.Int32
	attempts int       // runs that came to nothing through no fault of the function
	alone    bool      // runs in a batch of its own
	troubled time.Time // when the database was first found unreachable for it
	next     *request
}

// The states of a request. Only its own caller moves it to dropped, only the
// writer to taken.
const (
	waiting int32 = iota
	taken
	dropped
)

// take says whether the request is still wanted; from then on its caller waits
// for the result.
func (r *request) take() bool {
	return r.state.Load() == taken || r.state.CompareAndSwap(waiting, taken)
}

// queue holds the requests in the order in which they came.
type queue struct {
	delay time.Duration
	full  int // so many make a batch: nothing is gained by waiting longer

	mu          sync.Mutex
	wake        sync.Cond
	first, last *request
	length      int
	due         bool  // something in it must go now
	refused     error // why it takes no more
	closed      chan struct{}
	timer       *time.Timer
}

func newQueue(l limits) *queue {
	q := &queue{delay: l.soonDelay, full: l.batch, closed: make(chan struct{})}
	q.wake.L = &q.mu
	return q
}

// push appends r. One that is not urgent waits for the next commit, but no
// longer than the queue's delay.
func (q *queue) push(r *request, urgent bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refused != nil {
		return q.refused
	}
	if q.last == nil {
		q.first = r
	} else {
		q.last.next = r
	}
	q.last = r
	q.length++
	switch {
	case urgent, q.length >= q.full:
		q.ripen()
	case !q.due && q.timer == nil:
		q.timer = time.AfterFunc(q.delay, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.ripen()
		})
	}
	return nil
}

func (q *queue) ripen() {
	if q.length > 0 && !q.due {
		q.due = true
		q.wake.Signal()
	}
}

// pushBack puts requests that have to run again before all others.
func (q *queue) pushBack(rs []*request) {
	if len(rs) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := len(rs) - 1; i >= 0; i-- {
		rs[i].next = q.first
		q.first = rs[i]
		if q.last == nil {
			q.last = rs[i]
		}
		q.length++
	}
	q.ripen()
}

// pop gives the next request, nil when there is none.
func (q *queue) pop() *request {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.first
	if r == nil {
		return nil
	}
	q.first, r.next = r.next, nil
	q.length--
	if q.first == nil {
		q.last, q.due = nil, false
		if q.timer != nil {
			q.timer.Stop()
			q.timer = nil
		}
	}
	return r
}

// wait blocks until there is something to do. It is false when the queue takes
// no more and is empty.
func (q *queue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.length > 0 && (q.due || q.refused != nil) {
			return true
		}
		if q.refused != nil {
			return false
		}
		q.wake.Wait()
	}
}

// refuse makes the queue take no more; what is in it stays.
func (q *queue) refuse(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refused == nil {
		q.refused = why
		close(q.closed)
		q.wake.Broadcast()
	}
}

// closing says whether the queue takes no more.
func (q *queue) closing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.refused != nil
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.length
}

// sweep takes out every request for which gone is true.
func (q *queue) sweep(gone func(*request) bool) {
	q.mu.Lock()
	all := q.first
	q.first, q.last, q.length, q.due = nil, nil, 0, false
	q.mu.Unlock()
	var kept []*request
	for r := all; r != nil; {
		next := r.next
		r.next = nil
		if !gone(r) {
			kept = append(kept, r)
		}
		r = next
	}
	q.pushBack(kept)
}
