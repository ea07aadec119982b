package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// desk is a reporter with all that is around it, on a clock of the test's.
type desk struct {
	*testing.T
	db *db.DB
	*ledger.Ledger
	*ledger.Reporter
	o ledger.ReporterOptions

	mu      sync.Mutex
	now     time.Time
	records map[string][]string         // domain → TXT records; nil: none
	broken  map[string]bool             // whose record cannot be looked up
	answers map[string][]tlsrpt.Answer  // URI → answers, the last for good
	posted  []string                    // URIs, in order
	reports map[string][]*tlsrpt.Report // URI or mailbox → what came
	mails   []ledger.Mail
	fate    ledger.Handed
	key     error  // why nothing can be signed
	crash   func() // called in the middle of a POST
}

func newDesk(t *testing.T, d *db.DB) *desk {
	t.Helper()
	k := &desk{
		T: t, db: d, now: noon, records: map[string][]string{}, broken: map[string]bool{},
		answers: map[string][]tlsrpt.Answer{}, reports: map[string][]*tlsrpt.Report{}, fate: ledger.Handed{},
	}
	k.o = ledger.ReporterOptions{
		DB: d, Identity: ledger.Identity{Organization: "Pawl Test", Contact: "tls@report.test", Domain: "report.test"},
		Window: 4 * time.Hour, Keep: 30 * 24 * time.Hour, Caps: ledger.Caps{Reports: 100, Bytes: 1 << 20},
		Resolver: k, Signer: k, Poster: k, Mailer: k, Now: k.clock, Log: slog.New(slog.DiscardHandler), Random: func() float64 { return 0.5 },
	}
	k.start()
	return k
}

// start is what a process does that remembers nothing.
func (k *desk) start() {
	k.Ledger = newLedger(k.db)
	k.Reporter = ledger.NewReporter(k.o)
}

func (k *desk) clock() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *desk) set(t time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = t
}

// pass lets time pass, with a round each quarter of an hour.
func (k *desk) pass(d time.Duration) {
	for end := k.clock().Add(d); k.clock().Before(end); {
		k.set(k.clock().Add(min(15*time.Minute, end.Sub(k.clock()))))
		k.Round(k.Context())
	}
}

func (k *desk) TXT(_ context.Context, name string) (resolve.Answer[string], error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	domain := strings.TrimPrefix(name, "_smtp._tls.")
	switch texts := k.records[domain]; {
	case k.broken[domain]:
		return resolve.Answer[string]{}, &resolve.Failure{Name: name, Type: "TXT"}
	case texts == nil:
		return resolve.Answer[string]{}, &resolve.NotFound{Name: name, Type: "TXT"}
	default:
		return resolve.Answer[string]{Records: texts}, nil
	}
}

func (k *desk) Sign(domain, service string, message []byte) ([]byte, error) {
	if domain != "report.test" || service != "tlsrpt" {
		return nil, fmt.Errorf("no key of %s for %s", domain, service)
	}
	return append([]byte("DKIM-Signature: d="+domain+"\r\n"), message...), k.key
}

