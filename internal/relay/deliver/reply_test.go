package deliver

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// about applies an action to the commands about one recipient.
func about(rcpt string) func(string) bool {
	return func(line string) bool { return strings.Contains(line, "<"+rcpt+">") }
}

func TestRepliesToTheTransaction(t *testing.T) {
	for name, c := range map[string]struct {
		at        testnet.Stage
		reply     string
		want      string
		hosts     int // that are asked
		throttled bool
	}{
		"421 to MAIL: the next host":                  {testnet.AtMAIL, "421 4.3.2 busy", "delivered", 2, true},
		"4yz to MAIL: the next host":                  {testnet.AtMAIL, "451 4.3.0 later", "delivered", 2, false},
		"4.7.x to MAIL asks for less":                 {testnet.AtMAIL, "450 4.7.1 too fast", "delivered", 2, true},
		"421 to RCPT: the next host":                  {testnet.AtRCPT, "421 4.3.2 busy", "delivered", 2, true},
		"4yz to RCPT is about the recipient":          {testnet.AtRCPT, "450 4.2.1 later", "deferred", 1, false},
		"greylisting asks for less":                   {testnet.AtRCPT, "450 4.7.1 greylisted", "deferred", 1, true},
		"5yz to RCPT":                                 {testnet.AtRCPT, "550 5.1.1 no such user", "failed", 1, false},
		"5yz to MAIL":                                 {testnet.AtMAIL, "550 5.7.1 not you", "failed", 1, false},
		"4yz to DATA":                                 {testnet.AtDATA, "451 4.3.0 later", "deferred", 1, false},
		"5yz to DATA":                                 {testnet.AtDATA, "554 5.5.1 no", "failed", 1, false},
		"4yz to the message":                          {testnet.AtMessage, "451 4.6.0 later", "deferred", 1, false},
		"5yz to the message":                          {testnet.AtMessage, "550 5.7.1 spam", "failed", 1, false},
		"4yz in the greeting: the next host":          {testnet.AtConnect, "450 4.3.2 later", "delivered", 2, false},
		"421 in the greeting: the next host":          {testnet.AtConnect, "421 4.3.2 busy", "delivered", 2, true},
		"5yz in the greeting: the next host":          {testnet.AtConnect, "554 5.3.2 no mail here", "delivered", 2, false},
		"5yz to EHLO under TLS: the next host":        {testnet.AtEHLOTLS, "550 5.7.1 no", "delivered", 2, false},
		"a reply that is none: the next host":         {testnet.AtEHLO, "hello", "delivered", 2, false},
		"552 to RCPT for a full mailbox is for good":  {testnet.AtRCPT, "552 5.2.2 full", "failed", 1, false},
		"452 to the only recipient is no crowd":       {testnet.AtRCPT, "452 4.5.3 too many", "deferred", 1, false},
		"a reply of several lines is one sentence":    {testnet.AtRCPT, "550-5.1.1 no\n550 5.1.1 such user", "failed", 1, false},
		"a reply with control characters is harmless": {testnet.AtRCPT, "550 5.1.1 no\x1b[2J", "failed", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{})
			d := w.Domain("a.test", two(enforce(), "a.test"))
			d.Hosts()[0].Script(c.at, testnet.Action{Reply: c.reply})
			r := w.want(letter{domain: "a.test"}, c.want)
			if got := hosts(r); len(got) != c.hosts || r.Throttled != c.throttled || r.DestinationDown {
				t.Errorf("tried %q, throttled %v, down %v", got, r.Throttled, r.DestinationDown)
			}
			if strings.ContainsAny(r.Story.Why, "\n\x1b") {
				t.Errorf("why: %q", r.Story.Why)
			}
		})
	}
}

