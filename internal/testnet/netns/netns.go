// Package netns runs a process, and all that it starts, in a network of its
// own, so that real mail servers can be put on a small Internet: addresses of
// documentation space are the machine's own there, ports 25 and 53 are free, and
// /etc/resolv.conf names the resolver that the test chose. Nothing of it is seen
// outside, and nothing of it is left when the process ends: its network, its
// mounts and every process in it go with it.
//
// [Command] starts a process in such namespaces and [Setup], called by that
// process first of all, makes them ready. A test needs [Run] only: it runs itself
// again inside. Linux and root are needed; [Supported] says what is missing.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
)

// insideVariable tells a process that [Command] started it.
const insideVariable = "PAWL_NETNS"

// ErrOutside is returned by [Setup] in a process that [Command] did not start:
// it would change the machine's own network.
var ErrOutside = errors.New("not in a namespace of its own")

// Options say what the network is to be like. The zero value has the addresses
// of [Documentation] and leaves /etc/resolv.conf as it is.
type Options struct {
	Prefixes []netip.Prefix // every address of them can be listened on; nil: Documentation
	Resolver netip.Addr     // the one name server in /etc/resolv.conf
	Addr     netip.Addr     // the machine's address; without one, getaddrinfo with AI_ADDRCONFIG finds nothing
}

// Documentation returns the address blocks that no real host has (RFC 5737,
// RFC 3849). Mail servers treat them as they treat any other, unlike 127.0.0.0/8.
func Documentation() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("2001:db8::/32"),
	}
}

// Inside reports whether this process was started by [Command].
func Inside() bool { return os.Getenv(insideVariable) != "" }

// Command is like [exec.CommandContext], in new network, mount and process
// namespaces. The process is the first of its namespace: when it ends, or this
// one does, all that it started is killed. It should call [Setup] first.
func Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	isolate(cmd)
	return cmd
}

// Supported says why processes cannot be given namespaces here, or nil. It tries.
func Supported(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the command ip (iproute2) is not installed: %w", err)
	}
	if out, err := Command(ctx, "ip", "link").CombinedOutput(); err != nil {
		return fmt.Errorf("this system does not let namespaces be made: %w %s", err, out)
	}
	return nil
}
