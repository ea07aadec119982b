package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/web"
)

// Wiring is what a node takes from the world around it. The zero value is the
// real world; the lab and the tests put their own small one in its place, so
// that they run the code that mail runs.
type Wiring struct {
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	Dial  Dial           // to MX hosts and policy hosts, "IP:PORT"
	Roots *x509.CertPool // nil: the configuration's, or the system's
	Log   *slog.Logger
	SMTP  uint16        // port of MX hosts; 0: 25
	Lab   web.Lab       // the demo's attacker; nil outside the demo
	Runs  web.Runs      // of the lab, for the dashboard; nil: none
	Fetch time.Duration // cap of a policy fetch, by the machine's clock; 0: mtasts.DefaultTimeout
	// Attempts stands between the queue and the deliverer, to see each attempt
	// and what it came to; nil: nothing does.
	Attempts func(queue.Deliver) queue.Deliver
	// Load reads the configuration again, for a reload; nil: there is no file.
	Load func() (config.Config, error)
	// GiveBack returns memory to the system when a burst of work is over: for a
	// process that has nothing else to do.
	GiveBack bool
	// Notify tells the service manager how the node is, in the words of package
	// systemd; nil: nobody is told.
	Notify func(said string)
	Output func(format string, args ...any) // what a person is told at the start; nil: nothing
}

func (w Wiring) withDefaults() Wiring {
	if w.Now == nil {
		w.Now = time.Now
	}
	if w.After == nil {
		w.After = time.After
	}
	if w.Dial == nil {
		w.Dial = dial
	}
	if w.Log == nil {
		w.Log = slog.New(slog.DiscardHandler)
	}
	if w.SMTP == 0 {
		w.SMTP = 25
	}
	if w.Notify == nil {
		w.Notify = func(string) {}
	}
	if w.Output == nil {
		w.Output = func(string, ...any) {}
	}
	if w.Attempts == nil {
		w.Attempts = func(d queue.Deliver) queue.Deliver { return d }
	}
	return w
}

// GCPercent is how much garbage `pawl serve` lets lie, in percent of what is in
// use (GOGC, which goes before it). Go's own 100 would have a node with many cached
// policies keep their room twice, for a gain of a few percent of processor time.
const GCPercent = 50

// roots are the certificate authorities that policies' PKIX rules trust.
func roots(c config.Config, w Wiring) (*x509.CertPool, error) {
	switch {
	case w.Roots != nil:
		return w.Roots, nil
	case c.Policy.Roots == "":
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
		}
		return pool, nil
	}
	pem, err := os.ReadFile(c.Policy.Roots)
	if err != nil {
		return nil, fmt.Errorf("reading policy.roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("policy.roots: %s holds no certificate in PEM form", c.Policy.Roots)
	}
	return pool, nil
}

// resolvConf is where the system's resolvers are named.
const resolvConf = "/etc/resolv.conf"

// newResolver makes the resolver that the configuration names.
func newResolver(c config.Config, w Wiring) (*resolve.Resolver, error) {
	upstreams := c.DNS.Upstreams
	if len(upstreams) == 0 {
		var err error
		if upstreams, err = resolve.SystemUpstreams(resolvConf); err != nil {
			return nil, fmt.Errorf("finding the system's resolvers: %w", err)
		}
	}
	if len(upstreams) == 0 {
		return nil, errors.New("no resolver is configured, and " + resolvConf + " names none")
	}
	return resolve.New(resolve.Options{
		Upstreams: upstreams, Timeout: c.DNS.Timeout.Std(), Validating: c.DNS.Validating, Dial: w.Dial, Now: w.Now, Log: w.Log,
	}), nil
}

// logger makes the log that the configuration wants, whose level can be changed.
func logger(c config.Log, levels *slog.LevelVar) *slog.Logger {
	levels.Set(level(c.Level))
	return slog.New(logHandler(c, levels, os.Stderr))
}

func logHandler(c config.Log, levels slog.Leveler, to io.Writer) slog.Handler {
	o := &slog.HandlerOptions{Level: levels}
	if c.Redact {
		o.ReplaceAttr = redact
	}
	if c.Format == "json" {
		return slog.NewJSONHandler(to, o)
	}
	return slog.NewTextHandler(to, o)
}

// redact leaves no mailbox in a value of the log, whatever it is of.
func redact(_ []string, a slog.Attr) slog.Attr {
	if k := a.Value.Kind(); k != slog.KindString && k != slog.KindAny {
		return a
	}
	text := a.Value.String()
	if without := smtp.Redact(text); without != text {
		a.Value = slog.StringValue(without)
	}
	return a
}

// level is a level by its name, which the configuration's check has accepted.
func level(name string) (l slog.Level) {
	_ = l.UnmarshalText([]byte(name))
	return l
}

// listen opens a listener as the configuration writes it: ADDRESS:PORT or
// unix:PATH. A port in use is one clear sentence.
func listen(ctx context.Context, key, addr string) (net.Listener, error) {
	network := "tcp"
	if path, ok := cutUnix(addr); ok {
		network, addr = "unix", path
		if err := removeStaleSocket(path); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return nil, listenError(key, addr, err)
	}
	return l, nil
}
