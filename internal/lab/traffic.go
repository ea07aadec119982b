package lab

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// demoSender is who writes the demo's mail.
const demoSender = "newsletter@" + SenderZone

// traffic sends a message at a time, to one destination after the other.
func (d *Demo) traffic(ctx context.Context) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		x := d.domains[n%len(d.domains)]
		if d.claim(x.name) {
			if err := d.send(ctx, x.name, n); err != nil {
				d.settle(x.name) // the relay did not take it; the next one may fare better
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// claim counts one more message on its way to a destination; false if enough
// wait there.
func (d *Demo) claim(domain string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting[domain] >= demoWaiting {
		return false
	}
	d.waiting[domain]++
	return true
}

// settle counts a message that has ended.
func (d *Demo) settle(domain string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting[domain] = max(0, d.waiting[domain]-1)
}

// watch stands between the relay's queue and what delivers, to see the demo's
// own messages end.
func (d *Demo) watch(next queue.Deliver) queue.Deliver {
	return func(ctx context.Context, j *queue.Job) queue.Result {
		r := next(ctx, j)
		if j.From == demoSender && len(j.Recipients) > 0 && stateOf(r, 0, j.Last) != Held {
			d.settle(j.Domain)
		}
		return r
	}
}

// received counts a message at a receiving end.
func (d *Demo) received(m testnet.Delivery) {
	for _, x := range d.domains {
		for _, to := range m.To {
			if queue.Domain(to) != x.name {
				continue
			}
			if m.ByAttacker || m.Clear() && len(m.Via) > 0 {
				x.stolen.Add(1) // what passes him in clear he has read
			} else if m.Accepted {
				x.delivered.Add(1)
			}
		}
	}
	if d.seen.Add(1)%demoRemembered == 0 {
		d.net.Forget()
	}
}

// send hands a message to the relay as any client does.
func (d *Demo) send(ctx context.Context, domain string, n int) error {
	subjects := [...]string{"Your invoice", "Minutes of the board meeting", "Test results", "Re: the offer", "Your new password"}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", d.node.Addrs().Relay[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, _, err := testnet.NewCaller(conn)
	if err != nil {
		return err
	}
	if _, err := c.Say("EHLO newsletter.demo.test"); err != nil {
		return err
	}
	to := "user@" + domain
	text := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%d.%d@%s>\r\n\r\nFrom the demo.\r\n",
		demoSender, to, subjects[n%len(subjects)], time.Now().UTC().Format(time.RFC1123Z), time.Now().UnixNano(), n, SenderZone)
	reply, err := c.Send(demoSender, to, text)
	if err != nil || reply[0] != '2' {
		return fmt.Errorf("the relay answered %q: %w", reply, err)
	}
	_, _ = c.Say("QUIT")
	return nil
}
