package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// retryStore is how long after a failure the database is offered again what it
// did not take. Until it does, nothing new is tried: what goes out while results
// cannot be stored would go out again and again.
const retryStore = 5 * time.Second

// mark is what an attempt came to, on its way into the database.
type mark struct {
	dest   *dest
	job    *Job
	after  Delivery  // what becomes of the delivery if nobody has changed it meanwhile
	bounce *newRows  // goes in with it; nil: none is due
	known  *standing // of the destination; nil: nothing is new
	id     string    // of the story
	story  string
	plain  bool // without story and bounce, which the database refused
	// delayOnly says that bounce tells of nothing but that mail waits.
	delayOnly bool
	again     bool // it was offered before
	shared    bool // other nodes may change the delivery

	// What write, which may run more than once, came to.
	now   Delivery // the delivery as it stands in the database
	freed bool     // its message's spool file may go
}

const updateDelivery = `UPDATE delivery SET recipients = $5, state = $6, version = version + 1, attempts = $7, next = $8,
	by_policy = $9, why = $10, advice = $11, updated = $12, ended = $13, lease = $14
	WHERE org = $1 AND id = $2 AND version = $3 AND lease = $4`

// write is the write function.
func (m *mark) write(ctx context.Context, tx db.Tx) error {
	m.now, m.freed = m.after, false
	bounce := m.bounce
	changed, err := m.update(ctx, tx, m.job.version, m.job.lease, "")
	if err != nil {
		return err
	}
	if !changed {
		again, tell, err := m.reconcile(ctx, tx)
		if err != nil || !again {
			return err
		}
		if !tell {
			bounce = nil
		}
	}
	return m.rest(ctx, tx, bounce)
}

// reconcile writes the mark over a delivery that was changed by hand, or taken
// over by another node, while the attempt was under way. It reports whether
// something was left to write, and whether the sender is to be told of recipients
// that failed.
func (m *mark) reconcile(ctx context.Context, tx db.Tx) (again, tell bool, err error) {
	row, err := readRow(ctx, tx, m.after.Org, m.after.ID, m.shared)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil // its history is over
	}
	if err != nil {
		return false, false, err
	}
	var known int64
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM attempt WHERE org = $1 AND delivery = $2 AND id = $3`,
		m.after.Org, m.after.ID, m.id).Scan(&known)
	if err != nil {
		return false, false, err
	}
	if known > 0 { // by a commit whose outcome was not known
		m.now = row.Delivery
		return false, false, nil
	}
	reminded := m.remindedOnly(&row)
	if reminded {
		row.Next = m.after.Next // nobody asked for another try
	}
	tell = row.merge(m) && !reminded
	m.now = row.Delivery
	lease := row.lease // another node's, which tries it now
	if lease == m.job.lease {
		lease = ""
	}
	_, err = m.update(ctx, tx, row.version, row.lease, lease)
	return true, tell, err
}

// update writes the delivery, and the lease it is under from now on, if its
// version and lease still are the ones given.
func (m *mark) update(ctx context.Context, tx db.Tx, version int64, lease, from string) (bool, error) {
	d := &m.now
	recipients, err := json.Marshal(d.Recipients)
	if err != nil {
		return false, err
	}
	var ended time.Time
	if !d.Waiting() {
		ended = d.Updated
	}
	done, err := tx.ExecContext(ctx, updateDelivery, d.Org, d.ID, version, lease, string(recipients), d.State, d.Attempts,
		db.Micros(d.Next), db.Flag(d.ByPolicy), d.Why, d.Do, db.Micros(d.Updated), db.Micros(ended), from)
	if err != nil {
		return false, err
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

// rest writes what goes with the delivery.
func (m *mark) rest(ctx context.Context, tx db.Tx, bounce *newRows) (err error) {
	if !m.plain {
		if err := insertStory(ctx, tx, m.after.Org, m.after.ID, m.id, m.story); err != nil {
			return err
		}
	}
	if m.known != nil {
		if err := m.known.store(ctx, tx, m.dest.target); err != nil {
			return err
		}
	}
	if bounce != nil && !m.plain {
		if err := bounce.insert(ctx, tx); err != nil {
			return err
		}
	}
	switch {
	case m.now.Waiting():
	case m.job.spooled:
		m.freed, err = freeSpooled(ctx, tx, m.now.Org, m.now.Message.ID)
	default:
		err = freeStored(ctx, tx, m.now.Org, m.now.Message.ID)
	}
	return err
}

func insertStory(ctx context.Context, tx db.Tx, org, delivery, id, story string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO attempt (org, delivery, id, story) VALUES ($1, $2, $3, $4)`, org, delivery, id, story)
	return err
}

// row is a delivery as it stands in the database, without its message.
type row struct {
	Delivery
	version int64
	lease   string
}

