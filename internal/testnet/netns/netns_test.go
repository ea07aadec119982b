package netns_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

func TestAProcessOutsideDoesNotTouchTheMachinesNetwork(t *testing.T) {
	if netns.Inside() {
		t.Skip("this is about the outside")
	}
	if err := netns.Setup(t.Context(), netns.Options{}); !errors.Is(err, netns.ErrOutside) {
		t.Errorf("got %v, want %v", err, netns.ErrOutside)
	}
}

func TestInsideDocumentationAddressesAndLowPortsAreFree(t *testing.T) {
	netns.Run(t, netns.Options{Resolver: netip.MustParseAddr("127.0.0.1")}, func() {
		for _, addr := range []string{"192.0.2.25:25", "198.51.100.1:443", "203.0.113.66:25", "[2001:db8:1::1]:25"} {
			if err := echo(t.Context(), addr); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		}
		if os.Getpid() != 1 {
			t.Errorf("process %d, want to be the first of the namespace", os.Getpid())
		}
	})
}

// echo sends something to a listener on addr and reads it back.
func echo(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, addr)
			c.Close()
		}
	}()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err == nil && string(got) != addr {
		return errors.New("something else answered: " + string(got))
	}
	return err
}

func TestTheSystemsResolverAsksTheSmallInternet(t *testing.T) {
	netns.Run(t, netns.Options{Resolver: netip.MustParseAddr("127.0.0.1")}, func() {
		n := testnet.Start(t, testnet.Options{DNSListen: "127.0.0.1:53"})
		n.DNS.SetAddrs("www.a.test", netip.MustParseAddr("192.0.2.80"))
		out, err := exec.CommandContext(t.Context(), "getent", "ahosts", "www.a.test").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "192.0.2.80") {
			t.Errorf("getent: %v, %q", err, out)
		}
	})
}

func TestAnUnpackedPackageIsAsIfInstalledInsideOnly(t *testing.T) {
	netns.Run(t, netns.Options{}, func() {
		root := t.TempDir()
		script := filepath.Join(root, "usr", "sbin", "pawl-test-server")
		if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(script, []byte("#!/bin/sh\nid -un\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(netns.Unpacked(root), netns.AddUsers("pawl-test", "root")); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "setpriv", "--reuid=pawl-test", "--regid=pawl-test", "--clear-groups", "/usr/sbin/pawl-test-server").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "pawl-test" {
			t.Errorf("the unpacked program as the added user: %v, %q", err, out)
		}
	})
	if _, err := os.Stat("/usr/sbin/pawl-test-server"); !netns.Inside() && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("outside it is seen, too: %v", err)
	}
}
