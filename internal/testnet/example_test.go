package testnet_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/testnet"
)

// A domain, a sender that knows nothing of TLS, and the attacker who keeps it
// from learning.
func Example() {
	n, err := testnet.New(testnet.Options{Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer n.Close()
	d := n.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	d.On(testnet.StripSTARTTLS)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := n.Dial(ctx, "tcp", "192.0.2.1:25")
	if err != nil {
		fmt.Println(err)
		return
	}
	sender, _, _ := testnet.NewCaller(conn)
	defer sender.Close()
	_, _ = sender.Say("EHLO sender.test")
	_, _ = sender.Send("x@b.test", "y@a.test", "Subject: secret\r\n\r\n")

	got, err := n.WaitDelivered(ctx, "y@a.test")
	fmt.Println(got, err)
	fmt.Println(got.Clear(), got.Via)
	// Output:
	// <x@b.test> to y@a.test by mx.a.test in clear: 250 2.0.0 Taken <nil>
	// true [strip-starttls]
}
