package verify

import (
	"crypto/tls"
	"time"
)

// TLSConfig returns the client configuration for a handshake with the host.
// Sessions may be nil; now is the clock by which session tickets age, nil for
// time.Now.
//
// crypto/tls verifies nothing (InsecureSkipVerify): [Judge] does so when the
// handshake is done and before anything else is sent (RFC 3207 §4.1). So each
// way in which a certificate can be wrong gets its own result type, and a policy
// that is only tested does not end the connection. A resumed session brings the
// certificates of the first one along and is judged in the same way.
func (d Demand) TLSConfig(sessions tls.ClientSessionCache, now func() time.Time) *tls.Config {
	c := &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         d.serverName(),
		ClientSessionCache: sessions,
		Time:               now,
		MinVersion:         tls.VersionTLS12, // RFC 8461 §7.2, RFC 9325 §3.1.1
		// A message in full records costs one write to the network in place of
		// a dozen. Small first records are for browsers that draw early.
		DynamicRecordSizingDisabled: true,
	}
	if !d.strong() {
		// Nobody is authenticated here, and mail may even go in clear. Any TLS
		// is better than that (RFC 7435 §1, RFC 9325 §5.2): the host that has
		// only TLS 1.0 or only RSA key exchange gets it.
		c.MinVersion = tls.VersionTLS10
		c.CipherSuites = opportunisticSuites()
	}
	return c
}

// strong reports whether the handshake itself must be of the strength that
// authentication deserves. Under observe and waiver it must not: the policies
// are checked against what came about, and the mail goes.
func (d Demand) strong() bool {
	if d.PlaintextAllowed() {
		return false
	}
	return d.RequireTLS || d.Least == Authenticated || d.LeastDANE || d.Level == Authenticated || d.EnforceSTS || d.EnforceDANE && d.daneUsable()
}

// serverName is what goes out as SNI: the TLSA base domain (RFC 7672 §8.1), which
// is the MX name (RFC 8461 §7.1) unless that is an alias.
func (d Demand) serverName() string {
	if d.DANE == nil {
		return d.Host
	}
	for _, name := range []string{d.DANE.Reference.BaseDomain, d.DANE.Set.BaseDomain} {
		if name != "" {
			return name
		}
	}
	return d.Host
}

// opportunisticSuites is what crypto/tls has, RC4 excepted (RFC 7465).
func opportunisticSuites() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		ids = append(ids, s.ID)
	}
	for _, s := range tls.InsecureCipherSuites() {
		switch s.ID {
		case tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:
		default:
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// weakSuite reports whether a suite is one of those that only an opportunistic
// handshake offers.
func weakSuite(id uint16) bool {
	for _, s := range tls.InsecureCipherSuites() {
		if s.ID == id {
			return true
		}
	}
	return false
}
