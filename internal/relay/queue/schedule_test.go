package queue_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
)

func TestAMessageIsDeliveredAtOnce(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.send("bob@example.com")
		try := w.next()
		if got := try.body(w); got != letter {
			w.Errorf("the body is %q, want %q", got, letter)
		}
		try.delivered()
		w.settle()
		w.want(id, queue.AllDelivered, "")
		w.quiet(6 * time.Hour)
	})
}

func TestAMessageIsSplitByDestinationDomain(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.send("a@one.example", "b@two.example", "c@one.example")
		var got []string
		for range 2 {
			try := w.next()
			for _, r := range try.Recipients {
				got = append(got, try.Domain+": "+r.Addr)
			}
			try.delivered()
		}
		slices.Sort(got)
		want := []string{"one.example: a@one.example", "one.example: c@one.example", "two.example: b@two.example"}
		if !slices.Equal(got, want) {
			w.Errorf("deliveries were made for %q, want %q", got, want)
		}
		w.settle()
		found, err := w.q.OfMessage(w.Context(), "", id)
		if err != nil || len(found) != 2 {
			w.Fatalf("the message has %d deliveries (%v), want 2", len(found), err)
		}
	})
}

func TestTheWaitDoublesUpToTheLongestWithJitter(t *testing.T) {
	change := func(o *queue.Options) { o.RetryFirst, o.RetryMax = 5*time.Minute, time.Hour }
	each(t, change, func(w *world) {
		w.send("bob@example.com")
		last := time.Now()
		w.next().later("mailbox full")
		for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
			want *= time.Minute
			try := w.within(2 * time.Hour)
			waited := time.Since(last)
			if waited < want || waited > want+want/5+time.Second {
				w.Errorf("after %d attempts it waited %s, want %s to %s", try.Attempts, waited, want, want+want/5)
			}
			last = time.Now()
			try.later("mailbox full")
		}
	})
}

func TestAtTheEndOfTheLifetimeThereIsOneLastTryAndABounce(t *testing.T) {
	var q *queue.Queue
	var told []queue.News
	change := func(o *queue.Options) {
		told = nil
		o.Lifetime, o.RetryFirst, o.RetryMax = 3*time.Hour, 30*time.Minute, 2*time.Hour
		o.Bounce = func(_ context.Context, f queue.News) (*queue.Submission, error) {
			original, err := f.Open()
			if err != nil || string(original) != letter {
				t.Errorf("the bounce sees %q of the original (%v), want all of it", original, err)
			}
			told = append(told, f)
			return notice(q, f), nil
		}
	}
	each(t, change, func(w *world) {
		q = w.q
		began := time.Now()
		id := w.send("bob@example.com")
		for {
			try := w.within(3 * time.Hour)
			if !try.Last {
				try.later("450 try later")
				continue
			}
			if at := time.Since(began); at != 3*time.Hour {
				w.Errorf("the last try was made after %s, want 3h", at)
			}
			try.later("450 never mind")
			break
		}
		bounce := w.next()
		if got := bounce.body(w); bounce.From != "" || bounce.Recipients[0].Addr != "ann@example.org" || got != "not delivered: bob@example.com" {
			w.Errorf("the bounce goes from %q to %q and says %q", bounce.From, bounce.Recipients[0].Addr, got)
		}
		bounce.delivered()
		d := w.want(id, queue.SomeFailed, "450 never mind")
		if got := d.Recipients[0]; got.State != queue.Failed || got.Reply != "450 never mind" {
			w.Errorf("the recipient is %s (%q), want failed", got.State, got.Reply)
		}
		if len(told) != 1 {
			w.Errorf("%d bounces were asked for, want 1", len(told))
		}
		w.quiet(3 * time.Hour)
	})
}

// notice is a small bounce.
func notice(q *queue.Queue, f queue.News) *queue.Submission {
	b := q.Body()
	fmt.Fprintf(b, "not delivered: %s", f.Failed[0].Addr)
	return &queue.Submission{Body: b, Recipients: []queue.Destined{{
		Recipient: queue.Recipient{Addr: f.Delivery.From}, Domain: queue.Domain(f.Delivery.From),
	}}}
}

