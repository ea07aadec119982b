// Package recipes sets mail servers up for the lab, each as its own documentation
// says, in a folder of its own: the machine's own server is not touched. A recipe
// is a shell script (postfix.sh), which is meant to be read, and this package
// runs it in the namespace of the small Internet, with pawl's TLS policy map
// beside it where the recipe asks for that.
//
// A script is told by its environment: DIR, an empty folder; CA, the CA file;
// LISTEN, the port on 127.0.0.1 to take mail at; MAIN, lines for main.cf. It ends
// by becoming the server, which runs until it is sent SIGTERM. Where the server
// cannot be told to try its queue every few seconds, the script is run again with
// the argument "retry", to make it do so.
package recipes

import (
	"context"
	"crypto/x509"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/lab/mta"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

//go:embed *.sh
var scripts embed.FS

const (
	listenPort = 2526
	mapAddr    = "127.0.0.1:8461"
	startTime  = 60 * time.Second
	stopTime   = 10 * time.Second
)

// Recipe is one mail server, set up in one way.
type Recipe struct {
	Name    string
	Says    string // what it is, for people
	As      string // its key among the senders of the attack table
	Needs   string // a file without which it is not installed
	Package string // Debian's, that has the file
	script  string
	pawl    bool     // pawl's TLS policy map runs beside it
	users   []string // that its package adds
	retry   bool     // its script knows "retry"
	run     mta.Options
}

// All returns every recipe.
func All() []Recipe {
	withPostfix := Recipe{Needs: "/usr/sbin/postfix", Package: "postfix", script: "postfix.sh"}
	alone, withMap := withPostfix, withPostfix
	alone.Name, alone.As, alone.Says = "postfix", "postfix-alone", "Postfix alone, with DANE"
	withMap.Name, withMap.As, withMap.Says, withMap.pawl = "postfix-pawl", "postfix-pawl", "Postfix with pawl's TLS policy map", true
	return []Recipe{
		{Name: "pawl", Says: "pawl's relay"},
		alone,
		withMap,
		{
			Name: "postfix-mta-sts-resolver", As: "postfix-mta-sts-resolver", Says: "Postfix with postfix-mta-sts-resolver",
			Needs: "/usr/bin/mta-sts-daemon", Package: "postfix-mta-sts-resolver", script: "postfix-mta-sts-resolver.sh",
		},
		{
			Name: "exim", As: "exim", Says: "Exim, with DANE",
			Needs: "/usr/sbin/exim4", Package: "exim4-daemon-light", script: "exim.sh", users: []string{"Debian-exim"},
		},
		{
			Name: "chasquid", As: "chasquid", Says: "chasquid",
			Needs: "/usr/bin/chasquid", Package: "chasquid", script: "chasquid.sh", users: []string{"chasquid"}, retry: true,
			run: mta.Options{Login: mta.Login{User: "lab@users.test", Password: "lab"}, RetryEvery: 15 * time.Second},
		},
		{
			Name: "opensmtpd", As: "opensmtpd", Says: "OpenSMTPD",
			Needs: "/usr/sbin/smtpd", Package: "opensmtpd", script: "opensmtpd.sh", users: []string{"opensmtpd", "opensmtpq"}, retry: true,
			run: mta.Options{Settle: 20 * time.Second}, // it keeps a connection for 10 s, and a domain's hosts for 15
		},
	}
}

// Named returns the recipe of a name.
func Named(name string) (Recipe, error) {
	all := All()
	if i := slices.IndexFunc(all, func(r Recipe) bool { return r.Name == name }); i >= 0 {
		return all[i], nil
	}
	return Recipe{}, &control.Error{Text: "there is no recipe " + name, Do: "There are " + strings.Join(Names(), ", ") + "."}
}

// Names are the names of all recipes.
func Names() []string {
	var names []string
	for _, r := range All() {
		names = append(names, r.Name)
	}
	return names
}

// Installed says what is missing, or nil.
func (r Recipe) Installed() error {
	if r.Needs == "" {
		return nil
	}
	if _, err := os.Stat(r.Needs); err != nil {
		return &control.Error{Text: fmt.Sprintf("%s is not installed: %v", r.Says, err), Do: "On Debian: apt-get install " + r.Package}
	}
	return nil
}

// Site is where a server is to run.
type Site struct {
	CAFile string
	Roots  *x509.CertPool // the same, for pawl's own part
	Root   string         // "": it is installed; else the folder in which its package was unpacked
	Log    io.Writer      // nil: a file in the server's folder, shown if it does not start
}

// Running is a server that was started.
type Running struct {
	Options mta.Options // how to run the lab on it: Addr, and what is particular to it
	stop    []func()
}

// Stop ends the server and what runs beside it, and waits for it.
func (r *Running) Stop() {
	for _, stop := range slices.Backward(r.stop) {
		stop()
	}
}

// Start starts the server in the namespace that this process is in, and returns
// when it takes mail.
func (r Recipe) Start(ctx context.Context, site Site) (_ *Running, err error) {
	if site.Root != "" {
		if err := errors.Join(netns.Unpacked(site.Root), netns.AddUsers(r.users...)); err != nil {
			return nil, err
		}
	}
	if err := r.Installed(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pawl-recipe-*")
	if err != nil {
		return nil, err
	}
	x := &Running{Options: r.run, stop: []func(){func() { _ = os.RemoveAll(dir) }}}
	x.Options.Addr, x.Options.As = "127.0.0.1:"+strconv.Itoa(listenPort), r.As
	defer func() {
		if err != nil {
			x.Stop()
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server's other users have to get in
		return nil, err
	}
	if r.script == "" {
		return x, x.relay(ctx, dir, site)
	}
	env := append(os.Environ(), "DIR="+dir, "CA="+site.CAFile, "LISTEN="+strconv.Itoa(listenPort), "SSL_CERT_FILE="+site.CAFile)
	if r.pawl {
		lines, err := x.policyMap(ctx, dir, site)
		if err != nil {
			return nil, err
		}
		env = append(env, "MAIN="+lines)
	}
	return x, x.run(ctx, r, dir, env, site.Log)
}

// run starts the script.
func (x *Running) run(ctx context.Context, r Recipe, dir string, env []string, log io.Writer) error {
	if err := os.CopyFS(dir, scripts); err != nil { // one may include another
		return err
	}
	file := filepath.Join(dir, r.script)
	kept := &tail{}
	if log == nil {
		log = kept
	}
	if r.retry {
		x.Options.Retry = func(ctx context.Context) error {
			cmd := exec.CommandContext(ctx, "/bin/sh", file, "retry")
			cmd.Env, cmd.Dir = env, dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", r.Says, err, out)
			}
			return nil
		}
	}
	cmd := exec.Command("/bin/sh", file) //nolint:noctx // ended by Stop, not killed
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, dir, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	x.stop = append(x.stop, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopTime):
			_ = cmd.Process.Kill()
		}
	})
	waiting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-waiting.Done():
		}
	}()
	if err := mta.Ready(waiting, x.Options.Addr, startTime); err != nil {
		return fmt.Errorf("%s does not start: %w\n%s", r.Says, err, kept)
	}
	return nil
}

