// Package bounce writes delivery status notifications (RFC 3464, in the
// multipart/report of RFC 6522): what was not delivered, or not yet, to whom, why,
// and what the sender can do. [New] makes the queue's; [Notice] is one of them.
//
// A notification returns the original's header and nothing of its content: it
// may go to somebody who did not write it, and over connections that the
// original would not have taken.
package bounce

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pawl-mail/pawl/internal/smtp"
)

const (
	// maxHeader caps what is returned of the original's header, in bytes.
	maxHeader = 64 << 10
	// maxText caps a text that came from outside, in bytes, so that a line stays
	// within the 998 of RFC 5322 §2.1.1.
	maxText = 900
	// maxLine is the longest line that is returned without being encoded.
	maxLine = 998
)

// Action is what became of a recipient (RFC 3464 §2.3.3).
type Action string

// The actions that there are notifications of.
const (
	Failed  Action = "failed"
	Delayed Action = "delayed"
	Relayed Action = "relayed" // to a server that sends no notifications
)

// Recipient is one recipient that there is news of.
type Recipient struct {
	Action Action
	Addr   string // final recipient, as in RCPT
	ORcpt  string // original recipient, as in RCPT: "rfc822;…" (RFC 3461 §4.2); may be empty
	Status string // enhanced status code "5.1.1" (RFC 3463)
	Reply  string // what was said about it
	SMTP   bool   // a server said it, in SMTP
}

// Notice is a notification to be written.
type Notice struct {
	ID         string // of the notification: its Message-ID's left side
	Hostname   string // the reporting MTA
	To         string // the original's reverse path
	At         time.Time
	Arrived    time.Time // when the original came in
	EnvID      string    // RFC 3461 §4.4, decoded; may be empty
	Until      time.Time // what is delayed is tried until then
	Domain     string    // destination of the delivery
	Why        string    // one sentence
	Do         string    // one sentence; may be empty
	Recipients []Recipient
	Original   []byte // the original in wire form
}

// Write returns the notification in wire form. It is 7-bit but for the
// reverse path.
func (n Notice) Write() []byte {
	w := &writer{}
	boundary := "pawl-" + rand.Text()
	w.line("From: Mail delivery <MAILER-DAEMON@%s>", n.Hostname)
	w.line("To: <%s>", oneLine(n.To))
	w.line("Subject: %s", mime.QEncoding.Encode("utf-8", n.subject()+": your message to "+oneLine(n.Domain)))
	w.line("Date: %s", n.At.UTC().Format(time.RFC1123Z))
	w.line("Message-ID: <%s@%s>", n.ID, n.Hostname)
	w.line("Auto-Submitted: auto-replied") // RFC 3834 §5
	w.line("MIME-Version: 1.0")
	w.line("Content-Type: multipart/report; report-type=delivery-status;")
	w.line("\tboundary=\"%s\"", boundary)
	w.line("")
	w.line("--%s", boundary)
	n.writeText(w)
	w.line("--%s", boundary)
	n.writeStatus(w)
	w.line("--%s", boundary)
	n.writeHeader(w)
	w.line("--%s--", boundary)
	return w.Bytes()
}

type writer struct{ bytes.Buffer }

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(&w.Buffer, format, args...)
	w.WriteString("\r\n")
}

// quoted writes text in quoted-printable.
func (w *writer) quoted(text []byte, binary bool) {
	q := quotedprintable.NewWriter(w)
	q.Binary = binary
	// Writing to a buffer does not fail.
	_, _ = q.Write(text)
	_ = q.Close()
	w.WriteString("\r\n")
}

// subject says what matters most.
func (n Notice) subject() string {
	switch {
	case len(n.of(Failed)) > 0:
		return "Not delivered"
	case len(n.of(Delayed)) > 0:
		return "Delayed"
	default:
		return "Passed on"
	}
}

func (n Notice) of(a Action) []Recipient {
	return slices.DeleteFunc(slices.Clone(n.Recipients), func(r Recipient) bool { return r.Action != a })
}

// writeText writes the part for people.
func (n Notice) writeText(w *writer) {
	text := &writer{}
	n.list(text, Failed, "Your message could not be delivered to:")
	n.list(text, Delayed, "Your message has not been delivered yet to:")
	n.list(text, Relayed, "Your message was passed on to a server that will not tell you more, for:")
	if n.Why != "" {
		text.line("Why: %s", oneLine(n.Why))
	}
	if n.Do != "" {
		text.line("What to do: %s", oneLine(n.Do))
	}
	if len(n.of(Delayed)) > 0 {
		text.line("You need not send it again: it is tried until %s.", n.Until.UTC().Format(time.RFC1123Z))
	}
	text.line("")
	text.line("The message was taken in by %s on %s.", n.Hostname, n.Arrived.UTC().Format(time.RFC1123Z))
	text.line("Its header is attached; its content is not.")
	w.line("Content-Type: text/plain; charset=utf-8")
	w.line("Content-Transfer-Encoding: quoted-printable")
	w.line("")
	w.quoted(text.Bytes(), false)
}

