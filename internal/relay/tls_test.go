package relay

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// shown is the name in the certificate that the relay shows now.
func (w *world) shown() string {
	w.Helper()
	c := smtptest.Dial(w, w.addr)
	c.Talk(ours + underTLS)
	return c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames[0]
}

func TestARenewedCertificateIsShownWithoutARestart(t *testing.T) {
	w := start(t, nil)
	open := w.talk(ours + underTLS)
	w.certificate(w.relay.opts.Files, "new.example.org")
	if got := w.shown(); got != "relay.example.org" {
		t.Errorf("before the reload it shows %s", got)
	}
	w.must(w.relay.Reload())
	if got := w.shown(); got != "new.example.org" {
		t.Errorf("after the reload it shows %s", got)
	}
	open.Talk("C: NOOP\nS: 250 …") // what is open goes on
	before := w.relay.identity.Load()
	w.must(w.relay.Reload())
	if w.relay.identity.Load() != before {
		t.Error("a reload of the same files ends the clients' TLS sessions")
	}
}

func TestABrokenCertificateDoesNotTakeTheGoodOnesPlace(t *testing.T) {
	w := start(t, nil)
	files := w.relay.opts.Files
	expires, err := w.relay.Certificate()
	if err != nil || expires.IsZero() {
		t.Fatalf("%v, %v", expires, err)
	}
	good, err := os.ReadFile(files.Key)
	w.must(err)
	for what, text := range map[string]string{"no PEM": "x", "nothing": ""} {
		w.must(os.WriteFile(files.Key, []byte(text), 0o600))
		if err := w.relay.Reload(); err == nil {
			t.Errorf("%s: it was taken", what)
		}
	}
	w.must(os.Remove(files.Key))
	if err := w.relay.Reload(); err == nil {
		t.Error("a key that is gone: it was taken")
	}
	if got, err := w.relay.Certificate(); err == nil || !got.Equal(expires) {
		t.Errorf("it says %v, %v", got, err)
	}
	if got := w.shown(); got != "relay.example.org" {
		t.Errorf("it shows %s", got)
	}
	w.must(os.WriteFile(files.Key, good, 0o600))
	w.must(w.relay.Reload())
	if _, err := w.relay.Certificate(); err != nil {
		t.Errorf("when all is well again it says %v", err)
	}
}

func TestACertificateThatCannotBeUsedIsSaidAtTheStart(t *testing.T) {
	w := start(t, nil)
	files := w.relay.opts.Files
	other, err := w.ca.Issue(testnet.CertOptions{Names: []string{"other.example.org"}, Key: nil})
	w.must(err)
	w.must(testnet.WriteFiles(other, t.TempDir()+"/cert.pem", files.Key)) // the key of another certificate
	if _, err := files.Read(); err == nil || !strings.Contains(err.Error(), files.Key) {
		t.Errorf("a foreign key: %v", err)
	}
	if _, err := New(Options{Hostname: "relay.example.org", Files: files, Now: w.clock.Now}); err == nil {
		t.Error("a relay was made")
	}
	if expires, err := (Files{}).Read(); err != nil || !expires.IsZero() {
		t.Errorf("no files: %v, %v", expires, err)
	}
}

func TestTLSBelow12IsNotSpoken(t *testing.T) {
	w := start(t, nil)
	c := w.talk(ours + hello + "C: STARTTLS\nS: 220 …")
	conn := tls.Client(c.Raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err := conn.Handshake(); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	c.Raw.Close()
}
