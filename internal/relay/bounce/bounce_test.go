package bounce_test

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/bounce"
)

// notice is one with everything in it.
func notice() bounce.Notice {
	return bounce.Notice{
		ID: "0197a000-0000-7000-8000-000000000001", Hostname: "relay.example.org", To: "ann@example.org",
		At: time.Date(2026, 6, 6, 12, 0, 0, 0, time.UTC), Arrived: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC),
		EnvID: "QQ314159", Domain: "example.com",
		Why: "no host of example.com could be used.", Do: "Ask its postmaster.",
		Recipients: []bounce.Recipient{
			{Action: bounce.Failed, Addr: "bob@example.com", ORcpt: "rfc822;bob+2Ba@example.net", Status: "5.1.1", Reply: "550 5.1.1 no such user", SMTP: true},
			{Action: bounce.Failed, Addr: "carl@example.com", Status: "4.4.7", Reply: "it could not be delivered in 5 days"},
		},
		Original: []byte("From: Ann <ann@example.org>\r\nSubject: a\r\n secret\r\n\r\nThe content.\r\n"),
	}
}

// report is a notification as a program reads it.
type report struct {
	header mail.Header
	text   string
	status []textproto.MIMEHeader // of the message, then of each recipient
	kind   string                 // media type of the last part
	head   string
}

// parse reads a notification and checks its form (RFC 6522 §3).
func parse(t *testing.T, wire []byte) report {
	t.Helper()
	for i, line := range bytes.Split(wire, []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
			t.Errorf("line %d is too long or has a bare CR, LF or NUL: %.80q", i+1, line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(wire))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("the message is %q (%v), want multipart/report; report-type=delivery-status", m.Header.Get("Content-Type"), err)
	}
	r := report{header: m.Header}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for i, want := range []string{"text/plain", "message/delivery-status", ""} {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatalf("part %d: %v", i+1, err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil || want != "" && kind != want {
			t.Fatalf("part %d is %q (%v), want %q", i+1, kind, err, want)
		}
		var from io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			from = quotedprintable.NewReader(p)
		}
		body, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 0:
			r.text = string(body)
		case 1:
			r.status = groups(t, string(body))
		default:
			r.kind, r.head = kind, string(body)
		}
	}
	if _, err := parts.NextRawPart(); err != io.EOF {
		t.Errorf("there is a fourth part (%v)", err)
	}
	return r
}

// groups reads the groups of fields of a delivery-status part (RFC 3464 §2.1).
func groups(t *testing.T, body string) []textproto.MIMEHeader {
	t.Helper()
	var all []textproto.MIMEHeader
	for group := range strings.SplitSeq(strings.TrimSuffix(body, "\r\n"), "\r\n\r\n") {
		h, err := textproto.NewReader(newReader(group + "\r\n\r\n")).ReadMIMEHeader()
		if err != nil {
			t.Fatalf("the group %q: %v", group, err)
		}
		all = append(all, h)
	}
	return all
}

func TestRFC3464_2_ANotificationSaysWhatWasNotDelivered(t *testing.T) {
	r := parse(t, notice().Write())
	for name, want := range map[string]string{
		"From": "Mail delivery <MAILER-DAEMON@relay.example.org>", "To": "<ann@example.org>",
		"Subject": "Not delivered: your message to example.com", "Date": "Sat, 06 Jun 2026 12:00:00 +0000",
		"Message-Id": "<0197a000-0000-7000-8000-000000000001@relay.example.org>", "Auto-Submitted": "auto-replied", "Mime-Version": "1.0",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	wantText := strings.Join([]string{
		"Your message could not be delivered to:", "",
		"  bob@example.com", "      550 5.1.1 no such user",
		"  carl@example.com", "      it could not be delivered in 5 days", "",
		"Why: no host of example.com could be used.", "What to do: Ask its postmaster.", "",
		"The message was taken in by relay.example.org on Mon, 01 Jun 2026 12:00:00 +0000.",
		"Its header is attached; its content is not.", "",
	}, "\r\n")
	if strings.TrimSuffix(r.text, "\r\n") != strings.TrimSuffix(wantText, "\r\n") {
		t.Errorf("the text is\n%s\nwant\n%s", r.text, wantText)
	}
	want := []map[string]string{
		{"Original-Envelope-Id": "QQ314159", "Reporting-Mta": "dns; relay.example.org", "Arrival-Date": "Mon, 01 Jun 2026 12:00:00 +0000"},
		{
			"Original-Recipient": "rfc822; bob+a@example.net", "Final-Recipient": "rfc822; bob@example.com", "Action": "failed",
			"Status": "5.1.1", "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
		},
		{
			"Original-Recipient": "", "Final-Recipient": "rfc822; carl@example.com", "Action": "failed",
			"Status": "4.4.7", "Diagnostic-Code": "x-pawl; it could not be delivered in 5 days",
		},
	}
	if len(r.status) != len(want) {
		t.Fatalf("the status has %d groups, want %d", len(r.status), len(want))
	}
	for i, fields := range want {
		for name, value := range fields {
			if got := r.status[i].Get(name); got != value {
				t.Errorf("group %d: %s is %q, want %q", i, name, got, value)
			}
		}
	}
	if want := "From: Ann <ann@example.org>\r\nSubject: a\r\n secret\r\n"; r.kind != "text/rfc822-headers" || r.head != want {
		t.Errorf("returned is %s %q, want %q", r.kind, r.head, want)
	}
}

func TestOnlyTheHeaderOfTheOriginalIsReturned(t *testing.T) {
	long := "X-Long: " + strings.Repeat("a", 2000) + "\r\n"
	for _, c := range []struct{ name, original, kind, head string }{
		{"a header and a body", "A: b\r\nC: d\r\n\r\nsecret: x\r\n", "text/rfc822-headers", "A: b\r\nC: d\r\n"},
		{"no empty line between them", "A: b\r\nthe secret content\r\nmore: of it\r\n", "text/rfc822-headers", "A: b\r\n"},
		{"no header", "\r\nsecret: x\r\n", "text/rfc822-headers", ""},
		{"nothing but content", "the secret content\r\n", "text/rfc822-headers", ""},
		{"nothing", "", "text/rfc822-headers", ""},
		{"a folded field", "A: b\r\n c\r\n\td\r\n\r\nx\r\n", "text/rfc822-headers", "A: b\r\n c\r\n\td\r\n"},
		{"a header without an end", "A: b\r\nC: d", "text/rfc822-headers", "A: b\r\nC: d"},
		{"UTF-8 in the header", "Subject: Grüße\r\n\r\nx\r\n", "message/global-headers", "Subject: Grüße\r\n"},
		{"Latin-1 in the header", "Subject: Gr\xfc\xdfe\r\n\r\nx\r\n", "text/rfc822-headers", "Subject: Gr\xfc\xdfe\r\n"},
		{"a control character", "Subject: a\x00b\r\n\r\nx\r\n", "text/rfc822-headers", "Subject: a\x00b\r\n"},
		{"a line that is too long", long + "\r\nx", "text/rfc822-headers", long},
		{"more than 64 KiB", strings.Repeat("A: "+strings.Repeat("b", 1019)+"\r\n", 65) + "\r\nx", "text/rfc822-headers", strings.Repeat("A: "+strings.Repeat("b", 1019)+"\r\n", 64)},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := notice()
			n.Original = []byte(c.original)
			r := parse(t, n.Write())
			if strings.TrimSuffix(r.head, "\r\n") != strings.TrimSuffix(c.head, "\r\n") || r.kind != c.kind {
				t.Errorf("returned is %s %.200q, want %s %.200q", r.kind, r.head, c.kind, c.head)
			}
		})
	}
}