// readRow reads a delivery that is about to be changed; where other nodes might
// change it too, they wait.
func readRow(ctx context.Context, tx db.Tx, org, id string, shared bool) (row, error) {
	query := `SELECT org, id, message, domain, recipients, state, attempts, next, expires, by_policy,
		why, advice, updated, version, lease FROM delivery WHERE org = $1 AND id = $2`
	if shared {
		query += ` FOR UPDATE`
	}
	r := row{}
	var recipients string
	var next, expires, updated, byPolicy int64
	err := tx.QueryRowContext(ctx, query, org, id).Scan(
		&r.Org, &r.ID, &r.Message.ID, &r.Domain, &recipients, &r.State, &r.Attempts, &next, &expires, &byPolicy,
		&r.Why, &r.Do, &updated, &r.version, &r.lease)
	if err != nil {
		return r, err
	}
	r.Next, r.Expires, r.Updated, r.ByPolicy = db.Time(next), db.Time(expires), db.Time(updated), byPolicy == 1
	return r, json.Unmarshal([]byte(recipients), &r.Recipients)
}

// merge takes over what an attempt came to that was under way when the delivery
// was changed. Whoever got the message got it, whatever the hand says; what was
// not delivered stays as the hand left it. It reports whether the sender is to be
// told of recipients that failed.
func (r *row) merge(m *mark) bool {
	waits := r.State == Queued
	for i, said := range m.after.Recipients {
		if i >= len(r.Recipients) || r.Recipients[i].State != Pending {
			continue
		}
		if said.State == Delivered || waits {
			r.Recipients[i] = said
		} else {
			r.Recipients[i].Reply = said.Reply
		}
	}
	r.Attempts++
	r.Updated = m.after.Updated
	switch {
	case waits:
		next := r.Next // a try was asked for, or another node makes one
		r.Why, r.Do, r.ByPolicy = m.after.Why, m.after.Do, m.after.ByPolicy
		r.settle(next)
	case r.State == Held && len(r.Delivery.Pending()) == 0:
		r.settle(r.Next)
	}
	return waits
}

// store hands a mark to the writer.
func (q *Queue) store(m *mark) {
	q.jobs.Add(1)
	q.opts.DB.WriteSoon(context.Background(), m.write, func(err error) {
		defer q.jobs.Done()
		q.stored(m, err)
	})
}

// stored tells the schedule what has become durable. It is called by the
// database's writer, which waits.
func (q *Queue) stored(m *mark, err error) {
	q.mu.Lock()
	if m.again {
		q.offered--
	}
	over := m.again && err == nil && len(q.unstored)+q.offered == 0
	q.mu.Unlock()
	if err != nil {
		q.notStored(m, err)
		return
	}
	if over {
		q.opts.Log.Info("results of deliveries are stored again")
	}
	if m.freed {
		q.jobs.Go(func() { q.removeSpooled(m.now.Message.ID) })
	}
	q.mu.Lock()
	q.leave(m.dest, m.job)
	if m.now.State == Queued {
		q.dueAt(m.dest.target, m.now.Next)
	}
	q.replace(m.dest)
	q.mu.Unlock()
	if m.bounce != nil {
		q.arrived(m.bounce)
		return
	}
	q.wakeUp()
}

// notStored keeps a mark for later. One that the database refuses for what is in
// it is tried once more without what is least needed; if that fails too, the
// delivery stays under way until the next start, rather than going out again.
func (q *Queue) notStored(m *mark, err error) {
	q.mu.Lock()
	first := len(q.unstored) == 0 && !m.again
	keep := ofDatabase(err) || !m.plain
	if !ofDatabase(err) {
		m.plain = true
	}
	if keep {
		q.unstored = append(q.unstored, m)
	}
	q.mu.Unlock()
	switch {
	case !keep:
		q.opts.Log.Error("the result of a delivery cannot be stored; after the next start it may be delivered again",
			"delivery", m.job.ID, "destination", m.job.Domain, "err", err)
	case first:
		q.opts.Log.Error("results of deliveries could not be stored; nothing is delivered until they are",
			"delivery", m.job.ID, "destination", m.job.Domain, "err", err)
	}
	q.wakeUp()
}

// ofDatabase reports whether an error says something of the database and not of
// what was to be written.
func ofDatabase(err error) bool {
	for _, kind := range []error{
		db.ErrClosed, db.ErrReadOnly, db.ErrFull, db.ErrBusy, db.ErrIO, db.ErrCorrupt, db.ErrUnavailable, db.ErrUnknownOutcome,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// storeAgain offers the database again what it did not take.
func (q *Queue) storeAgain() {
	q.mu.Lock()
	again := q.unstored
	q.unstored = nil
	q.offered += len(again)
	q.mu.Unlock()
	for _, m := range again {
		m.again = true
		q.store(m)
	}
}

// lastStore offers it for the last time before the queue ends.
func (q *Queue) lastStore(ctx context.Context) {
	q.mu.Lock()
	again := q.unstored
	q.unstored = nil
	q.mu.Unlock()
	for _, m := range again {
		m.again = false
		err := q.opts.DB.Write(ctx, m.write)
		if err != nil {
			q.opts.Log.Error("the result of a delivery was not stored; it may be delivered again",
				"delivery", m.job.ID, "destination", m.job.Domain, "err", err)
			continue
		}
		q.stored(m, nil)
	}
}
