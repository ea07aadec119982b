package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/tlsrpt"
)

const (
	reportDomains  = 50_000
	reportOutcomes = 1_000_000
	reportFlush    = 50_000 // outcomes in one transaction of the fill
)

// reportDay is a day that is over when its reports are built.
var reportDay = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// benchReports has a day's outcomes counted by one process, and the reports about
// them built by another, which ends each at a destination that takes it at once.
func benchReports(ctx context.Context, out *report) (err error) {
	dir, err := os.MkdirTemp("", "pawl-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	fill, err := start(ctx, "tlsrpt-fill", dir)
	if err != nil {
		return err
	}
	counted := time.Since(began)
	if err := fill.stop(); err != nil {
		return err
	}
	out.figure("tlsrpt counted", reportOutcomes/counted.Seconds(), "outcomes/s", 1,
		fmt.Sprintf("%d outcomes over %d domains, no two alike, into SQLite", reportOutcomes, reportDomains))

	r, err := start(ctx, "tlsrpt-build", dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	idle, err := r.cpu()
	if err != nil {
		return err
	}
	began = time.Now()
	var sent, bytes int64
	if err := r.tell("build", &sent, &bytes); err != nil {
		return err
	}
	took := time.Since(began)
	used, err := r.cpu()
	if err != nil {
		return err
	}
	var peak float64
	if err := r.tell("peak", &peak); err != nil {
		return err
	}
	if sent != reportDomains {
		return fmt.Errorf("%d reports were sent about %d domains", sent, reportDomains)
	}
	out.figure("tlsrpt built", took.Seconds(), "s", took.Seconds()/30,
		fmt.Sprintf("30 s; %d reports planned, built, packed (%d bytes each), stored and ended; %s of CPU", sent, bytes/sent, (used-idle).Round(time.Millisecond)))
	out.figure("tlsrpt peak", peak/1024, "MiB", peak/1024/200, "200 MiB; the most that the process had in memory")
	return nil
}

// reportFill is the role that counts, as a node does.
func reportFill(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("tlsrpt-fill DIR")
	}
	store, err := db.Open(ctx, db.Options{DataDir: args[0], Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	l := ledger.New(ledger.Options{DB: store, Log: slog.New(slog.DiscardHandler), After: time.After})
	for i := range reportOutcomes {
		l.Record(ctx, reportOutcome(i))
		if i%reportFlush != reportFlush-1 {
			continue
		}
		if err := l.Flush(ctx); err != nil {
			return err
		}
	}
	if n := l.Lost(); n > 0 {
		return fmt.Errorf("%d outcomes were not counted", n)
	}
	return attend("filled", nothing)
}

// reportOutcome is one session; of a domain's every other one fails.
func reportOutcome(i int) outcome.Attempt {
	nth, domain := i/reportDomains, fmt.Sprintf("d%05d.example.com", i%reportDomains)
	mx := fmt.Sprintf("mx%d.%s", nth%4, domain)
	a := outcome.Attempt{
		At: reportDay, Source: "relay", Domain: domain, MX: mx, Helo: mx,
		IP: netip.AddrFrom4([4]byte{198, 51, 100, byte(nth)}), SourceIP: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Transport: outcome.Verified,
		Policies: []outcome.Policy{{
			Type: outcome.STS, Domain: domain, MXHosts: []string{"*." + domain},
			Strings: []string{"version: STSv1", "mode: enforce", "mx: *." + domain, "max_age: 604800"},
		}},
	}
	if nth%2 == 1 {
		a.Transport, a.Policies[0].Failure = outcome.NotSent, &outcome.Failure{Result: outcome.CertificateExpired, Reason: "expired"}
	}
	return a
}

// reportBuild is the role that builds: the real reporter with the world taken away.
func reportBuild(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("tlsrpt-build DIR")
	}
	debug.SetGCPercent(node.GCPercent)
	store, err := db.Open(ctx, db.Options{DataDir: args[0], Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	now := reportDay.Add(13 * time.Hour)
	away := &noWorld{}
	r := ledger.NewReporter(ledger.ReporterOptions{
		DB: store, Identity: ledger.Identity{Organization: "Bench", Contact: "tls@example.net", Domain: "example.net"},
		Keep: 30 * 24 * time.Hour, Caps: ledger.Caps{Reports: reportDomains, Bytes: 1 << 40},
		Resolver: away, Signer: away, Poster: away, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	return attend("ready", func(line string) (string, error) {
		switch line {
		case "build":
			r.Round(ctx) // plans
			now = now.Add(time.Minute)
			r.Round(ctx)
			if text := r.Trouble(); text != "" {
				return "", errors.New(text)
			}
			return fmt.Sprint(away.reports.Load(), away.bytes.Load()), nil
		case "peak":
			return statusKiB("VmHWM:")
		}
		return nothing(line)
	})
}

// noWorld answers at once: every domain wants reports, and every destination
// takes them.
type noWorld struct{ reports, bytes atomic.Int64 }

func (*noWorld) TXT(_ context.Context, name string) (resolve.Answer[string], error) {
	return resolve.Answer[string]{Records: []string{"v=TLSRPTv1; rua=https://reports." + strings.TrimPrefix(name, "_smtp._tls.") + "/v1"}}, nil
}

func (*noWorld) Sign(_, _ string, message []byte) ([]byte, error) { return message, nil }

func (w *noWorld) Post(_ context.Context, _ tlsrpt.Destination, report []byte) (tlsrpt.Answer, error) {
	w.reports.Add(1)
	w.bytes.Add(int64(len(report)))
	return tlsrpt.Answer{Status: 200}, nil
}
