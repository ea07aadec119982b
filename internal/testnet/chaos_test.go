package testnet

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// weather is what befalls a number of connections and queries in a row.
func weather(t *testing.T, seed uint64, c Chaos) []string {
	t.Helper()
	n := Start(t, Options{Seed: seed})
	n.Domain("a.test", DomainOptions{})
	n.SetChaos(c)
	var log []string
	for range 40 {
		if _, err := ask(t, n, "udp", "a.test", "MX", false, false); err != nil {
			log = append(log, "lost")
		}
		conn, err := n.Dial(limit(t), "tcp", "192.0.2.1:25")
		if err != nil {
			log = append(log, "refused")
			continue
		}
		_, early := io.WriteString(conn, "EHLO x\r\nQUIT\r\n")
		b, err := io.ReadAll(conn)
		switch {
		case early != nil || err != nil: // a reset is told once, to whoever asks first
			log = append(log, "reset")
		case !strings.HasSuffix(string(b), "Bye\r\n"):
			log = append(log, "cut")
		default:
			log = append(log, "whole")
		}
		conn.Close()
	}
	return log
}

func TestTheWeatherFollowsFromTheSeed(t *testing.T) {
	c := Chaos{LoseQuery: 0.2, Refuse: 0.2, Reset: 0.2, Truncate: 0.2, MaxOctets: 100}
	first, second, other := weather(t, 7, c), weather(t, 7, c), weather(t, 8, c)
	if !slices.Equal(first, second) {
		t.Errorf("the same seed gave\n%v\n%v", first, second)
	}
	if slices.Equal(first, other) {
		t.Error("two seeds gave the same weather")
	}
	for _, want := range []string{"lost", "refused", "reset", "cut", "whole"} {
		if !slices.Contains(first, want) {
			t.Errorf("nothing was %s: %v", want, first)
		}
	}
}

func TestCalmWeatherHarmsNothing(t *testing.T) {
	for _, got := range weather(t, 7, Chaos{}) {
		if got != "whole" {
			t.Errorf("got %s", got)
		}
	}
}

func TestADelayIsByTheClock(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{})
	n.SetChaos(Chaos{Delay: 1, MaxDelay: time.Hour})
	conn, err := n.Dial(limit(t), "tcp", "192.0.2.1:25")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := n.Clock.WaitTimers(limit(t), 1); err != nil {
		t.Fatal(err)
	}
	n.Clock.Advance(time.Hour)
	if _, greeting, err := NewCaller(conn); err != nil || greeting != "220 mx.a.test ESMTP" {
		t.Errorf("%q, %v", greeting, err)
	}
}