func TestEachRecipientHasItsOwnFate(t *testing.T) {
	w := newWorld(t, settings{})
	mx := w.Domain("a.test", enforce()).MX()
	mx.Script(testnet.AtRCPT, testnet.Action{Reply: "550 5.1.1 no such user", Only: about("no@a.test")})
	mx.Script(testnet.AtRCPT, testnet.Action{Reply: "450 4.2.1 later", Only: about("later@a.test")})
	r := w.want(letter{domain: "a.test", to: []string{"no@a.test", "yes@a.test", "later@a.test"}}, "deferred, delivered, failed")
	var got []string
	for i := range 3 {
		got = append(got, string(r.Recipients[i].State)+": "+r.Recipients[i].Reply)
	}
	want := []string{"failed: 550 5.1.1 no such user", "delivered: 250 2.0.0 Taken", "pending: 450 4.2.1 later"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if !r.Story.OK || r.DestinationDown || !strings.HasSuffix(r.Why, "refused it for good: 550 5.1.1 no such user (1 delivered, 1 refused, 1 put off)") {
		t.Errorf("%+v", r)
	}
}

func TestRecipientsThatEndedAreNotOfferedAgain(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce())
	l := letter{domain: "a.test", to: []string{"done@a.test", "open@a.test", "gone@a.test"}, change: func(d *queue.Delivery) {
		d.Recipients[0].State, d.Recipients[2].State = queue.Delivered, queue.Failed
	}}
	r := w.send(l)
	if len(r.Recipients) != 1 || r.Recipients[1].State != queue.Delivered {
		t.Errorf("%+v", r.Recipients)
	}
	if got := w.Deliveries(); len(got) != 1 || !slices.Equal(got[0].To, []string{"open@a.test"}) {
		t.Errorf("%+v", got)
	}
}

func TestRFC5321_4_5_3_1_10_TooManyRecipientsAreSentAgainAtOnce(t *testing.T) {
	for _, reply := range []string{"452 4.5.3 too many", "452 too many", "552 5.5.3 too many", "552 too many"} {
		w := newWorld(t, settings{})
		mx := w.Domain("a.test", enforce()).MX()
		taken := 0
		mx.Script(testnet.AtMAIL, testnet.Action{Only: func(string) bool { taken = 0; return false }})
		mx.Script(testnet.AtRCPT, testnet.Action{Reply: reply, Only: func(string) bool { taken++; return taken > 2 }})
		var to []string
		for i := range 5 {
			to = append(to, "r"+strconv.Itoa(i)+"@a.test")
		}
		r := w.want(letter{domain: "a.test", to: to}, "delivered")
		if got := len(w.SessionsOf("mx.a.test")); got != 1 || len(r.Story.Tries) != 1 {
			t.Errorf("%s: %d sessions, tries:\n%s", reply, got, tries(r))
		}
		if got := len(w.Deliveries()); got != 3 {
			t.Errorf("%s: %d transactions", reply, got)
		}
		if why := r.Story.Why; !strings.HasSuffix(why, "it took the mail: 250 2.0.0 Taken") {
			t.Errorf("%s: %q", reply, why)
		}
	}
}

func TestNoTransactionHasMoreThanAHundredRecipients(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", testnet.DomainOptions{})
	var to []string
	for i := range 250 {
		to = append(to, "r"+strconv.Itoa(i)+"@a.test")
	}
	w.want(letter{domain: "a.test", to: to}, "delivered")
	var sizes []int
	for _, d := range w.Deliveries() {
		sizes = append(sizes, len(d.To))
	}
	if !slices.Equal(sizes, []int{100, 100, 50}) {
		t.Errorf("transactions of %v", sizes)
	}
}

func TestARefusalAtTheDoorIsFinalIfEveryHostSaysSo(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", two(testnet.DomainOptions{}, "a.test"))
	for _, h := range d.Hosts() {
		h.Script(testnet.AtConnect, testnet.Action{Reply: "554 5.3.2 no mail here"})
	}
	r := w.want(letter{domain: "a.test"}, "failed")
	if got := r.Recipients[0].Reply; got != "554 5.3.2 no mail here" {
		t.Errorf("reply %q", got)
	}
	if got := w.DNS.Queries("a.test", "MX"); got != 2 {
		t.Errorf("DNS was asked %d times, and should be asked anew before the bounce", got)
	}
	up := d.Hosts()[1].Script(testnet.AtConnect, testnet.Action{Reply: "450 4.3.2 later"})
	w.want(letter{domain: "a.test"}, "deferred")
	up()
	d.Hosts()[1].Down(testnet.Refuse)
	w.want(letter{domain: "a.test"}, "deferred")
}

