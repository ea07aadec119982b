package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/lab/host"
)

type labHostCmd struct {
	Domain       string        `arg:"" help:"The domain, which is used for this only: lab.example.org."`
	Address      []netip.Addr  `required:"" help:"An address of this machine, for the policies and the hosts that offer STARTTLS; one of IPv4 and one of IPv6." placeholder:"IP"`
	ClearAddress []netip.Addr  `help:"Another, for the hosts that do not offer STARTTLS. Without it there are no such tests." placeholder:"IP"`
	DNSSEC       bool          `name:"dnssec" help:"The zone is signed: test DANE, too."`
	Records      bool          `help:"Print the records that the zone must hold, and end."`
	Postmaster   string        `help:"Who gets the mail for postmaster@ and abuse@ at the domain." placeholder:"ADDRESS"`
	ACME         bool          `name:"acme" help:"Get certificates by ACME; you accept the CA's terms of service."`
	Directory    string        `name:"acme-directory" help:"The CA's directory." default:"${acme}" placeholder:"URL"`
	ACMERoots    string        `name:"acme-roots" help:"PEM file to verify the directory by, in place of the system's CAs." type:"existingfile" placeholder:"FILE"`
	Certificate  []string      `help:"Without ACME: a PEM file with a certificate and its chain; may be repeated. Read again when it changes." type:"existingfile" placeholder:"FILE"`
	Key          []string      `help:"The key of each --certificate, in the same order." type:"existingfile" placeholder:"FILE"`
	Relay        string        `help:"Who sends the answers: pawl's relay, or any that takes mail from the null sender." default:"127.0.0.1:2525" placeholder:"HOST:PORT"`
	Data         string        `help:"Folder for keys, certificates and runs." default:"lab-host" type:"path" placeholder:"FOLDER"`
	Wait         time.Duration `help:"How long after the first mail the verdict is sent: longer than senders wait for their first retries." default:"30m"`
}

func (l *labHostCmd) Help() string {
	return "Examples:\n" +
		"  pawl lab host lab.example.org --address 192.0.2.25 --clear-address 192.0.2.26 --records\n" +
		"  pawl lab host lab.example.org --address 192.0.2.25 --clear-address 192.0.2.26 --postmaster me@example.com --acme\n\n" +
		"A host with good and with broken receivers, each a domain of its own below the one that is named. " +
		"Whoever mails start@ the domain gets the addresses of the tests, replies to them, and is told by mail what his server did.\n\n" +
		"It listens on ports 25 and 443 of its addresses until it is stopped. docs/lab.md takes you through it."
}

// Run runs the host, or prints its records.
func (l *labHostCmd) Run(ctx context.Context) error {
	site := host.Site{Domain: strings.ToLower(strings.TrimSuffix(l.Domain, ".")), Addrs: l.Address, Clear: l.ClearAddress, DNSSEC: l.DNSSEC}
	if err := site.Check(); err != nil {
		return &control.Error{Text: err.Error(), Do: "See `pawl lab host --help` for what is needed."}
	}
	if err := host.MakeData(l.Data); err != nil {
		return err
	}
	if l.Records {
		return l.print(site)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	certificates, err := l.certificates(site, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{})
	h, err := host.New(host.Options{
		Site: site, Data: l.Data, Relay: l.Relay, Postmaster: l.Postmaster, Certificates: certificates,
		Resolver: net.DefaultResolver, Wait: l.Wait, Log: log, Ready: func() { close(ready) },
	})
	if err != nil {
		return &control.Error{Text: err.Error(), Do: "See `pawl lab host --help` for what is needed."}
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	looked := make(chan struct{})
	select {
	case err = <-ended:
		close(looked)
	case <-ready:
		go func() {
			defer close(looked)
			l.look(ctx, h, log)
		}()
		err = <-ended
	}
	cancel()
	<-looked
	if err != nil {
		return &control.Error{Text: err.Error(), Do: "The addresses have to be this machine's, and their ports 25 and 443 free; to listen there it needs root, or the capability CAP_NET_BIND_SERVICE."}
	}
	return nil
}

// print prints the records, and what has to be known about them.
func (l *labHostCmd) print(site host.Site) error {
	records, err := site.ZoneText(l.Data)
	if err != nil {
		return &control.Error{Text: err.Error(), Do: "See `pawl lab host --help` for what is needed."}
	}
	fmt.Print(records)
	tell("These records belong into the zone of %s. The TLSA records, where there are any, are those of", site.Domain)
	tell("the key in %s, which must stay. If answers leave from other addresses than", l.Data)
	tell("the domain's MX host has, name these in the SPF record.")
	return nil
}

// look says what is missing for the tests to be fair, while the host runs.
func (l *labHostCmd) look(ctx context.Context, h *host.Host, log *slog.Logger) {
	missing, err := h.Unpublished(ctx)
	if err != nil && ctx.Err() == nil {
		log.Warn("lab host: whether DNS has the records cannot be looked up", "err", err)
	}
	for _, m := range missing {
		log.Warn("lab host: DNS does not have a record yet; `pawl lab host … --records` prints all", "record", m)
	}
	bad := h.Warm(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil && bad == 0:
		log.Info("lab host: it takes mail", "mail", "start@"+l.Domain)
	case bad > 0 || len(missing) > 0:
		log.Warn("lab host: it takes mail, but some tests are not fair yet", "mail", "start@"+l.Domain, "records_missing", len(missing), "certificates_missing", bad)
	default:
		log.Info("lab host: ready", "mail", "start@"+l.Domain)
	}
}

// certificates are those of ACME or of files.
func (l *labHostCmd) certificates(site host.Site, log *slog.Logger) (host.Certificates, error) {
	switch {
	case l.ACME && len(l.Certificate) > 0:
		return nil, &control.Error{Text: "--acme and --certificate are both given", Do: "Give one of them."}
	case l.ACME:
		roots, err := rootsOf(l.ACMERoots)
		if err != nil {
			return nil, err
		}
		return host.ACME{Directory: l.Directory, Contact: l.Postmaster, Roots: roots}.Certificates(site, l.Data), nil
	case len(l.Certificate) == 0:
		return nil, &control.Error{Text: "the hosts need certificates of a CA", Do: "Give --acme, or --certificate and --key."}
	case len(l.Certificate) != len(l.Key):
		return nil, &control.Error{Text: fmt.Sprintf("there are %d of --certificate and %d of --key", len(l.Certificate), len(l.Key)), Do: "Each certificate needs its key."}
	}
	var files []host.Files
	for i := range l.Certificate {
		files = append(files, host.Files{Certificate: l.Certificate[i], Key: l.Key[i]})
	}
	c, err := host.FromFiles(site, files, time.Now, log)
	if err != nil {
		return nil, &control.Error{Text: err.Error(), Do: "Each host needs a certificate for its name, with its key; --acme gets them by itself."}
	}
	return c, nil
}

// rootsOf reads a file of CAs; without one it is nil, which stands for the system's.
func rootsOf(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, &control.Error{Text: name + " has no certificate in it", Do: "It must be a PEM file."}
	}
	return pool, nil
}
