// Package postfixtest runs real Postfix instances for tests, each with a folder,
// a queue and a configuration of its own, inside the network that
// [netns.Run] made. The machine's own Postfix is not touched.
//
// [Start] starts one, [Postfix.Send] hands mail to it, and [Postfix.Status] waits
// until it says what became of it. What arrived is seen at the receiving end, by
// the small Internet.
package postfixtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

const (
	daemons  = "/usr/lib/postfix/sbin" // Debian's daemon_directory
	submit   = "127.0.0.1:25"          // where an instance takes mail
	patience = 60 * time.Second        // for one thing that Postfix is waited for
	stopTime = 10 * time.Second
)

// Sender is where the mail of tests comes from.
const Sender = "from@sender.test"

// System is an installed Postfix: this machine's, or one in a folder that is
// another system's root.
type System struct {
	Root    string // "" is this machine's
	Version string // mail_version: "3.7.11"
}

// Installed returns this machine's Postfix, or skips the test; with CI=true it
// fails it.
func Installed(t testing.TB) System {
	t.Helper()
	return system(t, "")
}

// Trixie returns the Postfix of a Debian 13 that scripts/trixie.sh, given by its
// path, makes once; or skips the test.
func Trixie(t testing.TB, script string) System {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), script).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		lacking(t, "a Debian 13 folder", err)
	}
	return system(t, strings.TrimSpace(string(out)))
}

func system(t testing.TB, root string) System {
	t.Helper()
	s := System{Root: root}
	out, err := s.command(t.Context(), "postconf", "-d", "-h", "mail_version").CombinedOutput()
	if err != nil {
		lacking(t, "Postfix", fmt.Errorf("%w %s", err, out))
	}
	s.Version = strings.TrimSpace(string(out))
	return s
}

func lacking(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is needed: %v", what, err)
	}
	t.Skipf("%s is needed: %v", what, err)
}

// command runs a program of the system.
func (s System) command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	if s.Root == "" {
		return exec.CommandContext(ctx, name, arg...)
	}
	return exec.CommandContext(ctx, "chroot", append([]string{s.Root, name}, arg...)...)
}

// Postfix is one running instance.
type Postfix struct {
	System
	Dir string // its folder, seen from outside its root

	t      testing.TB
	inside string // its folder, seen from its root
	master *exec.Cmd
	log    *mailLog
}

// Options are what an instance is told beside what a lab needs.
type Options struct {
	Main  map[string]string // lines of main.cf; $config_directory is the instance's folder
	Files map[string][]byte // put into that folder
}

// Start starts an instance, and stops it when the test ends.
func Start(t testing.TB, s System, o Options) *Postfix {
	t.Helper()
	if !netns.Inside() {
		t.Fatal("a Postfix for tests runs inside netns.Run only")
	}
	p := &Postfix{System: s, t: t, log: newMailLog()}
	p.makeFolder(o)
	p.must("check", "postfix", "-c", p.inside, "check")
	p.run()
	return p
}

// makeFolder writes the configuration and makes the folders of the instance.
func (p *Postfix) makeFolder(o Options) {
	p.t.Helper()
	dir, err := os.MkdirTemp("", "pawl-postfix")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.Dir, p.inside = dir, dir
	if p.Root != "" {
		p.inside = "/mnt"
		if err := furnish(p.Root, dir); err != nil {
			p.t.Fatal(err)
		}
	}
	settings := p.settings()
	maps.Copy(settings, o.Main)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = %s\n", key, settings[key])
	}
	err = errors.Join(
		os.Chmod(dir, 0o755), // daemons that gave up root have to get in
		os.Mkdir(dir+"/queue", 0o755),
		os.Mkdir(dir+"/data", 0o700),
		os.WriteFile(dir+"/main.cf", []byte(b.String()), 0o644),
		os.WriteFile(dir+"/master.cf", []byte(masterCF), 0o644),
	)
	for name, data := range o.Files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.must("chown", "chown", "postfix", p.inside+"/data")
}