// Attack 24.
func TestAForgedRefusalBeforeTLSIsHeldUnderAPolicy(t *testing.T) {
	for _, attack := range []testnet.Attack{testnet.ForgeGreeting, testnet.ForgeEHLO} {
		for _, c := range []struct {
			name   string
			o      testnet.DomainOptions
			letter letter
			want   string
		}{
			{"none", testnet.DomainOptions{}, letter{}, "failed"},
			{"testing", testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}}, letter{}, "failed"},
			{"enforce", enforce(), letter{}, "held"},
			{"DANE", testnet.DomainOptions{DANE: testnet.DANEEE}, letter{}, "held"},
			{"REQUIRETLS", enforce(), letter{requireTLS: true}, "failed"},
		} {
			w := newWorld(t, settings{})
			w.Domain("a.test", c.o).On(attack)
			c.letter.domain = "a.test"
			r := w.want(c.letter, c.want)
			switch {
			case c.want == "held" && (!strings.Contains(r.Why, "no word of the host's") || r.Story.Tries[0].Section != "RFC 8461 §5"):
				t.Errorf("%s under %s: %q, %+v", attack, c.name, r.Why, r.Story.Tries)
			case c.letter.requireTLS && !strings.HasPrefix(r.Recipients[0].Reply, "5.7.10 no host of a.test meets REQUIRETLS: "):
				t.Errorf("%s under %s: %q", attack, c.name, r.Recipients[0].Reply)
			}
		}
	}
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce()).On(testnet.ForgeBusy)
	if r := w.want(letter{domain: "a.test"}, "deferred"); !r.Throttled || !r.DestinationDown {
		t.Errorf("%+v", r)
	}
}

func TestAHandshakeThatFailsWithoutAPolicyIsFollowedByAConnectionInClear(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", testnet.DomainOptions{}).On(testnet.KillHandshake)
	r := w.want(letter{domain: "a.test"}, "delivered")
	if got := len(w.SessionsOf("mx.a.test")); got != 2 || w.arrived("a@a.test") != "clear" {
		t.Errorf("%d sessions, arrived %s", got, w.arrived("a@a.test"))
	}
	told := w.heard("a.test")
	if len(told) != 1 || told[0].Transport != "clear" || !told[0].Delivered {
		t.Errorf("told %+v", told)
	}
	if t1 := r.Story.Tries[0]; t1.Transport != "clear" || !strings.Contains(t1.Why, "closed the connection in the middle of the TLS handshake, and nothing demands TLS of it: the mail goes in clear; it took the mail") {
		t.Errorf("%+v", t1)
	}
	// The second connection may fail too; the mail did not go in clear then.
	w.Domain("b.test", testnet.DomainOptions{}).On(testnet.KillHandshake)
	n := 0
	w.Domain("b.test", testnet.DomainOptions{}).MX().Script(testnet.AtConnect, testnet.Action{Reply: "450 later", Only: func(string) bool { n++; return n == 2 }})
	w.want(letter{domain: "b.test"}, "deferred")
	if told := w.heard("b.test"); len(told) != 1 || told[0].Transport != "none" || told[0].Delivered {
		t.Errorf("told %+v", told)
	}
}

func TestAMessageWithoutAReplyMayComeTwiceAndIsNotLost(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", two(enforce(), "a.test"))
	d.Hosts()[0].Script(testnet.AtMessage, testnet.Action{Drop: true})
	r := w.want(letter{domain: "a.test"}, "deferred")
	if got := hosts(r); !slices.Equal(got, []string{"mx1.a.test"}) {
		t.Errorf("tried %q: another host might take a second copy", got)
	}
	if !strings.Contains(r.Why, "was sent the whole message and did not reply, so it may have taken it") || !strings.Contains(r.Do, "may come twice (RFC 5321 §6.1)") {
		t.Errorf("%q, %q", r.Why, r.Do)
	}
	if r.DestinationDown || r.Recipients[0].State != queue.Pending {
		t.Errorf("%+v", r)
	}
}

func TestAConnectionThatEndsInTheEnvelopeIsFollowedByTheNextHost(t *testing.T) {
	for _, at := range []testnet.Stage{testnet.AtConnect, testnet.AtEHLO, testnet.AtEHLOTLS, testnet.AtMAIL, testnet.AtRCPT, testnet.AtDATA} {
		w := newWorld(t, settings{})
		d := w.Domain("a.test", two(enforce(), "a.test"))
		d.Hosts()[0].Script(at, testnet.Action{Drop: true})
		r := w.want(letter{domain: "a.test"}, "delivered")
		if got := hosts(r); !slices.Equal(got, []string{"mx1.a.test", "mx2.a.test"}) {
			t.Errorf("at stage %v: tried %q", at, got)
		}
	}
}

