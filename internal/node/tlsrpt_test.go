package node_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// inbox keeps the reports that are posted to it. To the first try of each it
// answers 500, which is no success (RFC 8460 §5.4: only 2xx is).
type inbox struct {
	mu   sync.Mutex
	seen map[string]bool // report-ids that came before
	got  []*tlsrpt.Report
}

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	report, notes, err := tlsrpt.Read(r.Body)
	if err != nil || len(notes) > 0 || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
		http.Error(w, fmt.Sprint(r.Method, " ", r.Header.Get("Content-Type"), " ", notes, " ", err), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.seen[report.ID] { // each is to be retried once
		b.seen[report.ID] = true
		http.Error(w, "later", http.StatusInternalServerError)
		return
	}
	b.got = append(b.got, report)
	w.WriteHeader(http.StatusCreated)
}

func (b *inbox) reports() []*tlsrpt.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*tlsrpt.Report(nil), b.got...)
}

// mailed is the report in a message.
func mailed(t *testing.T, raw []byte) (*tlsrpt.Report, mail.Header) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for parts := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			t.Fatal("there is no report in the message")
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
			continue
		}
		report, notes, err := tlsrpt.Read(base64.NewDecoder(base64.StdEncoding, p))
		if err != nil || len(notes) > 0 {
			t.Fatal(err, notes)
		}
		return report, m.Header
	}
}

// acceptEmail makes records of keys for reports ones for all mail: go-msgauth
// knows the service "email" only.
func acceptEmail(t *testing.T, records map[string]string) {
	t.Helper()
	for name, text := range records {
		plain := strings.Replace(text, "s=tlsrpt; ", "", 1)
		if plain == text {
			t.Errorf("%s: %s", name, text)
		}
		records[name] = plain
	}
}

