package relay

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/event"
)

const noRoom = "S: 452 4.3.1 there is no room for the message now, try again later"

func TestMailIsRefusedForNowBeforeTheDiskIsFull(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello + envelope)
	steps := []struct {
		free int64
		full bool
	}{{1<<30 - 1, true}, {1 << 30, true}, {5<<28 - 1, true}, {5 << 28, false}, {1<<30 + 1<<22, false}, {1<<30 - 1, true}}
	for _, step := range steps {
		w.disk = step.free
		w.relay.Look(t.Context())
		if step.full {
			c.Talk("C: MAIL FROM:<app@example.com>\n" + noRoom)
		} else {
			c.Talk(envelope)
		}
		if r := w.relay.Room(); r.Full != step.full || r.Free != step.free || r.Full == (r.Why == "") {
			t.Errorf("%d bytes free: %+v", step.free, r)
		}
	}
	want := []event.Kind{event.RelayFull, event.RelayReopened, event.RelayFull}
	if diff := cmp.Diff(want, w.events.kinds()); diff != "" {
		t.Error(diff)
	}
	w.refused(NoRoom, 4)
}

func TestMailIsRefusedForNowWhileTooMuchIsQueued(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello)
	for _, step := range []struct {
		waits int64
		full  bool
	}{{999, false}, {1000, true}, {901, true}, {900, true}, {899, false}} {
		w.waits = step.waits
		w.relay.Look(t.Context())
		if step.full {
			c.Talk("C: MAIL FROM:<app@example.com>\n" + noRoom)
		} else {
			c.Talk(envelope)
		}
	}
	if why := w.events.list[0].Text; why != "The relay takes no more mail: 1000 deliveries wait in the queue, of 1000 that may (relay.max_queued)." {
		t.Errorf("the event says %q", why)
	}
}

func TestMailIsRefusedForNowWhileTheQueueIsTooHeavy(t *testing.T) {
	w := start(t, func(o *Options) { o.Watermarks.MaxBytes = 300 })
	w.talk(ours + hello + handIn + "C: MAIL FROM:<app@example.com> SIZE=1000\n" + noRoom)
	w.clock.pass(time.Minute) // the weight is remembered
	w.relay.Look(t.Context())
	w.talk(ours + hello + envelope + strings.Replace(handIn, "S: 250 2.0.0 queued as …", noRoom, 1))
	w.one()
}

func TestRFC1870_6_1_AMessageThatIsLargerThanTheRoomIsRefusedAtMAIL(t *testing.T) {
	w := start(t, nil)
	w.disk = 1<<30 + 2000 // a message takes twice its size while it comes in
	w.relay.Look(t.Context())
	w.talk(ours + hello + "C: MAIL FROM:<app@example.com> SIZE=1001\n" + noRoom + "\nC: MAIL FROM:<app@example.com> SIZE=1000\nS: 250 …")
}

func TestWhatComesInBetweenTwoLooksIsCounted(t *testing.T) {
	w := start(t, nil)
	w.waits = 998
	w.relay.Look(t.Context())
	w.talk(ours + hello + handIn + handIn + "C: MAIL FROM:<app@example.com>\n" + noRoom)
	if n := len(w.taken()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestWhatCannotBeFoundOutChangesNothing(t *testing.T) {
	var broken error
	w := start(t, func(o *Options) {
		free := o.Gauge.Free
		o.Gauge.Free = func() (int64, error) {
			if broken != nil {
				return 0, broken
			}
			return free()
		}
	})
	c := w.talk(ours + hello)
	broken = errors.New("no such device")
	w.relay.Look(t.Context())
	c.Talk(envelope)
	if r := w.relay.Room(); !errors.Is(r.Err, broken) || r.Full {
		t.Errorf("%+v", r)
	}
	broken, w.disk = nil, 1
	w.relay.Look(t.Context())
	broken = errors.New("no such device")
	w.relay.Look(t.Context())
	c.Talk("C: MAIL FROM:<app@example.com>\n" + noRoom)
	if r := w.relay.Room(); !errors.Is(r.Err, broken) || !r.Full {
		t.Errorf("%+v", r)
	}
}

func TestTheRelayLooksEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		r := &Relay{opts: Options{After: time.After}, room: newRoom(Options{Events: &events{}, Gauge: Gauge{
			Free:   func() (int64, error) { looks++; return 1, nil },
			Queued: func(context.Context) (int64, error) { return 0, nil },
		}})}
		ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
		defer cancel()
		if err := r.Watch(ctx); err != nil || looks != 4 {
			t.Errorf("%d looks, %v", looks, err)
		}
	})
}
