package node

import (
	"context"
	"errors"

	"github.com/pawl-mail/pawl/internal/account"
	"github.com/pawl-mail/pawl/internal/control"
)

// SubmitterParams are the parameters of the control method "submitter.add".
type SubmitterParams struct {
	account.Submitter        // Org is the organisation's name or id
	Password          string `json:"password"`
}

// PasswordParams are the parameters of "submitter.password".
type PasswordParams struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// DisableParams are the parameters of "submitter.disable".
type DisableParams struct {
	Name     string `json:"name"`
	Disabled bool   `json:"disabled"`
}

// submitterControls adds what the command line does to submitters.
func (n *Node) submitterControls(s *control.Server) {
	control.Handle(s, "submitter.add", func(ctx context.Context, p SubmitterParams) (account.Submitter, error) {
		org, err := n.accounts.Organisation(ctx, p.Org)
		if err != nil {
			return p.Submitter, submitterError(err)
		}
		p.Submitter.Org = org
		added, err := n.accounts.Add(ctx, p.Submitter, p.Password)
		return added, submitterError(err)
	})
	control.Handle(s, "submitter.list", func(ctx context.Context, _ struct{}) ([]account.Submitter, error) {
		return n.accounts.Submitters(ctx)
	})
	control.Handle(s, "submitter.remove", func(ctx context.Context, name string) (bool, error) {
		err := n.accounts.Remove(ctx, name)
		return err == nil, submitterError(err)
	})
	control.Handle(s, "submitter.disable", func(ctx context.Context, p DisableParams) (bool, error) {
		err := n.accounts.Disable(ctx, p.Name, p.Disabled)
		return err == nil, submitterError(err)
	})
	control.Handle(s, "submitter.password", func(ctx context.Context, p PasswordParams) (bool, error) {
		err := n.accounts.SetPassword(ctx, p.Name, p.Password)
		return err == nil, submitterError(err)
	})
}

// submitterError adds advice to what a person did wrong.
func submitterError(err error) error {
	advice := ""
	switch {
	case errors.Is(err, account.ErrSubmitter), errors.Is(err, account.ErrOrg):
		advice = "`pawl submitter add --help` has an example."
	case errors.Is(err, account.ErrPassword):
		advice = "Leave it out, and a good one is made and printed."
	case errors.Is(err, account.ErrExists):
		advice = "`pawl submitter password` gives it another password, `pawl submitter remove` makes room for another."
	case errors.Is(err, account.ErrNotFound):
		advice = "`pawl submitter list` shows those that there are."
	default:
		return err
	}
	return &control.Error{Text: err.Error(), Do: advice}
}
