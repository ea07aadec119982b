package db

import (
	"context"
	"fmt"
)

// Write runs fn inside the writer's next transaction and returns after the
// COMMIT is durable, or with the error for which fn's work was undone; other
// functions in the same transaction are not touched by that. What fn must keep
// to stands in the package's documentation.
//
// When ctx ends before fn has begun, fn is not run and the error is ctx's. Once
// fn has begun, Write waits for the result, and fn's context no longer ends.
// Writes are committed in the order in which they were called; only one that has
// to be retried comes later.
//
// Errors: [ErrFull], [ErrBusy], [ErrIO], [ErrReadOnly], [ErrUnavailable],
// [ErrClosed], [ErrUnknownOutcome], each in front of the driver's; or fn's own.
func (d *DB) Write(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error {
	if err := ctx.Err(); err != nil {
		return notBegun(err)
	}
	r := &request{ctx: ctx, fn: fn, done: make(chan error, 1)}
	if err := d.queue.push(r, true); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, dropped) {
			return notBegun(ctx.Err())
		}
		return <-r.done
	}
}

// WriteSoon hands fn to the writer and returns. fn rides on the next commit,
// which begins at most 20 ms later; then done, if not nil, is called with what
// Write would have returned. done is called by the writer itself: it must be
// quick, and must not call Write or WriteSoon. When too many wait already,
// WriteSoon blocks until there is room or ctx ends.
func (d *DB) WriteSoon(ctx context.Context, fn func(ctx context.Context, tx Tx) error, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		done(notBegun(ctx.Err()))
		return
	}
	r := &request{ctx: ctx, fn: fn, soon: done}
	if err := d.queue.push(r, false); err != nil {
		<-d.slots
		done(err)
	}
}

func notBegun(err error) error { return fmt.Errorf("write to the database not begun: %w", err) }

// finish tells a request's caller its result.
func (d *DB) finish(r *request, err error) {
	if r.soon == nil {
		r.done <- err
		return
	}
	<-d.slots
	r.soon(err)
}
