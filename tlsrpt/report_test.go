package tlsrpt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pawl-mail/pawl/tlsrpt"
)

var sameAddr = cmpopts.EquateComparable(netip.Addr{})

// rfcExample is the report of RFC 8460 appendix B; the URI, which the RFC breaks
// over two lines, is made one.
const rfcExample = `{
  "organization-name": "Company-X",
  "date-range": {
    "start-datetime": "2016-04-01T00:00:00Z",
    "end-datetime": "2016-04-01T23:59:59Z"
  },
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {
      "policy-type": "sts",
      "policy-string": ["version: STSv1","mode: testing",
            "mx: *.mail.company-y.example","max_age: 86400"],
      "policy-domain": "company-y.example",
      "mx-host": "*.mail.company-y.example"
    },
    "summary": {
      "total-successful-session-count": 5326,
      "total-failure-session-count": 303
    },
    "failure-details": [{
      "result-type": "certificate-expired",
      "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example",
      "failed-session-count": 100
    }, {
      "result-type": "starttls-not-supported",
      "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example",
      "receiving-ip": "203.0.113.56",
      "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"
    }, {
      "result-type": "validation-failure",
      "sending-mta-ip": "198.51.100.62",
      "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example",
      "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    }]
  }]
}`

func rfcReport() *tlsrpt.Report {
	return &tlsrpt.Report{
		Organization: "Company-X", Contact: "sts-reporting@company-x.example", ID: "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
		Start: time.Date(2016, 4, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2016, 4, 1, 23, 59, 59, 0, time.UTC),
		Policies: []tlsrpt.Policy{{
			Type: tlsrpt.STS, Domain: "company-y.example",
			Strings:   []string{"version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"},
			MXHosts:   []string{"*.mail.company-y.example"},
			Successes: 5326, Failures: 303,
			Details: []tlsrpt.Detail{
				{Result: tlsrpt.CertificateExpired, SendingIP: netip.MustParseAddr("2001:db8:abcd:12::1"), MXHost: "mx1.mail.company-y.example", Sessions: 100},
				{
					Result: tlsrpt.StartTLSNotSupported, SendingIP: netip.MustParseAddr("2001:db8:abcd:13::1"), MXHost: "mx2.mail.company-y.example",
					ReceivingIP: netip.MustParseAddr("203.0.113.56"), Sessions: 200,
					Info: "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported",
				},
				{
					Result: tlsrpt.ValidationFailure, SendingIP: netip.MustParseAddr("198.51.100.62"), MXHost: "mx-backup.mail.company-y.example",
					ReceivingIP: netip.MustParseAddr("203.0.113.58"), Sessions: 3, Reason: "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
				},
			},
		}},
	}
}

func TestRFC8460_B_TheExampleIsReadAndRoundTrips(t *testing.T) {
	got, notes, err := tlsrpt.Read(strings.NewReader(rfcExample))
	if diff := cmp.Diff(rfcReport(), got, sameAddr); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	// The one thing off about it: §4.4 says that mx-host is an array.
	if len(notes) != 1 || notes[0].Code != tlsrpt.NoteStringForArray || notes[0].Path != "policies[0].policy.mx-host" {
		t.Errorf("%v", notes)
	}
	text, err := got.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, notes, err := tlsrpt.Read(bytes.NewReader(text))
	if diff := cmp.Diff(got, again, sameAddr); err != nil || diff != "" || len(notes) > 0 {
		t.Error(err, diff, notes)
	}
	packed, err := tlsrpt.Compress(text)
	if err != nil {
		t.Fatal(err)
	}
	again, notes, err = tlsrpt.Read(bytes.NewReader(packed))
	if diff := cmp.Diff(got, again, sameAddr); err != nil || diff != "" || len(notes) > 0 {
		t.Error(err, diff, notes)
	}
}

