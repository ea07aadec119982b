package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	// DefaultTimeout is how long a fetch may take in all: the minute that
	// RFC 8461 §3.3 suggests.
	DefaultTimeout = time.Minute

	defaultUserAgent = "mtasts (RFC 8461)"
	httpsPort        = "443"
	wellKnownPath    = "/.well-known/mta-sts.txt"
	policyLabel      = "mta-sts."
)

// PolicyHost returns the name of the host that serves a domain's policy
// (RFC 8461 §3.2).
func PolicyHost(domain string) string { return policyLabel + domain }

// PolicyURL returns the address of a domain's policy (RFC 8461 §3.2).
func PolicyURL(domain string) string { return "https://" + PolicyHost(domain) + wellKnownPath }

// MediaTypeRule says what a Fetcher does with a policy whose media type is not
// text/plain.
type MediaTypeRule int

const (
	// RefuseMediaType refuses it, and is the default: RFC 8461 §3.2 says that
	// senders SHOULD check, since otherwise whoever can place a page or a
	// picture at the policy host can place a policy.
	RefuseMediaType MediaTypeRule = iota
	// WarnOfMediaType takes it and adds a [Warning].
	WarnOfMediaType
)

// Fetcher fetches policies over HTTPS as RFC 8461 §3.3 wants it: TLS 1.2 or
// newer with SNI, a trusted and unexpired certificate with a DNS-ID for the
// policy host, only status 200, no redirects, no caching, and no more than a
// minute and 64 KiB. Environment variables such as HTTPS_PROXY play no part.
//
// The zero value is ready. A Fetcher must not be changed while it is in use, and
// may be used from several goroutines at a time. Each fetch has a connection of
// its own, which has ended when Fetch returns.
type Fetcher struct {
	// Dial connects to the policy host; addr is its name and port, such as
	// "mta-sts.example.com:443", and Dial looks the name up. It must heed the
	// context. A lookup's failure is told apart from a connection's if the error
	// is, or wraps, a [*net.DNSError], whose IsNotFound says that there is no
	// such name. Nil: a [net.Dialer].
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Roots are the trusted certificate authorities. Nil: the system's.
	Roots *x509.CertPool
	// Now is the clock by which certificates are judged. Nil: [time.Now].
	Now func() time.Time
	// Timeout caps a whole fetch, from the lookup to the last byte. Zero:
	// DefaultTimeout.
	Timeout time.Duration
	// UserAgent is sent along. Empty: a name of this package.
	UserAgent string
	// Port is connected to in place of 443.
	Port string
	// MediaType says what to do if the media type is not text/plain.
	MediaType MediaTypeRule
}

// Fetched is what a fetch brought. With an error it holds what was seen up to
// there.
type Fetched struct {
	Policy   Policy
	Body     []byte    // as it was served, at most MaxPolicySize
	Warnings []Warning // what is odd, but valid
	URL      string
	At       time.Time // when it was complete: max_age counts from here

	Remote       net.Addr            // the address connected to; nil if none was
	TLSVersion   uint16              // as in crypto/tls
	Certificates []*x509.Certificate // as the host sent them, its own first
	MediaType    string              // the Content-Type header
}

// Fetch fetches the policy of a domain, which is a name in A-labels: that of
// the recipient, or of the smart host if there is one, and never a parent
// (RFC 8461 §3.4). The error is a [*FetchError].
//
// After an error the caller should wait for five minutes or more before it asks
// again for the same id (RFC 8461 §3.3).
func (f *Fetcher) Fetch(ctx context.Context, domain string) (Fetched, error) {
	name, err := policyDomain(domain)
	if err != nil {
		return Fetched{}, &FetchError{Domain: domain, Stage: StageDomain, Code: DomainInvalid, Err: err}
	}
	timeout := f.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	fetched := Fetched{URL: PolicyURL(name)}
	if err := f.fetch(ctx, PolicyHost(name), &fetched); err != nil {
		err.Domain, err.URL, err.Certificates = name, fetched.URL, fetched.Certificates
		return fetched, err
	}
	return fetched, nil
}

