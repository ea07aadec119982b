package resolve

import (
	"context"
	"sync"
)

// flights lets callers who ask the same at the same time share one question. The
// work runs in a goroutine of its own, so that a caller who goes away stops
// waiting at once and does not stop the others; when the last one goes, the work
// is cancelled.
type flights struct {
	mu     sync.Mutex
	byKey  map[question]*flight
	closed bool
	wg     sync.WaitGroup
}

// flight is one question on its way. Its result is there when done is closed.
type flight struct {
	done    chan struct{}
	result  *result
	waiting int // callers; guarded by flights.mu
	cancel  context.CancelCauseFunc
}

// join returns the flight for q, which is started with work if there is none. A
// result that cached finds takes its place, and the flight is nil.
func (fs *flights) join(q question, cached func() *result, work func(context.Context) *result) (*flight, *result) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, &result{question: q, failure: q.failed(Canceled, "", ErrClosed)}
	}
	if f := fs.byKey[q]; f != nil {
		f.waiting++
		return f, nil
	}
	// A flight may have landed since the caller looked.
	if res := cached(); res != nil {
		return nil, res
	}
	// The work outlives any one caller.
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &flight{done: make(chan struct{}), waiting: 1, cancel: cancel}
	fs.byKey[q] = f
	fs.wg.Go(func() {
		f.result = work(ctx)
		fs.drop(q, f)
		cancel(nil)
		close(f.done)
	})
	return f, nil
}

// wait returns the flight's result, or a failure as soon as ctx ends.
func (fs *flights) wait(ctx context.Context, q question, f *flight) *result {
	select {
	case <-f.done:
		return f.result
	case <-ctx.Done():
		fs.leave(q, f)
		return &result{question: q, failure: q.canceled(ctx)}
	}
}

// leave is for a caller who no longer waits.
func (fs *flights) leave(q question, f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.waiting--; f.waiting > 0 {
		return
	}
	if fs.byKey[q] == f { // whoever comes now needs a flight that is not dying
		delete(fs.byKey, q)
	}
	f.cancel(context.Canceled)
}

func (fs *flights) drop(q question, f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byKey[q] == f {
		delete(fs.byKey, q)
	}
}

// close ends all flights and waits until they have.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	for _, f := range fs.byKey {
		f.cancel(ErrClosed)
	}
	fs.mu.Unlock()
	fs.wg.Wait()
}
