package web

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/pawl-mail/pawl/internal/event"
)

func destinationURL(domain string) templ.SafeURL {
	return templ.SafeURL("/destination/" + url.PathEscape(domain))
}

func messageURL(id string) templ.SafeURL { return templ.SafeURL("/message/" + url.PathEscape(id)) }

// domainName writes a name so that a narrow column breaks it after a dot.
func domainName(name string) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, strings.ReplaceAll(templ.EscapeString(name), ".", ".<wbr>"))
		return err
	})
}

// prose writes a text of pawl's as a sentence, what stands in back quotes as code.
func prose(text string) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		var b strings.Builder
		parts := strings.Split(sentence(text), "`")
		for i, part := range parts {
			switch code := i%2 == 1; {
			case code && i == len(parts)-1: // a quote without its end
				b.WriteString("`" + templ.EscapeString(part))
			case code:
				b.WriteString("<code>" + templ.EscapeString(part) + "</code>")
			default:
				b.WriteString(templ.EscapeString(part))
			}
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// sentence gives a text its capital and its full stop. A text that begins with
// a name ("mx.example.com showed …") keeps it as it is.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	if word, _, _ := strings.Cut(s, " "); word != "pawl" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") == "" {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if strings.ContainsRune(".!?…:", rune(s[len(s)-1])) {
		return s
	}
	return s + "."
}

// span writes a duration in its one or two largest units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		return pair(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "min")
	default:
		return pair(int64(d/day), "d", int64(d%day/time.Hour), "h")
	}
}

func pair(n int64, unit string, m int64, smaller string) string {
	if m == 0 {
		return count(n) + " " + unit
	}
	return fmt.Sprintf("%s %s %d %s", count(n), unit, m, smaller)
}

func ago(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "–"
	case now.Sub(t) < time.Second:
		return "just now"
	default:
		return span(now.Sub(t)) + " ago"
	}
}

func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "–"
	case t.Sub(now) < time.Second:
		return "now"
	default:
		return "in " + span(t.Sub(now))
	}
}

// since and ahead write a time as its distance from now, the exact one beside it.
func since(t, now time.Time) templ.Component { return moment(ago(t, now), stamp(t), machine(t)) }

func ahead(t, now time.Time) templ.Component { return moment(until(t, now), stamp(t), machine(t)) }

func stamp(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func machine(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// orNull shows the null sender of a bounce (RFC 5321 §4.5.5) as such.
func orNull(from string) string {
	if from == "" {
		return "<> (a bounce)"
	}
	return from
}

// others counts the recipients of a delivery where there are several.
func others(recipients int) string {
	if recipients < 2 {
		return ""
	}
	return ", " + count(int64(recipients)) + " recipients"
}

func join(names []string) string { return strings.Join(names, ", ") }

func lines(ls []string) string { return strings.Join(ls, "\n") }

// few names the first of a list and counts the rest.
func few(names []string) string {
	if len(names) <= shownNames+1 { // "and 1 more" would say no less than the name
		return join(names)
	}
	return join(names[:shownNames]) + " and " + strconv.Itoa(len(names)-shownNames) + " more"
}

// count writes a number with its thousands apart.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	digits := len(strings.TrimPrefix(s, "-"))
	for digits > 3 {
		at := len(s) - 3 - strings.Count(s, ",")*4
		s = s[:at] + "," + s[at:]
		digits -= 3
	}
	return s
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// renewalFails says how often in a row.
func renewalFails(times int) string {
	if times < 2 {
		return "renewal fails"
	}
	return "renewal failed " + strconv.Itoa(times) + " times"
}

// shares writes what became of sessions, without what there was none of.
func shares(o Outcomes) string {
	var said []string
	for _, s := range o.shares() {
		if s.n > 0 {
			said = append(said, count(s.n)+" "+s.word)
		}
	}
	return join(said)
}

func severityClass(s event.Severity) string {
	switch s {
	case event.Error:
		return "bad"
	case event.Warning:
		return "warn"
	default:
		return ""
	}
}

func severityWord(s event.Severity) string {
	switch s {
	case event.Error:
		return "problem"
	case event.Warning:
		return "warning"
	default:
		return "note"
	}
}

func transportClass(t string) string {
	switch t {
	case "verified":
		return "good"
	case "encrypted":
		return "blue"
	case "clear":
		return "warn"
	default:
		return ""
	}
}

func transportWord(t string) string {
	switch t {
	case "verified":
		return "verified TLS"
	case "encrypted":
		return "TLS, not verified"
	case "clear":
		return "in clear"
	default:
		return "no session"
	}
}

// stateWord is a delivery's state as a heading.
func stateWord(state string) string {
	switch state {
	case "queued":
		return "Waiting"
	case "held":
		return "Held by hand"
	case "delivered":
		return "Delivered"
	case "failed":
		return "Failed"
	case "dropped":
		return "Dropped by hand"
	default:
		return state
	}
}

// headline says in a sentence how things stand.
func headline(o Overview) string {
	switch t := o.Totals; {
	case t.Held > 0:
		return count(t.Held) + plural(t.Held, " message is held back", " messages are held back")
	case t.sessions().Total() == 0 && t.Queued == 0:
		return "Ready for mail"
	default:
		return "No mail is held back"
	}
}

func subline(o Overview) string {
	t := o.Totals
	total := t.sessions().Total()
	switch {
	case t.Held > 0 && o.Mode != "observe":
		return "A policy forbids the connections that were to be had. Each is tried again by itself, and leaves once there is a safe one."
	case total == 0:
		return "There were no sessions in the last 24 hours."
	default:
		return fmt.Sprintf("Of %s TLS %s in the last 24 hours, %s had the host's identity verified.", count(total), plural(total, "session", "sessions"), percent(t.Verified, total))
	}
}

// percent never rounds up to all of it, nor down to nothing.
func percent(n, total int64) string {
	switch share := 100 * float64(n) / float64(total); {
	case n == total:
		return "all"
	case n == 0:
		return "none"
	case share >= 99.9:
		return "99.9 %"
	case share < 0.1:
		return "0.1 %"
	default:
		return strconv.FormatFloat(share, 'f', 1, 64) + " %"
	}
}

func recipientClass(state string) string {
	switch state {
	case "delivered":
		return "good"
	case "failed":
		return "bad"
	default:
		return ""
	}
}

// reportClass is how a report's state is coloured.
func reportClass(state string) string {
	switch state {
	case "sent":
		return "good"
	case "failed":
		return "bad"
	case "sending":
		return "blue"
	}
	return ""
}
