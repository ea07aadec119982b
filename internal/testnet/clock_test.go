package testnet

import (
	"context"
	"errors"
	"testing"
	"time"
)

func fired(ch <-chan time.Time) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestTimersFireWhenTheClockIsAdvanced(t *testing.T) {
	c := NewClock(time.Time{})
	short, long := c.After(time.Minute), c.After(time.Hour)
	if c.Timers() != 2 || fired(short) {
		t.Fatal("a timer fired by itself")
	}
	c.Advance(59 * time.Second)
	if fired(short) {
		t.Error("a timer fired a second early")
	}
	c.Advance(time.Second)
	if !fired(short) || fired(long) || c.Timers() != 1 {
		t.Error("after a minute the timer of a minute should have fired, and no other")
	}
	if want := Epoch.Add(time.Minute); !c.Now().Equal(want) {
		t.Errorf("it is %v, want %v", c.Now(), want)
	}
	if d, ok := c.AdvanceToNext(); !ok || d != 59*time.Minute || !fired(long) {
		t.Errorf("to the next timer it was %v, %v", d, ok)
	}
	if _, ok := c.AdvanceToNext(); ok {
		t.Error("there is no next timer")
	}
}

func TestATimerOfNoTimeFiresAtOnce(t *testing.T) {
	if c := NewClock(time.Time{}); !fired(c.After(0)) || !fired(c.After(-time.Second)) {
		t.Error("it did not")
	}
}

func TestASleepEndsByTheClockOrTheContext(t *testing.T) {
	c := NewClock(time.Time{})
	ctx, cancel := context.WithCancelCause(limit(t))
	done := make(chan error)
	sleep := func() { done <- c.Sleep(ctx, time.Hour) }
	go sleep()
	if err := c.WaitTimers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Hour)
	if err := <-done; err != nil {
		t.Error(err)
	}
	go sleep()
	if err := c.WaitTimers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	cancel(gone)
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	if n := c.Timers(); n != 0 {
		t.Errorf("%d timers are left behind", n)
	}
}

func TestARealClockRunsAndCanBeAdvanced(t *testing.T) {
	c := NewRealClock()
	if d := time.Since(c.Now()).Abs(); d > time.Minute {
		t.Errorf("it is %v off", d)
	}
	<-c.After(time.Millisecond) // fires by itself
	far := c.After(time.Hour)
	c.Advance(time.Hour)
	<-far
	if d := time.Until(c.Now()); d < 59*time.Minute {
		t.Errorf("it is %v ahead, want an hour", d)
	}
}
