package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestInTranscriptModeAllThatIsSaidStandsInTheStoryUntilItEnds(t *testing.T) {
	w := newWorld(t, settings{})
	w.Domain("a.test", testnet.DomainOptions{})
	said := func() string {
		t.Helper()
		return strings.Join(w.want(letter{domain: "a.test"}, "delivered").Story.Tries[0].Lines, "\n")
	}
	if got := said(); got != "" {
		t.Errorf("without it: %s", got)
	}
	if err := w.out.Record("a.test", w.Clock.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"over a kept connection", "over a new one"} {
		if got := said(); !strings.Contains(got, "MAIL FROM:<x@sender.test>") || !strings.Contains(got, "RCPT TO:<a@a.test>") || strings.Contains(got, "noon") {
			t.Errorf("%s: %s", where, got)
		}
		w.out.Forget()
	}
	w.Clock.Advance(time.Hour)
	if got := said(); got != "" || len(w.out.Recordings()) != 0 {
		t.Errorf("an hour later: %s, %v", got, w.out.Recordings())
	}
}

func TestThereAreOnlySoManyTranscripts(t *testing.T) {
	d := New(Options{Now: time.Now})
	until := time.Now().Add(time.Hour)
	for i := range maxRecordings {
		if err := d.Record(fmt.Sprintf("d%d.test", i), until); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Record("more.test", until); !errors.Is(err, ErrRecordings) {
		t.Errorf("one more: %v", err)
	}
	if err := d.Record("d0.test", time.Time{}); err != nil {
		t.Error(err)
	}
	if err := d.Record("more.test", until); err != nil || len(d.Recordings()) != maxRecordings {
		t.Errorf("after one ended: %v, %d", err, len(d.Recordings()))
	}
}

func TestAnAttemptHasOneLineWithEverythingToSearchFor(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, settings{deliver: func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }})
	d := w.Domain("a.test", enforce())
	line := func(fate string) string {
		t.Helper()
		log.Reset()
		w.want(letter{domain: "a.test", change: func(d *queue.Delivery) { d.Received = w.Clock.Now().Add(-90 * time.Second) }}, fate)
		if strings.Count(log.String(), "\n") != 1 {
			t.Errorf("not one line: %s", log.String())
		}
		return log.String()
	}
	has := func(line string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(line, " "+want) {
				t.Errorf("no %s in %s", want, line)
			}
		}
	}
	has(line("delivered"), `msg="relay: delivered"`, "message=message", "delivery=delivery", "from=x@sender.test", "to=a@a.test", "domain=a.test",
		"mx=mx.a.test", "addr=192.0.2.1", "transport=verified", `tls="TLS 1.3 `, "policy=sts:a.test", `result=""`, "cell=2/absent/enforce", `reply="250 `, "attempt=1", "left=0", "delay=1m30s", "took=")
	d.On(testnet.MITMSelfSigned)
	w.out.Forget()
	has(line("held"), `msg="relay: not delivered"`, "to=a@a.test", "transport=none", "policy=sts:a.test", "result=certificate-not-trusted", "by_policy=true", `reply=""`, "left=1")
}

func TestARedactedStoryNamesNoMailbox(t *testing.T) {
	w := newWorld(t, settings{deliver: func(o *Options) { o.Redact = true }})
	d := w.Domain("a.test", testnet.DomainOptions{})
	d.MX().Script(testnet.AtRCPT, testnet.Action{Reply: "550 5.1.1 <a@a.test>: no such user"})
	r := w.want(letter{domain: "a.test"}, "failed")
	story := fmt.Sprintf("%+v", r.Story)
	if strings.Contains(story, "a@a.test") || strings.Contains(story, "x@sender") || !strings.Contains(story, "RCPT TO:<*@a.test>") {
		t.Errorf("the story: %s", story)
	}
	if got := r.Recipients[0].Reply; !strings.Contains(got, "<a@a.test>") {
		t.Errorf("the bounce would say %q", got) // it goes to who wrote to the mailbox
	}
}
