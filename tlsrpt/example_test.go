package tlsrpt_test

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/tlsrpt"
)

func ExampleSelectRecord() {
	// The TXT records of tlsrpt.RecordName("example.com"), the strings of each joined.
	txts := []string{"some-verification=1", "v=TLSRPTv1; rua=mailto:tls%2Breports@example.com,https://reports.example.com/v1"}

	record, err := tlsrpt.SelectRecord(txts)
	if err != nil {
		fmt.Println("no reports wanted:", err)
		return
	}
	for _, to := range record.RUA {
		fmt.Println(to.Scheme, to.Mailbox, to.Host)
	}
	// Output:
	// mailto tls+reports@example.com example.com
	// https  reports.example.com
}

func ExampleReport_JSON() {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	report := tlsrpt.Report{
		Organization: "Example", Contact: "tls@example.org", ID: "20260304@example.org",
		Start: day, End: day.Add(24*time.Hour - time.Second),
		Policies: []tlsrpt.Policy{{
			Type: tlsrpt.STS, Domain: "example.com", Strings: []string{"version: STSv1", "mode: enforce", "mx: mx.example.com", "max_age: 604800"},
			MXHosts: []string{"mx.example.com"}, Successes: 41, Failures: 1,
			Details: []tlsrpt.Detail{{
				Result: tlsrpt.CertificateExpired, SendingIP: netip.MustParseAddr("192.0.2.1"), MXHost: "mx.example.com", Sessions: 1,
			}},
		}},
	}
	text, err := report.JSON()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Count(string(text), "certificate-expired"), tlsrpt.Filename("example.org", "example.com", report.Start, report.End, "1", true))
	// Output: 1 example.org!example.com!1772582400!1772668799!1.json.gz
}

func ExampleRead() {
	report, notes, err := tlsrpt.Read(strings.NewReader(`{
		"organization-name": "Example", "report-id": "1",
		"date-range": {"start-datetime": "2026-03-04", "end-datetime": "2026-03-04T23:59:59Z"},
		"policies": [{"policy": {"policy-type": "sts", "policy-domain": "example.com", "mx-host": "mx.example.com"},
			"summary": {"total-successful-session-count": "41", "total-failure-session-count": 0}}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Organization, report.Policies[0].Domain, report.Policies[0].Successes)
	for _, n := range notes {
		fmt.Println(n)
	}
	// Output:
	// Example example.com 41
	// date-range.start-datetime: "2026-03-04" is not a date of RFC 3339; it is taken for 2026-03-04T00:00:00Z
	// policies[0].policy.mx-host: a string stands where an array belongs
	// policies[0].summary.total-successful-session-count: a string stands where a number belongs
	// contact-info: it is missing or empty
}