func TestTextFromOutsideCannotAddLines(t *testing.T) {
	const evil = "x\r\nBcc: eve@example.net\r\n\r\n--boundary\nAction: delivered\x00\x7f"
	n := notice()
	n.To, n.EnvID, n.Domain, n.Why, n.Do = "ann"+evil+"@example.org", evil, evil, evil, evil
	n.Recipients = []bounce.Recipient{
		{Action: bounce.Failed, Addr: "bob@example.com" + evil, ORcpt: "rfc822;" + evil, Status: "5.0.0", Reply: evil, SMTP: true},
		{Action: bounce.Failed, Addr: "bob@example.com" + evil, ORcpt: "utf-8;" + evil, Status: "5.0.0", Reply: evil + strings.Repeat("é", 5000)},
	}
	r := parse(t, n.Write())
	if got := r.header.Get("Bcc"); got != "" {
		t.Errorf("the header has a Bcc: %q", got)
	}
	if len(r.status) != 3 {
		t.Errorf("the status has %d groups, want 3", len(r.status))
	}
	for _, g := range r.status[1:] {
		if got := g["Action"]; len(got) != 1 || got[0] != "failed" {
			t.Errorf("a recipient's action is %q", got)
		}
	}
	if strings.Contains(r.text, "\nBcc:") {
		t.Errorf("the text has a line of its own:\n%s", r.text)
	}
}

func TestRFC6533_3_AnInternationalAddressIsWrittenInASCII(t *testing.T) {
	n := notice()
	n.To = "änn@example.org"
	n.Recipients = []bounce.Recipient{{Action: bounce.Failed, Addr: "jürgen@example.com", ORcpt: `utf-8;j\x{FC}rgen@example.net`, Status: "5.1.1", Reply: "550 5.1.1 wer?", SMTP: true}}
	wire := n.Write()
	r := parse(t, wire)
	if got, want := r.status[1].Get("Final-Recipient"), `utf-8; j\x{FC}rgen@example.com`; got != want {
		t.Errorf("the final recipient is %q, want %q", got, want)
	}
	if got, want := r.status[1].Get("Original-Recipient"), `utf-8; j\x{FC}rgen@example.net`; got != want {
		t.Errorf("the original recipient is %q, want %q", got, want)
	}
	if got := r.header.Get("To"); got != "<änn@example.org>" {
		t.Errorf("it goes to %q", got)
	}
	if rest := bytes.ReplaceAll(wire, []byte("ä"), nil); bytes.ContainsFunc(rest, func(r rune) bool { return r > '~' }) {
		t.Error("there is more beyond ASCII than the reverse path")
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("bob@example.com", "rfc822;a@b", "550 no", []byte("A: b\r\n\r\nc"))
	f.Add("b\r\n@", "utf-8;\\x{FC}", "\xff", []byte("A: b\r\n \r\n\xff"))
	f.Fuzz(func(t *testing.T, addr, orcpt, reply string, original []byte) {
		n := notice()
		n.Recipients = []bounce.Recipient{{Action: bounce.Failed, Addr: addr, ORcpt: orcpt, Status: "5.0.0", Reply: reply}}
		n.Why, n.Original = reply, original
		if r := parse(t, n.Write()); len(r.status) != 2 || len(r.status[1]["Action"]) != 1 {
			t.Errorf("the status is %v", r.status)
		}
	})
}