func (k *desk) Post(_ context.Context, to tlsrpt.Destination, report []byte) (tlsrpt.Answer, error) {
	if k.crash != nil {
		k.crash()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.posted = append(k.posted, to.URI)
	a := tlsrpt.Answer{Status: 200}
	if list := k.answers[to.URI]; len(list) > 0 {
		a = list[0]
		if len(list) > 1 {
			k.answers[to.URI] = list[1:]
		}
	}
	if a.Status == 0 {
		return a, errors.New("nobody answers")
	}
	if a.OK() {
		k.take(to.URI, report)
	}
	return a, nil
}

func (k *desk) take(at string, report []byte) {
	r, notes, err := tlsrpt.Read(bytes.NewReader(report))
	if err != nil || len(notes) > 0 {
		k.Errorf("%s got a report that is off: %v %v", at, err, notes)
	}
	k.reports[at] = append(k.reports[at], r)
}

func (k *desk) Send(_ context.Context, m ledger.Mail) (ledger.Handed, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, have := range k.mails {
		if have.ID == m.ID {
			return k.fate, nil
		}
	}
	k.mails = append(k.mails, m)
	return k.fate, nil
}

func (k *desk) Fate(_ context.Context, _, id string) (ledger.Handed, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, have := range k.mails {
		if have.ID == id {
			return k.fate, nil
		}
	}
	return ledger.Handed{}, ledger.ErrNotHanded
}

// saw counts sessions of the relay with a domain.
func (k *desk) saw(at time.Time, domain string, failure *outcome.Failure, times int) {
	k.Helper()
	for range times {
		k.Record(k.Context(), attempt(at, domain, failure))
	}
	if err := k.Flush(k.Context()); err != nil {
		k.Fatal(err)
	}
}

// status is what became of the reports, in few words.
func (k *desk) status() (list []string) {
	k.Helper()
	reports, err := k.Reports(k.Context(), db.DefaultOrg, ledger.ReportQuery{})
	if err != nil {
		k.Fatal(err)
	}
	for _, r := range reports {
		line := r.Day + " " + r.Domain + " " + string(r.State)
		for _, d := range r.Deliveries {
			line += fmt.Sprintf(" [%s %s %d]", d.RUA, d.State, d.Attempts)
		}
		list = append(list, line)
	}
	return list
}

func (k *desk) want(lines ...string) {
	k.Helper()
	if diff := cmp.Diff(lines, k.status()); diff != "" {
		k.Error(diff)
	}
}

// inTesting is a policy of which Postfix verifies nothing.
var inTesting = []string{"version: STSv1", "mode: testing"}

const wantsPost = "v=TLSRPTv1; rua=https://in.test/a"

func each(t *testing.T, f func(k *desk)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, d *db.DB) { f(newDesk(t, d)) })
}

func TestTheDaysReportHoldsExactlyItsSessions(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{"v=TLSRPTv1; rua=https://in.test/a,mailto:box@in.test", "x"}
		expired := &outcome.Failure{Result: outcome.CertificateExpired, Reason: "expired", Info: "for people only"}
		k.saw(noon, "a.test", nil, 5)
		k.saw(noon, "a.test", expired, 2)
		k.saw(noon.Add(24*time.Hour), "a.test", nil, 7) // the next day's
		k.Record(k.Context(), outcome.Attempt{At: noon, Source: "policy", Domain: "a.test", Transport: outcome.NotSent, Policies: []outcome.Policy{{
			Type: outcome.STS, Domain: "a.test", Failure: &outcome.Failure{Result: outcome.STSPolicyFetchError, Reason: "http-status"},
		}}})
		k.Record(k.Context(), outcome.Attempt{At: noon, Source: "postfix", Domain: "a.test", Transport: outcome.Encrypted, Policies: []outcome.Policy{{Type: outcome.STS, Domain: "a.test", Strings: inTesting}}})
		k.Record(k.Context(), outcome.Attempt{At: noon, Source: "relay", Domain: "a.test", MX: "mx.a.test", Transport: outcome.Clear, Policies: []outcome.Policy{{Type: outcome.NoPolicy, Domain: "a.test"}}})
		k.Record(k.Context(), outcome.Attempt{At: noon, Source: "relay", Domain: "a.test", MX: "mx.b.test", Transport: outcome.Verified, Policies: []outcome.Policy{{Type: outcome.TLSA, Domain: "mx.b.test", Strings: []string{"3 1 1 00"}}}})
		if err := k.Flush(k.Context()); err != nil {
			k.Fatal(err)
		}
		k.pass(15 * time.Hour) // to 03:00: half the window is at 02:01
		got := k.reports["https://in.test/a"]
		if len(got) != 1 || len(k.mails) != 1 {
			k.Fatalf("%d posted, %d mailed; %v", len(got), len(k.mails), k.status())
		}
		day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
		want := &tlsrpt.Report{
			Organization: "Pawl Test", Contact: "tls@report.test", ID: got[0].ID, Start: day, End: day.Add(24*time.Hour - time.Second),
			Policies: []tlsrpt.Policy{
				// What could not be fetched is told of, and was no session.
				{Type: tlsrpt.STS, Domain: "a.test", Details: []tlsrpt.Detail{{Result: tlsrpt.STSPolicyFetchError, Sessions: 1, Reason: "http-status"}}},
				{
					Type: tlsrpt.STS, Domain: "a.test", Strings: []string{"version: STSv1"}, Successes: 5, Failures: 2,
					Details: []tlsrpt.Detail{{Result: tlsrpt.CertificateExpired, MXHost: "mx.a.test", ReceivingIP: attempt(noon, "", nil).IP, Sessions: 2, Reason: "expired"}},
				},
				{Type: tlsrpt.TLSA, Domain: "mx.b.test", Strings: []string{"3 1 1 00"}, Successes: 1},
				{Type: tlsrpt.NoPolicy, Domain: "a.test", Failures: 1, Details: []tlsrpt.Detail{{Result: tlsrpt.ValidationFailure, MXHost: "mx.a.test", Sessions: 1, Reason: "no-tls"}}},
			},
		}
		sorted := got[0]
		if sorted.Policies[0].Strings != nil { // both are the domain's own: their order is the digest's
			sorted.Policies[0], sorted.Policies[1] = sorted.Policies[1], sorted.Policies[0]
		}
		if diff := cmp.Diff(want, sorted, cmp.Comparer(func(a, b tlsrpt.Detail) bool { return a == b })); diff != "" {
			k.Error(diff)
		}
		if m := k.mails[0]; m.To != "box@in.test" || m.From != "tls@report.test" || !bytes.HasPrefix(m.Data, []byte("DKIM-Signature: d=report.test\r\n")) {
			k.Errorf("%+v", m)
		}
		k.want("2026-03-04 a.test sending [https://in.test/a accepted 1] [mailto:box@in.test handed 1]")
		k.fate = ledger.Handed{Done: true, OK: true, Answer: "250 OK"}
		k.pass(time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1] [mailto:box@in.test accepted 1]")
	})
}

