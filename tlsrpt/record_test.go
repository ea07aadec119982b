package tlsrpt_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/tlsrpt"
)

func uris(r tlsrpt.Record) (list []string) {
	for _, d := range r.RUA {
		list = append(list, d.URI)
	}
	return list
}

func TestRecordsAreReadByTheGrammar(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // nil: refused
	}{
		{"mailto", "v=TLSRPTv1;rua=mailto:reports@example.com", []string{"mailto:reports@example.com"}},
		{"https, and a delimiter at the end", "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt;", []string{"https://reporting.example.com/v1/tlsrpt"}},
		{"both, with blanks around the comma", "v=TLSRPTv1; rua=mailto:a@b.test \t, https://c.test/x?y=z", []string{"mailto:a@b.test", "https://c.test/x?y=z"}},
		{"a blank before the first semicolon", "v=TLSRPTv1 ; rua=mailto:a@b.test", []string{"mailto:a@b.test"}},
		{"rua twice: the first counts", "v=TLSRPTv1; rua=mailto:a@b.test; rua=mailto:c@d.test", []string{"mailto:a@b.test"}},
		{"a header field in the URI is not ours to set", "v=TLSRPTv1; rua=mailto:a@b.test?subject=x", []string{"mailto:a@b.test?subject=x"}},
		{"an unusable destination beside a good one", "v=TLSRPTv1; rua=ftp://x.test/,mailto:a@b.test!10m,mailto:a@b.test", []string{"mailto:a@b.test"}},
		{"no rua", "v=TLSRPTv1;", nil},
		{"other version", "v=TLSRPTv2; rua=mailto:a@b.test", nil},
		{"version in lower case", "v=tlsrptv1; rua=mailto:a@b.test", nil},
		{"two delimiters", "v=TLSRPTv1;; rua=mailto:a@b.test", nil},
		{"no mailbox", "v=TLSRPTv1; rua=mailto:", nil},
		{"two mailboxes in one URI", "v=TLSRPTv1; rua=mailto:a@b.test%2Cc@d.test", nil},
		{"a password in the URL", "v=TLSRPTv1; rua=https://u:p@b.test/", nil},
		{"plain http", "v=TLSRPTv1; rua=http://b.test/", nil},
		{"a line break in a mailbox", "v=TLSRPTv1; rua=mailto:a%0d%0aBcc:x@b.test", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := tlsrpt.ParseRecord(c.text)
			if (err == nil) != (c.want != nil) {
				t.Fatalf("%v", err)
			}
			if diff := cmp.Diff(c.want, uris(got)); diff != "" {
				t.Error(diff)
			}
			if err != nil {
				return
			}
			again, err := tlsrpt.ParseRecord(got.Text())
			if diff := cmp.Diff(got, again); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

func TestRFC8460_3_CommaExclamationPointAndSemicolonMustBeEncoded(t *testing.T) {
	d, err := tlsrpt.MailtoURI("a!b%c@example.com")
	if err != nil || d.URI != "mailto:a%21b%25c@example.com" || d.Mailbox != "a!b%c@example.com" || d.Host != "example.com" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"mailto:a!b@example.com", "mailto:a@example.com!10m", "https://example.com/a;b", "https://example.com/a,b"} {
		if _, err := tlsrpt.ParseDestination(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if d, err := tlsrpt.ParseDestination("https://Example.com/a%3Bb%2C%21"); err != nil || d.Host != "example.com" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestRFC8460_3_ExactlyOneRecordOrNone(t *testing.T) {
	good := "v=TLSRPTv1; rua=mailto:a@b.test"
	if r, err := tlsrpt.SelectRecord([]string{"v=spf1 -all", good, "v=TLSRPTv1"}); err != nil || len(r.RUA) != 1 {
		t.Errorf("records that do not begin with the version were not discarded: %v", err)
	}
	if _, err := tlsrpt.SelectRecord([]string{good, good}); !errors.Is(err, tlsrpt.ErrMultipleRecords) {
		t.Errorf("two records: %v", err)
	}
	if _, err := tlsrpt.SelectRecord([]string{"x"}); !errors.Is(err, tlsrpt.ErrNoRecord) {
		t.Errorf("none: %v", err)
	}
	var invalid *tlsrpt.RecordError
	if _, err := tlsrpt.SelectRecord([]string{"v=TLSRPTv1; rua"}); !errors.As(err, &invalid) {
		t.Errorf("an invalid one: %v", err)
	}
}

func TestRFC8460_3_UnknownFieldsAreIgnored(t *testing.T) {
	r, err := tlsrpt.ParseRecord("v=TLSRPTv1; ext.1=x:y; rua=mailto:a@b.test; z=1")
	want := []tlsrpt.Field{{Name: "ext.1", Value: "x:y"}, {Name: "z", Value: "1"}}
	if diff := cmp.Diff(want, r.Extensions); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestDestinationsAreCapped(t *testing.T) {
	r, warnings, err := tlsrpt.InspectRecord("v=TLSRPTv1; rua=" + strings.Repeat("mailto:a@b.test,", 99) + "mailto:a@b.test")
	if err != nil || len(r.RUA) != tlsrpt.MaxRUA || len(warnings) == 0 {
		t.Errorf("%d destinations, %v, %v", len(r.RUA), warnings, err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:a@b.test, https://c.test/?x=y; z=1;")
	f.Add("v=TLSRPTv1 ;rua=mailto:%40@b.test")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := tlsrpt.ParseRecord(text)
		if err != nil {
			return
		}
		again, err := tlsrpt.ParseRecord(r.Text())
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Fatalf("%q: %v\n%s", r.Text(), err, diff)
		}
		for _, d := range r.RUA {
			if strings.ContainsAny(d.Mailbox+d.Host, "\r\n \x00") {
				t.Fatalf("%q", d)
			}
		}
	})
}