func TestRFC8460_4_BuildingIsExact(t *testing.T) {
	r := &tlsrpt.Report{
		Organization: "A & B <x>", Contact: "tls@a.test", ID: "1@a.test",
		Start: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 3, 4, 23, 59, 59, 0, time.UTC),
		Policies: []tlsrpt.Policy{
			{Type: tlsrpt.NoPolicy, Domain: "b.test", Successes: 2},
			{
				Type: tlsrpt.TLSA, Domain: "mx.b.test", Strings: []string{"3 1 1 00"}, Failures: 1,
				Details: []tlsrpt.Detail{{Result: tlsrpt.TLSAInvalid, SendingIP: netip.MustParseAddr("192.0.2.1"), MXHost: "mx.b.test", MXHelo: "b", ReceivingIP: netip.MustParseAddr("2001:db8::1"), Sessions: 1, Info: "https://a.test/i", Reason: "r"}},
			},
		},
	}
	want := `{"organization-name":"A & B <x>","date-range":{"start-datetime":"2026-03-04T00:00:00Z","end-datetime":"2026-03-04T23:59:59Z"},` +
		`"contact-info":"tls@a.test","report-id":"1@a.test","policies":[` +
		`{"policy":{"policy-type":"no-policy-found","policy-domain":"b.test"},"summary":{"total-successful-session-count":2,"total-failure-session-count":0}},` +
		`{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 00"],"policy-domain":"mx.b.test"},"summary":{"total-successful-session-count":0,"total-failure-session-count":1},` +
		`"failure-details":[{"result-type":"tlsa-invalid","sending-mta-ip":"192.0.2.1","receiving-mx-hostname":"mx.b.test","receiving-mx-helo":"b","receiving-ip":"2001:db8::1","failed-session-count":1,"additional-information":"https://a.test/i","failure-reason-code":"r"}]}]}`
	for range 3 {
		got, err := r.JSON()
		if err != nil || string(got) != want {
			t.Fatalf("%v\n got %s\nwant %s", err, got, want)
		}
	}
}

func TestRFC8460_4_WhatMustNotBeSentIsNotBuilt(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*tlsrpt.Report)
	}{
		{"no organization", func(r *tlsrpt.Report) { r.Organization = "" }},
		{"a contact that is no mailbox", func(r *tlsrpt.Report) { r.Contact = "call us" }},
		{"no id", func(r *tlsrpt.Report) { r.ID = "" }},
		{"no time", func(r *tlsrpt.Report) { r.End = r.Start }},
		{"no policies", func(r *tlsrpt.Report) { r.Policies = nil }},
		{"another policy type", func(r *tlsrpt.Report) { r.Policies[0].Type = "dane" }},
		{"another result type", func(r *tlsrpt.Report) { r.Policies[0].Details[0].Result = "other" }},
		{"a U-label", func(r *tlsrpt.Report) { r.Policies[0].Domain = "bücher.example" }},
		{"a U-label among the MX patterns", func(r *tlsrpt.Report) { r.Policies[0].MXHosts[0] = "*.bücher.example" }},
		{"a count beyond I-JSON", func(r *tlsrpt.Report) { r.Policies[0].Successes = 1 << 53 }},
		{"a negative count", func(r *tlsrpt.Report) { r.Policies[0].Details[0].Sessions = -1 }},
		{"broken UTF-8", func(r *tlsrpt.Report) { r.Policies[0].Details[0].MXHelo = "\xff" }},
		{"a noncharacter", func(r *tlsrpt.Report) { r.Policies[0].Details[0].Reason = "\ufffe" }},
		{"additional information that is no URI", func(r *tlsrpt.Report) { r.Policies[0].Details[0].Info = "look here" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rfcReport()
			c.do(r)
			if text, err := r.JSON(); err == nil {
				t.Errorf("it was built: %s", text)
			}
		})
	}
}

func TestRFC8460_5_1_Filename(t *testing.T) {
	start := time.Unix(1470013207, 0)
	got := tlsrpt.Filename("mail.sndr.example.com", "example.net", start, time.Unix(1470186007, 0), "001", true)
	if want := "mail.sndr.example.com!example.net!1470013207!1470186007!001.json.gz"; got != want {
		t.Errorf("%s", got)
	}
	if got := tlsrpt.Filename("a.test", "b.test", start, start, "../0!", false); got != "a.test!b.test!1470013207!1470013207!0.json" {
		t.Errorf("%s", got)
	}
}

