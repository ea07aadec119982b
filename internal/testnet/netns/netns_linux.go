package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
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
	if o.Addr.IsValid() {
		if err := ip(ctx, "address", "add", netip.PrefixFrom(o.Addr, o.Addr.BitLen()).String(), "dev", "lo"); err != nil {
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
	return replace(resolvConf, fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:2 trust-ad\n", resolver))
}

// replace puts a file with the text in the place of another.
func replace(file, text string) error {
	f, err := os.CreateTemp("", "pawl-netns")
	if err != nil {
		return fmt.Errorf("write a %s: %w", file, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // the mount keeps it
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write a %s: %w", file, err)
	}
	return Bind(f.Name(), file)
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

// Unpacked makes what is in root/usr appear in /usr, over what is there, within the
// namespace: the programs of a package that was unpacked there and not installed.
func Unpacked(root string) error {
	if !Inside() {
		return ErrOutside
	}
	lower := filepath.Join(root, "usr")
	if strings.ContainsAny(lower, ":,\\") {
		return fmt.Errorf("show %s in /usr: its name has a character that an overlay's options cannot have", lower)
	}
	if err := syscall.Mount("overlay", "/usr", "overlay", 0, "lowerdir="+lower+":/usr"); err != nil {
		return fmt.Errorf("show %s in /usr: %w", lower, err)
	}
	return nil
}

// firstUser is the number of the first user that AddUsers adds: one that Debian gives
// neither to people nor to the packages that are installed in the usual way.
const firstUser = 60100

// AddUsers adds users, each with a group of the same name, within the namespace:
// what a package would do when it is installed. Those that exist are left alone. It
// is called once.
func AddUsers(names ...string) error {
	if !Inside() {
		return ErrOutside
	}
	var users, groups strings.Builder
	for i, name := range names {
		if _, err := user.Lookup(name); err == nil {
			continue
		}
		fmt.Fprintf(&users, "%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", name, firstUser+i, firstUser+i)
		fmt.Fprintf(&groups, "%s:x:%d:\n", name, firstUser+i)
	}
	return errors.Join(appendTo("/etc/passwd", users.String()), appendTo("/etc/group", groups.String()))
}

// appendTo puts a longer copy of a file in its place.
func appendTo(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return replace(file, string(old)+text)
}

func ip(ctx context.Context, arg ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", arg...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", arg, err, out)
	}
	return nil
}
