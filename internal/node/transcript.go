package node

import (
	"context"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/relay/deliver"
	"github.com/pawl-mail/pawl/internal/resolve"
)

// TranscriptParams are the parameters of the control method "queue.transcript",
// whose answer are the destinations in transcript mode, as []deliver.Recording.
type TranscriptParams struct {
	Domain string        `json:"domain,omitempty"` // empty: none is changed
	For    time.Duration `json:"for,omitempty"`    // from now on; 0: it ends
}

// transcript puts a destination into transcript mode, or ends that, and logs who
// did. A restart ends it too: nobody is listened to by mistake.
func (n *Node) transcript(ctx context.Context, p TranscriptParams) ([]deliver.Recording, error) {
	if p.Domain == "" {
		return n.deliver.Recordings(), nil
	}
	domain, err := resolve.Name(p.Domain)
	if err != nil {
		return nil, &control.Error{Text: fmt.Sprintf("%q is not a domain", p.Domain), Do: "Write a domain as example.com."}
	}
	if p.For < 0 || p.For > deliver.MaxRecording {
		return nil, &control.Error{Text: fmt.Sprintf("%s is not between 0 and %s", p.For, deliver.MaxRecording), Do: "Choose a shorter time; it can be asked for again."}
	}
	if err := n.deliver.Record(domain, n.w.Now().Add(p.For)); err != nil {
		return nil, &control.Error{Text: err.Error(), Do: "`pawl queue transcript` lists them; end one with `--off`."}
	}
	n.log.InfoContext(ctx, "relay: transcript mode", "domain", domain, "for", p.For, "by", control.Caller(ctx))
	return n.deliver.Recordings(), nil
}
