package relay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

func TestTheParametersOfMAILAndRCPTReachTheQueue(t *testing.T) {
	w := start(t, nil)
	w.talk(ours + underTLS + `
		C: MAIL FROM:<app@example.com> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=QQ+2B314 REQUIRETLS
		S: 250 …
		C: RCPT TO:<bob@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+2Bx@example.org
		S: 250 …
		C: RCPT TO:<"c d"@EXAMPLE.net> NOTIFY=NEVER
		S: 250 …
		C: RCPT TO:<eve@example.org>
		S: 250 …
		C: DATA
		S: 354 …
		C: Subject: grüße
		C:
		C: ..
		C: .
		S: 250 …
		C: MAIL FROM:<jürgen@example.com> SMTPUTF8 BODY=8BITMIME
		S: 250 …
		C: RCPT TO:<bob@münchen.example>
		S: 250 …
		C: BDAT 6
		C| "ab\r\ncd"
		S: 250 …
		C: BDAT 2 LAST
		C| "\r\n"
		S: 250 …
	`)
	all := w.taken()
	if len(all) != 2 {
		t.Fatalf("%d messages", len(all))
	}
	one, two := all[0], all[1]
	if m := one.Message; m.From != "app@example.com" || !m.EightBit || m.SMTPUTF8 || !m.RequireTLS || m.TLSOptional ||
		m.Ret != "HDRS" || m.EnvID != "QQ+314" || m.Client.String() != "192.0.2.1" || !m.Received.Equal(w.clock.Now()) {
		t.Errorf("the message is %+v", m)
	}
	if one.body != "Subject: grüße\r\n\r\n.\r\n" {
		t.Errorf("its body is %q", one.body)
	}
	var got []string
	for _, d := range one.deliveries {
		for _, r := range d.Recipients {
			got = append(got, fmt.Sprint(d.Domain, " ", r.Addr, " ", r.Notify, " ", r.ORcpt, " ", r.State))
		}
	}
	want := []string{
		`example.net bob@example.net SUCCESS,DELAY rfc822;bob+2Bx@example.org pending`,
		`example.net "c d"@EXAMPLE.net NEVER  pending`, `example.org eve@example.org   pending`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if m := two.Message; m.From != "jürgen@example.com" || !m.SMTPUTF8 || !m.EightBit || m.RequireTLS {
		t.Errorf("the second message is %+v", m)
	}
	if d := two.deliveries[0]; d.Domain != "xn--mnchen-3ya.example" || d.Recipients[0].Addr != "bob@münchen.example" || two.body != "ab\r\ncd\r\n" {
		t.Errorf("it goes to %s at %s: %q", d.Recipients[0].Addr, d.Domain, two.body)
	}
}

func TestRecipientsWithoutAWayAreRefused(t *testing.T) {
	w := start(t, nil)
	w.talk(ours + hello + `
		C: MAIL FROM:<app@example.com>
		S: 250 …
		C: RCPT TO:<Postmaster>
		S: 550 5.1.3 a recipient needs a domain; this relay has no mailboxes of its own
		C: RCPT TO:<bob@[192.0.2.1]>
		S: 550 5.1.2 mail to address literals is not relayed; write the recipient's domain
		C: RCPT TO:<bob@[IPv6:2001:db8::1]>
		S: 550 5.1.2 mail to address literals…
		C: DATA
		S: 554 5.5.1 no valid recipients
	`)
	w.none()
	w.refused(BadRecipient, 3)
}

func TestRFC5321_4_4_TheTraceSaysFromWhomByWhomAndHow(t *testing.T) {
	w := start(t, nil)
	w.talk(ours + hello + handIn)
	m := w.one()
	want := "Received: from client.example ([192.0.2.1])\tby relay.example.org (pawl) with ESMTP\tid " + m.ID +
		"\tfor <bob@example.net>;\tMon, 01 Jun 2026 12:00:00 +0000"
	if m.received != want {
		t.Errorf("got  %q\nwant %q", m.received, want)
	}
}

func TestRFC3848_TheTraceSaysWithWhichProtocol(t *testing.T) {
	w := start(t, nil)
	utf8 := strings.Replace(handIn, "<app@example.com>", "<app@example.com> SMTPUTF8", 1)
	for _, script := range []string{
		ours + "S: 220 …\nC: HELO client.example\nS: 250 relay.example.org\n" + handIn,
		ours + hello + handIn, ours + underTLS + handIn, ours + underTLS + "AUTH ann secret\nS: 235 …\n" + handIn, ours + underTLS + "AUTH ann secret\nS: 235 …\n" + utf8,
		ours + hello + utf8,
	} {
		w.talk(script)
	}
	var got []string
	for _, m := range w.taken() {
		_, with, _ := strings.Cut(m.received, " with ")
		with, _, _ = strings.Cut(with, "\t")
		with, _, _ = strings.Cut(with, " TLS_") // which one, Go chooses by the processor
		got = append(got, with)
	}
	want := []string{"SMTP", "ESMTP", "ESMTPS (TLS 1.3", "ESMTPSA (TLS 1.3", "UTF8SMTPSA (TLS 1.3", "UTF8SMTP"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWithSeveralRecipientsTheTraceNamesNone(t *testing.T) {
	w := start(t, nil)
	w.talk(ours + hello + strings.Replace(handIn, "C: DATA", "C: RCPT TO:<secret@example.org>\nS: 250 …\nC: DATA", 1))
	if m := w.one(); strings.Contains(m.received, " for ") || strings.Contains(m.received, "secret") {
		t.Errorf("the trace is %s", m.received)
	}
}

func TestRFC5321_6_3_AMessageThatGoesInCirclesEnds(t *testing.T) {
	hops := func(n int) string {
		return strings.Replace(handIn, "C: Subject", strings.Repeat("C: received: from a by b;\nC: \ttoday\n", n)+"C: Subject", 1)
	}
	w := start(t, nil)
	w.talk(ours + hello + hops(maxReceived-1) + strings.Replace(hops(maxReceived), "S: 250 2.0.0 queued as …", "S: 554 5.4.6 the message has passed 100 hosts; it goes in circles", 1))
	w.one()
	w.refused(Loop, 1)
	// What stands in the body has passed nobody.
	w.talk(ours + hello + strings.Replace(handIn, "C: text", strings.Repeat("C: Received: from a by b; today\n", 2*maxReceived)+"C: text", 1))
}

func TestALargeMessageIsTakenAsItIs(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello + "C: MAIL FROM:<app@example.com>\nS: 250 …\nC: RCPT TO:<bob@example.net>\nS: 250 …\nC: DATA\nS: 354 …")
	body := "Subject: large\r\nTLS-Required: No\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 11_000) // behind what is read ahead
	c.Send([]byte(body + ".\r\n"))
	c.Talk("S: 250 2.0.0 queued as …")
	if m := w.one(); m.body != body {
		t.Errorf("the body has %d octets, want %d", len(m.body), len(body))
	}
	if s := w.relay.Stats(); s.NotWaived != 1 {
		t.Errorf("its header was not read: %+v", s)
	}
}

func TestAQueueThatCannotTakeAMessageLeavesItWithTheClient(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello)
	w.must(w.db.Close())
	c.Talk(strings.Replace(handIn, "S: 250 2.0.0 queued as …", "S: 451 4.3.0 the message could not be stored; try again later", 1))
	w.refused(NotStored, 1)
}

// waiving is a message with these header fields, and whether TLS was waived.
func (w *world) waiving(from, login, param, fields string) bool {
	w.Helper()
	before := w.relay.Stats()
	script := strings.Replace(handIn, "C: Subject", fields+"C: Subject", 1)
	script = strings.Replace(script, "<app@example.com>", "<app@example.com>"+param, 1)
	w.talk(from + underTLS + login + script)
	all := w.taken()
	m := all[len(all)-1]
	after := w.relay.Stats()
	if got := after.Waived > before.Waived; got != m.TLSOptional {
		w.Errorf("counted %v, queued %v", got, m.TLSOptional)
	}
	if !strings.HasPrefix(m.body, strings.ReplaceAll(strings.ReplaceAll(fields, "C: ", ""), "\n", "\r\n")) {
		w.Errorf("the header was changed: %q", m.body)
	}
	return m.TLSOptional
}

const (
	asAnn = "AUTH ann secret\nS: 235 …\n"
	asBob = "AUTH bob secret\nS: 235 …\n"
)

func TestRFC8689_3_TLSRequiredNoCountsFromWhomItWasGrantedTo(t *testing.T) {
	const no = "C: TLS-Required: No\n"
	w := start(t, nil)
	for _, tc := range []struct {
		name, from, login string
		want              bool
	}{
		{"a submitter who was granted it", foreign, asAnn, true},
		{"a submitter who was not", foreign, asBob, false},
		{"a network that was granted it", waiver, "", true},
		{"a submitter who was not, in a network that was", waiver, asBob, true},
		{"a network that only relays", ours, "", false},
	} {
		if got := w.waiving(tc.from, tc.login, "", no); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if s := w.relay.Stats(); s.Waived != 3 || s.NotWaived != 2 {
		t.Errorf("counted: %+v", s)
	}
}

func TestRFC8689_3_TLSRequiredIsOneFieldWithTheValueNo(t *testing.T) {
	w := start(t, nil)
	for _, tc := range []struct {
		name, fields string
		want         bool
	}{
		{"as the standard writes it", "C: TLS-Required: No\n", true},
		{"in other letters", "C: tls-required:NO\n", true},
		{"folded", "C: TLS-Required:\nC:  No\n", true},
		{"behind other fields", "C: From: a@example.com\nC: TLS-Required: No\n", true},
		{"another value", "C: TLS-Required: Yes\n", false},
		{"the value and more", "C: TLS-Required: No, thanks\n", false},
		{"a comment behind it", "C: TLS-Required: No (really)\n", false},
		{"no value", "C: TLS-Required:\n", false},
		{"a blank before the colon", "C: TLS-Required : No\n", false},
		{"twice", "C: TLS-Required: No\nC: TLS-Required: No\n", false},
		{"twice, with two values", "C: TLS-Required: No\nC: TLS-Required: Yes\n", false},
		{"in a folded line of another field", "C: X-Note: a\nC:  TLS-Required: No\n", false},
		{"behind a line that is no field", "C: this is no field\nC: TLS-Required: No\n", false},
		{"in the body", "C: From: a@example.com\nC: \nC: TLS-Required: No\n", false},
	} {
		if got := w.waiving(foreign, asAnn, "", tc.fields); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestMailOfMailingListsAndNewslettersIsBulk(t *testing.T) {
	w := start(t, nil)
	for _, tc := range []struct {
		name, fields string
		want         bool
	}{
		{"a message to somebody", "C: From: a@example.com\n", false},
		{"to a list", "C: List-Id: <l.example.com>\n", true},
		{"a newsletter", "C: list-unsubscribe: <https://example.com/u>\n", true},
		{"by its own word", "C: Precedence: bulk\n", true},
		{"by its own word, in other letters", "C: precedence:  LIST\n", true},
		{"another word", "C: Precedence: first-class\n", false},
		{"in the body", "C: From: a@example.com\nC: \nC: Precedence: bulk\n", false},
	} {
		w.waiving(ours, "", "", tc.fields)
		all := w.taken()
		if got := all[len(all)-1].Bulk; got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestRFC8689_4_1_TheParameterREQUIRETLSBeatsTheHeader(t *testing.T) {
	w := start(t, nil)
	if w.waiving(foreign, asAnn, " REQUIRETLS", "C: TLS-Required: No\n") {
		t.Error("the header beat the parameter")
	}
	if m := w.one(); !m.RequireTLS {
		t.Error("the message does not require TLS")
	}
}

func TestRFC8689_2_REQUIRETLSIsOfferedAndTakenUnderTLSOnly(t *testing.T) {
	w := start(t, nil) // hello and underTLS say where it is offered
	w.talk(ours + hello + "C: MAIL FROM:<app@example.com> REQUIRETLS\nS: 555 5.5.4 parameter REQUIRETLS is not offered here, it needs TLS first")
	w.talk(ours + underTLS + "C: MAIL FROM:<app@example.com> REQUIRETLS\nS: 250 …")
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("Received: a\r\n b\r\nTLS-Required: No\r\n\r\nbody\r\n"))
	f.Add([]byte("TLS-Required:\r\n\tNo\r\n"))
	f.Add([]byte(": \r\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		h := cutHeader(message)
		if len(h.text) > len(message) || len(h.text) > maxHeader+len(message) {
			t.Fatal("the header is longer than the message")
		}
		fields := strings.Count(strings.ToLower(string(h.text)), "tls-required:")
		if h.tlsRequiredNo() && (fields == 0 || !h.whole) {
			t.Errorf("waived by %q", h.text)
		}
		if n := h.received(); n > len(message) {
			t.Errorf("%d hosts", n)
		}
	})
}

var _ Queue = (*queue.Queue)(nil)