func TestWhileADestinationIsDownOneDeliveryIsTriedADifferentOneEachTime(t *testing.T) {
	each(t, nil, func(w *world) {
		ids := []string{w.send("a@example.com"), w.send("b@example.com"), w.send("c@example.com")}
		var probed []string
		for range 3 {
			try := w.within(2 * time.Hour)
			probed = append(probed, try.Recipients[0].Addr)
			w.quiet(patience) // no second one beside it
			try.down("connection refused")
		}
		slices.Sort(probed)
		if want := []string{"a@example.com", "b@example.com", "c@example.com"}; !slices.Equal(probed, want) {
			w.Errorf("tried were %q, want each once", probed)
		}
		w.settle()
		d := w.only(ids[0])
		if wait := time.Until(d.Next); wait < 19*time.Minute || wait > 24*time.Minute {
			w.Errorf("it says that it is tried in %s; the third wait is 20 to 24 minutes", wait)
		}
		w.within(25 * time.Minute).delivered() // and then all of the others at once
		w.next().delivered()
		w.next().delivered()
		w.settle()
		for _, id := range ids {
			w.want(id, queue.AllDelivered, "")
		}
	})
}

func TestWhatWaitsBehindOtherMailSaysWhy(t *testing.T) {
	each(t, nil, func(w *world) {
		first := w.next2("a@example.com", "b@example.com")
		first.forbidden("the certificate is for another name")
		w.settle()
		all, err := w.q.List(w.Context(), queue.Filter{ByPolicy: true})
		if err != nil || len(all) != 2 {
			w.Fatalf("a policy makes %d deliveries wait (%v), want 2", len(all), err)
		}
		var whys []string
		for _, d := range all {
			if !d.ByPolicy || d.Do != "Look at the policy." || d.Next.Before(time.Now().Add(4*time.Minute)) {
				w.Errorf("shown as %+v", d)
			}
			whys = append(whys, d.Why)
		}
		slices.Sort(whys)
		want := []string{"the certificate is for another name", "waits behind other mail for example.com: the certificate is for another name"}
		if !slices.Equal(whys, want) {
			w.Errorf("they say %q, want %q", whys, want)
		}
		s, err := w.q.Stats(w.Context())
		if err != nil || s.Queued != 2 || s.ByPolicy != 2 || s.Down != 1 {
			w.Errorf("counted %+v (%v), want 2 queued, both by policy, 1 down", s, err)
		}
	})
}

// next2 sends two messages and returns the attempt at the one that is tried.
func (w *world) next2(a, b string) *try {
	w.Helper()
	w.send(a)
	try := w.next()
	w.send(b)
	w.quiet(patience)
	return try
}

func TestARestartRemembersWhichDestinationsAreDown(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("a@example.com")
		w.next().down("connection refused")
		w.settle()
		w.stop()
		w.start()
		w.send("b@example.com")
		w.quiet(4 * time.Minute)
		w.within(3 * time.Minute).delivered()
		w.next().delivered()
	})
}

func TestARestartRemembersWhichDestinationsAreLive(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("bob@live.example")
		w.next().delivered()
		for i := range 20 {
			w.send(fmt.Sprintf("bob@black%d.example", i))
		}
		w.settle()
		w.stop()
		w.start()
		for range 6 {
			w.next() // and hangs, in all the slots that are for those nothing is known of
		}
		w.quiet(patience)
		w.send("bob@live.example")
		w.next().delivered()
	})
}

func TestAKickLetsMailGoThatWaitedForThePolicy(t *testing.T) {
	each(t, nil, func(w *world) {
		w.next2("a@example.com", "b@example.com").forbidden("no STARTTLS")
		w.settle()
		if err := w.q.Kick(w.Context(), "example.com"); err != nil {
			w.Fatal(err)
		}
		w.next().delivered()
		w.next().delivered()
	})
}

func TestAKickLeavesMailThatWaitsForAReasonOfItsOwn(t *testing.T) {
	each(t, nil, func(w *world) {
		w.send("full@example.com")
		w.next().later("452 mailbox full")
		w.send("strict@example.com")
		strict := w.next()
		strict.answer <- queue.Result{Why: "no REQUIRETLS", ByPolicy: true}
		w.settle()
		if err := w.q.Kick(w.Context(), "example.com"); err != nil {
			w.Fatal(err)
		}
		try := w.next()
		if got := try.Recipients[0].Addr; got != "strict@example.com" {
			w.Errorf("%s was tried, want the one that a policy held", got)
		}
		try.delivered()
		w.quiet(4 * time.Minute)
	})
}

