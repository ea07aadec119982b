package server

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Credentials are what a client shows in AUTH.
type Credentials struct {
	Mechanism string // "PLAIN" or "LOGIN"
	User      string
	Password  string
}

// maxCredential is the longest user name or password in octets (RFC 4616 §2).
const maxCredential = 255

// ErrCredentials returns the reply to a wrong name or password. It does not say
// which (RFC 4954 §6).
func ErrCredentials() *smtp.Error {
	return smtp.Errorf(535, smtp.Enhanced{5, 7, 8}, "the credentials are not valid")
}

// errCanceled says that the client ended the exchange with "*".
var errCanceled = errors.New("the client canceled AUTH")

// auth runs AUTH (RFC 4954 §4).
func (c *Conn) auth(arg string) error {
	mechanism, initial, hasInitial := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case c.s.o.Auth == nil || !c.s.o.offers(smtp.Auth):
		return c.fail(502, smtp.Enhanced{5, 5, 1}, "AUTH is not offered here")
	case c.tls == nil:
		return c.fail(538, smtp.Enhanced{5, 7, 11}, "AUTH needs TLS: issue STARTTLS first")
	case !c.extended:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "say EHLO first")
	case c.user != "":
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "AUTH was done already")
	case c.mail.open:
		return c.fail(503, smtp.Enhanced{5, 5, 1}, "a transaction is open")
	case mechanism != "PLAIN" && mechanism != "LOGIN":
		return c.fail(504, smtp.Enhanced{5, 5, 4}, "the mechanisms are PLAIN and LOGIN")
	}
	if err := c.alone("AUTH"); err != nil {
		return err
	}
	cred, err := c.credentials(mechanism, initial, hasInitial)
	var malformed *smtp.Error
	switch {
	case errors.Is(err, errCanceled):
		return c.fail(501, smtp.Enhanced{5, 0, 0}, "AUTH canceled")
	case errors.As(err, &malformed):
		return c.refuse("AUTH", malformed)
	case err != nil:
		return err
	}
	return c.check(cred)
}

// check asks the callback.
func (c *Conn) check(cred Credentials) error {
	var user string
	err := c.call(c.s.o.Timeouts.Answer, func(ctx context.Context) (err error) {
		user, err = c.s.o.Auth(ctx, c, cred)
		return err
	})
	if err == nil && user == "" {
		err = errors.New("the callback named no user")
	}
	if err == nil {
		c.user = user
		return c.ok(235, smtp.Enhanced{2, 7, 0}, "welcome")
	}
	var refusal *smtp.Error
	if errors.As(err, &refusal) && !refusal.Temporary() {
		c.log().Warn("smtp: AUTH refused", "user", cred.User, "reply", refusal.Error())
		if c.authErrors++; c.authErrors >= c.limits.AuthErrors {
			c.say(refusal.Code, refusal.Enhanced, refusal.Text)
			return c.end(421, smtp.Enhanced{4, 7, 0}, "too many failures of AUTH")
		}
	}
	return c.refuse("AUTH", err)
}

func (c *Conn) credentials(mechanism, initial string, hasInitial bool) (Credentials, error) {
	cred := Credentials{Mechanism: mechanism}
	var err error
	if mechanism == "PLAIN" {
		cred.User, cred.Password, err = c.plainResponse(initial, hasInitial)
	} else {
		cred.User, cred.Password, err = c.loginResponses(initial, hasInitial)
	}
	if err != nil {
		return cred, err
	}
	for _, s := range []string{cred.User, cred.Password} {
		if s == "" || len(s) > maxCredential || !utf8.ValidString(s) || strings.ContainsRune(s, 0) || hasControl(cred.User) {
			return cred, malformedAuth()
		}
	}
	return cred, nil
}

func malformedAuth() *smtp.Error {
	return smtp.Errorf(501, smtp.Enhanced{5, 5, 2}, "malformed response in AUTH")
}

// plainResponse reads authzid NUL authcid NUL passwd (RFC 4616 §2).
func (c *Conn) plainResponse(initial string, hasInitial bool) (user, password string, err error) {
	if !hasInitial {
		if initial, err = c.challenge(""); err != nil {
			return "", "", err
		}
	}
	message, err := decodeResponse(initial)
	if err != nil {
		return "", "", err
	}
	parts := strings.Split(message, "\x00")
	// To act for another is not offered.
	if len(parts) != 3 || parts[0] != "" && parts[0] != parts[1] {
		return "", "", malformedAuth()
	}
	return parts[1], parts[2], nil
}

// loginResponses reads the two responses of LOGIN.
func (c *Conn) loginResponses(initial string, hasInitial bool) (user, password string, err error) {
	if !hasInitial {
		if initial, err = c.challenge("Username:"); err != nil {
			return "", "", err
		}
	}
	if user, err = decodeResponse(initial); err != nil {
		return "", "", err
	}
	if password, err = c.challenge("Password:"); err != nil {
		return "", "", err
	}
	password, err = decodeResponse(password)
	return user, password, err
}

// challenge sends a challenge and returns the response, undecoded.
func (c *Conn) challenge(text string) (string, error) {
	c.say(334, smtp.Enhanced{}, base64.StdEncoding.EncodeToString([]byte(text)))
	line, err := c.readLine(smtp.MaxAuthLine)
	if err != nil {
		return "", err
	}
	if string(line) == "*" {
		return "", errCanceled
	}
	return string(line), nil
}

func decodeResponse(s string) (string, error) {
	if s == "=" { // RFC 4954 §4: an empty initial response
		s = ""
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return "", malformedAuth()
	}
	return string(b), nil
}
