package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp/smtptest"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestAClientOfOurNetworksMayRelay(t *testing.T) {
	for _, from := range []string{ours, "C: PROXY TCP6 2001:db8::1 2001:db8::99 5000 25\n"} {
		w := start(t, nil)
		w.talk(from + hello + handIn + "C: QUIT\nS: 221 …\nEND")
		m := w.one()
		if m.From != "app@example.com" || m.deliveries[0].Domain != "example.net" || m.body != "Subject: hello\r\n\r\ntext\r\n" {
			t.Errorf("the queue has %+v\n%s", m.Message, m.body)
		}
		w.refused("", 0)
		if n := w.relay.Stats().Accepted; n != 1 {
			t.Errorf("counted: %d", n)
		}
	}
}

func TestTheRestOfTheWorldMayNot(t *testing.T) {
	w := start(t, nil)
	const refusal = `
		C: MAIL FROM:<app@example.com>
		S: 550 5.7.1 203.0.113.1 may not relay here; log in, or have its network named in relay.networks or its certificate in relay.clients
		C: RCPT TO:<bob@example.net>
		S: 503 …
		C: DATA
		S: 503 …
	`
	w.talk(foreign + hello + refusal)
	w.talk(foreign + underTLS + refusal)
	w.none()
	w.refused(NotAllowed, 2)
}

func TestWithoutAProxyTheAddressOfTheConnectionCounts(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	w := start(t, func(o *Options) { o.Proxy, o.Networks = nil, loopback })
	w.talk(hello + handIn)
	if m := w.one(); m.Client.String() != "127.0.0.1" {
		t.Errorf("the client is %s", m.Client)
	}
	// A header that nobody asked for is no command.
	w.talk("S: 220 …\n" + ours + "S: 500 …")
}

func TestTheAddressInThePROXYHeaderIsTheClients(t *testing.T) {
	w := start(t, nil)
	w.talk(ours + hello + handIn)
	m := w.one()
	if m.Client.String() != "192.0.2.1" || !strings.Contains(m.received, "from client.example ([192.0.2.1])") {
		t.Errorf("the client is %s, the trace %s", m.Client, m.received)
	}
}