func TestTheDaysReportsArriveByMailAndByHTTPS(t *testing.T) {
	tn := testnet.Start(t, testnet.Options{})
	w := node.Wiring{Dial: tn.Dial, Roots: tn.Roots(), Now: tn.Clock.Now, After: tn.Clock.After}
	in := &inbox{seen: map[string]bool{}}
	tn.Site("in.test", in)
	const rua = "mailto:tls@rua.test,https://in.test/v1"
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}, TLSRPT: rua})
	tn.Domain("bad.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}, TLSRPT: rua}).On(testnet.StripSTARTTLS)
	tn.Domain("weak.test", testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}, TLSRPT: rua}).On(testnet.ShowExpired)
	tn.Domain("silent.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	// Where the reports go TLS is broken: they must arrive all the same.
	tn.Domain("rua.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}, TLSRPT: rua}).On(testnet.StripSTARTTLS)

	c := settings(t, tn.DNSAddr())
	records := withKeysFor(t, &c, "report.test", dkim.TLSRPT)
	acceptEmail(t, records)
	c.TLSRPT.Organization, c.TLSRPT.Contact, c.TLSRPT.Domain = "Pawl Test", "tls@report.test", "report.test"
	c.TLSRPT.Window = config.Duration(time.Minute)
	n, stop := start(t, c, w)

	for _, to := range []string{"a@good.test", "b@good.test", "a@bad.test", "a@weak.test", "a@silent.test"} {
		if _, err := submit(t.Context(), n.Addrs().Relay[0], "x@client.test", to, "x"); err != nil {
			t.Fatal(err)
		}
	}
	day := tn.Clock.Now().UTC().Truncate(24 * time.Hour)
	sessions := func(domain string) (sum int64) {
		if err := n.Ledger().Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		counts, err := n.Ledger().Since(t.Context(), db.DefaultOrg, domain, day)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range counts {
			sum += c.Sessions
		}
		return sum
	}
	eventually(t, "every destination was spoken to", func() bool {
		return len(tn.Delivered("a@good.test")) == 1 && len(tn.Delivered("b@good.test")) == 1 && sessions("bad.test") > 0 && sessions("weak.test") > 0 && sessions("silent.test") > 0 && sessions("good.test") > 0
	})
	counted := map[string]int64{"good.test": sessions("good.test"), "bad.test": sessions("bad.test"), "weak.test": sessions("weak.test")}

	status := func(day string) map[string]ledger.State {
		st := call[node.TLSRPTStatus](t, n, "tlsrpt.status", ledger.ReportQuery{Day: day})
		states := map[string]ledger.State{}
		for _, r := range st.Reports {
			states[r.Domain] = r.State
		}
		return states
	}
	want := map[string]ledger.State{"good.test": ledger.Sent, "bad.test": ledger.Sent, "weak.test": ledger.Sent, "silent.test": ledger.Skipped}
	tn.Clock.Advance(day.Add(24 * time.Hour).Sub(tn.Clock.Now()))
	eventually(t, "the reports are sent", func() bool {
		tn.Clock.Advance(time.Minute)
		return cmp.Equal(want, status(day.Format(time.DateOnly)))
	})

	if code, page := get(t, n, "/"); code != 200 || !strings.Contains(page, "https://in.test/v1") || !strings.Contains(page, "250 2.0.0 Taken") || !strings.Contains(page, "201") {
		t.Errorf("the page (%d) does not say what went out, to whom, with what answer:\n%s", code, page)
	}
	byHTTPS := map[string]*tlsrpt.Report{}
	for _, r := range in.reports() {
		byHTTPS[r.Policies[0].Domain] = r
	}
	got := tn.Delivered("tls@rua.test")
	if len(byHTTPS) != 3 || len(in.reports()) != 3 || len(got) != 3 {
		t.Fatalf("%d reports by HTTPS, %d by mail: %+v", len(in.reports()), len(got), call[node.TLSRPTStatus](t, n, "tlsrpt.status", ledger.ReportQuery{}).Reports)
	}
	for _, d := range got {
		report, head := mailed(t, d.Data)
		domain := head.Get("TLS-Report-Domain")
		if !cmp.Equal(report, byHTTPS[domain], cmp.Comparer(func(a, b tlsrpt.Detail) bool { return a == b })) {
			t.Errorf("%s: by mail came %+v, by HTTPS %+v", domain, report, byHTTPS[domain])
		}
		if head.Get("TLS-Report-Submitter") != "report.test" || head.Get("TLS-Required") != "No" || d.From != "tls@report.test" {
			t.Errorf("%s: %v", domain, head)
		}
		if signed := signatures(t, string(d.Data), records); !cmp.Equal(signed, []string{"report.test", "report.test"}) {
			t.Errorf("%s: signatures %v", domain, signed)
		}
		if sig := head.Get("DKIM-Signature"); !strings.Contains(strings.ToLower(sig), "tls-report-domain") || strings.Contains(sig, " l=") {
			t.Errorf("%s: %s", domain, sig)
		}
	}
	for domain, c := range map[string]struct {
		good, bad int64
		result    tlsrpt.ResultType
	}{
		"good.test": {counted["good.test"], 0, ""},
		"bad.test":  {0, counted["bad.test"], tlsrpt.StartTLSNotSupported},
		"weak.test": {0, counted["weak.test"], tlsrpt.CertificateExpired},
	} {
		r := byHTTPS[domain]
		if r.Organization != "Pawl Test" || !r.Start.Equal(day) || len(r.Policies) != 1 {
			t.Errorf("%s: %+v", domain, r)
			continue
		}
		p := r.Policies[0]
		if p.Type != tlsrpt.STS || p.Successes != c.good || p.Failures != c.bad {
			t.Errorf("%s: %d successes and %d failures, want %d and %d", domain, p.Successes, p.Failures, c.good, c.bad)
		}
		if c.result != "" && (len(p.Details) != 1 || p.Details[0].Result != c.result || p.Details[0].MXHost != "mx."+domain) {
			t.Errorf("%s: %+v", domain, p.Details)
		}
	}

	// The next day's run: what is held goes on to fail and is told of once more.
	// Nothing is told twice of the day before, and the reports caused none.
	stop()
	n, _ = start(t, c, w)
	tn.Clock.Advance(24 * time.Hour)
	next := day.Add(24 * time.Hour).Format(time.DateOnly)
	eventually(t, "the next day's reports are sent", func() bool {
		tn.Clock.Advance(time.Minute)
		return status(next)["bad.test"] == ledger.Sent
	})
	for _, r := range in.reports()[3:] {
		if r.Policies[0].Domain != "bad.test" || r.Start.Equal(day) {
			t.Errorf("sent again: %+v", r)
		}
	}
	if _, caused := status("")["rua.test"]; caused {
		t.Error("reports caused a report")
	}
}

func TestAHostThatFailsAllOfASuddenIsAnEventOnThePage(t *testing.T) {
	tn := testnet.Start(t, testnet.Options{})
	n, _ := start(t, settings(t, tn.DNSAddr()), node.Wiring{Dial: tn.Dial, Roots: tn.Roots(), Now: tn.Clock.Now, After: tn.Clock.After})
	saw := func(failure *outcome.Failure, times int) {
		for range times {
			n.Ledger().Record(t.Context(), outcome.Attempt{
				At: tn.Clock.Now(), Source: "relay", Domain: "a.test", MX: "mx.a.test", Transport: outcome.Verified,
				Policies: []outcome.Policy{{Type: outcome.STS, Domain: "a.test", Failure: failure}},
			})
		}
		if err := n.Ledger().Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	saw(nil, 10)
	tn.Clock.Advance(24 * time.Hour)
	saw(&outcome.Failure{Result: outcome.CertificateNotTrusted}, 3)
	eventually(t, "the page says so", func() bool {
		tn.Clock.Advance(time.Minute)
		_, page := get(t, n, "/")
		return strings.Contains(page, "none of 10 failed in the 3 days before")
	})
}
