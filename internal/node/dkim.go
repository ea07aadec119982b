package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/web"
)

// keys reads the DKIM keys that the configuration names.
func keys(c config.Config) ([]dkim.Key, error) {
	folder := dkim.Folder(c.DKIMFolder())
	var all []dkim.Key
	for i, d := range c.DKIM {
		for j, selector := range d.Selectors {
			k, err := folder.Load(d.Domain, selector)
			if err != nil {
				e := &control.Error{Text: fmt.Sprintf("dkim[%d].selectors[%d]: %v", i, j, err), Do: "Repair the file, or take the key out of the configuration."}
				if errors.Is(err, fs.ErrNotExist) {
					e.Do = fmt.Sprintf("Make the key with `pawl dkim key new %s --selector %s`, or take it out of the configuration.", d.Domain, selector)
				}
				return nil, e
			}
			k.Subdomains = d.Subdomains
			if d.Service != "" {
				k.Service = dkim.Service(d.Service)
			}
			all = append(all, k)
		}
	}
	return all, nil
}

// signer makes what signs mail; nil where the configuration names no key.
func signer(c config.Config, now func() time.Time) (*dkim.Signer, error) {
	all, err := keys(c)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return dkim.NewSigner(all, now), nil
}

// KeyState is a DKIM key and whether its record is where verifiers look for it.
type KeyState struct {
	Domain    string         `json:"domain"`
	Selector  string         `json:"selector"`
	Algorithm dkim.Algorithm `json:"algorithm,omitempty"`
	Service   dkim.Service   `json:"service,omitempty"`
	Signs     bool           `json:"signs"` // the configuration names it
	Record    string         `json:"record,omitempty"`
	Published bool           `json:"published"` // only where DNS was asked
	Text      string         `json:"text,omitempty"`
	Do        string         `json:"do,omitempty"`

	key dkim.Key
}

// Keys lists the DKIM keys: those that the configuration names, and others that
// are in the data folder.
func Keys(c config.Config) ([]KeyState, error) {
	active, err := keys(c)
	if err != nil {
		return nil, err
	}
	var list []KeyState
	seen := map[string]bool{}
	for _, k := range active {
		seen[k.Name()] = true
		s, err := stateOf(k)
		if err != nil {
			return nil, err
		}
		s.Signs, s.Text = true, "signs"
		list = append(list, s)
	}
	folder := dkim.Folder(c.DKIMFolder())
	others, err := folder.List()
	if err != nil {
		return nil, err
	}
	for _, k := range others {
		if seen[k.Name()] {
			continue
		}
		s := KeyState{Domain: k.Domain, Selector: k.Selector}
		if loaded, err := folder.Load(k.Domain, k.Selector); err != nil {
			s.Text = err.Error()
		} else if s, err = stateOf(loaded); err != nil {
			return nil, err
		} else {
			s.Service = "" // the configuration would say which
			s.Text, s.Do = "does not sign: the configuration does not name it", "Name it with dkim in the configuration once its record is published."
		}
		list = append(list, s)
	}
	return list, nil
}

func stateOf(k dkim.Key) (KeyState, error) {
	zone, err := k.Zone()
	return KeyState{Domain: k.Domain, Selector: k.Selector, Algorithm: k.Algorithm(), Service: k.Service, Record: zone, key: k}, err
}

// CheckKeys asks DNS for the records of the keys that the configuration names.
func CheckKeys(ctx context.Context, c config.Config, w Wiring) ([]KeyState, error) {
	list, err := Keys(c)
	if err != nil {
		return nil, err
	}
	r, err := newResolver(c, w.withDefaults())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var active []KeyState
	for _, s := range list {
		if s.Signs {
			s.look(ctx, r)
			active = append(active, s)
		}
	}
	return active, nil
}

// look finds out whether the key's record is published.
func (s *KeyState) look(ctx context.Context, r *resolve.Resolver) {
	found, err := r.TXT(ctx, s.key.Name())
	switch {
	case resolve.IsNotFound(err):
		s.Text = "there is no record at " + s.key.Name() + ", so verifiers take its signatures for broken"
		s.Do = "Publish the record that `pawl dkim key list` prints, or take the key out of the configuration."
		return
	case err != nil:
		s.Text, s.Do = "its record could not be looked up: "+err.Error(), "Look at the resolver and at the name servers of "+s.Domain+"."
		return
	}
	if err := s.key.Published(found.Records); err != nil {
		s.Text, s.Do = "what is published at "+s.key.Name()+" does not serve: "+err.Error(), "Publish the record that `pawl dkim key list` prints."
		return
	}
	s.Published, s.Text, s.Do = true, "published, and the record is that of the key", ""
}

// checkKeys is the check of all keys in one line.
func checkKeys(ctx context.Context, c config.Config, r *resolve.Resolver) web.Check {
	ck := web.Check{Name: "DKIM"}
	list, err := Keys(c)
	if err != nil {
		ck.Text = err.Error()
		var e *control.Error
		if errors.As(err, &e) {
			ck.Do = e.Do
		}
		return ck
	}
	n := 0
	for _, s := range list {
		if !s.Signs {
			continue
		}
		if s.look(ctx, r); !s.Published {
			ck.Text, ck.Do = s.Domain+", selector "+s.Selector+": "+s.Text, s.Do
			return ck
		}
		n++
	}
	ck.OK, ck.Text = true, fmt.Sprintf("the records of %d keys are published", n)
	return ck
}
