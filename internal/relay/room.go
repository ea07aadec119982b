package relay

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/smtp"
)

// lookEvery is how often it is looked how much room there is. What comes in
// between two looks is counted.
const lookEvery = 10 * time.Second

// diskFactor is how much of the disk a message takes while it comes in: the
// database writes it to its log first, and to its file later.
const diskFactor = 2

// Watermarks are where mail is refused for now, before the disk or the queue is
// full. It is taken again when there is a quarter more free than MinFree, and
// the queue is down to nine tenths of its limits.
type Watermarks struct {
	MinFree   int64 // bytes of the data folder's disk
	MaxQueued int64 // deliveries that wait
	MaxBytes  int64 // of the messages that wait; 0: no limit
}

// Gauge says how full it is.
type Gauge struct {
	Free   func() (int64, error)                    // bytes of the data folder's disk
	Queued func(context.Context) (int64, error)     // deliveries that wait
	Bytes  func(ctx context.Context) (int64, error) // of the messages that wait; asked for only where that is limited
}

// Room is how much room there was at the last look.
type Room struct {
	Full   bool
	Why    string // one sentence, if it is full
	Free   int64  // bytes of the disk
	Queued int64  // deliveries that wait
	Err    error  // it could not be found out; what was known before still holds
}

// room decides whether a message is taken.
type room struct {
	marks  Watermarks
	gauge  Gauge
	events event.Sink

	mu         sync.Mutex
	last       Room
	bytes      int64 // what may still come in until the next look
	deliveries int64
}

func newRoom(o Options) *room {
	return &room{marks: o.Watermarks, gauge: o.Gauge, events: o.Events, bytes: math.MaxInt64, deliveries: math.MaxInt64}
}

// look finds out how much room there is.
func (r *room) look(ctx context.Context) {
	free, queued, bytes, err := r.read(ctx)
	if err != nil {
		r.mu.Lock()
		r.last.Err = err
		r.mu.Unlock()
		return
	}
	r.mu.Lock()
	was := r.last
	now := Room{Free: free, Queued: queued}
	now.Why = r.why(was.Full, free, queued, bytes)
	now.Full = now.Why != ""
	r.last = now
	r.bytes, r.deliveries = (free-r.marks.MinFree)/diskFactor, r.marks.MaxQueued-queued
	if r.marks.MaxBytes > 0 {
		r.bytes = min(r.bytes, r.marks.MaxBytes-bytes)
	}
	r.mu.Unlock()
	r.tell(ctx, was, now)
}

func (r *room) read(ctx context.Context) (free, queued, bytes int64, err error) {
	if free, err = r.gauge.Free(); err != nil {
		return 0, 0, 0, fmt.Errorf("how much room the disk has is not known: %w", err)
	}
	if queued, err = r.gauge.Queued(ctx); err != nil {
		return 0, 0, 0, err
	}
	if r.marks.MaxBytes > 0 {
		bytes, err = r.gauge.Bytes(ctx)
	}
	return free, queued, bytes, err
}

// why says what is full; what was full stays so until there is clearly room.
func (r *room) why(wasFull bool, free, queued, bytes int64) string {
	minFree, maxQueued, maxBytes := r.marks.MinFree, r.marks.MaxQueued, r.marks.MaxBytes
	if wasFull {
		minFree += minFree / 4
		maxQueued -= maxQueued / 10
		maxBytes -= maxBytes / 10
	}
	const mib = 1 << 20
	switch {
	case free < minFree:
		return fmt.Sprintf("the disk of the data folder has %d MiB left, and %d MiB are to stay free (relay.min_free).", free/mib, r.marks.MinFree/mib)
	case queued >= maxQueued:
		return fmt.Sprintf("%d deliveries wait in the queue, of %d that may (relay.max_queued).", queued, r.marks.MaxQueued)
	case r.marks.MaxBytes > 0 && bytes >= maxBytes:
		return fmt.Sprintf("messages of %d MiB wait in the queue, of %d MiB that may (relay.max_queued_size).", bytes/mib, r.marks.MaxBytes/mib)
	}
	return ""
}

// tell makes an event of a change.
func (r *room) tell(ctx context.Context, was, now Room) {
	switch {
	case now.Full && !was.Full:
		r.events.Record(ctx, event.Event{
			Kind: event.RelayFull, Severity: event.Error, Text: "The relay takes no more mail: " + now.Why,
			Do: "Make room on the disk, or look with `pawl queue list` at what waits; clients keep their mail and try again.",
		})
	case was.Full && !now.Full:
		r.events.Record(ctx, event.Event{Kind: event.RelayReopened, Severity: event.Info, Text: "The relay takes mail again."})
	}
}

// admit returns the refusal of a message of a size, 0 if it is not known, if
// there is no room for it (RFC 1870 §6.1).
func (r *room) admit(size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.Full && r.bytes > 0 && size <= r.bytes && r.deliveries > 0 {
		return nil
	}
	return smtp.Errorf(452, smtp.Enhanced{4, 3, 1}, "there is no room for the message now, try again later")
}

// took counts what came in since the last look.
func (r *room) took(size int64, deliveries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= size
	r.deliveries -= int64(deliveries)
}

// Look finds out how much room there is. [Relay.Watch] does it from time to time.
func (r *Relay) Look(ctx context.Context) { r.room.look(ctx) }

// Room returns how much room there was at the last look.
func (r *Relay) Room() Room {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	return r.room.last
}
