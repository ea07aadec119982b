package ledger_test

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/outcome"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func attempt(at time.Time, domain string, failure *outcome.Failure) outcome.Attempt {
	transport := outcome.Verified
	if failure != nil {
		transport = outcome.NotSent
	}
	return outcome.Attempt{
		At: at, Source: "relay", Domain: domain, MX: "mx." + domain, IP: netip.MustParseAddr("192.0.2.1"), Transport: transport,
		Policies: []outcome.Policy{{Type: outcome.STS, Domain: domain, Strings: []string{"version: STSv1"}, Failure: failure}},
	}
}

func newLedger(d *db.DB) *ledger.Ledger {
	return ledger.New(ledger.Options{DB: d, Log: slog.New(slog.DiscardHandler), After: time.After})
}

func TestSessionsAreCountedByWhatTellsThemApart(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		l := newLedger(d)
		expired := &outcome.Failure{Result: outcome.CertificateExpired, Reason: "x509"}
		for range 3 {
			l.Record(t.Context(), attempt(noon, "a.test", nil))
		}
		l.Record(t.Context(), attempt(noon.Add(time.Minute), "a.test", expired))
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The same again, after a flush, and yesterday's.
		l.Record(t.Context(), attempt(noon.Add(time.Second), "a.test", nil))
		l.Record(t.Context(), attempt(noon.Add(-24*time.Hour), "a.test", nil))
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}

		got, err := l.Since(t.Context(), db.DefaultOrg, "", noon)
		if err != nil {
			t.Fatal(err)
		}
		want := []ledger.Count{
			{
				Domain: "a.test", Source: "relay", PolicyType: outcome.STS, Result: outcome.CertificateExpired, Reason: "x509",
				MX: "mx.a.test", Transport: outcome.NotSent, Sessions: 1, Last: noon.Add(time.Minute),
			},
			{
				Domain: "a.test", Source: "relay", PolicyType: outcome.STS,
				MX: "mx.a.test", Transport: outcome.Verified, Sessions: 4, Last: noon.Add(time.Second),
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCountsOutliveADatabaseThatRefuses(t *testing.T) {
	d := dbtest.SQLite(t)
	l := newLedger(d)
	l.Record(t.Context(), attempt(noon, "a.test", nil))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Flush(gone); err == nil {
		t.Fatal("a flush that could not be written is called written")
	}
	l.Record(t.Context(), attempt(noon, "a.test", nil))
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := l.Since(t.Context(), db.DefaultOrg, "a.test", noon)
	if err != nil || len(got) != 1 || got[0].Sessions != 2 {
		t.Errorf("got %+v, %v; want one row of 2 sessions", got, err)
	}
}

func TestAServerThatChangesItsReplyEachTimeDoesNotFillTheTable(t *testing.T) {
	d := dbtest.SQLite(t)
	l := newLedger(d)
	for i := range 1000 {
		l.Record(t.Context(), attempt(noon, "a.test", &outcome.Failure{Result: outcome.ValidationFailure, Reason: strconv.Itoa(i)}))
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := l.Since(t.Context(), db.DefaultOrg, "a.test", noon)
	if err != nil {
		t.Fatal(err)
	}
	var sessions, others int64
	for _, c := range got {
		sessions += c.Sessions
		if c.Reason == "other" {
			others = c.Sessions
		}
	}
	if len(got) != 257 || sessions != 1000 || others != 744 {
		t.Errorf("%d rows, %d sessions, %d of them as other; want 257, 1000, 744", len(got), sessions, others)
	}
}

func TestTheLastCountsAreWrittenWhenTheLedgerStops(t *testing.T) {
	d := dbtest.SQLite(t)
	l := newLedger(d)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	l.Record(t.Context(), attempt(noon, "a.test", nil))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := l.Since(t.Context(), db.DefaultOrg, "", noon); err != nil || len(got) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}
