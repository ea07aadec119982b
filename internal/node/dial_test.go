package node

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/deliver"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

// here is a policy that leads everything to one address of this machine.
type here struct{ addr netip.Addr }

func (h here) Destination(_ context.Context, domain string) (verify.Destination, error) {
	return verify.Destination{Domain: domain, MX: []resolve.MX{{Host: "mx.a.test"}}}, nil
}

func (h here) DestinationFresh(ctx context.Context, domain string) (verify.Destination, error) {
	return h.Destination(ctx, domain)
}

func (h here) Via(ctx context.Context, host string, _ uint16, _, _ bool) (verify.Destination, error) {
	return h.Destination(ctx, host)
}

func (h here) Host(_ context.Context, d verify.Destination, mx string) verify.Host {
	return verify.Host{Name: mx, Addrs: []netip.Addr{h.addr}, Demand: verify.Demand{Host: mx, Domain: d.Domain}}
}

// All of 127.0.0.0/8 is this machine's on Linux, so one address of it can be
// told from another.
func TestTheRelayConnectsFromTheConfiguredAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	for source, want := range map[string]string{"": "127.0.0.1", "127.0.0.7": "127.0.0.7"} {
		from := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				from <- err.Error()
				return
			}
			defer c.Close()
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, "554 not today\r\n")
			_, _ = bufio.NewReader(c).ReadString('\n') // QUIT
			from <- host
		}()
		o := deliver.Options{
			Policies: here{to.Addr()}, Dial: Wiring{}.withDefaults().Dial, Now: time.Now, Hostname: "relay.pawl.test", Port: to.Port(),
			Log: slog.New(slog.DiscardHandler), Outcomes: func(context.Context, outcome.Attempt) {},
		}
		if source != "" {
			o.Source4 = netip.MustParseAddr(source)
		}
		d := deliver.New(o)
		r := d.Deliver(t.Context(), &queue.Job{Last: true, Delivery: queue.Delivery{
			Domain: "a.test", Recipients: []queue.Recipient{{Addr: "a@a.test", State: queue.Pending}},
		}})
		if got := <-from; got != want || r.Recipients[0].Reply != "554 not today" {
			t.Errorf("with source %q: connected from %q, %+v", source, got, r)
		}
		d.Close()
	}
}