func TestAHostThatSaysNothingRunsIntoItsTime(t *testing.T) {
	const short = 50 * time.Millisecond // all of it is waited for, so it costs no accuracy
	for at, c := range map[testnet.Stage]struct {
		timeouts client.Timeouts
		want     string
	}{
		testnet.AtConnect:   {client.Timeouts{Greeting: short}, "deferred"},
		testnet.AtHandshake: {client.Timeouts{Handshake: short}, "held"},
		testnet.AtDATA:      {client.Timeouts{Data: short}, "deferred"},
		testnet.AtMessage:   {client.Timeouts{End: short}, "deferred"},
	} {
		w := newWorld(t, settings{deliver: func(o *Options) { o.Timeouts = c.timeouts }})
		w.Domain("a.test", enforce()).MX().Script(at, testnet.Action{Hang: true})
		r := w.want(letter{domain: "a.test"}, c.want)
		if !strings.Contains(r.Why, "timeout") && !strings.Contains(r.Why, "in time") {
			t.Errorf("at stage %v: %q", at, r.Why)
		}
	}
}

func TestWhatTheHostDoesNotOffer(t *testing.T) {
	eight := func(d *queue.Delivery) { d.EightBit = true }
	utf8 := func(d *queue.Delivery) { d.SMTPUTF8 = true }
	for name, c := range map[string]struct {
		letter letter
		without,
		want, reply string
	}{
		"8BITMIME that the content needs":               {letter{text: "Subject: x\r\n\r\ngr\xc3\xbcn\r\n", change: eight}, "8BITMIME", "failed", "550 5.6.3 "},
		"8BITMIME that is only declared":                {letter{change: eight}, "8BITMIME", "delivered", "250 "},
		"SMTPUTF8 that the header needs":                {letter{text: "Subject: gr\xc3\xbcn\r\n\r\n", change: utf8}, "SMTPUTF8", "failed", "550 5.6.7 "},
		"SMTPUTF8 that is only declared":                {letter{change: utf8}, "SMTPUTF8", "delivered", "250 "},
		"SMTPUTF8 that the sender's address needs":      {letter{from: "gr\xc3\xbcn@sender.test", change: utf8}, "SMTPUTF8", "failed", "550 5.6.7 "},
		"SMTPUTF8 that the recipient's address needs":   {letter{to: []string{"gr\xc3\xbcn@a.test"}, change: utf8}, "SMTPUTF8", "failed", "550 5.6.7 "},
		"a SIZE that the message is over":               {letter{}, "SIZE", "failed", "552 5.3.4 "},
		"DSN parameters, which are left out":            {letter{change: func(d *queue.Delivery) { d.EnvID, d.Ret = "id", "HDRS" }}, "DSN", "delivered", "250 "},
		"everything offered and used, SMTPUTF8 at last": {letter{to: []string{"gr\xc3\xbcn@a.test"}, change: utf8}, "NOTHING", "delivered", "250 "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{})
			d := w.Domain("a.test", two(enforce(), "a.test"))
			for _, h := range d.Hosts() {
				reply := []string{"250-" + h.Name}
				for _, e := range []string{"PIPELINING", "SIZE 67108864", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"} {
					switch {
					case !strings.HasPrefix(e, c.without):
						reply = append(reply, "250-"+e)
					case c.without == "SIZE":
						reply = append(reply, "250-SIZE 10")
					}
				}
				h.Script(testnet.AtEHLOTLS, testnet.Action{Reply: strings.Join(append(reply, "250 REQUIRETLS"), "\n")})
			}
			c.letter.domain = "a.test"
			r := w.want(c.letter, c.want)
			if !strings.HasPrefix(r.Recipients[0].Reply, c.reply) {
				t.Errorf("reply %q, want %q", r.Recipients[0].Reply, c.reply)
			}
			// RFC 3461 §5.2.2: a host without DSN leaves notifications of success to us.
			if ours := r.Recipients[0].Relayed; ours != (c.without == "DSN") {
				t.Errorf("the notifications are left to us: %v", ours)
			}
			if tried := len(hosts(r)); c.want == "failed" && tried != 2 {
				t.Errorf("%d hosts were asked", tried)
			}
		})
	}
}