func TestNothingIsSentBeforeMidnightNorTwice(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{wantsPost}
		k.saw(noon, "a.test", nil, 1)
		k.set(time.Date(2026, 3, 4, 23, 59, 59, 0, time.UTC))
		k.Round(k.Context())
		k.set(time.Date(2026, 3, 5, 0, 0, 30, 0, time.UTC)) // other nodes may still write
		k.Round(k.Context())
		if len(k.status()) != 0 {
			k.Errorf("planned before the day was settled: %v", k.status())
		}
		k.set(time.Date(2026, 3, 5, 0, 1, 0, 0, time.UTC))
		k.Round(k.Context())
		k.want("2026-03-04 a.test waiting")
		k.pass(119 * time.Minute)
		k.want("2026-03-04 a.test waiting")
		k.pass(2 * time.Minute)
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]")
		k.pass(3 * 24 * time.Hour) // the next days' runs
		if len(k.posted) != 1 {
			k.Errorf("posted %v", k.posted)
		}
	})
}

func TestARestartAtMidnightLosesAndRepeatsNothing(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{wantsPost}
		k.saw(noon, "a.test", nil, 1)
		for _, s := range []int{59, 61, 119, 121} { // seconds around midnight, and around when it is planned
			k.set(time.Date(2026, 3, 4, 23, 59, 0, 0, time.UTC).Add(time.Duration(s) * time.Second))
			k.start()
			k.Round(k.Context())
		}
		for range 20 {
			k.start()
			k.pass(15 * time.Minute)
		}
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]")
		if len(k.posted) != 1 {
			k.Errorf("posted %v", k.posted)
		}
	})
}

func TestAClockThatIsSetBackSendsNothingTwice(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"], k.records["b.test"] = []string{wantsPost}, []string{"v=TLSRPTv1; rua=https://in.test/b"}
		k.saw(noon, "a.test", nil, 1)
		k.pass(15 * time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]")
		// Back to the day before the report's: what is counted now is told of later.
		k.set(time.Date(2026, 3, 3, 23, 0, 0, 0, time.UTC))
		k.saw(k.clock(), "b.test", nil, 1)
		k.saw(noon, "a.test", nil, 1)
		k.pass(5 * 24 * time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]", "2026-03-03 b.test sent [https://in.test/b accepted 1]")
		if len(k.posted) != 2 {
			k.Errorf("posted %v", k.posted)
		}
	})
}

