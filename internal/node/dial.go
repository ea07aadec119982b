package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/deliver"
	"github.com/pawl-mail/pawl/internal/resolve"
)

// Dial opens a connection to an address "IP:PORT". It is net.Dialer's outside
// the lab, and the small Internet's inside.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// dialTimeout caps one connection to one address. RFC 5321 §4.5.3.2 leaves it
// open; a host that does not answer a SYN by then is as good as down.
const dialTimeout = 30 * time.Second

// dial is the Dial of the real world. The relay names the address that its
// connections come from, where the configuration does.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if source := deliver.Source(ctx); source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return d.DialContext(ctx, network, addr)
}

// maxDialAddrs caps how many of a policy host's addresses are tried.
const maxDialAddrs = 8

// addrs looks a host's addresses up.
type addrs interface {
	Addrs(ctx context.Context, host string) (resolve.Answer[netip.Addr], error)
}

// byName returns a dialler for "NAME:PORT" that asks pawl's own resolver, so
// that policy hosts are found over the same DNS as everything else, and tries
// the addresses in turn.
func byName(r addrs, dial Dial) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("connecting to %q: %w", addr, err)
		}
		found, err := r.Addrs(ctx, host)
		if err != nil {
			// The form in which package mtasts tells a lookup's failure apart.
			return nil, &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: host, IsNotFound: resolve.IsNotFound(err)}
		}
		var failures []error
		for i, ip := range found.Records {
			if i == maxDialAddrs {
				break
			}
			conn, err := dial(ctx, network, net.JoinHostPort(ip.String(), port))
			if err == nil {
				return conn, nil
			}
			failures = append(failures, err)
			if ctx.Err() != nil {
				break
			}
		}
		return nil, errors.Join(failures...)
	}
}
