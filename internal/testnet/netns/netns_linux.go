package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
)

// resolvConf is where the C library looks for name servers.
const resolvConf = "/etc/resolv.conf"

func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
}

// Setup makes the namespaces ready that this process was started in.
func Setup(ctx context.Context, o Options) error {
	if !Inside() {
		return ErrOutside
	}
	// What is mounted from now on is seen here only.
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := ip(ctx, "link", "set", "lo", "up"); err != nil {
		return err
	}
	prefixes := o.Prefixes
	if prefixes == nil {
		prefixes = Documentation()
	}
	for _, p := range prefixes {
		if err := own(ctx, p); err != nil {
			return err
		}
	}
	if o.Resolver.IsValid() {
		return pointAt(o.Resolver)
	}
	return nil
}

// own makes every address of a prefix the machine's: connections to it end here,
// and it can be listened on.
func own(ctx context.Context, p netip.Prefix) error {
	family := "-4"
	if p.Addr().Is6() {
		family = "-6"
		// A local route is not enough to listen on an IPv6 address.
		err := os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", p, err)
		}
	}
	return ip(ctx, family, "route", "add", "local", p.String(), "dev", "lo")
}

// pointAt puts another file in the place of /etc/resolv.conf.
func pointAt(resolver netip.Addr) error {
	f, err := os.CreateTemp("", "pawl-resolv")
	if err != nil {
		return fmt.Errorf("write a resolv.conf: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // the mount keeps it
	_, err = fmt.Fprintf(f, "nameserver %s\noptions timeout:2 attempts:2 trust-ad\n", resolver)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return fmt.Errorf("write a resolv.conf: %w", err)
	}
	return Bind(f.Name(), resolvConf)
}

// Bind shows a file or folder at another place as well, within the namespace.
func Bind(from, to string) error {
	if !Inside() {
		return ErrOutside
	}
	if err := syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return nil
}

func ip(ctx context.Context, arg ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", arg...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", arg, err, out)
	}
	return nil
}
