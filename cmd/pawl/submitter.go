package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/pawl-mail/pawl/internal/account"
	"github.com/pawl-mail/pawl/internal/node"
)

type submitterCmd struct {
	Add      submitterAddCmd      `cmd:"" help:"Let somebody hand mail in by AUTH."`
	List     submitterListCmd     `cmd:"" help:"List the submitters."`
	Remove   submitterRemoveCmd   `cmd:"" help:"End a submitter; open connections of it too."`
	Password submitterPasswordCmd `cmd:"" help:"Give a submitter another password."`
	Disable  submitterSwitchCmd   `cmd:"" help:"Refuse a submitter's logins and mail until it is enabled."`
	Enable   submitterSwitchCmd   `cmd:"" help:"Take a disabled submitter's mail again."`
}

// newPassword is how a password comes in: by standard input, or made here and
// printed once.
type newPassword struct {
	PasswordStdin bool `help:"Read the password from the first line of standard input; without this, one is made and printed once."`
}

// maxPasswordLine is how long a line with a password may be.
const maxPasswordLine = 4096

func (n newPassword) get() (password string, made bool, err error) {
	if !n.PasswordStdin {
		return rand.Text(), true, nil
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, maxPasswordLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false, fmt.Errorf("reading the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), false, nil
}

// withPassword is a submitter with the password that was made for it.
type withPassword struct {
	account.Submitter
	Password string `json:"password,omitempty"`
}

type submitterAddCmd struct {
	output
	newPassword
	Name        string   `arg:"" help:"The name to log in with."`
	Sender      []string `required:"" help:"An address or domain that may stand in MAIL FROM, or * for any; may be repeated." placeholder:"ADDRESS"`
	TLSOptional bool     `name:"tls-optional" help:"It may send TLS-Required: No (RFC 8689), which sets the destination's policy aside for that message."`
	Org         string   `help:"Its organisation." placeholder:"NAME"`
}

func (s *submitterAddCmd) Help() string {
	return "Example: pawl submitter add webshop --sender shop.example.com --sender billing@example.com"
}

func (s *submitterAddCmd) Run(ctx context.Context, top *cli) error {
	password, made, err := s.get()
	if err != nil {
		return err
	}
	p := node.SubmitterParams{Password: password}
	p.Submitter = account.Submitter{Org: s.Org, Name: s.Name, Senders: s.Sender, TLSOptional: s.TLSOptional}
	added := withPassword{}
	if err := top.call(ctx, "submitter.add", p, &added.Submitter); err != nil {
		return err
	}
	if made {
		added.Password = password
	}
	if s.JSON {
		return s.json(added)
	}
	printSubmitter(added.Submitter)
	printPassword(added.Password)
	return nil
}

func printPassword(password string) {
	if password != "" {
		say("    password %s", bold.Render(password))
		say("    %s", faint.Render("it is shown this once; what is kept is its argon2id hash"))
	}
}

func printSubmitter(s account.Submitter) {
	line := bold.Render(s.Name) + "  sends as " + strings.Join(s.Senders, ", ")
	if s.Senders[0] == account.AnySender {
		line = bold.Render(s.Name) + "  " + warn.Render("sends as anybody")
	}
	if s.TLSOptional {
		line += "  " + warn.Render("may send TLS-Required: No")
	}
	if s.Disabled {
		line += "  " + bad.Render("disabled")
	}
	say("%s  %s", line, faint.Render("since "+stamp(s.Created)))
}

type submitterListCmd struct {
	output
}

func (s *submitterListCmd) Run(ctx context.Context, top *cli) error {
	all := []account.Submitter{}
	if err := top.call(ctx, "submitter.list", struct{}{}, &all); err != nil {
		return err
	}
	if s.JSON {
		return s.json(all)
	}
	if len(all) == 0 {
		say("there are none")
	}
	for _, sub := range all {
		printSubmitter(sub)
	}
	return nil
}

type submitterRemoveCmd struct {
	output
	Name string `arg:"" help:"The submitter."`
}

func (s *submitterRemoveCmd) Run(ctx context.Context, top *cli) error {
	var done bool
	if err := top.call(ctx, "submitter.remove", s.Name, &done); err != nil {
		return err
	}
	return s.done(s.Name, "removed")
}

// done says what became of a submitter.
func (o output) done(name, what string) error {
	if o.JSON {
		return o.json(map[string]string{"name": strings.ToLower(name), "done": what})
	}
	say("%s is %s", strings.ToLower(name), what)
	return nil
}

type submitterPasswordCmd struct {
	output
	newPassword
	Name string `arg:"" help:"The submitter."`
}

func (s *submitterPasswordCmd) Run(ctx context.Context, top *cli) error {
	password, made, err := s.get()
	if err != nil {
		return err
	}
	var done bool
	if err := top.call(ctx, "submitter.password", node.PasswordParams{Name: s.Name, Password: password}, &done); err != nil {
		return err
	}
	if !made {
		password = ""
	}
	if s.JSON {
		return s.json(map[string]string{"name": strings.ToLower(s.Name), "password": password})
	}
	say("%s has another password", strings.ToLower(s.Name))
	printPassword(password)
	return nil
}

type submitterSwitchCmd struct {
	output
	Name string `arg:"" help:"The submitter."`
}

// Run does what the command is named after.
func (s *submitterSwitchCmd) Run(ctx context.Context, top *cli, parsed *kong.Context) error {
	disable := strings.Fields(parsed.Command())[1] == "disable"
	var done bool
	if err := top.call(ctx, "submitter.disable", node.DisableParams{Name: s.Name, Disabled: disable}, &done); err != nil {
		return err
	}
	if disable {
		return s.done(s.Name, "disabled")
	}
	return s.done(s.Name, "enabled")
}
