package queue

import "time"

// Tuning are the settings that may change while the queue runs. In Options they
// stand under the same names.
type Tuning struct {
	Lifetime    time.Duration
	RetryFirst  time.Duration
	RetryMax    time.Duration
	Concurrency int
	Destination int
	History     time.Duration
}

// Tune changes the settings. What is under way goes on, and what has come in
// keeps the lifetime that it was taken with.
func (q *Queue) Tune(t Tuning) {
	q.mu.Lock()
	q.tuned.Store(&t)
	for _, d := range q.dests {
		d.limit = min(d.limit, t.Destination)
		q.replace(d)
	}
	q.mu.Unlock()
	q.wakeUp()
}

// tuning are the settings in force.
func (q *Queue) tuning() *Tuning { return q.tuned.Load() }

func (o Options) tuning() *Tuning {
	return &Tuning{
		Lifetime: o.Lifetime, RetryFirst: o.RetryFirst, RetryMax: o.RetryMax,
		Concurrency: o.Concurrency, Destination: o.Destination, History: o.History,
	}
}
