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
	return ledger.New(ledger.Options{DB: d, Log: slog.New(slog.DiscardHandler), After: time.After, Node: "n1"})
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
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		l := newLedger(d)
		for i := range 1000 {
			a := attempt(noon, "a.test", &outcome.Failure{Result: outcome.ValidationFailure, Reason: strconv.Itoa(i), Info: strconv.Itoa(i)})
			a.MX, a.Helo, a.Policies[0].Domain, a.Policies[0].Strings = strconv.Itoa(i), strconv.Itoa(i), strconv.Itoa(i)+".test", []string{strconv.Itoa(i)}
			l.Record(t.Context(), a)
			if i == 100 || i == 200 || i == 300 || i == 600 {
				if err := l.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if i == 500 {
				l = restart(t, l, d)
			}
		}
		// Another domain of the day, and another day of the domain, are not touched by it.
		l.Record(t.Context(), attempt(noon, "b.test", nil))
		l.Record(t.Context(), attempt(noon.Add(24*time.Hour), "a.test", nil))
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		var rows, sessions, others int64
		err := d.Read().QueryRowContext(t.Context(), `SELECT COUNT(*), CAST(SUM(sessions) AS BIGINT),
			CAST(SUM(CASE WHEN reason = 'other' THEN sessions ELSE 0 END) AS BIGINT) FROM outcome WHERE domain = 'a.test' AND day = '2026-03-04'`).Scan(&rows, &sessions, &others)
		if err != nil {
			t.Fatal(err)
		}
		if rows != 257 || sessions != 1000 || others != 744 {
			t.Errorf("%d rows, %d sessions, %d of them as other; want 257, 1000, 744", rows, sessions, others)
		}
		for domain, day := range map[string]time.Time{"b.test": noon, "a.test": noon.Add(24 * time.Hour)} {
			got, err := l.Since(t.Context(), db.DefaultOrg, domain, day)
			if err != nil || len(got) != 1 || got[0].Reason != "" {
				t.Errorf("%s: %+v, %v", domain, got, err)
			}
		}
	})
}

// restart is a ledger over the same database that remembers nothing.
func restart(t *testing.T, l *ledger.Ledger, d *db.DB) *ledger.Ledger {
	t.Helper()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return newLedger(d)
}

func TestMemoryIsBoundedWhileTheDatabaseTakesNothing(t *testing.T) {
	l := newLedger(dbtest.SQLite(t))
	for i := range 70000 {
		l.Record(t.Context(), attempt(noon, strconv.Itoa(i)+".test", nil))
	}
	if got := l.Lost(); got != 70000-1<<16 {
		t.Errorf("%d lost", got)
	}
}

func TestAFalseWitnessOfPostfixIsShownAsUnverified(t *testing.T) {
	d := dbtest.SQLite(t)
	l := ledger.New(ledger.Options{DB: d, Log: slog.New(slog.DiscardHandler), After: time.After, Testing: func(domain string) bool { return domain == "testing.test" }})
	testingPolicy := []string{"version: STSv1", "mode: testing"}
	for _, c := range []struct {
		name, source, domain string
		policy               outcome.Policy
		transport            outcome.Transport
		unverified           bool
	}{
		{"level may with a testing policy's attributes", "postfix", "a.test", outcome.Policy{Type: outcome.STS, Strings: testingPolicy}, outcome.Encrypted, true},
		{"level may, and the domain is known to be testing", "postfix", "testing.test", outcome.Policy{Type: outcome.NoPolicy}, outcome.Encrypted, true},
		{"no policy", "postfix", "b.test", outcome.Policy{Type: outcome.NoPolicy}, outcome.Encrypted, false},
		{"enforce", "postfix", "c.test", outcome.Policy{Type: outcome.STS, Strings: []string{"mode: enforce"}}, outcome.Encrypted, false},
		{"testing, really verified", "postfix", "d.test", outcome.Policy{Type: outcome.STS, Strings: testingPolicy}, outcome.Verified, false},
		{"testing, a failure", "postfix", "e.test", outcome.Policy{Type: outcome.STS, Strings: testingPolicy, Failure: &outcome.Failure{Result: outcome.CertificateExpired}}, outcome.Encrypted, false},
		{"testing, by the relay, which does look", "relay", "f.test", outcome.Policy{Type: outcome.STS, Strings: testingPolicy}, outcome.Encrypted, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.Record(t.Context(), outcome.Attempt{At: noon, Source: c.source, Domain: c.domain, Transport: c.transport, Policies: []outcome.Policy{c.policy}})
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := l.Since(t.Context(), db.DefaultOrg, c.domain, noon)
			if err != nil || len(got) != 1 || got[0].Unverified != c.unverified {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestPostfixReasonsOfUntrustedCertificatesGetTheirType(t *testing.T) {
	d := dbtest.SQLite(t)
	l := newLedger(d)
	for source, want := range map[string]outcome.ResultType{"postfix": outcome.CertificateNotTrusted, "relay": outcome.ValidationFailure} {
		a := attempt(noon, source+".test", &outcome.Failure{Result: outcome.ValidationFailure, Reason: "self-signed_certificate"})
		a.Source = source
		l.Record(t.Context(), a)
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := l.Since(t.Context(), db.DefaultOrg, source+".test", noon)
		if err != nil || len(got) != 1 || got[0].Result != want || got[0].Reason != "self-signed_certificate" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestOldOutcomesAreForgotten(t *testing.T) {
	d := dbtest.SQLite(t)
	l := newLedger(d)
	l.Record(t.Context(), attempt(noon.Add(-48*time.Hour), "a.test", nil))
	l.Record(t.Context(), attempt(noon, "a.test", nil))
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Prune(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Since(t.Context(), db.DefaultOrg, "a.test", noon.Add(-72*time.Hour)); err != nil || len(got) != 1 || got[0].Sessions != 1 {
		t.Errorf("%+v, %v", got, err)
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
