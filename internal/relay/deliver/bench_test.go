package deliver

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/mtasts"
)

// The whole way of a message of 10 KiB over TLS on kept connections, the server's
// side included.
func BenchmarkDeliverReused(b *testing.B) {
	s := newSink(b)
	d := s.deliverer(b, enforced(), func(context.Context, outcome.Attempt) {})
	body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 10<<10/80)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		r := d.deliver(b.Context(), letter{domain: "a.test", text: body}.mail())
		if r.Recipients[0].State != queue.Delivered {
			b.Fatalf("%+v", r)
		}
	}
	b.ReportMetric(float64(s.conns.Load())/float64(b.N), "connections/op")
}

// What it costs to ask the real policy, from its caches, for each message.
func BenchmarkAskPolicy(b *testing.B) {
	n := testnet.Start(b, testnet.Options{})
	n.Domain("a.test", enforce())
	r := resolve.New(resolve.Options{Upstreams: []string{n.DNSAddr()}, Dial: n.Dial, Now: n.Clock.Now, Log: slog.New(slog.DiscardHandler)})
	defer r.Close()
	r.CheckValidation(b.Context(), testnet.SignedName, testnet.BogusName)
	e, err := policy.New(policy.Options{
		Resolver: r, Fetcher: &mtasts.Fetcher{Dial: n.Dial, Roots: n.Roots(), Now: n.Clock.Now},
		DB: shared, Org: db.NewID(), Now: n.Clock.Now, After: n.Clock.After, DANE: true, DiscoveryHold: 4 * time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close(context.Background())
	b.ReportAllocs()
	for b.Loop() {
		d, err := e.Destination(b.Context(), "a.test")
		if err != nil || d.Hold != nil {
			b.Fatalf("%+v, %v", d, err)
		}
		if h := e.Host(b.Context(), d, "mx.a.test"); h.Unreachable != "" {
			b.Fatalf("%+v", h)
		}
	}
}
