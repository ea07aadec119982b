package queue

import (
	"context"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// bodyMemory caps what mail that has just come in takes in memory on its way
	// to a worker, in bytes. What finds no room is read back from the database.
	bodyMemory = 32 << 20
	// jobMemory is what a delivery takes beside its body, about.
	jobMemory = 2 << 10
)

// offer decides, ahead of the commit, which deliveries of a message are handed
// to the workers without being read back. They count as under way from here on,
// so that the database does not give them out as well.
func (q *Queue) offer(r *newRows) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.opts.Now()
	if !q.fit(now) {
		return
	}
	for i := range r.deliveries {
		n := &r.deliveries[i]
		d := q.destination(target{r.message.Org, n.domain})
		charge := len(r.body) + jobMemory
		if !q.takes(d, charge, now) {
			continue
		}
		n.job = r.job(n, now)
		n.job.charge = charge
		if q.shared() {
			n.job.lease = q.tenure.owner
			n.lease = q.tenure.owner
		}
		d.bytes += charge
		q.held += charge
		d.running[n.job.ID] = n.job
	}
}

// takes reports whether a destination takes mail directly: it has nothing older
// in the database, and no more than its share in memory. One that was not
// reached yet gets a single delivery.
func (q *Queue) takes(d *dest, charge int, now time.Time) bool {
	backlog := !d.due.IsZero() && !d.due.After(now)
	if backlog || d.gate.down > 0 || !d.proven && len(d.running) > 0 {
		return false
	}
	// Whoever takes much leaves as much again to the others.
	return d.bytes+charge <= bodyMemory-q.held
}

// job is a delivery as it will stand in the database.
func (r *newRows) job(n *newDelivery, now time.Time) *Job {
	j := &Job{version: 1, spooled: r.spooled, body: r.body, read: now}
	j.Message = r.message
	j.Received = db.Time(db.Micros(r.message.Received))
	j.Delivery.ID, j.Domain, j.Recipients, j.State = n.id, n.domain, n.recipients, Queued
	j.Next, j.Updated, j.Expires = j.Received, j.Received, db.Time(db.Micros(r.expires))
	return j
}

// arrived tells the schedule of a message that has been committed.
func (q *Queue) arrived(r *newRows) {
	q.mu.Lock()
	now := q.opts.Now()
	for i := range r.deliveries {
		n := &r.deliveries[i]
		t := target{r.message.Org, n.domain}
		d := q.destination(t)
		d.seen = now
		switch {
		case n.job == nil:
			q.dueAt(t, r.message.Received)
		case q.running && q.paused: // since it was offered
			q.jobs.Go(func() { q.release(d, []*Job{n.job}) })
		case !q.running:
			q.leave(d, n.job) // its lease ends with our tenure
			q.dueAt(t, r.message.Received)
		default:
			d.line(n.job)
			q.replace(d)
		}
	}
	q.mu.Unlock()
	q.wakeUp()
}

// refuse takes an offer back: the message was not committed, or it is not known
// whether it was, and then the poll finds it.
func (q *Queue) refuse(r *newRows) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range r.deliveries {
		n := &r.deliveries[i]
		if n.job != nil {
			q.leave(q.destination(target{r.message.Org, n.domain}), n.job)
		}
	}
}

// release gives deliveries back that are not tried after all.
func (q *Queue) release(d *dest, jobs []*Job) {
	if len(jobs) == 0 {
		return
	}
	if !q.shared() {
		q.released(d, jobs)
		return
	}
	q.jobs.Add(1)
	q.opts.DB.WriteSoon(context.Background(), func(ctx context.Context, tx db.Tx) error {
		for _, j := range jobs {
			if _, err := tx.ExecContext(ctx, `UPDATE delivery SET lease = '' WHERE org = $1 AND id = $2 AND lease = $3`,
				j.Org, j.ID, j.lease); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) {
		defer q.jobs.Done()
		if err != nil {
			q.opts.Log.Warn("leases could not be given back; they end with this process", "destination", d.domain, "err", err)
		}
		q.released(d, jobs)
	})
}

func (q *Queue) released(d *dest, jobs []*Job) {
	q.mu.Lock()
	for _, j := range jobs {
		q.leave(d, j)
	}
	q.dueAt(d.target, q.opts.Now())
	q.mu.Unlock()
	q.wakeUp()
}

// surrender releases what was leased and could not be read.
func (q *Queue) surrender(org string, ids []string, lease string) {
	if lease == "" {
		return
	}
	q.opts.DB.WriteSoon(context.Background(), func(ctx context.Context, tx db.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `UPDATE delivery SET lease = '' WHERE org = $1 AND id = $2 AND lease = $3`, org, id, lease); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// forsake forgets what a destination has in memory. The caller holds the lock,
// and sees to the leases.
func (q *Queue) forsake(d *dest) {
	for _, j := range d.ready {
		q.leave(d, j)
	}
	if len(d.ready) > 0 {
		d.ready = nil
		d.due = q.opts.Now()
	}
	q.replace(d)
}
