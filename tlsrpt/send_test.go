package tlsrpt_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/tlsrpt"
)

func testMail(t *testing.T) tlsrpt.Mail {
	t.Helper()
	text, err := rfcReport().JSON()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := tlsrpt.Compress(text)
	if err != nil {
		t.Fatal(err)
	}
	return tlsrpt.Mail{
		From: "sts-reporting@company-x.example", To: "mts-sts-tlsrpt@company-y.example", Domain: "company-y.example", Submitter: "company-x.example",
		ReportID: "5065427c@company-x.example", MessageID: "m1@company-x.example", Date: time.Date(2016, 4, 2, 1, 2, 3, 0, time.UTC),
		Filename: "company-x.example!company-y.example!1459468800!1459555199.json.gz", Content: packed, Text: "This is a TLS report.",
	}
}

func TestRFC8460_5_3_TheMailOfAReport(t *testing.T) {
	raw, err := testMail(t).Message()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(raw), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("line %q", line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"From": "sts-reporting@company-x.example", "To": "mts-sts-tlsrpt@company-y.example",
		"TLS-Report-Domain": "company-y.example", "TLS-Report-Submitter": "company-x.example", "TLS-Required": "No",
		"Date": "Sat, 02 Apr 2016 01:02:03 +0000",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	subject := regexp.MustCompile(`^Report Domain: company-y\.example\s+Submitter: company-x\.example\s+Report-ID: <5065427c@company-x\.example>$`)
	if got := m.Header.Get("Subject"); !subject.MatchString(got) {
		t.Errorf("Subject: %q", got)
	}
	mediaType, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%s %v %v", mediaType, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	people, err := parts.NextPart()
	if err != nil || !strings.HasPrefix(people.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("the first part is not for people: %v", err)
	}
	machine, err := parts.NextPart()
	if err != nil || machine.Header.Get("Content-Type") != "application/tlsrpt+gzip" || machine.FileName() != testMail(t).Filename {
		t.Fatalf("the second part is not the report: %v, %v", machine, err)
	}
	got, notes, err := tlsrpt.Read(base64.NewDecoder(base64.StdEncoding, machine))
	if diff := cmp.Diff(rfcReport(), got, sameAddr); err != nil || diff != "" || len(notes) > 0 {
		t.Error(err, diff, notes)
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("there is a third part: %v", err)
	}
}

func TestNoFieldOfTheMailCanWriteAnother(t *testing.T) {
	for _, do := range []func(*tlsrpt.Mail){
		func(m *tlsrpt.Mail) { m.To = "a@b.test\r\nBcc: x@y.test" },
		func(m *tlsrpt.Mail) { m.From = "a b@c.test" },
		func(m *tlsrpt.Mail) { m.Domain = "b.test\r\nX: y" },
		func(m *tlsrpt.Mail) { m.Submitter = "" },
		func(m *tlsrpt.Mail) { m.ReportID = "x>\r\ny" },
		func(m *tlsrpt.Mail) { m.MessageID = "" },
		func(m *tlsrpt.Mail) { m.Filename = `a"; x="` },
		func(m *tlsrpt.Mail) { m.Text = "--boundary" },
		func(m *tlsrpt.Mail) { m.Text = "a\nb" },
	} {
		m := testMail(t)
		do(&m)
		if raw, err := m.Message(); err == nil {
			t.Errorf("made:\n%s", raw[:300])
		}
	}
}

// inbox is an HTTPS server that answers as it is told, with a certificate that
// nobody trusts.
func inbox(t *testing.T, status int, location string) (tlsrpt.Destination, *httptest.Server, *[]byte) {
	t.Helper()
	var got []byte
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/tlsrpt+gzip" || r.URL.Path != "/in" {
			t.Errorf("%s %s %s", r.Method, r.URL, r.Header.Get("Content-Type"))
		}
		got, _ = io.ReadAll(r.Body)
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "  it is\r\nso "+strings.Repeat("x", 1<<20))
	}))
	t.Cleanup(s.Close)
	d, err := tlsrpt.ParseDestination("https://rua.test/in")
	if err != nil {
		t.Fatal(err)
	}
	return d, s, &got
}

func poster(s *httptest.Server) *tlsrpt.Poster {
	return &tlsrpt.Poster{Roots: x509.NewCertPool(), Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Listener.Addr().String())
	}}
}

func TestRFC8460_5_4_Any2xxIsSuccessAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		status    int
		ok, final bool
	}{
		{200, true, false},
		{201, true, false},
		{202, true, false},
		{299, true, false},
		{301, false, false},
		{307, false, false},
		{400, false, true},
		{404, false, true},
		{408, false, false},
		{410, false, true},
		{429, false, false},
		{500, false, false},
		{503, false, false},
	} {
		to, s, got := inbox(t, c.status, "")
		a, err := poster(s).Post(t.Context(), to, []byte("report"))
		if err != nil || a.OK() != c.ok || a.Final() != c.final || a.Status != c.status || string(*got) != "report" {
			t.Errorf("%d: %+v, %v", c.status, a, err)
		}
		if len(a.Text) > 210 || !strings.HasPrefix(a.Text, "it is so ") {
			t.Errorf("text %q", a.Text)
		}
	}
}

func TestRFC8460_3_CertificateErrorsDoNotKeepAReport(t *testing.T) {
	to, s, _ := inbox(t, 200, "")
	a, err := poster(s).Post(t.Context(), to, []byte("report"))
	if err != nil || !a.OK() || a.Certificate == "" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestRedirectionsAreNotFollowed(t *testing.T) {
	_, other, stolen := inbox(t, 200, "")
	to, s, _ := inbox(t, 307, other.URL+"/in")
	a, err := poster(s).Post(t.Context(), to, []byte("report"))
	if err != nil || a.OK() || *stolen != nil {
		t.Errorf("%+v, %v, %q", a, err, *stolen)
	}
}

func TestNoAnswerIsAnError(t *testing.T) {
	to, s, _ := inbox(t, 200, "")
	p := poster(s)
	s.Close()
	if _, err := p.Post(t.Context(), to, nil); err == nil {
		t.Error("a server that is down took a report")
	}
	box, err := tlsrpt.MailtoURI("a@b.test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Post(t.Context(), box, nil); err == nil {
		t.Error("a mailbox was posted to")
	}
}
