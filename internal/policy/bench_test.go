package policy

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// uniform is an Internet on which every domain has the same policy and costs
// nothing to ask.
type uniform struct{ policy mtasts.Policy }

func (uniform) MX(_ context.Context, name string) (resolve.Answer[resolve.MX], error) {
	return resolve.Answer[resolve.MX]{Canonical: name, Records: []resolve.MX{{Preference: 10, Host: "mx.example.net"}}, TTL: time.Hour}, nil
}

func (uniform) Addrs(_ context.Context, name string) (resolve.Answer[netip.Addr], error) {
	return resolve.Answer[netip.Addr]{Canonical: name, Records: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}, TTL: time.Hour}, nil
}

func (uniform) TXT(_ context.Context, name string) (resolve.Answer[string], error) {
	return resolve.Answer[string]{Canonical: name, Records: []string{"v=STSv1; id=20260601;"}, TTL: time.Hour}, nil
}

func (uniform) TLSA(_ context.Context, name string) (resolve.Answer[dane.Record], error) {
	return resolve.Answer[dane.Record]{}, &resolve.NotFound{Name: name}
}

func (uniform) CNAME(_ context.Context, name string) (resolve.Answer[string], error) {
	return resolve.Answer[string]{}, &resolve.NotFound{Name: name}
}
func (uniform) Validation() resolve.Validation { return resolve.Validation{Trusted: true} }

func (u uniform) Fetch(context.Context, string) (mtasts.Fetched, error) {
	return mtasts.Fetched{Policy: u.policy}, nil
}

func benchEngine(tb testing.TB) *Engine {
	tb.Helper()
	d, err := db.Open(context.Background(), db.Options{DataDir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	u := uniform{mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.net", "*.mail.example.org"}, MaxAge: 7 * 24 * time.Hour}}
	e, err := New(Options{Resolver: u, Fetcher: u, DB: d, DANE: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

func benchDomain(i int) string { return fmt.Sprintf("domain-%07d.example.com", i) }

// A cached answer for Postfix.
func BenchmarkCached(b *testing.B) {
	e := benchEngine(b)
	const domains = 1000
	names := make([]string, domains)
	for i := range names {
		names[i] = benchDomain(i)
		e.Postfix(b.Context(), names[i])
	}
	reply := func(*verify.Answer) []byte { return make([]byte, 300) }
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if a := e.Cached(names[i%domains]); a == nil || a.Reply(0, reply) == nil {
				b.Fatal("no answer")
			}
		}
	})
}

// Filling an empty cache, DNS and HTTPS costing nothing: what policy and the
// database add to them.
func BenchmarkFill(b *testing.B) {
	e := benchEngine(b)
	var n atomic.Int64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if a := e.Postfix(context.Background(), benchDomain(int(n.Add(1)))); a.Kind != verify.AnswerSecure {
				b.Fatal(a.Reason)
			}
		}
	})
	b.StopTimer()
	if err := e.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// What a cached domain takes of the heap, its reply included.
func TestACachedDomainIsSmall(t *testing.T) {
	e := benchEngine(t)
	e.Postfix(t.Context(), "first.example.com")
	before := heap()
	const domains = 3000
	for i := range domains {
		e.Postfix(t.Context(), benchDomain(i)).Reply(0, func(*verify.Answer) []byte { return make([]byte, 280) })
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	each := (heap() - before) / domains
	t.Logf("%d bytes a domain, of which %d by the cache's own account", each, e.Stats().Memory/domains)
	if in := e.Stats().InMemory; in < domains {
		t.Errorf("%d domains in memory", in)
	}
	if each > 1300 {
		t.Errorf("%d bytes of heap a domain", each)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
