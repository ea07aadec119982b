package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/lab/mta"
	"github.com/pawl-mail/pawl/internal/lab/recipes"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

type labServeCmd struct {
	output
	labChoice
	Sender string        `help:"Where the mail server under test takes mail, in the namespace." default:"127.0.0.1:2526" placeholder:"HOST:PORT"`
	Run_   string        `name:"run" help:"Start the mail server with this command, in the namespace." placeholder:"COMMAND"`
	Retry  string        `help:"Make the mail server try its queue again with this command, every few seconds. Without it the server has to do so by itself." placeholder:"COMMAND"`
	Recipe string        `help:"Set up and start one that is installed here: ${recipes}." placeholder:"NAME"`
	Auth   string        `help:"Hand messages over as this user, with AUTH PLAIN. Without it the server has to take them from anyone on 127.0.0.1." placeholder:"USER:PASSWORD"`
	As     string        `help:"Expect what this mail server does by design: ${senders}. Without it: what every sender should do." placeholder:"NAME"`
	Wait   time.Duration `help:"How long mail may take to leave: longer than two retries of the server." default:"2m"`
	Settle time.Duration `help:"How long after the honest mail the attacks begin: longer than the server keeps a connection or a DNS answer." default:"3s"`
	Start  time.Duration `help:"How long the server may take to start." default:"5m"`
	CAFile string        `name:"ca-file" help:"Where the CA file is written." default:"/tmp/pawl-lab-ca.pem" type:"path"`
}

func (l *labServeCmd) Help() string {
	return "Examples:\n" +
		"  pawl lab serve --recipe postfix\n" +
		"  pawl lab serve --sender 127.0.0.1:2526 --run 'exim4 -C /tmp/lab/exim.conf -bdf -oX 127.0.0.1.2526'\n\n" +
		"A network namespace is made, with a small Internet in it: MX hosts at documentation addresses, policy hosts, a resolver. " +
		"The mail server runs in there and is handed the messages of the attacks; what becomes of them is seen at the receiving ends. " +
		"It must listen on 127.0.0.1, not on all addresses, take mail from there for any domain, send it to MX hosts itself, and retry every few seconds. " +
		"Nothing of it is seen outside. docs/lab.md takes you through it.\n\n" +
		"It needs root, on Linux. Exit code 1 if a cell ended otherwise than it must."
}

// Run runs the lab on another mail server.
func (l *labServeCmd) Run(ctx context.Context, top *cli) error {
	if !netns.Inside() {
		return enter(ctx)
	}
	if l.Recipe != "" && l.Run_ != "" {
		return &control.Error{Text: "--recipe and --run both start a mail server", Do: "Give one of them."}
	}
	if err := netns.Setup(ctx, mta.Network()); err != nil {
		return err
	}
	field, err := mta.Open(l.CAFile)
	if err != nil {
		return err
	}
	report, err := l.test(ctx, field)
	if err := errors.Join(err, field.Close()); err != nil {
		return err
	}
	if err := top.keep(report); err != nil {
		return err
	}
	return l.show(report, l.output)
}

func (l *labServeCmd) test(ctx context.Context, field *mta.Field) (lab.Report, error) {
	o, stop, err := l.start(ctx, field)
	if err != nil {
		return lab.Report{}, err
	}
	defer stop()
	if err := mta.Ready(ctx, o.Addr, l.Start); err != nil {
		return lab.Report{}, err
	}
	o.Only, o.Columns, o.Wait = l.Only, l.Column, l.Wait
	o.Progress = func(what string) { tell("lab: %s", what) }
	return field.Run(ctx, o)
}

// start starts the mail server under test, or says how to, and returns what is
// particular to it. What was given on the command line goes before a recipe's.
func (l *labServeCmd) start(ctx context.Context, field *mta.Field) (o mta.Options, stop func(), err error) {
	o, stop = mta.Options{Addr: l.Sender}, func() {}
	switch {
	case l.Recipe != "":
		o, stop, err = l.cook(ctx, field)
	case l.Run_ != "":
		l.advise(field)
		stop, err = l.command(ctx)
	default:
		l.advise(field)
	}
	if l.Auth != "" {
		o.Login.User, o.Login.Password, _ = strings.Cut(l.Auth, ":")
	}
	if l.As != "" {
		o.As = l.As
	}
	if l.Retry != "" {
		o.Retry = l.retry
	}
	o.Settle = max(o.Settle, l.Settle)
	return o, stop, err
}

// cook starts the recipe's mail server.
func (l *labServeCmd) cook(ctx context.Context, field *mta.Field) (mta.Options, func(), error) {
	r, err := recipes.Named(l.Recipe)
	if err != nil {
		return mta.Options{}, nil, err
	}
	tell("lab: starting %s", r.Says)
	running, err := r.Start(ctx, recipes.Site{CAFile: field.CAFile, Roots: field.Net.Roots()})
	if err != nil {
		return mta.Options{}, nil, err
	}
	return running.Options, running.Stop, nil
}

// command starts the mail server of --run.
func (l *labServeCmd) command(ctx context.Context) (stop func(), err error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", l.Run_)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the mail server: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // a server that goes into the background ends here, too
	}()
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}, nil
}

// retry runs the command of --retry.
func (l *labServeCmd) retry(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "/bin/sh", "-c", l.Retry).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", l.Retry, err, out)
	}
	return nil
}

// advise says what the mail server has to be told.
func (l *labServeCmd) advise(field *mta.Field) {
	tell("The small Internet is up. Set the mail server to:")
	tell("  resolver          %s (it is in /etc/resolv.conf here), which validates DNSSEC", mta.Resolver)
	tell("  trusted CAs       %s", field.CAFile)
	tell("  listen            %s only, and take mail from 127.0.0.1 for any domain", l.Sender)
	tell("  retry             every few seconds, or by --retry; no relay host, no limit for a destination")
	if l.Run_ == "" {
		tell("Waiting for it at %s, for %s at the most.", l.Sender, l.Start)
	}
}

// tell writes a line to standard error: standard output is for the report.
func tell(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// enter starts this command again in a namespace of its own.
func enter(ctx context.Context) error {
	if err := netns.Supported(ctx); err != nil {
		return &control.Error{
			Text: "the lab for other mail servers needs a network namespace: " + err.Error(),
			Do:   "Run it as root on Linux. `pawl lab` tests pawl's own relay without any privilege.",
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return err
	}
	cmd := netns.Command(ctx, self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	signal.Ignore(syscall.SIGTTOU)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting in a namespace: %w", err)
	}
	tell("A program is started in the namespace from another terminal with: nsenter -t %d -m -n -p COMMAND", cmd.Process.Pid)
	var exit *exec.ExitError
	switch err := cmd.Wait(); {
	case errors.As(err, &exit) && exit.ExitCode() == exitBad:
		return errBad
	case errors.As(err, &exit):
		return errTold
	default:
		return err
	}
}

// senderNames and recipeNames are for the help.
func senderNames() string {
	t, err := lab.Load()
	if err != nil {
		return err.Error()
	}
	return strings.Join(t.SenderNames(), ", ")
}

func recipeNames() string { return strings.Join(recipes.Names(), ", ") }
