package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// ErrNoTLS is returned where credentials would go out in clear.
var ErrNoTLS = errors.New("credentials are given under TLS only (RFC 4954 §4)")

// Authenticate gives the server a user's name and password, by PLAIN (RFC 4616)
// or, where only that is offered, by LOGIN. It is to be called under TLS, after
// Hello; who the server is must have been verified. Its errors are a
// [*ReplyError] where the server refuses them, a [*MissingError] where it offers
// neither mechanism, or one that ends the session. A transcript says that it was
// done, and not with what.
func (c *Client) Authenticate(ctx context.Context, user, password string) error {
	if c.state == nil {
		return ErrNoTLS
	}
	leave, err := c.enter(ctx, Auth)
	if err != nil {
		return err
	}
	defer leave()
	defer c.took(Auth, time.Now())
	var say []string
	mechanism := "PLAIN"
	switch {
	case c.offered.HasAuth("PLAIN"):
		say = []string{"AUTH PLAIN " + encode("\x00"+user+"\x00"+password)}
	case c.offered.HasAuth("LOGIN"):
		mechanism = "LOGIN"
		say = []string{"AUTH LOGIN", encode(user), encode(password)}
	default:
		return &MissingError{smtp.Auth, "a user and a password are to be given, by PLAIN or LOGIN"}
	}
	if c.o.Trace != nil {
		c.o.Trace(Sent, "AUTH "+mechanism+" (credentials)")
	}
	for i, line := range say {
		c.out = append(append(c.out, line...), '\r', '\n')
		if err := c.flush(ctx, Auth); err != nil {
			return err
		}
		r, err := c.reply(ctx, Auth)
		switch last := i == len(say)-1; {
		case err != nil:
			return err
		case r.Class() >= 4:
			return c.refused(Auth, r)
		case last != (r.Code == 235) || !last && r.Code != 334:
			return c.fail(&ProtocolError{Auth, fmt.Errorf("the server answered with %q", r)})
		}
	}
	return nil
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
