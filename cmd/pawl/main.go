// Command pawl keeps mail from being downgraded on its way between servers.
//
// Results go to standard output, everything else to standard error. Every
// command that prints has --json. Exit codes: 0 all well, 1 the answer is a bad
// one (a finding, a failed check, a lab cell that ended otherwise), 2 the
// question could not be answered (usage, configuration, no server).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/lab/host"
)

// Exit codes.
const (
	exitBad   = 1
	exitError = 2
)

// errBad ends a command whose answer, already printed, is a bad one.
var errBad = errors.New("the answer is a bad one")

// errTold ends a command that failed in a process of its own, which said why.
var errTold = errors.New("another process said why")

// cli is the command line: a field a command.
type cli struct {
	Config string `help:"Configuration file; without one everything runs on loopback, with data in ./pawl-data." placeholder:"FILE" env:"PAWL_CONFIG"`

	Serve     serveCmd     `cmd:"" help:"Run the server: TLS policy map for Postfix, relay, dashboard."`
	Demo      demoCmd      `cmd:"" help:"Run the same server inside the lab's small Internet, with mail flowing and an attack to switch on."`
	Lab       labCmd       `cmd:"" help:"Run the downgrade attacks, on pawl's relay or any other mail server, and print what became of the mail."`
	Policy    policyCmd    `cmd:"" help:"Which policy holds for mail to a domain, from where, until when, and what Postfix is told."`
	Explain   explainCmd   `cmd:"" help:"How mail to a domain goes, or why a message waits, step by step."`
	Queue     queueCmd     `cmd:"" help:"Look at mail that waits, and decide about it by hand."`
	Submitter submitterCmd `cmd:"" help:"Who may hand mail in to the relay by AUTH."`
	TLSRPT    tlsrptCmd    `cmd:"" name:"tlsrpt" help:"The TLS reports that go out: what became of them, what would be sent, and who gets none."`
	DKIM      dkimCmd      `cmd:"" name:"dkim" help:"Keys that sign the mail of your own domains."`
	Reload    reloadCmd    `cmd:"" help:"Read the configuration again, and put in force what can change without a restart."`
	Drain     drainCmd     `cmd:"" help:"Take no new mail and begin no delivery, for maintenance."`
	Resume    resumeCmd    `cmd:"" help:"Take and deliver mail again after a drain."`
	Backup    backupCmd    `cmd:"" help:"Write a backup of the running server's data."`
	Restore   restoreCmd   `cmd:"" help:"Make a data folder of a backup."`
	Postfix   postfixCmd   `cmd:"" help:"What Postfix needs in main.cf, and whether it is there."`
	Check     configCmd    `cmd:"" name:"config" help:"Check the configuration and the machine, or print what is in force."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("pawl"),
		kong.Description("pawl keeps mail from being downgraded: MTA-STS, DANE and REQUIRETLS, enforced for Postfix and by its own relay.\n\nStart with `pawl demo`, then `pawl serve`."),
		kong.Vars{"senders": senderNames(), "recipes": recipeNames(), "acme": host.LetsEncrypt},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends what does not end by itself
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pawl: "+err.Error())
		fmt.Fprintln(os.Stderr, "      `pawl --help` lists the commands, and `pawl COMMAND --help` what each takes.")
		return exitError
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(&c); err != nil {
		return fail(err)
	}
	return 0
}

// fail prints the error, and the advice that comes with it, apart from it.
func fail(err error) int {
	if errors.Is(err, errBad) {
		return exitBad
	}
	if errors.Is(err, errTold) {
		return exitError
	}
	fmt.Fprintln(os.Stderr, "pawl: "+err.Error())
	var e *control.Error
	if errors.As(err, &e) && e.Do != "" {
		fmt.Fprintln(os.Stderr, "      "+e.Do)
	}
	if errors.Is(err, control.ErrNotRunning) {
		fmt.Fprintln(os.Stderr, "      Start one with `pawl serve`, or name its configuration with --config.")
	}
	return exitError
}