// doc is a report with one thing changed, by replacing a piece of text.
func doc(old, with string) string {
	const good = `{"organization-name":"A","date-range":{"start-datetime":"2026-03-04T00:00:00Z","end-datetime":"2026-03-04T23:59:59Z"},` +
		`"contact-info":"a@a.test","report-id":"1","policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"b.test","mx-host":["*.b.test"]},` +
		`"summary":{"total-successful-session-count":3,"total-failure-session-count":1},` +
		`"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.1","receiving-ip":"192.0.2.2","failed-session-count":1}]}]}`
	if !strings.Contains(good, old) {
		panic(old)
	}
	return strings.Replace(good, old, with, 1)
}

func TestWhatTheWildSendsIsReadAndWhatIsOffIsSaid(t *testing.T) {
	for _, c := range []struct {
		name, text string
		code       tlsrpt.Code
		path       string
		check      func(r *tlsrpt.Report) bool
	}{
		{"mx-host as a string", doc(`["*.b.test"]`, `"*.b.test"`), tlsrpt.NoteStringForArray, "policies[0].policy.mx-host", func(r *tlsrpt.Report) bool { return r.Policies[0].MXHosts[0] == "*.b.test" }},
		{"mx-host as a policy line", doc(`*.b.test`, `mx: mx.b.test`), tlsrpt.NoteDomain, "policies[0].policy.mx-host[0]", func(r *tlsrpt.Report) bool { return r.Policies[0].MXHosts[0] == "mx.b.test" }},
		{"no contact", doc(`"contact-info":"a@a.test",`, ``), tlsrpt.NoteMissing, "contact-info", nil},
		{"a contact that is a sentence", doc(`a@a.test`, `call us`), tlsrpt.NoteContact, "contact-info", func(r *tlsrpt.Report) bool { return r.Contact == "call us" }},
		{"a date without zone", doc(`00:00:00Z`, `00:00:00`), tlsrpt.NoteDate, "date-range.start-datetime", nil},
		{"a date with a blank", doc(`04T00:00:00Z`, `04 00:00:00`), tlsrpt.NoteDate, "date-range.start-datetime", nil},
		{"a date alone", doc(`04T00:00:00Z`, `04`), tlsrpt.NoteDate, "date-range.start-datetime", nil},
		{"a date in seconds", doc(`"2026-03-04T00:00:00Z"`, `1772582400`), tlsrpt.NoteDate, "date-range.start-datetime", nil},
		{"no date at all", doc(`2026-03-04T00:00:00Z`, `yesterday`), tlsrpt.NoteMissing, "date-range", func(r *tlsrpt.Report) bool { return r.Start.IsZero() }},
		{"a count as a string", doc(`count":3`, `count":"3"`), tlsrpt.NoteStringForNumber, "policies[0].summary.total-successful-session-count", nil},
		{"a count as a fraction", doc(`count":3`, `count":3.5`), tlsrpt.NoteNumber, "policies[0].summary.total-successful-session-count", func(r *tlsrpt.Report) bool { return r.Policies[0].Successes == 0 }},
		{"a negative count", doc(`count":3`, `count":-3`), tlsrpt.NoteNumber, "policies[0].summary.total-successful-session-count", func(r *tlsrpt.Report) bool { return r.Policies[0].Successes == 0 }},
		{"a count beyond all", doc(`count":3`, `count":99999999999999999999`), tlsrpt.NoteNumber, "policies[0].summary.total-successful-session-count", func(r *tlsrpt.Report) bool { return true }},
		{"an address that is none", doc(`192.0.2.1`, `mx1`), tlsrpt.NoteAddress, "policies[0].failure-details[0].sending-mta-ip", func(r *tlsrpt.Report) bool { return !r.Policies[0].Details[0].SendingIP.IsValid() }},
		{"an unknown result type", doc(`certificate-expired`, `quantum-broken`), tlsrpt.NoteResultType, "policies[0].failure-details[0].result-type", func(r *tlsrpt.Report) bool { return r.Policies[0].Details[0].Result == "quantum-broken" }},
		{"an unknown policy type", doc(`"sts"`, `"dane"`), tlsrpt.NotePolicyType, "policies[0].policy.policy-type", nil},
		{"another name", doc(`receiving-ip`, `Receiving_IP`), tlsrpt.NoteName, "policies[0].failure-details[0].Receiving_IP", func(r *tlsrpt.Report) bool { return r.Policies[0].Details[0].ReceivingIP.IsValid() }},
		{"a member in capitals", doc(`report-id`, `Report-ID`), tlsrpt.NoteName, "Report-ID", func(r *tlsrpt.Report) bool { return r.ID == "1" }},
		{"an unknown member", doc(`"report-id"`, `"x":{"y":[1,{}]},"report-id"`), tlsrpt.NoteUnknown, "x", nil},
		{"a member twice", doc(`"report-id":"1"`, `"report-id":"0","report-id":"1"`), tlsrpt.NoteDuplicate, "report-id", func(r *tlsrpt.Report) bool { return r.ID == "1" }},
		{"the organization as a number", doc(`"A"`, `7`), tlsrpt.NoteType, "organization-name", func(r *tlsrpt.Report) bool { return r.Organization == "7" }},
		{"a summary that is a list", doc(`{"total-successful-session-count":3,"total-failure-session-count":1}`, `[1,2]`), tlsrpt.NoteType, "policies[0].summary", func(r *tlsrpt.Report) bool { return r.Policies[0].Successes == 0 }},
		{"failure-details that are an object", doc(`[{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.1","receiving-ip":"192.0.2.2","failed-session-count":1}]`, `{}`), tlsrpt.NoteType, "policies[0].failure-details", func(r *tlsrpt.Report) bool { return len(r.Policies[0].Details) == 0 }},
		{"a byte order mark", "\ufeff" + doc(`1`, `1`), tlsrpt.NoteByteOrderMark, "", nil},
		{"something behind it", doc(`1`, `1`) + "{}", tlsrpt.NoteTrailingData, "", nil},
		{"broken UTF-8", doc(`"A"`, "\"A\xff\""), tlsrpt.NoteText, "organization-name", func(r *tlsrpt.Report) bool { return r.Organization == "A\ufffd" }},
		{"a line break in a text", doc(`"A"`, "\"A\nB\""), tlsrpt.NoteText, "organization-name", func(r *tlsrpt.Report) bool { return r.Organization == "A\ufffdB" }},
		{"half a surrogate pair", doc(`"A"`, `"\ud83d\ude00\ud83dx"`), tlsrpt.NoteText, "organization-name", func(r *tlsrpt.Report) bool { return r.Organization == "\U0001f600\ufffdx" }},
		{"a long text", doc(`"A"`, `"`+strings.Repeat("A", 5000)+`"`), tlsrpt.NoteClipped, "organization-name", func(r *tlsrpt.Report) bool { return len(r.Organization) == 4096 }},
		{"an end before the start", doc(`04T23`, `03T23`), tlsrpt.NoteRange, "date-range", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, notes, err := tlsrpt.Read(strings.NewReader(c.text))
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, n := range notes {
				found = found || n.Code == c.code && n.Path == c.path
			}
			if !found {
				t.Errorf("no note %s at %q among %v", c.code, c.path, notes)
			}
			if c.check == nil {
				c.check = func(r *tlsrpt.Report) bool {
					return r.Start.Equal(time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)) && r.Policies[0].Successes == 3
				}
			}
			if len(r.Policies) != 1 || !c.check(r) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestAGoodReportHasNoNotes(t *testing.T) {
	if _, notes, err := tlsrpt.Read(strings.NewReader(doc(`1`, `1`))); err != nil || len(notes) > 0 {
		t.Errorf("%v, %v", notes, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(rfcExample))
	packed, err := tlsrpt.Compress([]byte(rfcExample))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte(doc(`{"total-successful-session-count":3,"total-failure-session-count":1}`, `[[[[]]]]`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, notes, err := tlsrpt.Read(bytes.NewReader(data))
		if len(notes) > 100 {
			t.Fatalf("%d notes", len(notes))
		}
		if errors.Is(err, tlsrpt.ErrNotReport) && json.Valid(data) && bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
			t.Fatalf("this is JSON: %v", err)
		}
		if err != nil || r.Validate() != nil {
			return
		}
		text, err := r.JSON()
		if err != nil || !json.Valid(text) {
			t.Fatalf("%s, %v", text, err)
		}
		again, _, err := tlsrpt.Read(bytes.NewReader(text))
		if diff := cmp.Diff(r, again, sameAddr, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}
