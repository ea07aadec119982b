package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
)

// PolicyParams are the parameters of the control method "policy".
type PolicyParams struct {
	Domain  string `json:"domain"`
	Refresh bool   `json:"refresh,omitempty"` // ask DNS and the policy host afresh
}

// ExplainParams are the parameters of the control method "explain".
type ExplainParams struct {
	Subject   string `json:"subject"` // a domain, a delivery's id or a message's id
	OnlyQueue bool   `json:"only_queue,omitempty"`
}

// Explanation is the answer to "explain": deliveries with their stories, or a
// domain's policy.
type Explanation struct {
	Deliveries []DeliveryStory     `json:"deliveries,omitempty"`
	Route      string              `json:"route,omitempty"` // the domain's mail goes by way of a smart host, and Policy is that one's
	Policy     *policy.Explanation `json:"policy,omitempty"`
}

// DeliveryStory is a delivery with the stories of its attempts.
type DeliveryStory struct {
	queue.Delivery
	Stories []queue.Story `json:"stories"`
}

// ActParams are the parameters of the control method "queue.act".
type ActParams struct {
	Act    queue.Act    `json:"act"`
	IDs    []string     `json:"ids,omitempty"` // of deliveries or messages
	Filter queue.Filter `json:"filter"`        // with no ids: all of these
	Who    string       `json:"who,omitempty"` // on whose behalf, if not the caller's own
	Why    string       `json:"why,omitempty"`
}

// controls makes the server of the control socket.
func (n *Node) controls() *control.Server {
	s := control.NewServer()
	control.Handle(s, "status", func(ctx context.Context, _ struct{}) (any, error) { return n.source().Overview(ctx) })
	n.policyControls(s)
	n.submitterControls(s)
	n.tlsrptControls(s)
	control.Handle(s, "explain", n.explain)
	control.Handle(s, "queue.list", n.queue.List)
	control.Handle(s, "queue.act", n.act)
	control.Handle(s, "queue.transcript", n.transcript)
	control.Handle(s, "reload", func(ctx context.Context, _ struct{}) (Reloaded, error) { return n.Reload(ctx) })
	control.HandleStream(s, "backup", n.backup)
	control.Handle(s, "drain", n.Drain)
	control.Handle(s, "resume", func(ctx context.Context, _ struct{}) (Draining, error) { return n.Resume(ctx) })
	return s
}

func (n *Node) explainPolicy(ctx context.Context, p PolicyParams) (policy.Explanation, error) {
	if p.Refresh {
		ctx = resolve.Fresh(ctx) // for the hosts
		if err := n.policy.Refresh(ctx, p.Domain); errors.Is(err, policy.ErrNotDomain) {
			return policy.Explanation{}, notDomain(p.Domain)
		}
	}
	x, err := n.policy.Explain(ctx, p.Domain)
	if errors.Is(err, policy.ErrNotDomain) {
		return x, notDomain(p.Domain)
	}
	return x, err
}

func notDomain(s string) error {
	return &control.Error{Text: fmt.Sprintf("%q is neither a domain nor the id of a delivery or message", s), Do: "Write a domain as example.com; `pawl queue list` shows the ids."}
}

// explain tells how mail to a domain goes, or what became of a message.
func (n *Node) explain(ctx context.Context, p ExplainParams) (Explanation, error) {
	if _, err := uuid.Parse(p.Subject); err == nil {
		deliveries, err := n.deliveries(ctx, p.Subject)
		return Explanation{Deliveries: deliveries}, err
	}
	if p.OnlyQueue {
		return Explanation{}, notDomain(p.Subject)
	}
	if domain, err := resolve.Name(p.Subject); err == nil {
		if route := n.deliver.Route(domain); route != nil {
			x, err := n.policy.ExplainVia(ctx, route.Host, route.Port, route.MX)
			return Explanation{Route: route.String(), Policy: &x}, err
		}
	}
	x, err := n.explainPolicy(ctx, PolicyParams{Domain: p.Subject})
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{Policy: &x}, nil
}

// find finds what an id names: one delivery, or all of a message.
func (n *Node) find(ctx context.Context, id string) ([]queue.Delivery, error) {
	found, err := n.queue.OfMessage(ctx, db.DefaultOrg, id)
	if err != nil || len(found) > 0 {
		return found, err
	}
	d, err := n.queue.Show(ctx, db.DefaultOrg, id)
	if errors.Is(err, queue.ErrNotFound) {
		return nil, &control.Error{Text: "there is no delivery or message " + id, Do: "It may have ended, and its history be over; `pawl queue list --state delivered` shows ended ones."}
	}
	return []queue.Delivery{d}, err
}

// deliveries is find with the stories of what was found.
func (n *Node) deliveries(ctx context.Context, id string) ([]DeliveryStory, error) {
	found, err := n.find(ctx, id)
	if err != nil {
		return nil, err
	}
	stories := make([]DeliveryStory, 0, len(found))
	for _, d := range found {
		s, err := n.queue.History(ctx, db.DefaultOrg, d.ID)
		if err != nil {
			return nil, err
		}
		stories = append(stories, DeliveryStory{Delivery: d, Stories: s})
	}
	return stories, nil
}

// act does what the operator decided by hand, and logs who and why.
func (n *Node) act(ctx context.Context, p ActParams) (int, error) {
	who := control.Caller(ctx)
	if p.Who != "" && p.Who != who {
		who = p.Who + " (as " + who + ")"
	}
	done, err := n.doAct(ctx, p, who)
	n.log.InfoContext(ctx, "queue: "+string(p.Act), "by", who, "why", p.Why, "deliveries", done, "ids", p.IDs, "filter", p.Filter, "err", err)
	return done, err
}

func (n *Node) doAct(ctx context.Context, p ActParams, who string) (int, error) {
	if len(p.IDs) == 0 {
		return n.queue.Do(ctx, p.Act, p.Filter, who, p.Why)
	}
	total := 0
	for _, id := range p.IDs {
		found, err := n.find(ctx, id)
		if err != nil {
			return total, err
		}
		for _, d := range found {
			done, err := n.queue.Do(ctx, p.Act, queue.Filter{ID: d.ID, Limit: 1}, who, p.Why)
			if total += done; err != nil {
				return total, err
			}
		}
	}
	return total, nil
}