// policyDomain makes a domain lower-case and without trailing dot, and refuses
// what cannot have a policy: addresses and address literals (RFC 8461 §3.4).
func policyDomain(domain string) (string, error) {
	name := lowerASCII(strings.TrimSuffix(domain, "."))
	last := name[strings.LastIndexByte(name, '.')+1:]
	if !hostName(name, false) || len(name) > maxHostSize-len(policyLabel) || strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("%s is not a domain name in A-labels", excerpt(domain))
	}
	return name, nil
}

func (f *Fetcher) fetch(ctx context.Context, host string, fetched *Fetched) *FetchError {
	conn, err := f.dial(ctx, host)
	if err != nil {
		return dialError(ctx, err)
	}
	defer conn.Close()
	fetched.Remote = conn.RemoteAddr()

	// Whatever blocks below ends when the time is up or the caller gives up.
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(closed); conn.Close() })
	defer func() {
		if !stop() {
			<-closed
		}
	}()

	raw := &rawConn{Conn: conn}
	session := tls.Client(raw, f.tlsConfig(host))
	if err := session.HandshakeContext(ctx); err != nil {
		fetched.Certificates = presented(err)
		return f.handshakeError(ctx, host, err)
	}
	state := session.ConnectionState()
	fetched.TLSVersion, fetched.Certificates = state.Version, state.PeerCertificates

	if _, err := session.Write(f.request(host)); err != nil {
		return exchangeError(ctx, err)
	}
	answer, err := readAnswer(session, f.MediaType)
	fetched.MediaType, fetched.Body, fetched.Warnings = answer.mediaType, answer.body, answer.warnings
	if err == nil && answer.untilClose && raw.eof {
		// RFC 9112 §8: a body without a length is complete only if the TLS
		// session was closed too. Otherwise whoever is on the path could cut
		// lines from the end of a policy.
		err = &answerError{code: BodyTruncated, err: errors.New("the connection ended before the body did")}
	}
	if err != nil {
		failure := exchangeError(ctx, err)
		failure.Status, failure.Location, failure.MediaType = answer.status, answer.location, answer.mediaType
		return failure
	}
	fetched.At = f.now()
	_ = session.Close() // says goodbye; the body is here, so nothing depends on it

	policy, warnings, err := InspectPolicy(fetched.Body)
	fetched.Policy, fetched.Warnings = policy, append(fetched.Warnings, warnings...)
	if err != nil {
		return policyFailure(answer, err)
	}
	return nil
}

func (f *Fetcher) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

func (f *Fetcher) port() string {
	if f.Port != "" {
		return f.Port
	}
	return httpsPort
}

func (f *Fetcher) dial(ctx context.Context, host string) (net.Conn, error) {
	addr := net.JoinHostPort(host, f.port())
	if f.Dial != nil {
		return f.Dial(ctx, "tcp", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (f *Fetcher) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		// RFC 8461 §7.1: SNI has the policy host; crypto/x509 matches it against
		// DNS-IDs only, with * as a whole left label, as §3.3 demands.
		ServerName: host,
		MinVersion: tls.VersionTLS12, // RFC 8461 §7.2
		RootCAs:    f.Roots,
		Time:       f.Now,
		NextProtos: []string{"http/1.1"},
		// Without the post-quantum key exchange: it protects secrets from whoever
		// records them now to read them later, and a policy is public. It would
		// take a quarter of the time that a fetch costs both ends.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
	}
}

// request is a GET without anything conditional, so that no cache can answer it
// with 304 (RFC 8461 §3.3), and without compression (RFC 9110 §12.5.3: saying
// nothing would allow any).
func (f *Fetcher) request(host string) []byte {
	if port := f.port(); port != httpsPort {
		host = net.JoinHostPort(host, port)
	}
	agent := f.UserAgent
	if agent == "" || !policyValue(agent) { // a line end would smuggle a header
		agent = defaultUserAgent
	}
	return []byte("GET " + wellKnownPath + " HTTP/1.1\r\n" +
		"Host: " + host + "\r\n" +
		"User-Agent: " + agent + "\r\n" +
		"Accept: text/plain\r\n" +
		"Accept-Encoding: identity\r\n" +
		"Connection: close\r\n\r\n")
}

// rawConn notes the end of the TCP stream below a TLS session.
type rawConn struct {
	net.Conn
	eof bool
}

func (c *rawConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		c.eof = true
	}
	return n, err
}
