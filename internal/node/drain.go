package node

import (
	"context"

	"github.com/pawl-mail/pawl/internal/web"
)

// DrainParams are the parameters of the control method "drain".
type DrainParams struct {
	Wait bool `json:"wait,omitempty"` // answer when nothing is under way any longer
}

// Draining is how far a node is on its way to standing still.
type Draining struct {
	Draining   bool `json:"draining"`
	Receiving  int  `json:"receiving"`  // messages that are being handed in
	Delivering int  `json:"delivering"` // deliveries under way
}

// Drain makes the node take no new mail and begin no delivery. What is under
// way is finished, and then nothing of the queue is leased to this node. It
// answers Postfix and shows its pages as before. A restart ends it.
func (n *Node) Drain(ctx context.Context, p DrainParams) (Draining, error) {
	if !n.draining.Swap(true) {
		n.log.InfoContext(ctx, "draining: no new mail is taken, and no delivery is begun")
	}
	n.relay.Drain()
	n.queue.Pause()
	if p.Wait {
		ctx, cancel := n.whileRunning(ctx)
		defer cancel()
		if err := n.relay.Drained(ctx); err != nil {
			return Draining{}, err
		}
		if err := n.queue.Quiet(ctx); err != nil {
			return Draining{}, err
		}
	}
	return n.drainState(), nil
}

// Resume ends a [Node.Drain].
func (n *Node) Resume(ctx context.Context) (Draining, error) {
	if n.draining.Swap(false) {
		n.log.InfoContext(ctx, "resumed: mail is taken and delivered again")
	}
	n.queue.Resume()
	n.relay.Resume()
	return n.drainState(), nil
}

// whileRunning ends a long call with the node.
func (n *Node) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(n.running, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

func (n *Node) drainState() Draining {
	return Draining{Draining: n.draining.Load(), Receiving: n.relay.Receiving(), Delivering: n.queue.UnderWay()}
}

// drainCheck is what the page says while the node drains.
func drainCheck() web.Check {
	return web.Check{Name: "drain", Text: "this node takes no new mail and begins no delivery", Do: "`pawl resume` ends it."}
}
