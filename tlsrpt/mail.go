package tlsrpt

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Media types of a report (RFC 8460 §6.4, §6.5).
const (
	TypeJSON = "application/tlsrpt+json"
	TypeGzip = "application/tlsrpt+gzip"
)

// Mail is a report as a message (RFC 8460 §5.3).
type Mail struct {
	From      string // mailbox of the submitter
	To        string // mailbox from the record
	Domain    string // the policy domain that the report is about
	Submitter string // the domain of the report's contact-info
	ReportID  string
	MessageID string // without angle brackets
	Date      time.Time
	Filename  string
	Content   []byte // the report, packed by [Compress]
	Text      string // for people; a sentence or two, ASCII
}

const (
	mimeLine = 76 // RFC 2045 §6.8
	crlf     = "\r\n"
)

// Message returns the message in wire form. It has to be signed by DKIM for the
// submitter's domain, without l= (RFC 8460 §3), before it is sent. It carries
// TLS-Required: No (RFC 8689 §3), since reports go out despite TLS failures.
func (m Mail) Message() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(m.ReportID + "\x00" + m.To))
	boundary := "tlsrpt-" + hex.EncodeToString(sum[:12]) // no line of base64 or of the text begins with "--"
	var b strings.Builder
	for _, line := range []string{
		"From: " + m.From,
		"To: " + m.To,
		"Date: " + m.Date.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000"),
		"Message-ID: <" + m.MessageID + ">",
		m.subject(),
		"TLS-Report-Domain: " + m.Domain,
		"TLS-Report-Submitter: " + m.Submitter,
		"TLS-Required: No",
		"Auto-Submitted: auto-generated", // RFC 3834 §5: nobody answers it by a machine
		"MIME-Version: 1.0",
		"Content-Type: multipart/report; report-type=\"tlsrpt\";" + crlf + "\tboundary=\"" + boundary + "\"",
		"",
		"--" + boundary,
		"Content-Type: text/plain; charset=us-ascii",
		"Content-Transfer-Encoding: 7bit",
		"",
		m.Text,
		"--" + boundary,
		"Content-Type: " + TypeGzip,
		"Content-Transfer-Encoding: base64",
		"Content-Disposition: attachment;" + crlf + "\tfilename=\"" + m.Filename + "\"",
		"",
	} {
		b.WriteString(line + crlf)
	}
	for text := base64.StdEncoding.EncodeToString(m.Content); text != ""; {
		n := min(len(text), mimeLine)
		b.WriteString(text[:n] + crlf)
		text = text[n:]
	}
	b.WriteString("--" + boundary + "--" + crlf)
	return []byte(b.String()), nil
}

// subject follows tlsrpt-subject of RFC 8460 §5.3, folded before each part.
func (m Mail) subject() string {
	id := m.ReportID
	if !strings.Contains(id, "@") {
		id += "@" + m.Submitter // id-left "@" id-right
	}
	return "Subject: Report Domain: " + m.Domain + crlf + "\tSubmitter: " + m.Submitter + crlf + "\tReport-ID: <" + id + ">"
}

// check refuses what would let one field write another.
func (m Mail) check() error {
	for _, mailbox := range []string{m.From, m.To} {
		if !IsMailbox(mailbox) {
			return fmt.Errorf("a report cannot be mailed from or to %s", excerpt(mailbox))
		}
	}
	for _, domain := range []string{m.Domain, m.Submitter} {
		if !IsDomain(domain) {
			return fmt.Errorf("a report cannot be mailed for %s: it is not a domain name in A-labels", excerpt(domain))
		}
	}
	for _, id := range []string{m.ReportID, m.MessageID, m.Filename} {
		if id == "" || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '<' || c == '>' || c == '"' || c == '\\' }) {
			return fmt.Errorf("%s cannot stand in a header field", excerpt(id))
		}
	}
	for line := range strings.SplitSeq(m.Text, crlf) {
		if len(line) > 998 || strings.HasPrefix(line, "--") || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c >= 0x7f }) {
			return fmt.Errorf("the text of a report's mail has the line %s, which is not plain ASCII", excerpt(line))
		}
	}
	return nil
}
