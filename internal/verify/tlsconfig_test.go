package verify_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// handshake runs a real one between a demand's configuration and a server, and
// returns what would be judged. One byte goes over, so that session tickets do.
func handshake(t *testing.T, client, server *tls.Config) verify.Seen {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		tlsConn := tls.Server(conn, server)
		if tlsConn.Handshake() == nil {
			_, _ = tlsConn.Write([]byte{1})
			_, _ = tlsConn.Read(make([]byte, 1))
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Close(); <-done }()
	tlsConn := tls.Client(conn, client)
	seen := verify.Seen{STARTTLSOffered: true}
	if seen.HandshakeErr = tlsConn.HandshakeContext(t.Context()); seen.HandshakeErr == nil {
		if _, err := tlsConn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		state := tlsConn.ConnectionState()
		seen.State = &state
	}
	return seen
}

func clock() time.Time { return now }

func (a *authority) tls(rest ...*authority) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key}
	for _, r := range rest {
		c.Certificate = append(c.Certificate, r.cert.Raw)
	}
	return c
}

func TestRFC8461_7_1_And_RFC7672_8_1_TheServerNameIsTheMXNameOrTheTLSABaseDomain(t *testing.T) {
	alias := verify.Demand{Host: host, DANE: &verify.DANEDemand{
		Set:       dane.Set{State: dane.Usable, Host: host, BaseDomain: "real.example.net"},
		Reference: dane.Reference{BaseDomain: "real.example.net"},
	}}
	for name, c := range map[string]struct {
		demand verify.Demand
		want   string
	}{
		"RFC 8461 §7.1: the MX name":            {verify.Demand{Host: host}, host},
		"RFC 7672 §8.1: the TLSA base domain":   {alias, "real.example.net"},
		"no base domain is known: the MX name":  {verify.Demand{Host: host, DANE: &verify.DANEDemand{}}, host},
		"only the set says so: its base domain": {verify.Demand{Host: host, DANE: &verify.DANEDemand{Set: alias.DANE.Set}}, "real.example.net"},
	} {
		if got := c.demand.TLSConfig(nil, nil).ServerName; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestRFC8461_7_2_OldTLSIsOfferedOnlyWhereNobodyIsAuthenticated(t *testing.T) {
	for name, c := range map[string]struct {
		demand verify.Demand
		old    bool
	}{
		"opportunistic":                  {verify.Demand{}, true},
		"testing":                        {verify.Demand{STS: sts(mtasts.Testing)}, true},
		"unusable TLSA":                  {verify.Demand{Level: verify.Encrypted, EnforceDANE: true, DANE: &verify.DANEDemand{Set: dane.Set{State: dane.Unusable}}}, true},
		"an operator's encrypt":          {verify.Demand{Level: verify.Encrypted}, true},
		"enforced, but observed":         {verify.Demand{Level: verify.Authenticated, EnforceSTS: true, Observe: true}, true},
		"enforced, but waived":           {verify.Demand{Level: verify.Authenticated, EnforceSTS: true, Waived: true}, true},
		"MTA-STS enforced":               {verify.Demand{Level: verify.Authenticated, EnforceSTS: true}, false},
		"DANE":                           {verify.Demand{Level: verify.Authenticated, EnforceDANE: true}, false},
		"REQUIRETLS":                     {verify.Demand{RequireTLS: true}, false},
		"REQUIRETLS, observed":           {verify.Demand{RequireTLS: true, Observe: true}, false},
		"REQUIRETLS beside the opposite": {verify.Demand{RequireTLS: true, Waived: true}, false},
	} {
		config := c.demand.TLSConfig(nil, nil)
		want := uint16(tls.VersionTLS12)
		if c.old {
			want = tls.VersionTLS10
		}
		if config.MinVersion != want {
			t.Errorf("%s: from %s on", name, tls.VersionName(config.MinVersion))
		}
		if weak := slices.Contains(config.CipherSuites, tls.TLS_RSA_WITH_AES_128_CBC_SHA); weak != c.old {
			t.Errorf("%s: RSA key exchange offered: %v", name, weak)
		}
		if slices.Contains(config.CipherSuites, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA) {
			t.Errorf("%s: RC4 is offered (RFC 7465 §2: MUST NOT)", name)
		}
	}
}

func TestARealHandshakeIsJudged(t *testing.T) {
	p := newPKI(t)
	good := []tls.Certificate{p.good.tls(p.intermediate)}
	enforce := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
	testingMode := verify.Demand{Host: host, STS: sts(mtasts.Testing)}
	for name, c := range map[string]struct {
		demand verify.Demand
		server *tls.Config
		how    outcome.Transport
		result outcome.ResultType
		reason string
	}{
		"TLS 1.3":                      {enforce, &tls.Config{Certificates: good}, outcome.Verified, "", ""},
		"TLS 1.2":                      {enforce, &tls.Config{Certificates: good, MaxVersion: tls.VersionTLS12}, outcome.Verified, "", ""},
		"TLS 1.1, enforced":            {enforce, &tls.Config{Certificates: good, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, outcome.NotSent, outcome.ValidationFailure, "tls-version"},
		"TLS 1.1, tested":              {testingMode, &tls.Config{Certificates: good, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, outcome.Encrypted, outcome.ValidationFailure, "tls-version"},
		"no suite in common":           {enforce, &tls.Config{Certificates: good, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}}, outcome.NotSent, outcome.ValidationFailure, "tls-alert-handshake-failure"},
		"a self-signed server, tested": {testingMode, &tls.Config{Certificates: []tls.Certificate{p.selfSigned.tls()}}, outcome.Encrypted, outcome.CertificateNotTrusted, "certificate-self-signed"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := handshake(t, c.demand.TLSConfig(nil, clock), c.server)
			v := verify.Judge(c.demand, seen, p.roots, now)
			if v.Transport != c.how {
				t.Errorf("%q: %s", v.Transport, v.Why)
			}
			f := v.Policies[0].Failure
			if f == nil {
				f = &outcome.Failure{}
			}
			if f.Result != c.result || f.Reason != c.reason {
				t.Errorf("%+v, %v", *f, seen.HandshakeErr)
			}
		})
	}
}

func TestAResumedSessionIsJudgedLikeAFirstOne(t *testing.T) {
	p := newPKI(t)
	cache := tls.NewLRUClientSessionCache(8)
	server := &tls.Config{Certificates: []tls.Certificate{p.good.tls(p.intermediate)}, Time: clock}
	d := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
	first := verify.Judge(d, handshake(t, d.TLSConfig(cache, clock), server), p.roots, now)
	seen := handshake(t, d.TLSConfig(cache, clock), server)
	second := verify.Judge(d, seen, p.roots, now)
	if first.Session.Resumed || !second.Session.Resumed || second.Transport != outcome.Verified {
		t.Errorf("first %+v, second %+v: %s", first.Session, second.Session, second.Why)
	}
	// Nothing that was judged before is taken for granted: the root has gone.
	if v := verify.Judge(d, seen, x509.NewCertPool(), now); v.Pass {
		t.Errorf("%s", v.Why)
	}
	if v := verify.Judge(d, seen, p.roots, now.Add(400*day)); v.Pass || v.Policies[0].Failure.Result != outcome.CertificateExpired {
		t.Errorf("%s", v.Why)
	}
}