// furnish gives a root folder what Postfix needs of this machine, and the
// instance's folder as /mnt.
func furnish(root, dir string) error {
	conf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	copied := dir + "/resolv.conf"
	return errors.Join(
		os.WriteFile(copied, conf, 0o644),
		netns.Bind(copied, root+"/etc/resolv.conf"),
		netns.Bind(dir, root+"/mnt"),
		netns.Bind("/dev", root+"/dev"),
		netns.Bind("/proc", root+"/proc"),
	)
}

func (p *Postfix) settings() map[string]string {
	return map[string]string{
		"compatibility_level":      "3.6",
		"queue_directory":          p.inside + "/queue",
		"data_directory":           p.inside + "/data",
		"maillog_file":             "/dev/stdout",
		"myhostname":               "mail.sender.test",
		"mydestination":            "",
		"mynetworks":               "127.0.0.0/8",
		"smtpd_relay_restrictions": "permit_mynetworks, reject",
		"inet_interfaces":          "127.0.0.1",
		"inet_protocols":           "ipv4",
		"alias_maps":               "",
		"notify_classes":           "",
		"enable_long_queue_ids":    "yes",
		"smtp_tls_loglevel":        "1",
		"smtp_connect_timeout":     "10s",
		"smtp_helo_timeout":        "10s",
		"smtp_starttls_timeout":    "10s",
		"smtp_mail_timeout":        "10s",
		"smtp_data_done_timeout":   "20s",
		// Deferred mail is tried again at once, so that a test can wait for it.
		"queue_run_delay":      "2s",
		"minimal_backoff_time": "2s",
		"maximal_backoff_time": "2s",
	}
}

// masterCF is Debian's, nothing in a chroot of its own, mail taken on loopback.
const masterCF = `127.0.0.1:25 inet n - n - - smtpd
pickup   unix n - n 60   1 pickup
cleanup  unix n - n -    0 cleanup
qmgr     unix n - n 300  1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
rewrite  unix - - n -    - trivial-rewrite
bounce   unix - - n -    0 bounce
defer    unix - - n -    0 bounce
trace    unix - - n -    0 bounce
verify   unix - - n -    1 verify
flush    unix n - n 1000? 0 flush
proxymap unix - - n -    - proxymap
smtp     unix - - n -    - smtp
relay    unix - - n -    - smtp
showq    unix n - n -    - showq
error    unix - - n -    - error
retry    unix - - n -    - error
anvil    unix - - n -    1 anvil
scache   unix - - n -    1 scache
postlog  unix-dgram n - n - 1 postlogd
`

// must runs a program of the system that has to succeed.
func (p *Postfix) must(what, name string, arg ...string) string {
	p.t.Helper()
	out, err := p.command(p.t.Context(), name, arg...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", what, err, out)
	}
	return string(out)
}

// run starts master(8) and waits until it takes mail.
func (p *Postfix) run() {
	p.t.Helper()
	p.master = p.command(context.WithoutCancel(p.t.Context()), daemons+"/master", "-c", p.inside, "-s")
	out, err := p.master.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.master.Stderr = p.master.Stdout
	if err := p.master.Start(); err != nil {
		p.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.log.read(out)
	}()
	p.t.Cleanup(func() {
		_ = p.master.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(stopTime, func() { _ = p.master.Process.Kill() })
		defer kill.Stop()
		<-read
		_ = p.master.Wait()
		if p.t.Failed() {
			p.t.Logf("mail log:\n%s", strings.Join(p.Log(), "\n"))
		}
	})
	if _, err := p.Await(func(line string) bool { return strings.Contains(line, "daemon started") }); err != nil {
		p.t.Fatal(err)
	}
}

// Main changes lines of main.cf and reloads.
func (p *Postfix) Main(lines map[string]string) {
	p.t.Helper()
	for key, value := range lines {
		p.must("postconf", "postconf", "-c", p.inside, "-e", key+"="+value)
	}
	seen := len(p.Log())
	p.must("reload", "postfix", "-c", p.inside, "reload")
	if _, err := p.log.await(p.t.Context(), seen, func(line string) bool { return strings.Contains(line, "reload -- version") }); err != nil {
		p.t.Fatal(err)
	}
}

// Postconf returns what postconf prints for the instance with these arguments.
func (p *Postfix) Postconf(arg ...string) string {
	p.t.Helper()
	return p.must("postconf", "postconf", append([]string{"-c", p.inside}, arg...)...)
}