// list writes the recipients of one action, if there are any.
func (n Notice) list(text *writer, a Action, title string) {
	recipients := n.of(a)
	if len(recipients) == 0 {
		return
	}
	text.line("%s", title)
	text.line("")
	for _, r := range recipients {
		text.line("  %s", oneLine(r.Addr))
		if r.Reply != "" {
			text.line("      %s", oneLine(r.Reply))
		}
	}
	text.line("")
}

// writeStatus writes the part for programs (RFC 3464 §2).
func (n Notice) writeStatus(w *writer) {
	w.line("Content-Type: message/delivery-status")
	w.line("")
	if n.EnvID != "" {
		w.line("Original-Envelope-Id: %s", ascii(n.EnvID)) // RFC 3464 §2.2.1
	}
	w.line("Reporting-MTA: dns; %s", n.Hostname)
	w.line("Arrival-Date: %s", n.Arrived.UTC().Format(time.RFC1123Z))
	for _, r := range n.Recipients {
		w.line("")
		if o, ok := smtp.ParseORcpt(r.ORcpt); ok {
			w.line("Original-Recipient: %s", address(o))
		}
		kind := "rfc822"
		if !isASCII(r.Addr) {
			kind = "utf-8"
		}
		w.line("Final-Recipient: %s", address(smtp.ORcpt{Type: kind, Addr: r.Addr}))
		w.line("Action: %s", r.Action)
		w.line("Status: %s", r.Status)
		switch {
		case r.Reply == "":
		case r.SMTP:
			w.line("Diagnostic-Code: smtp; %s", ascii(r.Reply))
		default:
			w.line("Diagnostic-Code: x-pawl; %s", ascii(r.Reply)) // RFC 3464 §2.1.2
		}
		if r.Action == Delayed {
			w.line("Will-Retry-Until: %s", n.Until.UTC().Format(time.RFC1123Z)) // RFC 3464 §2.3.8
		}
	}
}

// address writes an address with its type. One beyond ASCII is written in the
// form that 7-bit notifications have for it (RFC 6533 §3).
func address(o smtp.ORcpt) string {
	if o.Type == "utf-8" {
		kind, addr, _ := strings.Cut(o.String(), ";")
		return kind + "; " + cut(addr)
	}
	return o.Type + "; " + ascii(o.Addr)
}

// writeHeader returns the original's header (RFC 6522 §4; RFC 8689 §5).
func (n Notice) writeHeader(w *writer) {
	head := header(n.Original)
	switch {
	case plain(head):
		w.line("Content-Type: text/rfc822-headers")
		w.line("")
		w.Write(head)
		w.WriteString("\r\n")
		return
	case utf8.Valid(head) && !isASCII(string(head)):
		w.line("Content-Type: message/global-headers") // RFC 6533 §4
	default:
		w.line("Content-Type: text/rfc822-headers")
	}
	w.line("Content-Transfer-Encoding: quoted-printable")
	w.line("")
	w.quoted(head, false)
}

// header returns the header section of a message in wire form: the lines up to
// the first that is none of a header field (RFC 5322 §2.2). What has no header
// has nothing that could be returned.
func header(message []byte) []byte {
	end := 0
	for end < len(message) && end < maxHeader {
		n := bytes.IndexByte(message[end:], '\n') + 1
		if n == 0 {
			n = len(message) - end
		}
		line := message[end : end+n]
		folded := end > 0 && (line[0] == ' ' || line[0] == '\t')
		if !folded && !isField(line) || end+n > maxHeader {
			break
		}
		end += n
	}
	return message[:end]
}

// isField reports whether a line begins a header field.
func isField(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	for _, c := range line[:max(colon, 0)] {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return colon > 0
}

// plain reports whether a header can be returned as it is.
func plain(head []byte) bool {
	for line := range bytes.Lines(head) {
		if len(line) > maxLine+2 || !bytes.HasSuffix(line, []byte("\r\n")) {
			return false
		}
		for _, c := range line[:len(line)-2] {
			if c < ' ' && c != '\t' || c > '~' {
				return false
			}
		}
	}
	return true
}

// oneLine keeps text that came from outside from adding lines of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, cut(s))
}

// ascii is oneLine for what may only be ASCII.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, oneLine(s))
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
