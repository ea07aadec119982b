package relay

import (
	"context"
	"errors"
	"net/netip"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

// The errors of [Submitters]. Any other is that nothing could be found out.
var (
	ErrNoLogin   = errors.New("name or password is wrong, or the submitter is no more")
	ErrLoginWait = errors.New("the login is not looked at now")
)

// Submitters knows who may hand mail in by AUTH. Implementations are safe for
// concurrent use.
type Submitters interface {
	// Login returns the submitter of a name and password, or ErrNoLogin or
	// ErrLoginWait, which it may wrap.
	Login(ctx context.Context, client netip.Addr, name, password string) (Submitter, error)
	// Submitter returns the submitter of a name as it is now, or ErrNoLogin if it
	// may log in no longer.
	Submitter(ctx context.Context, name string) (Submitter, error)
}

// Submitter is one who has logged in.
type Submitter struct {
	Org, Name   string
	TLSOptional bool // may send TLS-Required: No
	// MaySend reports whether an address may stand in MAIL FROM, by its local part
	// and its domain in A-labels.
	MaySend func(local, domain string) bool
}

// login answers AUTH.
func (r *Relay) login(ctx context.Context, c *server.Conn, cred server.Credentials) (string, error) {
	sub, err := r.opts.Submitters.Login(ctx, c.Client().Addr(), cred.User, cred.Password)
	log := r.opts.Log.With("client", c.Client().String(), "submitter", printable(cred.User))
	switch {
	case err == nil:
		return sub.Name, nil
	case errors.Is(err, ErrNoLogin):
		return "", server.ErrCredentials() // the server logs it
	case errors.Is(err, ErrLoginWait):
		log.Warn("a login was put off", "err", err)
	default:
		log.Error("a login could not be checked", "err", err)
	}
	// RFC 4954 §6
	return "", smtp.Errorf(454, smtp.Enhanced{4, 7, 0}, "the login cannot be checked now, try again later")
}
