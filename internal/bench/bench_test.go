package main

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAFigureIsALine(t *testing.T) {
	var b strings.Builder
	(&report{&b}).figure("map/sts/16/rate", 81234.5, "answers/s", 0.9512, "the echo server's 85400")
	if diff := cmp.Diff([]string{"map/sts/16/rate", "81234.50", "answers/s", "0.951", "the", "echo", "server's", "85400"}, strings.Fields(b.String())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheMedianLeavesTheRoundsInOrder(t *testing.T) {
	list := []float64{3, 1, 2}
	if got := median(list); got != 2 || list[0] != 3 {
		t.Errorf("got %v of %v, want 2", got, list)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("got %v, want 2.5", got)
	}
	if got := medianRatio([]float64{9, 20, 5}, []float64{10, 10, 10}); got != 0.9 {
		t.Errorf("got %v, want 0.9", got)
	}
}

// The yardstick must do no less than pawl does: read a whole netstring, however
// it arrives, and answer it with as many bytes.
func TestTheFloorAnswersEachNetstringOnce(t *testing.T) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		echo(server, []byte("5:reply,"))
	}()
	a := asker{conn: client, queries: [][]byte{mapQuery("a.test"), mapQuery("b.test")}}
	for range 3 {
		if err := a.ask(2); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for _, part := range []string{"1", "6:pawl-tlsrpt a", ".test,"} {
			client.Write([]byte(part))
		}
	}()
	if n, err := a.reply(); n != len("5:reply,") || err != nil {
		t.Errorf("a query in pieces: %d, %v", n, err)
	}
	client.Close()
	<-done
}
