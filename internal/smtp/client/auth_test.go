package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// underTLS is a session up to the offer of AUTH.
func underTLS(offer string) string {
	return `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 STARTTLS
		C: STARTTLS
		S: 220 go ahead
		TLS
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 ` + offer
}

func TestRFC4954_CredentialsAreGiven(t *testing.T) {
	for name, c := range map[string]struct{ offer, rest, want string }{
		"by PLAIN": {"AUTH LOGIN PLAIN", `
		C: AUTH PLAIN AG1lAHNlc2FtZQ==
		S: 235 2.7.0 welcome`, ""},
		"by LOGIN": {"AUTH LOGIN", `
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: bWU=
		S: 334 UGFzc3dvcmQ6
		C: c2VzYW1l
		S: 235 2.7.0 welcome`, ""},
		"by LOGIN, and refused": {"AUTH LOGIN", `
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: bWU=
		S: 535 5.7.8 no such user`, "535 5.7.8 no such user"},
		"and refused":                  {"AUTH PLAIN", "\n\t\tC: AUTH PLAIN AG1lAHNlc2FtZQ==\n\t\tS: 535 5.7.8 no", "535 5.7.8 no"},
		"and answered with nonsense":   {"AUTH PLAIN", "\n\t\tC: AUTH PLAIN AG1lAHNlc2FtZQ==\n\t\tS: 250 ok", "the server answered with"},
		"and asked for more":           {"AUTH PLAIN", "\n\t\tC: AUTH PLAIN AG1lAHNlc2FtZQ==\n\t\tS: 334 more", "the server answered with"},
		"not where nothing is offered": {"PIPELINING", "", "AUTH"},
		"not by another mechanism":     {"AUTH CRAM-MD5 XPLAIN", "", "AUTH"},
	} {
		t.Run(name, func(t *testing.T) {
			var said []string
			o := client.Options{Trace: func(_ client.Direction, line string) { said = append(said, line) }}
			play(t, script(underTLS(c.offer)+c.rest), o, func(t *testing.T, cl *client.Client) {
				open(t, cl)
				err := cl.Authenticate(t.Context(), "me", "sesame")
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
			if all := strings.Join(said, "\n"); strings.Contains(all, "AG1lA") || strings.Contains(all, "c2VzYW1l") {
				t.Errorf("the password stands in the transcript:\n%s", all)
			}
		})
	}
}

// open opens a session as far as TLS.
func open(t *testing.T, c *client.Client) {
	t.Helper()
	for _, step := range []func(context.Context) error{
		c.Hello, func(ctx context.Context) error { return c.StartTLS(ctx, insecure()) }, c.Hello,
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRFC4954_4_NoCredentialsInClear(t *testing.T) {
	play(t, `
		S: 220 mx.example.com
		C: EHLO mail.example.org
		S: 250-mx.example.com
		S: 250 AUTH PLAIN`, client.Options{}, func(t *testing.T, c *client.Client) {
		if err := c.Hello(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Authenticate(t.Context(), "me", "sesame"); !errors.Is(err, client.ErrNoTLS) {
			t.Errorf("got %v", err)
		}
	})
}