func TestADestinationTakesNoMoreAtOnceThanItsLimit(t *testing.T) {
	each(t, nil, func(w *world) {
		for i := range 20 {
			w.send(fmt.Sprintf("r%d@example.com", i))
		}
		// It begins with one and is given one more with each success, up to four.
		w.next().delivered()
		for _, more := range []int{2, 3, 4, 4} {
			var under []*try
			for range more {
				under = append(under, w.next())
			}
			w.quiet(patience)
			for _, try := range under[1:] {
				try.later("try later")
			}
			under[0].delivered()
		}
	})
}

func TestADestinationThatThrottlesIsGivenLess(t *testing.T) {
	each(t, nil, func(w *world) {
		for range 4 { // up to the limit of 4
			w.send("bob@example.com")
			w.next().delivered()
		}
		for range 12 {
			w.send("bob@example.com")
		}
		under := []*try{w.next(), w.next(), w.next(), w.next()}
		w.quiet(patience)
		under[0].answer <- queue.Result{Why: "421 4.7.0 slow down", Throttled: true}
		under[1].answer <- queue.Result{Why: "421 4.7.0 slow down", Throttled: true}
		w.quiet(patience) // two are under way still, and one is the limit now
		under[2].answer <- queue.Result{Why: "421 4.7.0 slow down", Throttled: true}
		w.quiet(patience)
		under[3].answer <- queue.Result{Why: "421 4.7.0 slow down", Throttled: true}
		try := w.next()
		w.quiet(patience)
		try.delivered()
	})
}

func TestSlotsAreKeptForDestinationsThatWork(t *testing.T) {
	each(t, nil, func(w *world) { // eight slots
		w.send("bob@live.example")
		w.next().delivered() // it is known to be live

		for i := range 20 {
			w.send(fmt.Sprintf("bob@black%d.example", i))
		}
		var hanging []*try
		for range 6 { // three quarters
			hanging = append(hanging, w.next())
		}
		w.quiet(patience)
		for range 5 {
			w.send("bob@live.example")
			try := w.next()
			if try.Domain != "live.example" {
				w.Fatalf("%s was tried, want the live one", try.Domain)
			}
			try.delivered()
		}
		// Of those that are known to be down, half of the slots at most are taken.
		for len(hanging) > 0 {
			hanging[0].down("timeout")
			hanging = hanging[1:]
			select {
			case try := <-w.tries:
				hanging = append(hanging, try)
			case <-time.After(patience):
			}
		}
		for range 4 {
			hanging = append(hanging, w.within(time.Hour))
		}
		w.quiet(10 * time.Minute)
	})
}

func TestANewDestinationIsNotKeptWaitingByThousandsThatCameBefore(t *testing.T) {
	each(t, nil, func(w *world) {
		for i := range 200 {
			w.send(fmt.Sprintf("bob@black%d.example", i))
		}
		var hanging []*try
		for range 6 {
			hanging = append(hanging, w.next())
		}
		w.send("bob@live.example")
		for i := range 2 {
			hanging[i].down("timeout")
			try := w.next()
			if try.Domain == "live.example" {
				try.delivered()
				return
			}
		}
		w.Error("the last to come is not among the next two that were tried")
	})
}

func TestABusyDestinationMakesWayForOthers(t *testing.T) {
	change := func(o *queue.Options) { o.Concurrency, o.Destination = 1, 1 }
	each(t, change, func(w *world) {
		w.send("bob@busy.example")
		first := w.next()
		for range 150 {
			w.send("bob@busy.example")
		}
		w.send("bob@other.example")
		first.delivered()
		for range 100 {
			try := w.next()
			try.delivered()
			if try.Domain == "other.example" {
				return
			}
		}
		w.Error("after 100 deliveries to the busy destination the other one has not had its turn")
	})
}

func TestAnAttemptThatIsCutShortByTheEndIsMadeAgain(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.send("bob@example.com")
		w.next()
		w.stop()
		if d := w.want(id, queue.Queued, ""); d.Attempts != 0 {
			w.Errorf("it counts as %d attempts, want none", d.Attempts)
		}
		w.start()
		w.next().delivered()
	})
}

