package bounce_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/relay/bounce"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

func newReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }

var now = time.Date(2026, 6, 6, 12, 0, 0, 0, time.UTC)

func newQueue(t *testing.T, d *db.DB, o queue.Options) *queue.Queue {
	t.Helper()
	o.DB, o.Spool, o.Now, o.After, o.Log = d, t.TempDir(), time.Now, time.After, slog.New(slog.DiscardHandler)
	o.Lifetime, o.RetryFirst, o.RetryMax, o.History = 24*time.Hour, time.Hour, time.Hour, 24*time.Hour
	o.Concurrency, o.Destination = 4, 4
	q, err := queue.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// made makes the bounce of a failure; nil if none is due.
func made(t *testing.T, f queue.News) (*queue.Submission, error) {
	t.Helper()
	q := newQueue(t, dbtest.SQLite(t), queue.Options{})
	f.Open = func() ([]byte, error) { return []byte("Subject: a\r\n\r\nThe content.\r\n"), nil }
	return bounce.New(bounce.Options{Hostname: "relay.example.org", Now: func() time.Time { return now }, Body: q.Body})(t.Context(), f)
}

func failure(m queue.Message, failed ...queue.Recipient) queue.News {
	return queue.News{Delivery: queue.Delivery{Message: m, ID: "d", Domain: "example.com"}, Failed: failed, Why: "it was refused"}
}

func bob(notify string) queue.Recipient {
	return queue.Recipient{Addr: "bob@example.com", Notify: notify, State: queue.Failed, Reply: "550 5.1.1 who?"}
}

func TestWhoIsToldOfAFailure(t *testing.T) {
	ann := queue.Message{From: "ann@Example.ORG"}
	for _, c := range []struct {
		name string
		f    queue.News
		due  bool
	}{
		{"a sender who said nothing", failure(ann, bob("")), true},
		{"RFC 3461 §4.1: a sender who asked for it", failure(ann, bob("SUCCESS,FAILURE")), true},
		{"RFC 3461 §4.1: in small letters", failure(ann, bob("delay,failure")), true},
		{"RFC 3461 §4.1: not a sender who said NEVER", failure(ann, bob("NEVER")), false},
		{"RFC 3461 §4.1: not a sender who asked for other things", failure(ann, bob("SUCCESS,DELAY")), false},
		{"a sender who asked for it for one recipient of two", failure(ann, bob("NEVER"), bob("FAILURE")), true},
		{"RFC 5321 §4.5.5: not the null sender", failure(queue.Message{}, bob("")), false},
		{"nobody where nothing failed", failure(ann), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := made(t, c.f)
			if err != nil {
				t.Fatal(err)
			}
			if (s != nil) != c.due {
				t.Fatalf("a bounce was made: %v, want %v", s != nil, c.due)
			}
			if s == nil {
				return
			}
			r := s.Recipients[0]
			if s.From != "" || len(s.Recipients) != 1 || r.Addr != "ann@Example.ORG" || r.Domain != "example.org" || r.Notify != "NEVER" {
				t.Errorf("the bounce goes from %q to %+v", s.From, s.Recipients)
			}
		})
	}
}

func TestABounceIsProtectedAsItsOriginalWas(t *testing.T) {
	for _, c := range []struct {
		name       string
		m          queue.Message
		requireTLS bool
		utf8       bool
	}{
		{"RFC 8689 §5: REQUIRETLS is passed on", queue.Message{From: "ann@example.org", RequireTLS: true}, true, false},
		{"no REQUIRETLS of its own", queue.Message{From: "ann@example.org", TLSOptional: true}, false, false},
		{"SMTPUTF8 for an international reverse path", queue.Message{From: "änn@bücher.example", SMTPUTF8: true}, false, true},
		{"no SMTPUTF8 for an ASCII reverse path", queue.Message{From: "ann@example.org", SMTPUTF8: true}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := made(t, failure(c.m, bob("")))
			if err != nil {
				t.Fatal(err)
			}
			if s.RequireTLS != c.requireTLS || s.SMTPUTF8 != c.utf8 || s.EightBit != c.utf8 || s.TLSOptional {
				t.Errorf("the bounce is %+v", s.Message)
			}
			if c.utf8 && s.Recipients[0].Domain != "xn--bcher-kva.example" {
				t.Errorf("it goes to the domain %q, want A-labels", s.Recipients[0].Domain)
			}
		})
	}
}

func TestThereIsNoBounceToNowhere(t *testing.T) {
	for _, from := range []string{"postmaster", "ann@", "ann@[192.0.2.1]", "ann@a..b"} {
		if s, err := made(t, failure(queue.Message{From: from}, bob(""))); !errors.Is(err, bounce.ErrNoWay) {
			t.Errorf("to %q a bounce was made: %v (%v), want ErrNoWay", from, s != nil, err)
		}
	}
}

