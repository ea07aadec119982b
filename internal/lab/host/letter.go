package host

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// write composes a letter.
func (h *Host) write(r Run, l letter) []byte {
	var m letterText
	m.line("From: pawl lab <%s>", h.site.Start())
	m.line("To: <%s>", r.Sender)
	m.line("Date: %s", h.now().UTC().Format(time.RFC1123Z))
	m.line("Message-ID: <%s.%s@%s>", r.Token, l, h.site.Domain)
	m.line("Auto-Submitted: auto-replied") // RFC 3834 §5
	m.line("MIME-Version: 1.0")
	m.line("Content-Type: text/plain; charset=us-ascii")
	m.line("Content-Transfer-Encoding: 7bit")
	if l == answer {
		h.writeAnswer(&m, r)
	} else {
		h.writeVerdict(&m, r, l)
	}
	return []byte(m.String())
}

// letterText is a message being written.
type letterText struct{ strings.Builder }

func (m *letterText) line(format string, args ...any) {
	m.WriteString(fmt.Sprintf(format, args...) + "\r\n")
}

// writeAnswer is the answer to a mail to start@.
func (h *Host) writeAnswer(m *letterText, r Run) {
	tests, without := h.site.Tests()
	var addresses []string
	for _, t := range tests {
		addresses = append(addresses, h.site.address(r.Token, t))
	}
	m.line("Subject: pawl lab: reply to this mail, and your server is tested")
	m.line("Reply-To: <%s>", strings.Join(addresses, ">,\r\n <"))
	m.line("")
	m.line("Reply to this mail, in one mail to all of the addresses in its Reply-To field:")
	m.line("its header tells where it went. What you write is of no matter, and is not kept.")
	m.line("If your mail program does not put all of them into To, copy them from here:")
	m.line("")
	for _, a := range addresses {
		m.line("  %s", a)
	}
	m.line("")
	m.line("Each is a domain of its own. With some all is well, or there is no policy that")
	m.line("holds: the mail must arrive. With the others the receiving host is not what the")
	m.line("domain's policy says, as if somebody were in the path: the mail must wait with")
	m.line("your server, which may tell you so, and come back to you in the end.")
	m.line("")
	m.line("The verdict comes %s after the first mail has arrived, or sooner if all have.", duration(h.o.Wait))
	m.line("The addresses are to be used within a day.")
	if len(without) > 0 {
		m.line("")
		m.line("Not tested here: %s.", h.site.whyWithout())
	}
	m.line("")
	m.line("You get this because a mail from %s came from", r.Sender)
	m.line("%s at %s, proven by %s. If that was not you,", r.From, r.Began.UTC().Format("2006-01-02 15:04 MST"), r.Proof)
	m.line("nothing needs to be done.")
}

// writeVerdict is what came of it.
func (h *Host) writeVerdict(m *letterText, r Run, l letter) {
	results := h.site.results(r, &h.visits)
	m.line("Subject: %s", subject(results, l))
	m.line("")
	wrap(m, "", fmt.Sprintf("What came of your mail to the tests at %s, begun %s, from %s:",
		h.site.Domain, r.Began.UTC().Format("2006-01-02 15:04 MST"), list(r.clients())))
	m.line("")
	for _, of := range []Mechanism{MTASTS, DANE} {
		wrap(m, "", fmt.Sprintf("%s %s", of, summary(of, results)))
	}
	for _, fate := range []Fate{Arrive, Hold} {
		m.line("")
		m.line("Mail that must %s:", fate)
		for _, x := range results {
			if x.Test.Fate == fate {
				writeResult(m, x)
			}
		}
	}
	writeFixes(m, results)
	m.line("")
	m.line("Times are UTC. Whether your server verified a certificate that was good cannot be")
	m.line("seen from here; that it did not where it was bad, can.")
	if l == verdict {
		m.line("If more arrives later, you are told again.")
	}
}

func subject(results []Result, l letter) string {
	right, unseen := 0, 0
	for _, x := range results {
		switch x.State {
		case Right:
			right++
		case Unseen:
			unseen++
		}
	}
	text := fmt.Sprintf("pawl lab: %d of %d tests went as they must", right, len(results)-unseen)
	if unseen > 0 {
		text += fmt.Sprintf(", %d were not seen", unseen)
	}
	if l == amendment {
		text += " (more has arrived since the last verdict)"
	}
	return text
}

// clients are the addresses that a run's mail came from.
func (r Run) clients() []string {
	clients := []string{r.From.String()}
	for _, a := range r.Also {
		clients = append(clients, a.String())
	}
	return clients
}

// writeFixes writes what to do about what went wrong, each piece of advice once.
func writeFixes(m *letterText, results []Result) {
	var fixes []string
	wrong := make(map[string][]Result)
	for _, x := range results {
		if x.State != Wrong {
			continue
		}
		fix := fixOf(x.Test, results)
		if wrong[fix] == nil {
			fixes = append(fixes, fix)
		}
		wrong[fix] = append(wrong[fix], x)
	}
	for _, fix := range fixes {
		m.line("")
		for _, x := range wrong[fix] {
			why := strings.ReplaceAll(x.Test.Section, "§", "section ") // a letter is ASCII
			if x.Test.Attack != "" && x.Test.Fate == Hold {
				why += ", `pawl lab --only " + x.Test.Attack + "`"
			}
			wrapAfter(m, "  ", "    ", fmt.Sprintf("%s: %s (%s).", x.Test.Name, x.Test.Is, why))
		}
		wrapAfter(m, "What to do: ", "  ", fix)
	}
}

// fixOf is a test's fix, or that of its mechanism where a sender knows nothing of
// it.
func fixOf(t Test, results []Result) string {
	held := slices.ContainsFunc(results, func(r Result) bool { return r.Test.Of == t.Of && r.Test.Fate == Hold && r.State == Right })
	switch {
	case held || t.Fate == Arrive && !t.hasRogue():
		return t.Fix
	case t.Of == DANE:
		return fixDANE
	default:
		return fixSTS
	}
}

// writeResult writes what came of one test.
func writeResult(m *letterText, x Result) {
	text := x.Was
	if x.Seen != "" {
		text += ": " + x.Seen
	}
	wrapAfter(m, fmt.Sprintf("  %-16s %-6s ", x.Test.Name, x.State), strings.Repeat(" ", 26), text)
}

// width is of the letters' lines.
const width = 79

// wrap writes text in lines that begin with an indent.
func wrap(m *letterText, indent, text string) { wrapAfter(m, indent, indent, text) }

// wrapAfter does so after a first line that has a beginning of its own.
func wrapAfter(m *letterText, first, indent, text string) {
	line, begun := first, false
	for word := range strings.FieldsSeq(text) {
		switch {
		case !begun:
			begun = true
			line += word
		case len(line)+1+len(word) > width:
			m.line("%s", line)
			line = indent + word
		default:
			line += " " + word
		}
	}
	m.line("%s", line)
}

// duration is a time for people: "30 minutes".
func duration(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return d.String()
}

// whyWithout says what is not tested, and why.
func (s Site) whyWithout() string {
	var parts []string
	if !s.DNSSEC {
		parts = append(parts, "DANE, as the zone is not signed")
	}
	if len(s.Clear) == 0 {
		parts = append(parts, "hosts without STARTTLS, as there is no second address")
	}
	return strings.Join(parts, "; ")
}