// policyMap starts pawl's TLS policy map and returns what main.cf needs for it.
func (x *Running) policyMap(ctx context.Context, dir string, site Site) (string, error) {
	out, err := exec.CommandContext(ctx, "postconf", "-d", "-h", "mail_version").Output()
	if err != nil {
		return "", fmt.Errorf("asking Postfix for its version: %w", err)
	}
	version, err := postfix.ParseVersion(strings.TrimSpace(string(out)))
	if err != nil {
		return "", err
	}
	c := pawlConfig(dir)
	c.Postfix.Listen, c.Relay.Listen = mapAddr, nil
	if err := x.pawl(ctx, c, site); err != nil {
		return "", err
	}
	var lines []string
	for _, s := range postfix.MainCF(version, mapAddr) {
		lines = append(lines, s.Key+" = "+s.Value)
	}
	return strings.Join(lines, "\n"), nil
}

// relay starts pawl's relay.
func (x *Running) relay(ctx context.Context, dir string, site Site) error {
	c := pawlConfig(dir)
	c.Postfix.Listen, c.Relay.Listen = config.Off, []string{x.Options.Addr}
	c.Relay.TLSOptional = []config.Network{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	c.Relay.RetryFirst, c.Relay.RetryMax = config.Duration(relayRetry), config.Duration(relayRetry)
	return x.pawl(ctx, c, site)
}

// relayRetry is as quick as the other servers' retries.
const relayRetry = 3 * time.Second

func pawlConfig(dir string) config.Config {
	c := config.Default()
	c.Hostname, c.Data = "mail.sender.test", filepath.Join(dir, "pawl")
	c.DNS.Upstreams, c.DNS.Signed, c.DNS.Bogus = []string{mta.Resolver + ":53"}, testnet.SignedName, testnet.BogusName
	c.Web.Listen = config.Off
	return c
}

func (x *Running) pawl(ctx context.Context, c config.Config, site Site) error {
	n, err := node.New(ctx, c, node.Wiring{Roots: site.Roots, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("starting pawl: %w", err)
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = n.Run(running) // what it could not do shows in the table
	}()
	x.stop = append(x.stop, func() {
		cancel()
		<-ended
	})
	return nil
}

// maxTail is how much of a server's output is kept.
const maxTail = 8 << 10

// tail keeps the end of what is written.
type tail struct{ text []byte }

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	return len(b), nil
}

func (t *tail) String() string { return string(t.text) }