func TestALoadBalancerThatNamesNoClientMayNotRelay(t *testing.T) {
	// Its own network may, by mistake or because it shares it.
	w := start(t, func(o *Options) { o.Networks = append(o.Networks, netip.MustParsePrefix("127.0.0.0/8")) })
	w.talk("C: PROXY UNKNOWN\n" + hello + "C: MAIL FROM:<app@example.com>\nS: 550 5.7.1 127.0.0.1 may not relay here…")
	c := smtptest.Dial(t, w.addr)
	c.Send([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")) // version 2, LOCAL
	c.Talk(hello + "C: MAIL FROM:<app@example.com>\nS: 550 5.7.1 127.0.0.1 may not relay here…")
	w.none()
}

func TestASubmitterMayRelayFromAnywhere(t *testing.T) {
	w := start(t, nil)
	w.talk(foreign + underTLS + "AUTH ann secret\nS: 235 2.7.0 welcome\n" + handIn)
	if m := w.one(); !strings.Contains(m.received, " with ESMTPSA (TLS 1.3 TLS_") {
		t.Errorf("the trace is %s", m.received)
	}
}

func TestASubmitterSendsOnlyAsItMay(t *testing.T) {
	w := start(t, nil)
	w.talk(foreign + underTLS + `
		AUTH ann secret
		S: 235 2.7.0 welcome
		C: MAIL FROM:<ceo@example.org>
		S: 550 5.7.1 ann may not send as ceo@example.org
		C: MAIL FROM:<app@example.com.example.org>
		S: 550 5.7.1 ann may not send as app@example.com.example.org
		C: MAIL FROM:<app@[192.0.2.1]>
		S: 550 5.7.1 ann may not send as app@[192.0.2.1]
		C: MAIL FROM:<>
		S: 250 …
		C: RSET
		S: 250 …
		C: MAIL FROM:<any@EXAMPLE.com>
		S: 250 …
	`)
	// A network of ours does not widen what it may, once it has logged in.
	w.talk(ours + underTLS + "AUTH ann secret\nS: 235 …\nC: MAIL FROM:<ceo@example.org>\nS: 550 5.7.1 …")
	w.refused(WrongSender, 4)
}

func TestRFC4954_4_NobodyLogsInInClear(t *testing.T) {
	w := start(t, nil)
	w.talk(foreign + hello + "AUTH ann secret\nS: 538 5.7.11 …\nC: MAIL FROM:<app@example.com>\nS: 550 5.7.1 …")
	w.none()
}

func TestALoginThatFailsOpensNothing(t *testing.T) {
	w := start(t, nil)
	w.talk(foreign + underTLS + `
		AUTH ann wrong
		S: 535 5.7.8 the credentials are not valid
		C: MAIL FROM:<app@example.com>
		S: 550 5.7.1 203.0.113.1 may not relay here…
		AUTH busy secret
		S: 454 4.7.0 the login cannot be checked now, try again later
		AUTH broken secret
		S: 454 4.7.0 the login cannot be checked now, try again later
		AUTH nobody wrong
		S: 535 5.7.8 the credentials are not valid
		AUTH nobody wrong
		S: 535 5.7.8 the credentials are not valid
		S: 421 4.7.0 too many failures of AUTH
		END
	`)
	w.none()
}

func TestASubmitterThatIsRemovedEndsAtOnce(t *testing.T) {
	s := &staff{}
	w := start(t, func(o *Options) { o.Submitters = s })
	c := w.talk(foreign + underTLS + "AUTH ann secret\nS: 235 …\n" + handIn)
	s.gone = "ann"
	c.Talk("C: MAIL FROM:<app@example.com>\nS: 550 5.7.1 ann may not relay here any longer")
}

func TestWithoutACertificateThereIsNeitherTLSNorAUTH(t *testing.T) {
	w := start(t, func(o *Options) { o.Files = Files{} })
	w.talk(ours + strings.Replace(hello, "250-SIZE 1048576\n	S: 250 STARTTLS", "250 SIZE 1048576", 1) + "C: STARTTLS\nS: 502 …\nAUTH ann secret\nS: 502 …\n" + handIn)
	if m := w.one(); !strings.Contains(m.received, " with ESMTP\t") {
		t.Errorf("the trace is %s", m.received)
	}
}

func TestImplicitTLSNeedsNoSTARTTLS(t *testing.T) {
	w := start(t, nil)
	c := smtptest.Dial(t, w.addrTL)
	c.Talk(foreign + `
		TLS
		S: 220 relay.example.org ESMTP
		C: HELO client.example
		S: 250 relay.example.org
		C: STARTTLS
		S: 503 5.5.1 TLS is active already
		C: EHLO client.example
		S: 250-relay.example.org
		S: 250-PIPELINING
		S: 250-8BITMIME
		S: 250-SMTPUTF8
		S: 250-CHUNKING
		S: 250-ENHANCEDSTATUSCODES
		S: 250-DSN
		S: 250-SIZE 1048576
		S: 250-REQUIRETLS
		S: 250 AUTH PLAIN LOGIN
		AUTH bob secret
		S: 235 2.7.0 welcome
	` + handIn)
	if m := w.one(); !strings.Contains(m.received, " with ESMTPSA (TLS 1.3 TLS_") {
		t.Errorf("the trace is %s", m.received)
	}
}

// guest is a client's certificate of an authority.
func guest(t *testing.T, ca *testnet.CA, o testnet.CertOptions) tls.Certificate {
	t.Helper()
	o.Names = []string{"app.example.com"}
	pair, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestACertificateMayRelayByItsAuthorityOrItsFingerprint(t *testing.T) {
	w := start(t, nil)
	own, err := testnet.NewCA("own", w.clock.Now)
	w.must(err)
	other, err := testnet.NewCA("other", w.clock.Now)
	w.must(err)
	byCA := guest(t, own, testnet.CertOptions{})
	pinned := guest(t, other, testnet.CertOptions{NotBefore: w.clock.Now().Add(-48 * time.Hour), NotAfter: w.clock.Now().Add(-24 * time.Hour)})
	f := w.relay.opts.Files
	f.ClientCA = filepath.Join(t.TempDir(), "ca.pem")
	w.must(os.WriteFile(f.ClientCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Root.Raw}), 0o600))
	f.Fingerprints = map[[sha256.Size]byte]bool{sha256.Sum256(pinned.Certificate[0]): true}
	w = start(t, func(o *Options) { o.Files.ClientCA, o.Files.Fingerprints = f.ClientCA, f.Fingerprints })

	expired := guest(t, own, testnet.CertOptions{NotBefore: w.clock.Now().Add(-48 * time.Hour), NotAfter: w.clock.Now().Add(-24 * time.Hour)})
	for name, tc := range map[string]struct {
		certificate tls.Certificate
		may         bool
	}{
		"of our authority":              {byCA, true},
		"named by fingerprint, and old": {pinned, true},
		"of another authority":          {guest(t, other, testnet.CertOptions{}), false},
		"signed by itself":              {guest(t, own, testnet.CertOptions{SelfSigned: true}), false},
		"of our authority, and old":     {expired, false},
		"none":                          {tls.Certificate{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := smtptest.Dial(t, w.addr)
			if tc.certificate.Certificate != nil {
				c.TLS.Certificates = []tls.Certificate{tc.certificate}
			}
			want := "S: 550 5.7.1 203.0.113.1 may not relay here…"
			if tc.may {
				want = "S: 250 2.1.0 go on"
			}
			c.Talk(foreign + underTLS + "C: MAIL FROM:<app@example.com>\n" + want)
		})
	}
}

func TestABundleOfPublicAuthoritiesIsRefused(t *testing.T) {
	ca, err := testnet.NewCA("public", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})
	for text, want := range map[string]string{
		strings.Repeat(string(one), maxClientCAs):   "",
		strings.Repeat(string(one), maxClientCAs+1): "name your own only",
		"":                 "no certificate in PEM form",
		"no PEM, but text": "no certificate in PEM form",
	} {
		_, err := authorities([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d octets: %v, want %q", len(text), err, want)
		}
	}
}
