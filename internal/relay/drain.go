package relay

import (
	"context"
	"sync"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// errDraining ends a connection: RFC 3463 §3.4 has 4.3.2 for a host that takes
// no mail for a while, RFC 5321 §4.2.3 has 421 for one that closes the channel.
var errDraining = smtp.Errorf(421, smtp.Enhanced{4, 3, 2}, "no new mail is taken, for maintenance; try again later")

// Drain takes no new mail from here on: 421 to connections and to MAIL. A
// transaction that is open may end; [Relay.Drained] waits for it.
func (r *Relay) Drain() { r.door.close() }

// Resume takes mail again.
func (r *Relay) Resume() { r.door.open() }

// Receiving is how many transactions are open.
func (r *Relay) Receiving() int {
	r.door.mu.Lock()
	defer r.door.mu.Unlock()
	return r.door.inside
}

// Drained waits, after [Relay.Drain], until no transaction is open. It returns
// at once if mail is taken again.
func (r *Relay) Drained(ctx context.Context) error { return r.door.empty(ctx) }

// door counts the transactions that are open, and can be shut.
type door struct {
	mu     sync.Mutex
	shut   sync.Cond // somebody left, or it was opened
	inside int
	barred bool
}

// enter begins a transaction, unless the door is shut.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.barred {
		return false
	}
	d.inside++
	return true
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	d.shut.Broadcast()
}

func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.barred = true
}

func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.barred = false
	d.shut.Broadcast()
}

func (d *door) closed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.barred
}

func (d *door) empty(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.shut.Broadcast()
	})()
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.barred && d.inside > 0 && ctx.Err() == nil {
		d.shut.Wait()
	}
	return ctx.Err()
}
