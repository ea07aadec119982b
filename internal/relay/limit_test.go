package relay

import (
	"strings"
	"testing"
	"time"
)

// envelope is a message up to its content, given up.
const envelope = `
	C: MAIL FROM:<app@example.com>
	S: 250 2.1.0 go on
	C: RSET
	S: 250 2.0.0 reset
`

func TestMessagesOfAClientAreLimitedPerMinute(t *testing.T) {
	w := start(t, func(o *Options) { o.Limits.ClientMessages = 2 })
	c := w.talk(ours + hello + envelope + envelope + `
		C: MAIL FROM:<other@example.com>
		S: 451 4.7.1 the client 192.0.2.1 has had its messages a minute, the next can come in 30s
	`)
	w.talk(waiver + hello + envelope) // another client
	w.clock.pass(30 * time.Second)
	c.Talk(envelope + "C: MAIL FROM:<app@example.com>\nS: 451 4.7.1 …")
	w.refused(OverLimit, 2)
}

func TestRecipientsOfAClientAreLimitedPerHour(t *testing.T) {
	w := start(t, func(o *Options) { o.Limits.ClientRecipients = 2 })
	w.talk(ours + hello + `
		C: MAIL FROM:<app@example.com>
		S: 250 …
		C: RCPT TO:<a@example.net>
		S: 250 …
		C: RCPT TO:<b@example.net>
		S: 250 …
		C: RCPT TO:<c@example.net>
		S: 451 4.7.1 the client 192.0.2.1 has had its recipients an hour, the next can come in 30m0s
		C: DATA
		S: 354 …
		C: .
		S: 250 2.0.0 queued as …
	`)
	if m := w.one(); len(m.deliveries[0].Recipients) != 2 {
		t.Errorf("it goes to %v", m.deliveries[0].Recipients)
	}
}

func TestASenderIsLimitedWhereverItComesFrom(t *testing.T) {
	w := start(t, func(o *Options) { o.Limits.SenderMessages = 1 })
	w.talk(ours + hello + envelope)
	w.talk(waiver + hello + `
		C: MAIL FROM:<App@Example.com>
		S: 451 4.7.1 the sender app@example.com has had its messages a minute, the next can come in 1m0s
		C: MAIL FROM:<other@example.com>
		S: 250 …
	`)
}

func TestASubmitterIsLimitedWhateverItSendsAs(t *testing.T) {
	w := start(t, func(o *Options) { o.Limits.SubmitterMessages, o.Limits.SubmitterRecipients = 1, 1 })
	w.talk(foreign + underTLS + asAnn + `
		C: MAIL FROM:<one@example.com>
		S: 250 …
		C: RCPT TO:<a@example.net>
		S: 250 …
		C: RCPT TO:<b@example.net>
		S: 451 4.7.1 the submitter ann has had its recipients an hour, the next can come in 1h0m0s
		C: RSET
		S: 250 …
		C: MAIL FROM:<two@example.com>
		S: 451 4.7.1 the submitter ann has had its messages a minute, the next can come in 1m0s
	`)
	w.talk(foreign + underTLS + asBob + envelope)
}

func TestWhatOneLimitRefusesIsNotCountedByTheOthers(t *testing.T) {
	w := start(t, func(o *Options) { o.Limits.ClientMessages, o.Limits.SenderMessages = 2, 1 })
	w.talk(ours + hello + envelope + strings.Repeat("C: MAIL FROM:<app@example.com>\nS: 451 4.7.1 the sender …\n", 5) + `
		C: MAIL FROM:<other@example.com>
		S: 250 …
	`)
}

func TestBackscatterOneNotificationGoesToFewRecipients(t *testing.T) {
	w := start(t, nil) // allows 2
	w.talk(ours + hello + `
		C: MAIL FROM:<>
		S: 250 …
		C: RCPT TO:<a@example.net>
		S: 250 …
		C: RCPT TO:<b@example.net>
		S: 250 …
		C: RCPT TO:<c@example.net>
		S: 452 4.5.3 a message from the null sender goes to 2 recipients at most
		C: RSET
		S: 250 …
		C: MAIL FROM:<app@example.com>
		S: 250 …
		C: RCPT TO:<a@example.net>
		S: 250 …
		C: RCPT TO:<b@example.net>
		S: 250 …
		C: RCPT TO:<c@example.net>
		S: 250 …
	`)
	w.refused(OverLimit, 1)
}

func TestTheNullSenderIsOneSenderPerClient(t *testing.T) {
	w := start(t, func(o *Options) { o.Limits.SenderMessages = 1 })
	const null = "C: MAIL FROM:<>\nS: 250 …\nC: RSET\nS: 250 …\n"
	w.talk(ours + hello + null + "C: MAIL FROM:<>\nS: 451 4.7.1 the sender <> of 192.0.2.1 has had …")
	w.talk(waiver + hello + null)
}

func TestConnectionsOfAClientAreLimited(t *testing.T) {
	w := start(t, func(o *Options) { o.PerClient = 1 })
	c := w.talk(ours + hello)
	w.talk(ours + "S: 421 4.7.0 too many connections from you, try again later\nEND")
	w.talk(waiver + hello)
	c.Talk("C: NOOP\nS: 250 …")
	if s := w.relay.Stats(); s.TurnedAway != 1 {
		t.Errorf("counted: %+v", s)
	}
}