func TestAMessageThatOneHostCannotTakeGoesToAnother(t *testing.T) {
	w := newWorld(t, settings{})
	d := w.Domain("a.test", two(enforce(), "a.test"))
	d.Hosts()[0].Script(testnet.AtEHLOTLS, testnet.Action{Reply: "250-mx1.a.test\n250 SIZE 10"})
	w.want(letter{domain: "a.test"}, "delivered")
	if got := w.Delivered("a@a.test"); len(got) != 1 || got[0].Host != "mx2.a.test" {
		t.Errorf("it went to %v", got)
	}
	// While the other is down it is not known to be too large for all.
	d.Hosts()[1].Down(testnet.Refuse)
	w.out.Forget()
	if r := w.want(letter{domain: "a.test"}, "deferred"); r.DestinationDown {
		t.Error("the destination is called down for what one message is")
	}
}

func TestAMessageThatCannotBeSentAsItIsFailsAtOnce(t *testing.T) {
	for name, l := range map[string]letter{
		"a bare LF":             {text: "Subject: x\r\n\r\nsmuggled\n.\r\n"},
		"a sender that is none": {from: "x y@@"},
		"a recipient":           {to: []string{"a b@a.test"}},
	} {
		w := newWorld(t, settings{})
		w.Domain("a.test", two(enforce(), "a.test"))
		l.domain = "a.test"
		r := w.want(l, "failed")
		if !strings.HasPrefix(r.Recipients[0].Reply, "5.6.0 the message cannot be sent as it is: ") || len(r.Story.Tries) != 1 || r.DestinationDown {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// torn is a message whose file cannot be read to its end.
type torn struct{}

func (torn) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader(text), errReader{})), nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestAMessageThatCannotBeReadIsNotTheDestinationsFault(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", two(enforce(), "a.test"))
	m := letter{domain: "a.test"}.mail()
	m.content = torn{}
	r := w.out.deliver(t.Context(), m)
	if got := fate(letter{domain: "a.test"}, r); got != "deferred" || r.DestinationDown || len(r.Story.Tries) != 1 {
		t.Errorf("%s: %+v", got, r)
	}
	if !strings.Contains(r.Why, "could not be read: ") || !strings.Contains(r.Why, "input/output error") || !strings.Contains(r.Do, "data folder") {
		t.Errorf("%q, %q", r.Why, r.Do)
	}
	if got := w.Delivered("a@a.test"); len(got) != 0 {
		t.Errorf("a part was taken for the whole: %v", got)
	}
}

func TestAnAttemptThatIsBrokenOffSaysNothingOfTheDestination(t *testing.T) {
	for _, at := range []testnet.Stage{testnet.AtConnect, testnet.AtSTARTTLS, testnet.AtHandshake, testnet.AtMAIL} {
		w := newWorld(t, settings{})
		ctx, cancel := context.WithCancelCause(t.Context())
		mx := w.Domain("a.test", two(enforce(), "a.test")).Hosts()[0]
		mx.Script(at, testnet.Action{Hang: true, Only: func(string) bool {
			cancel(errors.New("pawl is told to stop"))
			return true
		}})
		r := w.out.deliver(ctx, letter{domain: "a.test"}.mail())
		if r.DestinationDown || r.ByPolicy || r.Why != "the attempt was broken off because pawl stops" || r.Do == "" {
			t.Errorf("at stage %v: %+v", at, r)
		}
		if told := w.heard("a.test"); at != testnet.AtMAIL && len(told) != 0 {
			t.Errorf("at stage %v: our own end was reported as %q", at, results(told))
		}
		if n := len(w.SessionsOf("mx2.a.test")); n != 0 {
			t.Errorf("at stage %v: another host was tried", at)
		}
	}
}

func TestAnAttemptThatRunsOutOfTime(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce())
	w.want(letter{domain: "a.test", waived: true}, "delivered") // so that only the host takes time
	w.Domain("a.test", enforce()).MX().Script(testnet.AtConnect, testnet.Action{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := w.out.deliver(ctx, letter{domain: "a.test"}.mail())
	if !strings.HasPrefix(r.Why, "the attempt was given up because it took too long") || r.ByPolicy || len(w.heard("a.test")) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestNothingIsAskedForADeliveryWithoutOpenRecipients(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", enforce())
	r := w.send(letter{domain: "a.test", change: func(d *queue.Delivery) { d.Recipients[0].State = queue.Delivered }})
	if len(r.Recipients) != 0 || r.DestinationDown || w.DNS.Queries("a.test", "MX") != 0 {
		t.Errorf("%+v", r)
	}
}