// Empty throws all mail in the queue away.
func (p *Postfix) Empty() {
	p.t.Helper()
	p.must("empty the queue", "postsuper", "-c", p.inside, "-d", "ALL")
}

// Send hands a message to Postfix and returns its queue id.
func (p *Postfix) Send(rcpt string) string {
	p.t.Helper()
	id, err := p.TrySend(rcpt)
	if err != nil {
		p.t.Fatalf("hand Postfix a message: %v", err)
	}
	return id
}

// TrySend is Send for goroutines of a test.
func (p *Postfix) TrySend(rcpt string) (string, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	c, err := greet(ctx)
	if err != nil { // the process that took the connection ended in a reload
		c, err = greet(ctx)
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reply, err := c.Send(Sender, rcpt, "From: "+Sender+"\r\nTo: "+rcpt+"\r\nSubject: test\r\n\r\nHello.\r\n")
	if err != nil {
		return "", err
	}
	_, id, ok := strings.Cut(reply, "queued as ")
	if !ok {
		return "", fmt.Errorf("postfix did not take it: %s", reply)
	}
	_, _ = c.Say("QUIT")
	return id, nil
}

// greet opens a session.
func greet(ctx context.Context) (*testnet.Caller, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", submit)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, _, err := testnet.NewCaller(conn)
	if err == nil {
		_, err = c.Say("EHLO client.sender.test")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Status is what Postfix logged about one try to deliver to one recipient.
type Status struct {
	ID, To, Relay, DSN string
	Result             string // "sent", "deferred", "bounced"
	Text               string // in the brackets behind it
}

// statusLine is of "smtp[1]: ID: to=<…>, relay=…, delay=…, dsn=…, status=… (…)".
var statusLine = regexp.MustCompile(`: (\w+): to=<([^>]*)>,.* relay=([^,]*),.* dsn=([0-9.]+), status=(\w+) \((.*)\)$`)

func parseStatus(line string) (Status, bool) {
	m := statusLine.FindStringSubmatch(line)
	if m == nil {
		return Status{}, false
	}
	return Status{ID: m[1], To: m[2], Relay: m[3], DSN: m[4], Result: m[5], Text: m[6]}, true
}

// Status waits until Postfix has tried to deliver a message, and returns what it
// said then.
func (p *Postfix) Status(id string) Status {
	p.t.Helper()
	line, err := p.Await(func(line string) bool {
		s, ok := parseStatus(line)
		return ok && s.ID == id
	})
	if err != nil {
		p.t.Fatalf("what became of message %s: %v", id, err)
	}
	s, _ := parseStatus(line)
	return s
}

// Statuses returns every try that Postfix logged so far.
func (p *Postfix) Statuses() []Status {
	var list []Status
	for _, line := range p.Log() {
		if s, ok := parseStatus(line); ok {
			list = append(list, s)
		}
	}
	return list
}

// Log returns the mail log.
func (p *Postfix) Log() []string { return p.log.all() }

// Await waits for a line of the mail log, one that is there already included.
func (p *Postfix) Await(match func(line string) bool) (string, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	return p.log.await(ctx, 0, match)
}

// mailLog is the log as it comes out of Postfix.
type mailLog struct {
	mu    sync.Mutex
	lines []string
	ended bool
	more  chan struct{} // closed when something changes
}

func newMailLog() *mailLog { return &mailLog{more: make(chan struct{})} }

func (l *mailLog) read(r io.Reader) {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		l.change(func() { l.lines = append(l.lines, scan.Text()) })
	}
	l.change(func() { l.ended = true })
}

func (l *mailLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.more)
	l.more = make(chan struct{})
}

func (l *mailLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// await waits for a line from the one of that number on.
func (l *mailLog) await(ctx context.Context, from int, match func(string) bool) (string, error) {
	for {
		l.mu.Lock()
		lines, ended, more := l.lines, l.ended, l.more
		l.mu.Unlock()
		for ; from < len(lines); from++ {
			if match(lines[from]) {
				return lines[from], nil
			}
		}
		if ended {
			return "", errors.New("postfix ended")
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", fmt.Errorf("the mail log does not say it: %w", context.Cause(ctx))
		}
	}
}
