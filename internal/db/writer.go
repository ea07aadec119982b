package db

import (
	"slices"
	"time"
)

// writer is the one goroutine that changes the database.
type writer struct {
	*DB
	session *session // nil while not connected
	current *request
	ran     []*request // their work waits for the COMMIT
	told    []*request // their work is committed, and their callers are to be told
	again   []*request // to be run in the next batch
	backoff time.Duration
}

func newWriter(d *DB) *writer { return &writer{DB: d, backoff: minBackoff} }

// run commits what waits until the queue is closed and empty.
func (w *writer) run() {
	finished := false
	defer func() {
		// Not finished: a write function, or what is called when one is done,
		// called runtime.Goexit; or it panicked, and the process ends right after
		// this. Nothing is recovered.
		if !finished {
			go w.resume()
		}
	}()
	for w.queue.wait() {
		w.batch()
	}
	if w.session != nil {
		w.session.close()
	}
	finished = true
	close(w.ended)
}

// resume goes on after a write function ended the writer's goroutine.
func (w *writer) resume() {
	w.tell()
	if w.session != nil {
		w.session.discard()
		w.session = nil
	}
	if r := w.current; r != nil {
		w.current = nil
		w.fail(r, errGoexit)
	}
	w.repeat(w.ran, errGoexit, true)
	w.ran = nil
	w.run()
}

// batch is one transaction: begin, every function that waits, commit.
func (w *writer) batch() {
	if err := w.begin(); err != nil {
		w.postpone(err)
		return
	}
	start := time.Now()
	for n := 0; n == 0 || w.room(n, start); n++ {
		r := w.queue.pop()
		if r == nil {
			break
		}
		if r.alone && len(w.ran) > 0 {
			w.queue.pushBack([]*request{r})
			break
		}
		if !w.wanted(r) {
			continue
		}
		if !w.do(r) {
			return
		}
		if r.alone {
			break
		}
	}
	w.commit()
	w.queue.pushBack(w.again)
	w.again = nil
}

func (w *writer) begin() error {
	if w.session == nil {
		ctx, cancel := w.engine.bound()
		conn, err := w.writes.Conn(ctx)
		cancel()
		if err != nil {
			return err
		}
		w.session = newSession(w.engine, conn)
	}
	if err := w.session.begin(); err != nil {
		return err
	}
	w.backoff = minBackoff
	return nil
}

// room says whether a batch in which n functions ran takes one more.
func (w *writer) room(n int, start time.Time) bool {
	return n < min(w.limits.batch, w.engine.batch()) &&
		w.session.bytes < w.limits.bytes && time.Since(start) < w.limits.batchTime
}

// wanted says whether r's caller still waits for it to run.
func (w *writer) wanted(r *request) bool {
	if !r.take() {
		return false
	}
	if err := r.ctx.Err(); err != nil {
		w.fail(r, notBegun(err))
		return false
	}
	return true
}

// do runs one function. It is false when that cost the transaction, and then
// everything in the batch has been seen to.
func (w *writer) do(r *request) bool {
	w.current = r
	err, gone := w.session.run(r)
	w.current = nil
	switch {
	case gone:
		w.abandon(r, err)
		return false
	case err == nil:
		w.ran = append(w.ran, r)
	case w.engine.again(err) && r.attempts < w.limits.attempts:
		r.attempts++
		w.stats.retried.Add(1)
		w.again = append(w.again, r)
	default:
		w.fail(r, named(w.engine, err))
	}
	return true
}

// abandon gives a transaction up that r has broken, or that broke under it.
// Nothing of it was committed, so what ran in it runs again.
func (w *writer) abandon(r *request, err error) {
	w.note(err)
	lost := w.engine.lost(w.session, err)
	w.reset(err)
	again := slices.Concat(w.again, w.ran)
	w.ran, w.again = nil, nil
	if lost {
		w.repeat(append(again, r), err, false)
		return
	}
	w.fail(r, named(w.engine, err))
	w.repeat(again, err, true)
}

// repeat queues functions once more; alone, so that none can break another's
// transaction. One that has been run too often, or whose caller has waited too
// long for a connection, gets the error.
func (w *writer) repeat(rs []*request, err error, alone bool) {
	var again []*request
	for _, r := range rs {
		r.attempts++
		switch {
		case r.ctx.Err() != nil:
			w.fail(r, notBegun(r.ctx.Err()))
		case r.attempts > w.limits.attempts || w.impatient(r):
			w.fail(r, named(w.engine, err))
		default:
			r.alone = r.alone || alone
			w.stats.retried.Add(1)
			again = append(again, r)
		}
	}
	w.queue.pushBack(again)
}

// impatient says that r has waited for a connection as long as one does.
func (w *writer) impatient(r *request) bool {
	if r.troubled.IsZero() {
		r.troubled = time.Now()
	}
	return time.Since(r.troubled) >= w.limits.wait
}

// postpone deals with a database in which no transaction can be begun: SQLite's
// callers are told at once, PostgreSQL's after a while.
func (w *writer) postpone(err error) {
	w.note(err)
	if w.session != nil {
		w.reset(err)
	}
	w.queue.sweep(func(r *request) bool {
		if !r.take() {
			return true
		}
		switch {
		case r.ctx.Err() != nil:
			w.fail(r, notBegun(r.ctx.Err()))
		case !w.engine.patient() || w.impatient(r) || w.queue.closing():
			w.fail(r, named(w.engine, err))
		default:
			return false
		}
		return true
	})
	if w.engine.patient() {
		w.pause()
	}
}

// pause waits before the next attempt to connect, less long when closing.
func (w *writer) pause() {
	t := time.NewTimer(w.backoff)
	defer t.Stop()
	w.backoff = min(2*w.backoff, maxBackoff)
	select {
	case <-t.C:
	case <-w.queue.closed:
	}
}

// reset ends the transaction after err, and the session if that is needed.
func (w *writer) reset(err error) {
	if w.engine.reset(w.session, err) {
		w.session.trim(w.limits.statements)
		return
	}
	w.session.discard()
	w.session = nil
}

// fail tells r's caller that nothing of it is in the database.
func (w *writer) fail(r *request, err error) {
	w.stats.failed.Add(1)
	w.finish(r, err)
}

func (w *writer) note(err error) {
	w.stats.note(err)
	w.log.Warn("the database did not take a transaction", "error", named(w.engine, err))
}