func TestALeapOverThreeDaysSendsTheDayThatHadMail(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{wantsPost}
		k.saw(noon, "a.test", nil, 1)
		k.Round(k.Context())
		k.set(noon.Add(3 * 24 * time.Hour))
		k.Round(k.Context())
		k.pass(4 * time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]")
	})
}

func TestAWeekOldDayIsNotReported(t *testing.T) {
	k := newDesk(t, dbtest.SQLite(t))
	k.records["a.test"] = []string{wantsPost}
	k.saw(noon, "a.test", nil, 1)
	k.set(noon.Add(9 * 24 * time.Hour))
	k.pass(5 * time.Hour)
	if got := k.status(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestWhoWantsNoReportGetsNone(t *testing.T) {
	each(t, func(k *desk) {
		k.records["two.test"] = []string{wantsPost, wantsPost}
		k.records["bad.test"] = []string{"v=TLSRPTv1; rua=ftp://x.test"}
		k.records["out.test"] = []string{wantsPost}
		k.records["policy.test"] = []string{wantsPost}
		k.records["false.test"] = []string{wantsPost}
		for _, domain := range []string{"none.test", "two.test", "bad.test", "out.test"} {
			k.saw(noon, domain, nil, 1)
		}
		// A policy was refreshed, and no mail went: nothing for days without mail.
		k.Record(k.Context(), outcome.Attempt{At: noon, Source: "policy", Domain: "policy.test", Policies: []outcome.Policy{{Type: outcome.STS, Domain: "policy.test", Failure: &outcome.Failure{Result: outcome.STSPolicyFetchError}}}})
		k.Record(k.Context(), outcome.Attempt{At: noon, Source: "postfix", Domain: "false.test", Transport: outcome.Encrypted, Policies: []outcome.Policy{{Type: outcome.STS, Domain: "false.test", Strings: inTesting}}})
		if err := k.Flush(k.Context()); err != nil {
			k.Fatal(err)
		}
		if err := k.Suppress(k.Context(), db.DefaultOrg, ledger.Suppression{Subject: "Out.test", Why: "they asked"}); err != nil {
			k.Fatal(err)
		}
		k.pass(24 * time.Hour)
		k.want("2026-03-04 bad.test skipped", "2026-03-04 false.test skipped", "2026-03-04 none.test skipped",
			"2026-03-04 out.test skipped", "2026-03-04 policy.test skipped", "2026-03-04 two.test skipped")
		if len(k.posted) != 0 {
			k.Errorf("posted %v", k.posted)
		}
	})
}

func TestRFC8460_5_5_ItIsTriedFor24HoursWithExponentialBackoff(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{wantsPost}
		k.answers["https://in.test/a"] = []tlsrpt.Answer{{Status: 500, Text: "later"}}
		k.saw(noon, "a.test", nil, 1)
		k.pass(14*time.Hour + 16*time.Minute) // 02:16, after the first try
		tries := []int{len(k.posted)}
		for range 26 {
			k.pass(time.Hour)
			tries = append(tries, len(k.posted))
		}
		// After 0:15, 0:45, 1:45, 3:45, 7:45, 13:45 and 19:45.
		want := []int{1, 3, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 8}
		if diff := cmp.Diff(want, tries); diff != "" {
			k.Error(diff)
		}
		k.want("2026-03-04 a.test failed [https://in.test/a failed 8]")
	})
}

func TestOnlyA2xxIsSuccessAndOneDestinationSuffices(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{"v=TLSRPTv1; rua=https://in.test/404,https://in.test/500,https://in.test/down,https://in.test/ok"}
		k.answers["https://in.test/404"] = []tlsrpt.Answer{{Status: 404}}
		k.answers["https://in.test/500"] = []tlsrpt.Answer{{Status: 500}, {Status: 202}}
		k.answers["https://in.test/down"] = []tlsrpt.Answer{{}}
		k.saw(noon, "a.test", nil, 1)
		k.pass(40 * time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/404 failed 1] [https://in.test/500 accepted 2] [https://in.test/down failed 8] [https://in.test/ok accepted 1]")
	})
}

