package node_test

import (
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/deliver"
)

func TestADestinationIsPutIntoTranscriptModeByHand(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	for _, p := range []node.TranscriptParams{
		{Domain: "not a domain", For: time.Hour}, {Domain: "a.test", For: 365 * 24 * time.Hour}, {Domain: "a.test", For: -1},
	} {
		if err := control.NewClient(n.Addrs().Control).Call(t.Context(), "queue.transcript", p, new([]deliver.Recording)); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
	list := call[[]deliver.Recording](t, n, "queue.transcript", node.TranscriptParams{Domain: "A.test.", For: time.Hour})
	if len(list) != 1 || list[0].Domain != "a.test" {
		t.Errorf("in transcript mode: %v", list)
	}
	if list = call[[]deliver.Recording](t, n, "queue.transcript", node.TranscriptParams{Domain: "a.test"}); len(list) != 0 {
		t.Errorf("after its end: %v", list)
	}
}
