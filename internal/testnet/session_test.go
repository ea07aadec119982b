package testnet

import (
	"context"
	"errors"
	"testing"
)

func TestAWaitSeesWhatCameBeforeAndWhatComesAfter(t *testing.T) {
	told := make(chan Delivery, 10)
	n := Start(t, Options{Delivered: func(d Delivery) { told <- d }})
	n.Domain("a.test", DomainOptions{})
	naive(t, n, "a.test")
	if d, err := n.WaitDelivered(limit(t), "to@a.test"); err != nil || d.From != "from@b.test" {
		t.Fatalf("%+v, %v", d, err)
	}
	n.Forget()
	if got := n.Deliveries(); len(got) != 0 || n.Received() != 1 {
		t.Errorf("%d remembered of %d", len(got), n.Received())
	}
	done := make(chan error)
	go func() {
		_, err := n.WaitDelivered(limit(t), "to@a.test")
		done <- err
	}()
	naive(t, n, "a.test")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(told) != 2 {
		t.Errorf("told of %d", len(told))
	}
	if err := n.WaitSessions(limit(t), "mx.a.test", 1); err != nil {
		t.Error(err)
	}
}

func TestAWaitEndsWithItsContextOrTheNet(t *testing.T) {
	n := Start(t, Options{})
	never := func(Delivery) bool { return false }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Wait(ctx, never); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := n.Wait(limit(t), never)
		done <- err
	}()
	n.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestOldMessagesAreForgotten(t *testing.T) {
	var w witness
	for range maxDeliveries + 1 {
		w.deliver(Delivery{Data: []byte("x")})
	}
	if list, count := w.since(0); len(list) != maxDeliveries/2+1 || count != maxDeliveries+1 || w.kept != len(list) {
		t.Errorf("%d of %d remembered, %d octets", len(list), count, w.kept)
	}
	if list, _ := w.since(maxDeliveries); len(list) != 1 {
		t.Errorf("%d since the last", len(list))
	}
}