func TestARecordThatCannotBeLookedUpIsAskedForAgain(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"], k.records["b.test"] = []string{wantsPost}, []string{wantsPost}
		k.broken["a.test"], k.broken["b.test"] = true, true
		k.saw(noon, "a.test", nil, 1)
		k.saw(noon, "b.test", nil, 1)
		k.pass(18 * time.Hour)
		k.want("2026-03-04 a.test waiting", "2026-03-04 b.test waiting")
		delete(k.broken, "a.test")
		k.pass(28 * time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]", "2026-03-04 b.test failed")
	})
}

func TestACrashWhileItIsSentRepeatsNothing(t *testing.T) {
	each(t, func(k *desk) {
		k.fate = ledger.Handed{Done: true, OK: true}
		k.records["a.test"] = []string{"v=TLSRPTv1; rua=https://in.test/a,mailto:box@in.test"}
		k.saw(noon, "a.test", nil, 1)
		k.pass(14 * time.Hour)
		// While it is posted the process dies: nothing that it does later counts.
		dying, die := context.WithCancel(k.Context())
		k.crash = func() { die(); k.crash = nil }
		k.set(k.clock().Add(20 * time.Minute))
		k.Round(dying)
		k.unsay("a.test") // the commit after the POST never was
		k.start()
		k.pass(26 * time.Hour)
		k.want("2026-03-04 a.test sent [https://in.test/a unknown 1] [mailto:box@in.test accepted 1]")
		if len(k.posted) != 1 || len(k.mails) != 1 {
			k.Errorf("posted %v, %d mails", k.posted, len(k.mails))
		}
	})
}

// unsay takes the answers of a domain's destinations back to before they came.
func (k *desk) unsay(domain string) {
	k.Helper()
	err := k.db.Write(k.Context(), func(ctx context.Context, tx db.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE report SET state = 'sending', next = 1, lease = 'dead', leased = $2 WHERE domain = $1`, domain, k.clock().Add(10*time.Minute).UnixMicro()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE report_delivery SET state = 'sending', next = 1, answer = '' WHERE domain = $1`, domain)
		return err
	})
	if err != nil {
		k.Fatal(err)
	}
}

func TestRFC8460_7_NobodyCanMakeUsFloodAHost(t *testing.T) {
	each(t, func(k *desk) {
		k.o.Caps = ledger.Caps{Reports: 3, Bytes: 1 << 20}
		k.start()
		for i := range 5 {
			domain := fmt.Sprintf("d%d.test", i)
			k.records[domain] = []string{fmt.Sprintf("v=TLSRPTv1; rua=https://victim.test/%d", i)}
			k.saw(noon, domain, nil, 1)
		}
		k.pass(20 * time.Hour)
		if len(k.posted) != 3 || strings.Count(strings.Join(k.status(), "\n"), "capped") != 2 {
			k.Errorf("posted %v; %v", k.posted, k.status())
		}
	})
}

func TestBytesAreCappedAsWell(t *testing.T) {
	k := newDesk(t, dbtest.SQLite(t))
	k.o.Caps = ledger.Caps{Reports: 100, Bytes: 10}
	k.start()
	k.records["a.test"] = []string{wantsPost}
	k.saw(noon, "a.test", nil, 1)
	k.pass(20 * time.Hour)
	k.want("2026-03-04 a.test failed [https://in.test/a capped 1]")
}

func TestNothingIsBuiltWithoutTheIdentity(t *testing.T) {
	for name, do := range map[string]func(k *desk){
		"organization": func(k *desk) { k.o.Identity.Organization = "" },
		"contact":      func(k *desk) { k.o.Identity.Contact = "" },
		"domain":       func(k *desk) { k.o.Identity.Domain = "" },
		"signer":       func(k *desk) { k.o.Signer = nil },
		"DKIM key":     func(k *desk) { k.key = errors.New("there is none") },
	} {
		t.Run(name, func(t *testing.T) {
			k := newDesk(t, dbtest.SQLite(t))
			do(k)
			k.start()
			k.records["a.test"] = []string{wantsPost}
			k.saw(noon, "a.test", nil, 1)
			k.pass(24 * time.Hour)
			if err := k.Ready(); !errors.Is(err, ledger.ErrNotReady) || len(k.status()) != 0 || k.Trouble() == "" {
				t.Errorf("%v, %v", err, k.status())
			}
		})
	}
}