func TestTheStatusIsFoundInWhatWasSaid(t *testing.T) {
	for reply, want := range map[string]string{
		"550 5.1.1 who?":           "5.1.1 smtp",
		"550 who?":                 "5.0.0 smtp",
		"452 4.2.2 full":           "4.2.2 smtp",
		"5.1.2 there is no domain": "5.1.2 x-pawl",
		"no host could be used":    "4.4.7 x-pawl",
		"5.7.1234 x":               "4.4.7 x-pawl",
		"550":                      "5.0.0 smtp",
	} {
		r := bob("")
		r.Reply = reply
		d := dbtest.SQLite(t)
		var got string
		q := newQueue(t, d, queue.Options{})
		f := failure(queue.Message{From: "ann@example.org"}, r)
		f.Open = func() ([]byte, error) { return nil, errors.New("it is gone") }
		s, err := bounce.New(bounce.Options{Hostname: "relay.example.org", Now: func() time.Time { return now }, Body: q.Body})(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		group := parse(t, through(t, d, s)).status[1]
		kind, _, _ := strings.Cut(group.Get("Diagnostic-Code"), ";")
		if got = group.Get("Status") + " " + kind; got != want {
			t.Errorf("%q gives %q, want %q", reply, got, want)
		}
	}
}

// through hands a bounce to a queue and returns it as it is delivered.
func through(t *testing.T, d *db.DB, s *queue.Submission) []byte {
	t.Helper()
	q := newQueue(t, d, queue.Options{})
	if _, err := q.Enqueue(t.Context(), *s); err != nil {
		t.Fatal(err)
	}
	return delivered(t, q, s.Recipients[0].Addr)
}

// delivered runs a queue until something is delivered to an address, and refuses
// everything else.
func delivered(t *testing.T, q *queue.Queue, to string) []byte {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var body []byte
	err := q.Run(ctx, func(_ context.Context, j *queue.Job) queue.Result {
		if j.Recipients[0].Addr != to {
			r := j.Recipients[0]
			r.State, r.Reply = queue.Failed, "550 5.1.1 who?"
			return queue.Result{Recipients: map[int]queue.Recipient{0: r}, Why: "it was refused"}
		}
		defer cancel()
		r, err := j.Open()
		if err != nil {
			t.Error(err)
			return queue.Result{}
		}
		defer r.Close()
		if body, err = io.ReadAll(r); err != nil {
			t.Error(err)
		}
		return queue.Result{Recipients: map[int]queue.Recipient{0: {State: queue.Delivered}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestAFailureInTheQueueBecomesABounce(t *testing.T) {
	var q *queue.Queue
	q = newQueue(t, dbtest.SQLite(t), queue.Options{Bounce: bounce.New(bounce.Options{
		Hostname: "relay.example.org", Now: func() time.Time { return now }, Body: func() *queue.Body { return q.Body() },
	})})
	b := q.Body()
	if _, err := b.Write([]byte("Subject: a\r\n\r\nThe content.\r\n")); err != nil {
		t.Fatal(err)
	}
	_, err := q.Enqueue(t.Context(), queue.Submission{
		Message: queue.Message{From: "ann@example.org"}, Body: b,
		Recipients: []queue.Destined{{Recipient: queue.Recipient{Addr: "bob@example.com"}, Domain: "example.com"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := parse(t, delivered(t, q, "ann@example.org"))
	if got := r.status[1].Get("Final-Recipient"); got != "rfc822; bob@example.com" {
		t.Errorf("the bounce is for %q", got)
	}
	if r.head != "Subject: a\r\n" || strings.Contains(r.text, "The content") {
		t.Errorf("the bounce returns %q", r.head)
	}
}

func TestRFC3461_4_1_WhoIsToldOfADelayOrOfASuccess(t *testing.T) {
	ann := queue.Message{From: "ann@example.org"}
	waits := func(notify string) queue.News {
		return queue.News{
			Delivery: queue.Delivery{Message: ann, ID: "d", Domain: "example.com", Expires: now.Add(96 * time.Hour)},
			Delayed:  []queue.Recipient{{Addr: "bob@example.com", Notify: notify, State: queue.Pending, Reply: "550 5.7.5 not under TLS"}}, Why: "it waits",
		}
	}
	passed := func(notify string) queue.News {
		return queue.News{
			Delivery: queue.Delivery{Message: ann, ID: "d", Domain: "example.com"},
			Relayed:  []queue.Recipient{{Addr: "bob@example.com", Notify: notify, State: queue.Delivered, Reply: "250 ok", Relayed: true}},
		}
	}
	for _, c := range []struct {
		name string
		news queue.News
		want []string // nil: nothing is sent
	}{
		{"a delay, to who said nothing", waits(""), []string{
			"Subject: Delayed: your message to example.com", "You need not send it again", "Action: delayed", "Status: 4.7.5",
			"Will-Retry-Until: Wed, 10 Jun 2026 12:00:00 +0000",
		}},
		{"a delay, to who asked", waits("FAILURE,DELAY"), []string{"Action: delayed"}},
		{"no delay, to who asked for other things", waits("FAILURE"), nil},
		{"no delay, to who said NEVER", waits("NEVER"), nil},
		{"a success, to who asked (§5.2.2)", passed("SUCCESS"), []string{"Subject: Passed on", "Action: relayed", "Status: 2.0.0", "Diagnostic-Code: smtp; 250 ok"}},
		{"no success, to who did not ask", passed(""), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := dbtest.SQLite(t)
			q := newQueue(t, d, queue.Options{})
			c.news.Open = func() ([]byte, error) { return []byte("Subject: a\r\n\r\n"), nil }
			s, err := bounce.New(bounce.Options{Hostname: "relay.example.org", Now: func() time.Time { return now }, Body: q.Body})(t.Context(), c.news)
			if err != nil {
				t.Fatal(err)
			}
			if (s != nil) != (c.want != nil) {
				t.Fatalf("a notification was made: %v", s != nil)
			}
			if s == nil {
				return
			}
			text := string(through(t, d, s))
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
		})
	}
}
