package relay

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/rate"
	"github.com/pawl-mail/pawl/internal/smtp"
)

// Limits are how much mail is taken from whom: messages a minute, recipients an
// hour. 0 does not limit. A client is an IPv4 address or an IPv6 /64, a sender
// an address in MAIL FROM.
type Limits struct {
	ClientMessages, ClientRecipients       int
	SenderMessages, SenderRecipients       int
	SubmitterMessages, SubmitterRecipients int
	// NullRecipients is how many recipients one message from the null sender may
	// have: a notification goes to one, and who sends them to many sends backscatter.
	NullRecipients int
}

// counters are the limits with what was used of them.
type counters struct {
	client, sender, submitter counter
}

// counter limits one kind of party.
type counter struct {
	kind                 string
	messages, recipients *rate.Table
}

func newCounters(l Limits, now func() time.Time) counters {
	of := func(kind string, messages, recipients int) counter {
		return counter{
			kind: kind, messages: rate.New(rate.Limit{Burst: messages, Per: time.Minute}, now),
			recipients: rate.New(rate.Limit{Burst: recipients, Per: time.Hour}, now),
		}
	}
	return counters{
		client:    of("client", l.ClientMessages, l.ClientRecipients),
		sender:    of("sender", l.SenderMessages, l.SenderRecipients),
		submitter: of("submitter", l.SubmitterMessages, l.SubmitterRecipients),
	}
}

// parties are those whom a message counts for.
type parties struct {
	client, sender string
	submitter      string // "": there is none
}

func partiesOf(client netip.Addr, from smtp.Path, submitter string) parties {
	p := parties{client: rate.Client(client), sender: strings.ToLower(from.String()), submitter: submitter}
	if from.IsNull() {
		p.sender = "<> of " + p.client // it is not one sender
	}
	return p
}

// of lists the counters that hold for the parties.
func (c *counters) of(p parties) []entry {
	all := []entry{{c.client, p.client}, {c.sender, p.sender}}
	if p.submitter != "" {
		all = append(all, entry{c.submitter, p.submitter})
	}
	return all
}

type entry struct {
	counter
	party string
}

// message counts a message, or returns the refusal.
func (c *counters) message(p parties) error {
	return count(c.of(p), "messages a minute", func(e entry) *rate.Table { return e.messages })
}

// recipient counts a recipient, or returns the refusal.
func (c *counters) recipient(p parties) error {
	return count(c.of(p), "recipients an hour", func(e entry) *rate.Table { return e.recipients })
}

// count takes one from each, or from none.
func count(all []entry, what string, table func(entry) *rate.Table) error {
	for i, e := range all {
		wait, ok := table(e).Take(e.party, 1)
		if ok {
			continue
		}
		for _, before := range all[:i] {
			table(before).GiveBack(before.party, 1)
		}
		return smtp.Errorf(451, smtp.Enhanced{4, 7, 1}, "the %s %s has had its %s, the next can come in %s",
			e.kind, printable(e.party), what, max(time.Second, wait.Round(time.Second)))
	}
	return nil
}

// printable keeps an address that the client chose within ASCII and one line.
func printable(s string) string {
	quoted := fmt.Sprintf("%+q", s)
	return quoted[1 : len(quoted)-1]
}
