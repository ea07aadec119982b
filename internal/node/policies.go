package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/policy"
)

// MaxSnapshot caps a snapshot of policies that is imported, in bytes.
const MaxSnapshot = 48 << 20

// Snapshot is the answer to "policy.export".
type Snapshot struct {
	Key      string `json:"key"` // by which other nodes know this installation
	Policies int    `json:"policies"`
	Text     string `json:"text"`
}

// ExportParams are the parameters of the control method "policy.export".
type ExportParams struct {
	OnlyKey bool `json:"only_key,omitempty"`
}

// ImportParams are the parameters of the control method "policy.import".
type ImportParams struct {
	Text  string   `json:"text"`
	Trust []string `json:"trust,omitempty"` // keys of other installations
}

// policyControls adds what the command line does to policies.
func (n *Node) policyControls(s *control.Server) {
	control.Handle(s, "policy", n.explainPolicy)
	control.Handle(s, "policy.warm", func(ctx context.Context, domains []string) (policy.Warmed, error) {
		return n.policy.Warm(ctx, slices.Values(domains), nil)
	})
	control.Handle(s, "policy.export", n.export)
	control.Handle(s, "policy.import", func(ctx context.Context, p ImportParams) (policy.Imported, error) {
		return n.policy.Import(ctx, strings.NewReader(p.Text), p.Trust...)
	})
	control.Handle(s, "override.add", n.addOverride)
	control.Handle(s, "override.list", func(ctx context.Context, _ struct{}) ([]policy.Override, error) {
		return n.policy.Overrides(ctx)
	})
	control.Handle(s, "override.remove", func(ctx context.Context, domain string) (bool, error) {
		return n.policy.RemoveOverride(ctx, domain)
	})
}

func (n *Node) export(ctx context.Context, p ExportParams) (Snapshot, error) {
	key, err := n.policy.SnapshotKey(ctx)
	if err != nil || p.OnlyKey {
		return Snapshot{Key: key}, err
	}
	var text strings.Builder
	count, err := n.policy.Export(ctx, &text)
	return Snapshot{Key: key, Policies: count, Text: text.String()}, err
}

// addOverride puts an override in force and returns it as it is shown.
func (n *Node) addOverride(ctx context.Context, o policy.Override) (policy.Override, error) {
	err := n.policy.AddOverride(ctx, o)
	if errors.Is(err, policy.ErrOverride) {
		return o, &control.Error{Text: err.Error(), Do: "`pawl policy override add --help` has an example."}
	}
	if err != nil {
		return o, err
	}
	all, err := n.policy.Overrides(ctx)
	if err != nil {
		return o, err
	}
	for _, have := range all {
		if strings.EqualFold(have.Domain, o.Domain) {
			return have, nil
		}
	}
	return o, fmt.Errorf("the override for %s is not in force", o.Domain)
}
