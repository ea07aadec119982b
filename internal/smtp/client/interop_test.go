package client_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/postfix/postfixtest"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

// awkward are messages whose ends and dots a client may get wrong, by size: one in
// a packet, one over several chunks.
func awkward() map[string]string {
	return map[string]string{
		"small": "Subject: one\r\n\r\n.\r\n..\r\n...three\r\nthe end\r\n",
		"large": "Subject: two\r\n\r\n" + strings.Repeat(".dots at the beginning of a line, and gr\xc3\xbc\xc3\x9fe\r\n", 40_000),
	}
}

// serverFiles are a server's certificate and key, in PEM.
func serverFiles(t *testing.T) (certificate, key []byte, roots *x509.CertPool) {
	t.Helper()
	ca, err := testnet.NewCA("interop", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Issue(testnet.CertOptions{Names: []string{"mx.a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range c.Certificate {
		certificate = append(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: link})...)
	}
	roots = x509.NewCertPool()
	roots.AddCert(ca.Root)
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), roots
}

// hand sends a message over TLS and returns the server's last reply.
func hand(t *testing.T, addr string, roots *x509.CertPool, o client.Options, text string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o.Hello = "client.test"
	c := client.New(conn, o)
	defer c.Close()
	good(t, c.Hello(t.Context()))
	good(t, c.StartTLS(t.Context(), &tls.Config{RootCAs: roots, ServerName: "mx.a.test", MinVersion: tls.VersionTLS12}))
	good(t, c.Hello(t.Context()))
	env := envelope("b@a.test", "c@a.test")
	env.Size, env.Body, env.Rcpts[0].Notify = int64(len(text)), smtp.Body8Bit, smtp.NotifyFailure
	r, err := c.Send(t.Context(), env, client.Bytes(text))
	good(t, err)
	for _, rcpt := range r.Rcpts {
		if !rcpt.Delivered {
			t.Fatalf("it was not taken: %v", became(r))
		}
	}
	c.Quit(t.Context())
	return r.Rcpts[0].Reply.String()
}

// handAll hands in every message, in chunks and by DATA, and compares what arrived.
func handAll(t *testing.T, addr string, roots *x509.CertPool, arrived func(reply string) string) {
	t.Helper()
	for name, text := range awkward() {
		for _, byData := range []bool{false, true} {
			reply := hand(t, addr, roots, client.Options{NoChunking: byData}, text)
			if got := arrived(reply); !strings.HasSuffix(got, strings.ReplaceAll(text, "\r\n", "\n")) {
				t.Errorf("%s, by DATA %v: %d octets arrived, not those that were sent (%d): %.300q", name, byData, len(got), len(text), got)
			}
		}
	}
}

func TestPostfixTakesMail(t *testing.T) {
	system := postfixtest.Installed(t)
	netns.Run(t, netns.Options{}, func() {
		certificate, key, roots := serverFiles(t)
		p := postfixtest.Start(t, system, postfixtest.Options{
			Main: map[string]string{
				"smtpd_tls_security_level": "may",
				"smtpd_tls_chain_files":    "$config_directory/key.pem, $config_directory/cert.pem",
				"defer_transports":         "smtp", // it stays in the queue, to be looked at

				"local_header_rewrite_clients": "", // the header stays as it is
			},
			Files: map[string][]byte{"cert.pem": certificate, "key.pem": key},
		})
		id := regexp.MustCompile(`queued as (\S+)`)
		handAll(t, "127.0.0.1:25", roots, func(reply string) string {
			m := id.FindStringSubmatch(reply)
			if m == nil {
				t.Fatalf("Postfix said %q", reply)
			}
			out, err := exec.CommandContext(t.Context(), "postcat", "-c", p.Dir, "-bhq", m[1]).Output()
			if err != nil {
				t.Fatalf("postcat: %v", err)
			}
			return string(out)
		})
	})
}

func TestEximTakesMail(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "../../../scripts/unpack.sh", "exim4-daemon-light").Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("unpack.sh: %v", err)
		}
		t.Skipf("unpack.sh: %v", err)
	}
	netns.Run(t, netns.Options{}, func() {
		// It does not run without the user that its package makes.
		if err := errors.Join(netns.Unpacked(strings.TrimSpace(string(out))), netns.AddUsers("Debian-exim")); err != nil {
			t.Fatal(err)
		}
		certificate, key, roots := serverFiles(t)
		dir := startExim(t, certificate, key)
		id := regexp.MustCompile(`id=(\S+)`)
		handAll(t, "127.0.0.1:2525", roots, func(reply string) string {
			m := id.FindStringSubmatch(reply)
			if m == nil {
				t.Fatalf("Exim said %q", reply)
			}
			out, err := os.ReadFile(filepath.Join(dir, "spool", "input", m[1]+"-D"))
			if err != nil {
				t.Fatal(err)
			}
			_, body, _ := strings.Cut(string(out), "\n") // its own name
			head, err := os.ReadFile(filepath.Join(dir, "spool", "input", m[1]+"-H"))
			if err != nil {
				t.Fatal(err)
			}
			_, subject, _ := strings.Cut(string(head), "Subject:")
			return "Subject:" + strings.TrimRight(subject, "\n") + "\n\n" + body
		})
	})
}

const eximConf = `primary_hostname = mx.a.test
exim_user = nobody
exim_group = nogroup
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/spool/pid
tls_advertise_hosts = *
tls_certificate = %[1]s/cert.pem
tls_privatekey = %[1]s/key.pem
dsn_advertise_hosts = *
chunking_advertise_hosts = *
queue_only = true
keep_environment =
acl_smtp_rcpt = accept
begin acl
accept:
  accept
`

// startExim starts an Exim that keeps what it takes in its queue.
func startExim(t *testing.T, certificate, key []byte) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pawl-exim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, sub := range []string{"spool", "log"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write("cert.pem", certificate)
	write("key.pem", key)
	conf := write("exim.conf", fmt.Appendf(nil, eximConf, dir))
	cmd := exec.CommandContext(t.Context(), "exim4", "-C", conf, "-bdf", "-oX", "127.0.0.1.2525")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for tick := time.Tick(20 * time.Millisecond); ; {
		conn, err := net.Dial("tcp", "127.0.0.1:2525")
		if err == nil {
			conn.Close()
			return dir
		}
		select {
		case <-tick:
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}
