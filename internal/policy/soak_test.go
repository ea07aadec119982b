package policy

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// A node with a million known domains answers within two seconds of its start,
// and stays under 300 MiB while all of them are asked for.
func TestSoakAMillionKnownDomains(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("PAWL_SOAK is not set")
	}
	const domains = 1_000_000
	dir := t.TempDir()
	fill(t, dir, domains)

	start := time.Now()
	d, err := db.Open(t.Context(), db.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	u := uniform{mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.net"}, MaxAge: 7 * 24 * time.Hour}}
	e, err := New(Options{Resolver: u, Fetcher: u, DB: d, DANE: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go e.Run(ctx)
	if a := e.Postfix(ctx, benchDomain(domains/2)); a.Kind != verify.AnswerSecure {
		t.Fatalf("got %+v", a)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the first answer came %v after the start", took)
	} else {
		t.Logf("the first answer came %v after the start", took)
	}
	for i := range domains {
		if a := e.Postfix(ctx, benchDomain(i)); a.Kind != verify.AnswerSecure {
			t.Fatalf("got %+v", a)
		}
	}
	if mib := resident(t) >> 20; mib > 300 {
		t.Errorf("%d MiB resident", mib)
	} else {
		t.Logf("%d MiB resident, %d domains in memory", mib, e.Stats().InMemory)
	}
}

// fill stores so many domains with a live policy.
func fill(t *testing.T, dir string, domains int) {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := micro(time.Now())
	r := rows{db: d, org: db.DefaultOrg}
	st := &state{
		policy: &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.net"}, MaxAge: 7 * 24 * time.Hour},
		id:     "20260601", fetched: now, expires: now + (7 * 24 * time.Hour).Microseconds(), record: recordNewID, used: now,
	}
	const page = 10_000
	for from := 0; from < domains; from += page {
		err := d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
			for i := from; i < from+page; i++ {
				st.refresh = now + int64(i)*(24*time.Hour).Microseconds()/int64(domains)
				if _, err := tx.ExecContext(ctx, upsertState, r.args(benchDomain(i), st)...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// resident is how many bytes of the process are in memory.
func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
