package host_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/lab/host"
	"github.com/pawl-mail/pawl/internal/lab/mta"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

const (
	pebbleACME = "127.0.0.1:14000"
	pebbleCtl  = "127.0.0.1:15000"
)

// pebble starts Let's Encrypt's CA for tests, and returns the CA that it issues
// with and the one of its own web server.
func pebble(t *testing.T, program string, n *testnet.Net) (issuer, web *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	pair, err := n.CA.Issue(testnet.CertOptions{Names: []string{"localhost"}, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := testnet.WriteFiles(pair, cert, key); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": pebbleACME, "managementListenAddress": pebbleCtl, "certificate": cert, "privateKey": key, "httpPort": 80, "tlsPort": 443,
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, "-config", file, "-dnsserver", n.DNS.Addr())
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	text := pebbleRoot(t, n)
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("pebble's root is %q", text)
	}
	issuer = x509.NewCertPool()
	issuer.AppendCertsFromPEM(text)
	return issuer, n.Roots()
}

// pebbleRoot waits for pebble and asks for its root.
func pebbleRoot(t *testing.T, n *testnet.Net) []byte {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.Roots(), MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errors.New("pebble does not start"))
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+pebbleCtl+"/roots/0", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err == nil {
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx), err)
		}
	}
}

func TestCertificatesComeFromACAByACMEAndAreKept(t *testing.T) {
	t.Parallel() // it mostly waits
	program, err := exec.LookPath("pebble")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	netns.Run(t, mta.Network(), func() {
		field := mta.Start(t)
		issuer, web := pebble(t, program, field.Net)
		site := host.Site{Domain: labDomain, Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.200")}}
		data := t.TempDir()
		publish(t, field.Net, site, data)
		open := func(directory string) (*host.Host, func()) {
			o := host.Options{
				Site: site, Data: data, Relay: "127.0.0.1:2525", Postmaster: "me@elsewhere.test", Resolver: net.DefaultResolver,
				Certificates: host.ACME{Directory: directory, Contact: "me@elsewhere.test", Roots: web}.Certificates(site, data),
				Roots:        issuer, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			}
			return serve(t, o)
		}
		h, stop := open("https://" + pebbleACME + "/dir")
		if bad := h.Warm(t.Context()); bad > 0 {
			t.Errorf("%d hosts have no certificate", bad)
		}
		verified(t, issuer, site)
		stop()

		// Kept, they need no CA the next time.
		h, stop = open("https://127.0.0.1:1/dir")
		defer stop()
		if bad := h.Warm(t.Context()); bad > 0 {
			t.Errorf("%d hosts have no certificate", bad)
		}
		verified(t, issuer, site)
	})
}

// verified looks at each certificate that is to be one of a CA's.
func verified(t *testing.T, issuer *x509.CertPool, site host.Site) {
	t.Helper()
	for _, name := range site.Names() {
		config := &tls.Config{ServerName: name, RootCAs: issuer, MinVersion: tls.VersionTLS12}
		if name == "mx.old-tls."+site.Domain {
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}
		port := "443"
		if !strings.HasPrefix(name, "mta-sts.") {
			port = "25"
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(site.Addrs[0].String(), port))
		if err != nil {
			t.Fatal(err)
		}
		if port == "443" {
			err = tls.Client(conn, config).HandshakeContext(t.Context())
		} else {
			err = startTLS(t, conn, config)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
}

func startTLS(t *testing.T, conn net.Conn, config *tls.Config) error {
	t.Helper()
	c, _, err := testnet.NewCaller(conn)
	if err != nil {
		return err
	}
	if _, err := c.Say("EHLO mail.sender.test"); err != nil {
		return err
	}
	_, err = c.StartTLS(t.Context(), config)
	return err
}
