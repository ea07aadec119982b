package queue

import (
	"container/heap"
	"slices"
	"time"
)

// target is whose mail for where.
type target struct{ org, domain string }

// dest is one destination that has deliveries, or had some lately. The queue's
// lock guards it.
type dest struct {
	target
	due     time.Time // when the database is to be asked for more; zero: there is none known
	gate    gate
	judged  time.Time // when an attempt or a hand last said something of it here
	written time.Time // when the database was told last that it was reached
	opened  time.Time // when the gate was opened by hand, or for a change that was heard of
	proven  bool      // a host of it was used, the last time one was tried
	limit   int       // attempts at once

	ready    []*Job          // read or handed over, and not begun
	running  map[string]*Job // by delivery: ready, under way, or ended and not yet durable
	gone     map[string]bool // deliveries that left running while the database was asked
	bytes    int             // of bodies in memory
	active   int             // attempts under way
	starting bool            // a worker was started and has not looked yet
	asking   bool            // the database is being asked
	turn     time.Time       // when one of its ready deliveries was begun last
	seen     time.Time       // when there was something to do for it last

	class class // the line it stands in
	place int   // in that line; -1: not in it
	at    time.Time
}

// line puts a delivery that was handed over where its turn is: bulk mail lets
// other mail go first.
func (d *dest) line(j *Job) {
	at := len(d.ready)
	if !j.Bulk {
		for at > 0 && d.ready[at-1].Bulk {
			at--
		}
	}
	d.ready = slices.Insert(d.ready, at, j)
}

// class is how much is known of a destination. It decides how many slots it may
// take part in.
type class int

const (
	live    class = iota // it took part in a mail transaction when it was tried last
	unknown              // not tried yet
	down                 // none of its hosts could be used
	classes
)

func (d *dest) classOf() class {
	switch {
	case d.gate.down > 0:
		return down
	case d.proven:
		return live
	default:
		return unknown
	}
}

// line is the destinations of a class that have something to do, ordered by
// since when, or from when on.
type line struct {
	heap  []*dest
	taken int // slots
}

func (l *line) Len() int           { return len(l.heap) }
func (l *line) Less(i, j int) bool { return l.heap[i].at.Before(l.heap[j].at) }
func (l *line) Swap(i, j int) {
	h := l.heap
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is heap.Interface's.
func (l *line) Push(x any) {
	d, _ := x.(*dest)
	d.place = len(l.heap)
	l.heap = append(l.heap, d)
}

// Pop is heap.Interface's.
func (l *line) Pop() any {
	last := len(l.heap) - 1
	d := l.heap[last]
	l.heap[last] = nil
	l.heap = l.heap[:last]
	d.place = -1
	return d
}

// destination returns the entry for a target, a new one if need be. The caller
// holds the lock, here and below.
func (q *Queue) destination(t target) *dest {
	d := q.dests[t]
	if d == nil {
		d = &dest{target: t, limit: 1, place: -1, running: map[string]*Job{}, seen: q.opts.Now()}
		q.dests[t] = d
		q.newcomers = append(q.newcomers, d)
	}
	return d
}

// dueAt notes that a destination has a delivery in the database that is due at t.
func (q *Queue) dueAt(t target, at time.Time) {
	d := q.destination(t)
	if d.due.IsZero() || at.Before(d.due) {
		d.due = at
		q.replace(d)
	}
}

// replace puts a destination where it belongs: in the line of its class while
// it has something to do and may be given one more worker.
func (q *Queue) replace(d *dest) {
	wanted := !d.starting && d.active < d.limit && (len(d.ready) > 0 || !d.due.IsZero() && !d.asking)
	at := d.turn // of those with deliveries in memory, who was served longest ago comes first
	if len(d.ready) == 0 {
		at = d.due
	}
	if d.gate.until.After(at) {
		at = d.gate.until
	}
	if c := d.classOf(); d.place >= 0 && (!wanted || c != d.class) {
		heap.Remove(&q.lines[d.class], d.place)
	}
	d.at = at
	switch {
	case !wanted:
	case d.place >= 0:
		heap.Fix(&q.lines[d.class], d.place)
	default:
		d.class = d.classOf()
		heap.Push(&q.lines[d.class], d)
	}
}

// forget drops the destinations that have had nothing to do for a while.
func (q *Queue) forget(now time.Time) {
	for t, d := range q.dests {
		idle := d.due.IsZero() && !d.starting && !d.asking && len(d.running) == 0
		if idle && !d.gate.until.After(now) && now.Sub(d.seen) >= reachedFor {
			delete(q.dests, t)
		}
	}
}

// leave notes that a delivery is not ours to try any longer: it was given back,
// or what came of it is durable.
func (q *Queue) leave(d *dest, j *Job) {
	if d.running[j.ID] == j {
		delete(d.running, j.ID)
		q.calm.Broadcast()
	}
	if d.asking {
		d.gone[j.ID] = true
	}
	q.drop(d, j)
}

// drop frees the body that a delivery has in memory.
func (q *Queue) drop(d *dest, j *Job) {
	d.bytes -= j.charge
	q.held -= j.charge
	j.charge = 0
}