func TestAttemptsUnderWayMayEndInTheGraceTime(t *testing.T) {
	change := func(o *queue.Options) { o.Grace = time.Minute }
	each(t, change, func(w *world) {
		first, second := w.send("a@one.example"), w.send("b@two.example")
		tries := []*try{w.next(), w.next()}
		ended := make(chan struct{})
		go func() {
			w.stop()
			close(ended)
		}()
		<-time.After(30 * time.Second)
		for _, try := range tries {
			if try.Domain == "one.example" {
				try.delivered()
			}
		}
		<-ended
		w.want(first, queue.AllDelivered, "")
		w.want(second, queue.Queued, "")
	})
}

func TestAnAttemptSeesTheWholeEnvelope(t *testing.T) {
	each(t, nil, func(w *world) {
		m := queue.Message{
			From: "Änn@example.org", EightBit: true, SMTPUTF8: true, RequireTLS: true, TLSOptional: true, EnvID: "QQ314159", Ret: "HDRS",
		}
		b := w.q.Body()
		if _, err := b.Write([]byte(letter)); err != nil {
			w.Fatal(err)
		}
		rcpt := queue.Recipient{Addr: "Bob@Example.COM", ORcpt: "rfc822;bob@example.net", Notify: "FAILURE,DELAY"}
		_, err := w.q.Enqueue(w.Context(), queue.Submission{Message: m, Body: b, Recipients: []queue.Destined{{Recipient: rcpt, Domain: "example.com"}}})
		if err != nil {
			w.Fatal(err)
		}
		handed := w.next() // without being read back
		handed.later("once more")
		read := w.within(time.Hour)
		for _, try := range []*try{handed, read} {
			got := try.Message
			if got.From != m.From || !got.EightBit || !got.SMTPUTF8 || !got.RequireTLS || !got.TLSOptional || got.EnvID != m.EnvID || got.Ret != m.Ret || got.Size != int64(len(letter)) {
				w.Errorf("the message is %+v", got)
			}
			want := rcpt
			want.State = queue.Pending
			if len(try.Recipients) != 1 || try.Recipients[0] != want {
				w.Errorf("the recipients are %+v, want %+v", try.Recipients, want)
			}
		}
		if !handed.Received.Equal(read.Received) || !handed.Expires.Equal(read.Expires) || handed.Delivery.ID != read.Delivery.ID {
			w.Errorf("handed over as %+v, read back as %+v", handed.Delivery, read.Delivery)
		}
		read.delivered()
	})
}

func TestSomeRecipientsAreDeliveredAndTheOthersTriedAgain(t *testing.T) {
	each(t, nil, func(w *world) {
		id := w.send("a@example.com", "b@example.com", "c@example.com")
		w.next().answer <- queue.Result{Why: "b is full", Recipients: map[int]queue.Recipient{
			0: {State: queue.Delivered, Reply: "250 ok"},
			1: {State: queue.Pending, Reply: "452 full"},
			2: {State: queue.Failed, Reply: "550 who?"},
			7: {State: queue.Failed},
		}}
		try := w.within(6 * time.Minute)
		if got := try.Pending(); !slices.Equal(got, []int{1}) {
			w.Errorf("left are the recipients %v, want only 1", got)
		}
		try.delivered()
		w.settle()
		d := w.want(id, queue.SomeFailed, "550 who?")
		var states []string
		for _, r := range d.Recipients {
			states = append(states, string(r.State)+" "+r.Reply)
		}
		if got, want := strings.Join(states, ", "), "delivered 250 ok, delivered 250 ok, failed 550 who?"; got != want {
			w.Errorf("the recipients are %s, want %s", got, want)
		}
	})
}

// reminder is what a sender was told, and when.
type reminder struct {
	queue.News
	at time.Time
}

// noticed makes a queue tell senders after 4 hours, and takes down what.
func noticed(told *[]reminder, retry time.Duration) func(*queue.Options) {
	return func(o *queue.Options) {
		*told = nil
		o.RetryFirst, o.RetryMax, o.DelayNotice = retry, retry, 4*time.Hour
		o.Bounce = func(_ context.Context, n queue.News) (*queue.Submission, error) {
			*told = append(*told, reminder{n, time.Now()})
			return nil, nil
		}
	}
}