func TestReportsNeverCauseReportsThroughAnotherMTA(t *testing.T) {
	each(t, func(k *desk) {
		k.o.OwnMTA, k.fate = true, ledger.Handed{Done: true, OK: true, Answer: "250 OK"}
		k.start()
		k.records["a.test"] = []string{"v=TLSRPTv1; rua=mailto:box@a.test"}
		k.saw(noon, "a.test", nil, 1)
		k.pass(24 * time.Hour)
		// What Postfix tells of the report's own sessions: greylisting made it two.
		for range 2 {
			k.Record(k.Context(), outcome.Attempt{At: k.clock(), Source: "postfix", Domain: "a.test", Transport: outcome.Verified, Policies: []outcome.Policy{{Type: outcome.TLSA, Domain: "mx.a.test"}}})
		}
		if err := k.Flush(k.Context()); err != nil {
			k.Fatal(err)
		}
		k.pass(3 * 24 * time.Hour)
		k.want("2026-03-05 a.test skipped", "2026-03-04 a.test sent [mailto:box@a.test accepted 1]")
		if len(k.mails) != 1 {
			k.Errorf("%d mails", len(k.mails))
		}
	})
}

func TestSeveralNodesShareTheWork(t *testing.T) {
	d := dbtest.Postgres(t)
	one := newDesk(t, d)
	const domains = 40
	for i := range domains {
		domain := fmt.Sprintf("d%02d.test", i)
		one.records[domain] = []string{fmt.Sprintf("v=TLSRPTv1; rua=https://in.test/%d", i)}
		one.saw(noon, domain, nil, 1)
	}
	two := ledger.NewReporter(one.o)
	one.set(noon.Add(12*time.Hour + 2*time.Minute))
	for range 20 {
		var wait sync.WaitGroup
		wait.Go(func() { one.Round(t.Context()) })
		wait.Go(func() { two.Round(t.Context()) })
		wait.Wait()
		one.set(one.clock().Add(15 * time.Minute))
	}
	seen := map[string]int{}
	for _, uri := range one.posted {
		seen[uri]++
	}
	if len(seen) != domains || len(one.posted) != domains {
		t.Errorf("%d posts to %d destinations; %v", len(one.posted), len(seen), one.status())
	}
}

func TestSendingNowAndPreview(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{wantsPost}
		k.saw(noon, "a.test", nil, 1)
		p, err := k.Preview(k.Context(), db.DefaultOrg, "2026-03-04", "a.test")
		if err != nil || p.Why != "" || len(p.Destinations) != 1 || !bytes.Contains(p.Report, []byte(`"total-successful-session-count":1`)) {
			k.Errorf("%+v, %v", p, err)
		}
		if p, err = k.Preview(k.Context(), db.DefaultOrg, "2026-03-04", "b.test"); err != nil || p.Why == "" || p.Report != nil {
			k.Errorf("%+v, %v", p, err)
		}
		k.set(noon.Add(13 * time.Hour))
		if n, err := k.SendNow(k.Context(), db.DefaultOrg, "2026-03-04", ""); err != nil || n != 1 {
			k.Errorf("%d, %v", n, err)
		}
		k.Round(k.Context())
		k.want("2026-03-04 a.test sent [https://in.test/a accepted 1]")
		if n, err := k.SendNow(k.Context(), db.DefaultOrg, "2026-03-04", "a.test"); err != nil || n != 0 {
			k.Errorf("a report that is done was made due: %d, %v", n, err)
		}
		days, err := k.Days(k.Context(), db.DefaultOrg)
		if diff := cmp.Diff([]ledger.DaySummary{{Day: "2026-03-04", Reports: map[ledger.State]int64{ledger.Sent: 1}}}, days); err != nil || diff != "" {
			k.Error(err, diff)
		}
	})
}
