package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-mail/pawl/internal/account"
	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/rate"
	"github.com/pawl-mail/pawl/internal/relay"
	"github.com/pawl-mail/pawl/internal/web"
)

// certificateSoon is how long before its end a certificate is complained about.
const certificateSoon = 14 * 24 * time.Hour

// makeAccept makes what fills the queue: the relay's side that clients see.
func (n *Node) makeAccept(ctx context.Context) (err error) {
	r := n.config.Relay
	n.accounts = account.NewStore(n.db, n.w.Now)
	if n.logins, err = account.NewLogins(n.accounts, n.w.Now); err != nil {
		return err
	}
	l := r.Limits
	n.relay, err = relay.New(relay.Options{
		Queue: n.queue, Hostname: n.config.Hostname, MaxSize: int64(r.MaxSize), MaxRecipients: r.MaxRcpts,
		Networks: prefixes(r.Networks), Proxy: prefixes(r.Proxy), TLSOptional: prefixes(r.TLSOptional),
		Files: relayFiles(r), Submitters: submitters{n.accounts, n.logins},
		Connections: r.Connections, PerClient: r.PerClient,
		Limits: relay.Limits{
			ClientMessages: l.ClientMessages, ClientRecipients: l.ClientRecipients,
			SenderMessages: l.SenderMessages, SenderRecipients: l.SenderRecipients,
			SubmitterMessages: l.SubmitterMessages, SubmitterRecipients: l.SubmitterRecipients,
			NullRecipients: l.NullRecipients,
		},
		Watermarks: relay.Watermarks{MinFree: int64(r.MinFree), MaxQueued: int64(r.MaxQueued), MaxBytes: int64(r.MaxQueuedSize)},
		Gauge:      relay.Gauge{Free: func() (int64, error) { return freeSpace(n.config.Data) }, Queued: n.queued, Bytes: n.queue.Bytes},
		Events:     n.events, Signer: n.signer, Now: n.w.Now, After: n.w.After, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.relay.Look(ctx)
	return nil
}

func relayFiles(r config.Relay) relay.Files {
	f := relay.Files{Certificate: r.TLS.Certificate, Key: r.TLS.Key, ClientCA: r.Clients.CA, Fingerprints: map[[32]byte]bool{}}
	for _, pin := range r.Clients.Fingerprints {
		f.Fingerprints[pin] = true
	}
	return f
}

// freeSpace is how much of a folder's disk this process may still use, in bytes.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // its type is the system's
}

// queued is how many deliveries wait.
func (n *Node) queued(ctx context.Context) (int64, error) {
	s, err := n.queue.Stats(ctx)
	return s.Queued + s.Held, err
}

// submitters are the accounts as the relay asks for them.
type submitters struct {
	store  *account.Store
	logins *account.Logins
}

func (s submitters) Login(ctx context.Context, client netip.Addr, name, password string) (relay.Submitter, error) {
	sub, err := s.logins.Check(ctx, client, name, password)
	switch {
	case errors.Is(err, account.ErrCredentials):
		return relay.Submitter{}, relay.ErrNoLogin
	case errors.Is(err, account.ErrThrottled), errors.Is(err, account.ErrBusy):
		return relay.Submitter{}, fmt.Errorf("%w: %w", relay.ErrLoginWait, err)
	}
	return asSubmitter(sub), err
}

func (s submitters) Submitter(ctx context.Context, name string) (relay.Submitter, error) {
	sub, err := s.store.Submitter(ctx, name)
	if errors.Is(err, account.ErrNotFound) || err == nil && sub.Disabled {
		return relay.Submitter{}, relay.ErrNoLogin
	}
	return asSubmitter(sub), err
}

func asSubmitter(s account.Submitter) relay.Submitter {
	return relay.Submitter{Org: s.Org, Name: s.Name, TLSOptional: s.TLSOptional, MaySend: s.MaySend}
}

// bounceLimit is how many bounces go to one address: whoever forges that address
// as sender, from a client that may relay, floods it with them.
type bounceLimit struct {
	table      *rate.Table
	suppressed atomic.Int64
}

func (b *bounceLimit) allow(to string) bool {
	_, ok := b.table.Take(to, 1)
	if !ok {
		b.suppressed.Add(1)
	}
	return ok
}

// bindRelay opens the relay's listeners.
func (n *Node) bindRelay(ctx context.Context) error {
	r := n.config.Relay
	for _, kind := range []struct {
		key   string
		addrs []string
		bound *[]string
		serve func(context.Context, net.Listener) error
	}{
		{"relay.listen", r.Listen, &n.bound.Relay, n.relay.Serve},
		{"relay.submissions", r.Submissions, &n.bound.Submissions, n.relay.ServeTLS},
	} {
		for i, addr := range kind.addrs {
			if addr == config.Off {
				continue
			}
			l, err := n.listen(ctx, fmt.Sprintf("%s[%d]", kind.key, i), addr)
			if err != nil {
				return err
			}
			*kind.bound = append(*kind.bound, l.Addr().String())
			n.serve("relay", func(ctx context.Context) error { return kind.serve(ctx, l) })
		}
	}
	return nil
}

// relayChecks are what is to be known about the relay's taking mail, as it is now.
func (n *Node) relayChecks() []web.Check {
	checks := []web.Check{roomCheck(n.relay.Room())}
	if n.config.Relay.TLS.Certificate != "" {
		expires, err := n.relay.Certificate()
		checks = append(checks, certificateCheck(n.w.Now(), expires, err))
	}
	return checks
}

func roomCheck(r relay.Room) web.Check {
	ck := web.Check{Name: "room"}
	const mib = 1 << 20
	switch {
	case r.Full:
		ck.Text, ck.Do = "the relay takes no more mail: "+r.Why, "Make room on the disk, or look with `pawl queue list` at what waits; clients keep their mail and try again."
	case r.Err != nil:
		ck.Text, ck.Do = r.Err.Error(), "Look at the data folder and the database; until then the relay goes by what it saw before."
	default:
		ck.OK, ck.Text = true, fmt.Sprintf("%d MiB of the disk are free, %d deliveries wait", r.Free/mib, r.Queued)
	}
	return ck
}

func certificateCheck(now, expires time.Time, err error) web.Check {
	ck := web.Check{Name: "relay TLS"}
	switch {
	case err != nil:
		ck.Text, ck.Do = err.Error(), "Put the certificate with its chain, and its key, where relay.tls says, in PEM form; clients that log in need TLS."
	case now.After(expires):
		ck.Text, ck.Do = "the relay's certificate ended on "+expires.UTC().Format(time.DateOnly), "Renew it; the files are read again within a minute."
	case expires.Sub(now) < certificateSoon:
		ck.Text, ck.Do = "the relay's certificate ends on "+expires.UTC().Format(time.DateOnly), "Renew it; the files are read again within a minute."
	default:
		ck.OK, ck.Text = true, "the relay's certificate holds until "+expires.UTC().Format(time.DateOnly)
	}
	return ck
}