func TestASenderIsToldOnceThatHisMessageWaits(t *testing.T) {
	var told []reminder
	each(t, noticed(&told, time.Hour), func(w *world) {
		id := w.send("bob@example.com", "cat@example.com")
		for range 8 {
			w.within(2 * time.Hour).later("450 not now")
		}
		if len(told) != 1 || len(told[0].Delayed) != 2 || len(told[0].Failed) != 0 || told[0].Why != "450 not now" {
			t.Fatalf("of 8 tries in 8 hours the sender hears %+v, want once of both recipients", told)
		}
		if age := told[0].at.Sub(told[0].Delivery.Received); age < 4*time.Hour || age > 4*time.Hour+2*time.Minute {
			t.Errorf("he hears of it after %s, want 4 h and no more than two minutes", age)
		}
		w.settle()
		if d := w.want(id, queue.Queued, "450 not now"); !d.Recipients[0].Warned || !d.Recipients[1].Warned {
			t.Errorf("that he was told is not kept: %+v", d.Recipients)
		}
	})
}

func TestASenderIsToldOfAMessageWhoseTurnDoesNotCome(t *testing.T) {
	var told []reminder
	change := noticed(&told, 2*time.Hour)
	each(t, func(o *queue.Options) { change(o); o.DelayNotice = 30 * time.Minute }, func(w *world) {
		first := w.send("bob@example.com")
		w.next().down("no host answers")
		second := w.send("cat@example.com") // it waits behind the gate
		w.quiet(33 * time.Minute)
		w.settle()
		if len(told) != 2 {
			t.Fatalf("two senders wait, and %d notices went out", len(told))
		}
		for i, id := range []string{first, second} {
			n := told[i]
			if n.Delivery.Message.ID != id || len(n.Delayed) != 1 || n.Why != "no host answers" {
				t.Errorf("notice %d: %+v", i, n.News)
			}
			if age := n.at.Sub(n.Delivery.Received); age < 30*time.Minute || age > 32*time.Minute {
				t.Errorf("he hears of it after %s", age)
			}
		}
		for range 2 { // the gate opens for one of them
			w.within(3 * time.Hour).later("450 not now")
		}
		w.settle()
		if len(told) != 2 {
			t.Errorf("a try later they are told again: %d notices", len(told))
		}
	})
}

func TestASenderIsNotToldTwiceOfAMessageThatIsBeingTried(t *testing.T) {
	var told []reminder
	change := noticed(&told, time.Hour)
	each(t, func(o *queue.Options) { change(o); o.DelayNotice = 10 * time.Minute }, func(w *world) {
		w.send("bob@example.com")
		slow := w.next()
		w.quiet(15 * time.Minute)
		if len(told) != 0 {
			t.Errorf("he is told while it is being tried: %d notices", len(told))
		}
		slow.later("450 not now")
		w.settle()
		w.quiet(30 * time.Minute)
		if len(told) != 1 {
			t.Errorf("%d notices", len(told))
		}
	})
}

func TestANoticeThatWasGivenMeanwhileIsNotGivenAgain(t *testing.T) {
	var w *world
	change := func(o *queue.Options) {
		o.DelayNotice = 10 * time.Minute
		o.Bounce = func(_ context.Context, n queue.News) (*queue.Submission, error) {
			b := w.q.Body()
			if _, err := io.WriteString(b, letter); err != nil {
				return nil, err
			}
			return &queue.Submission{Body: b, Recipients: []queue.Destined{{Recipient: queue.Recipient{Addr: n.Delivery.From}, Domain: "example.org"}}}, nil
		}
	}
	for _, given := range []bool{false, true} {
		each(t, change, func(in *world) {
			w = in
			w.send("bob@example.com")
			slow := w.next()
			w.quiet(15 * time.Minute)
			if given { // as by another node, which found it waiting before this one took it
				w.exec(`UPDATE delivery SET version = version + 1, recipients = '[{"addr":"bob@example.com","state":"pending","warned":true}]' WHERE domain = 'example.com'`)
			}
			slow.later("450 not now")
			w.settle()
			if given {
				w.quiet(time.Minute)
				return
			}
			if got := w.next().Domain; got != "example.org" {
				t.Errorf("the notice goes to %s", got)
			}
		})
	}
}
