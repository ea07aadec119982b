package mta

import (
	"fmt"
	"strings"

	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// state is what became of the message as the receiving ends saw it; empty while
// it waits.
func (t *trial) state() lab.Outcome {
	switch {
	case t.Leak() != "":
		return lab.Leaked
	case t.Took() != "":
		return lab.Delivered
	case len(t.Bounces()) > 0:
		return lab.Bounced
	default:
		return ""
	}
}

// settled reports whether nothing more is waited for.
func (t *trial) settled() bool {
	return t.state() != "" || t.tries() >= quietTries || t.tries() == 0 && t.looked() >= quietLookups
}

// looked is how often the domain's MX was looked up for the message.
func (t *trial) looked() int { return t.Net.DNS.Queries(t.Domain.Name, "MX") - t.lookups }

// tries is how often the server came for the message, to one of the hosts.
func (t *trial) tries() int {
	at := make(map[string]int)
	most := 0
	for _, s := range t.Sessions() {
		if s.Addr.Port() != smtpPort {
			continue
		}
		at[s.Host]++
		most = max(most, at[s.Host])
	}
	return most
}

const smtpPort = 25

// observe takes down what became of the message while the attack was on. One
// that arrived in a later session than the first waited before that.
func (t *trial) observe() {
	c := &t.cell
	state := t.state()
	c.Transcript = t.Exchanges()
	switch {
	case state == "":
		c.Observed, c.Evidence = lab.Held, "it waits: "+t.tried()
	case t.Want.Then == state && t.Want.Until == 0 && t.tries() > 1:
		c.Observed, c.Became = lab.Held, state
		c.Evidence = fmt.Sprintf("it waited at first, and in the %s session %s", ordinal(t.tries()), t.arrived(state))
	default:
		c.Observed, c.Evidence = state, t.arrived(state)
	}
}

// arrived says who got the message, or what its sender was told.
func (t *trial) arrived(state lab.Outcome) string {
	switch state {
	case lab.Leaked:
		return t.Leak()
	case lab.Delivered:
		return t.Took()
	default:
		t.cell.Status = lab.Status(t.Bounces())
		return "it went back to its sender with " + t.cell.Status
	}
}

// tried says what is known of the attempts at a message that waits.
func (t *trial) tried() string {
	sessions := t.Sessions()
	for i := len(sessions) - 1; i >= 0; i-- {
		if sessions[i].Addr.Port() == smtpPort {
			return fmt.Sprintf("%d sessions, the last ended with %q", t.tries(), lastLine(sessions[i]))
		}
	}
	if n := t.looked(); n > 0 {
		return fmt.Sprintf("its MX was looked up %d times, and no host was connected to", n)
	}
	return "nothing was looked up and no host was connected to"
}

func lastLine(s *testnet.Session) string {
	lines := s.Lines()
	if len(lines) == 0 {
		return "nothing"
	}
	l := lines[len(lines)-1]
	return l.From + ": " + l.Text
}

func ordinal(n int) string {
	switch n {
	case 2:
		return "second"
	case 3:
		return "third"
	default:
		return fmt.Sprintf("%dth", n)
	}
}

// judge holds what was seen against what must be.
func (t *trial) judge(table *lab.Table, as string) lab.Cell {
	c, want := &t.cell, t.Want
	wrong := func(format string, args ...any) { c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...)) }
	switch {
	case c.Observed == lab.Delivered && want.Then == lab.Delivered && want.Until == 0:
		c.Then = ""
		c.Evidence += " (it need not have waited for that)"
	case c.Observed != want.Expect:
		wrong("expected %s, and it was %s", want.Expect, c.Observed)
	case want.Then != "" && want.Until > 0:
		c.Then = ""
		c.Evidence += fmt.Sprintf(" (that it is %s after %s is not waited for)", want.Then, want.Until.Std())
	case c.Became != want.Then:
		wrong("expected %s in the end, and it was not", want.Then)
	}
	if want.Status != "" && c.Status != want.Status {
		wrong("expected the status %s, and it was %s", want.Status, c.Status)
	}
	if t.Releases() && c.Observed == lab.Held && c.Released != lab.Delivered {
		wrong("expected it to leave safely once the attack was over, and it was %s: is its retry longer than the wait?", c.Released)
	}
	if c.Observed == lab.Leaked || c.Became == lab.Leaked {
		c.Closes = table.Closes(as, t.Column, want)
	}
	c.WantResults, c.OK = nil, len(c.Wrong) == 0
	c.Evidence = strings.TrimSpace(c.Evidence)
	return *c
}
