package node

import (
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/relay/queue"
)

// Queue returns the relay's queue, for mail that does not come by SMTP.
func (n *Node) Queue() *queue.Queue { return n.queue }

// Signer returns what signs mail that does not come by SMTP.
func (n *Node) Signer() *dkim.Signer { return n.signer }

// Ledger returns what counts outcomes.
func (n *Node) Ledger() *ledger.Ledger { return n.ledger }

// Events returns what keeps events.
func (n *Node) Events() *event.Store { return n.events }
