package resolve

import (
	"net/netip"
	"sync/atomic"

	"github.com/pawl-mail/pawl/dane"
)

// Stats is what a resolver did since it was made.
type Stats struct {
	Lookups      uint64          // lookups that went to the upstreams
	CacheHits    uint64          // lookups answered from the cache
	Queries      uint64          // questions sent, aliases and tries each counted
	Retries      uint64          // of those, how many were sent because an earlier one brought nothing
	TCP          uint64          // of those, how many were sent again by TCP
	Strays       uint64          // messages that answered no question of ours: late, or false
	Dropped      uint64          // records left out of answers
	Failures     map[Kind]uint64 // lookups that found nothing out
	CacheEntries int
	CacheBytes   uint64 // about
}

type counters struct {
	lookups, hits, queries, retries, tcp, strays, dropped atomic.Uint64
	failures                                              [len(kinds)]atomic.Uint64
}

func (c *counters) fail(k Kind) { c.failures[k.rank()].Add(1) }

// Stats returns a snapshot of the counters.
func (r *Resolver) Stats() Stats {
	s := Stats{
		Lookups: r.stats.lookups.Load(), CacheHits: r.stats.hits.Load(), Queries: r.stats.queries.Load(),
		Retries: r.stats.retries.Load(), TCP: r.stats.tcp.Load(), Strays: r.stats.strays.Load(),
		Dropped: r.stats.dropped.Load(), Failures: make(map[Kind]uint64, len(kinds)),
		CacheEntries: r.cache.size(), CacheBytes: r.cache.bytes(),
	}
	for i := range kinds {
		s.Failures[kinds[i]] = r.stats.failures[i].Load()
	}
	return s
}

// weight is about how many bytes a result takes.
func (r *result) weight() uint32 {
	n := entryBytes + 2*len(r.name)
	for _, s := range r.chain {
		n += len(s) + 16
	}
	for _, s := range r.notes {
		n += len(s) + 16
	}
	switch records := r.records.(type) {
	case []MX:
		for _, mx := range records {
			n += len(mx.Host) + 24
		}
	case []netip.Addr:
		n += 24 * len(records)
	case []string:
		for _, s := range records {
			n += len(s) + 16
		}
	case []dane.Record:
		for _, tlsa := range records {
			n += len(tlsa.Data) + 32
		}
	}
	return uint32(n)
}
