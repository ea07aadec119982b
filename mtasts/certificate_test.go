package mtasts_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/mtasts"
)

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func TestRFC8461_3_3_CertificatesThatAreValidForThePolicyHost(t *testing.T) {
	ca := newAuthority(t, "test root")
	middle := ca.intermediate("test intermediate", unchanged)
	for _, tt := range []struct {
		name string
		cert tls.Certificate
	}{
		{"its name as DNS-ID", ca.issue(unchanged)},
		{"its name among others", ca.issue(named("www.example.com", policyHost))},
		{"its name in capitals", ca.issue(named("MTA-STS.Example.COM"))},
		{"a wildcard for the whole left label", ca.issue(named("*.example.com"))},
		{"by an intermediate authority that is sent along", middle.issue(unchanged, middle)},
		{"with the root sent along too", middle.issue(unchanged, middle, ca)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}}, says(okAnswer))
			good[mtasts.Fetched](t)(ca.fetcher(h).Fetch(t.Context(), "example.com"))
		})
	}
}

func TestRFC8461_3_3_CertificatesThatAreNot(t *testing.T) {
	ca, other := newAuthority(t, "test root"), newAuthority(t, "unknown root")
	middle := ca.intermediate("test intermediate", unchanged)
	expiredMiddle := ca.intermediate("expired intermediate", func(c *x509.Certificate) { c.NotAfter = today.AddDate(0, 0, -1) })
	unknownMiddle := other.intermediate("unknown intermediate", unchanged)

	expired := func(c *x509.Certificate) { c.NotAfter = today.AddDate(0, 0, -1) }
	future := func(c *x509.Certificate) { c.NotBefore = today.AddDate(0, 0, 1) }
	cnOnly := func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, policyHost }

	selfSigned := func(change func(*x509.Certificate)) tls.Certificate {
		template, key := serverTemplate(), newKey(t)
		change(template)
		return tls.Certificate{Certificate: [][]byte{sign(t, template, template, &key.PublicKey, key).Raw}, PrivateKey: key}
	}
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		want []mtasts.Code
	}{
		{"expired", ca.issue(expired), []mtasts.Code{mtasts.CertificateExpired}},
		{"not yet valid", ca.issue(future), []mtasts.Code{mtasts.CertificateNotYetValid}},
		{"an issuer that has expired", expiredMiddle.issue(unchanged, expiredMiddle), []mtasts.Code{mtasts.CertificateExpired}},
		{"another name", ca.issue(named("www.example.com")), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"the policy domain itself", ca.issue(named("example.com")), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"no name", ca.issue(named()), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"the name as CN only", ca.issue(cnOnly), []mtasts.Code{mtasts.CertificateCNOnly}},
		{"the name as CN, and other DNS-IDs", ca.issue(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = []string{"www.example.com"}, policyHost }), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"a wildcard within the left label", ca.issue(named("mta*.example.com")), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"a wildcard that is not left-most", ca.issue(named("mta-sts.*.com")), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"a wildcard one level up", ca.issue(named("*.com")), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"a wildcard one level down", ca.issue(named("*.mta-sts.example.com")), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"the name as an e-mail address and an IP address", ca.issue(func(c *x509.Certificate) {
			c.DNSNames, c.EmailAddresses, c.IPAddresses = nil, []string{policyHost}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}), []mtasts.Code{mtasts.CertificateHostMismatch}},
		{"self-signed", selfSigned(unchanged), []mtasts.Code{mtasts.CertificateSelfSigned}},
		{"an unknown root that is sent along", other.issue(unchanged, other), []mtasts.Code{mtasts.CertificateNotTrusted}},
		{"an unknown root behind an intermediate", unknownMiddle.issue(unchanged, unknownMiddle), []mtasts.Code{mtasts.CertificateNotTrusted}},
		{"the intermediate not sent along", middle.issue(unchanged), []mtasts.Code{mtasts.CertificateIncomplete}},
		{"the intermediate replaced by another", middle.issue(unchanged, expiredMiddle), []mtasts.Code{mtasts.CertificateIncomplete}},
		{"for clients only", ca.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), []mtasts.Code{mtasts.CertificateInvalid}},
		{"all at once", selfSigned(func(c *x509.Certificate) { expired(c); named("localhost")(c) }), []mtasts.Code{mtasts.CertificateSelfSigned, mtasts.CertificateExpired, mtasts.CertificateHostMismatch}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}}, says(okAnswer))
			got, err := ca.fetcher(h).Fetch(t.Context(), "example.com")
			failure := refused(t, err, tt.want[0], "sts-webpki-invalid", mtasts.StageTLS)
			if diff := cmp.Diff(tt.want, failure.Problems); diff != "" {
				t.Error(diff)
			}
			if len(failure.Certificates) != len(tt.cert.Certificate) || len(got.Certificates) != len(tt.cert.Certificate) {
				t.Errorf("%d certificates shown, want %d", len(failure.Certificates), len(tt.cert.Certificate))
			}
			if requests, _ := h.seen(); len(requests) > 0 || got.Body != nil {
				t.Error("the request was sent")
			}
		})
	}
}

func TestRFC8461_7_2_TLS12OrNewer(t *testing.T) {
	ca := newAuthority(t, "test root")
	for _, tt := range []struct {
		name    string
		version uint16
		ok      bool
	}{
		{"TLS 1.0", tls.VersionTLS10, false},
		{"TLS 1.1", tls.VersionTLS11, false},
		{"TLS 1.2", tls.VersionTLS12, true},
		{"TLS 1.3", tls.VersionTLS13, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{ca.issue(unchanged)}, MinVersion: tt.version, MaxVersion: tt.version}
			got, err := ca.fetcher(serve(t, config, says(okAnswer))).Fetch(t.Context(), "example.com")
			if !tt.ok {
				refused(t, err, mtasts.TLSVersion, "sts-policy-fetch-error", mtasts.StageTLS)
			} else if err != nil || got.TLSVersion != tt.version {
				t.Errorf("version %x, error %v", got.TLSVersion, err)
			}
		})
	}
}

// plainly starts a server that speaks no TLS: it waits for the first bytes, says
// something and hangs up.
func plainly(t *testing.T, text string) *host {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			io.WriteString(conn, text)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return &host{addr: listener.Addr().String()}
}

func TestHandshakesThatFail(t *testing.T) {
	ca := newAuthority(t, "test root")
	for _, tt := range []struct{ name, text string }{
		{"the host speaks HTTP without TLS", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"the host hangs up", ""},
		{"the host knows no such name and sends an alert", "\x15\x03\x01\x00\x02\x02\x70"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ca.fetcher(plainly(t, tt.text)).Fetch(t.Context(), "example.com")
			refused(t, err, mtasts.TLSHandshake, "sts-policy-fetch-error", mtasts.StageTLS)
		})
	}
	t.Run("the host wants a certificate from us", func(t *testing.T) {
		config := &tls.Config{Certificates: []tls.Certificate{ca.issue(unchanged)}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
		_, err := ca.fetcher(serve(t, config, says(okAnswer))).Fetch(t.Context(), "example.com")
		refused(t, err, mtasts.TLSHandshake, "sts-policy-fetch-error", mtasts.StageTLS)
	})
}
