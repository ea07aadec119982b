package tlsrpt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// DefaultTimeout caps one submission.
	DefaultTimeout = time.Minute
	// maxAnswer caps how much of a server's answer is read, in bytes.
	maxAnswer = 4 << 10
	// maxAnswerText caps how much of it is kept.
	maxAnswerText = 200
	// maxAnswerHeader caps its header.
	maxAnswerHeader = 64 << 10
)

// Poster submits reports over HTTPS (RFC 8460 §5.4). The zero value is ready.
// It is safe for concurrent use.
type Poster struct {
	Dial      func(ctx context.Context, network, addr string) (net.Conn, error) // nil: the net package's
	Roots     *x509.CertPool                                                    // whom [Answer.Certificate] is judged by; nil: the system's
	Now       func() time.Time                                                  // the clock of certificates; nil: time.Now
	Timeout   time.Duration                                                     // 0: [DefaultTimeout]
	UserAgent string
}

// Answer is what a server said to a report.
type Answer struct {
	Status      int    // the HTTP status
	Text        string // the beginning of the answer, on one line, for people
	Certificate string // what is wrong with the server's certificate; empty: nothing
}

// OK reports whether the report was taken: any 2xx, and nothing else (RFC 8460
// §5.4). A redirection is none.
func (a Answer) OK() bool { return a.Status >= 200 && a.Status <= 299 }

// Final reports whether the same report will not be taken later either: a 4xx
// that does not say "later" (RFC 9110 §15.5).
func (a Answer) Final() bool {
	switch a.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusLocked:
		return false
	}
	return a.Status >= 400 && a.Status <= 499
}

func (a Answer) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.Status, a.Text))
}

// Post submits a report packed by [Compress]. An error means that there was no
// answer. Redirections are never followed: a report goes to the address that
// the domain published, and to no other that a server wishes for.
func (p *Poster) Post(ctx context.Context, to Destination, report []byte) (Answer, error) {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URI, bytes.NewReader(report))
	if err != nil || to.Scheme != HTTPS {
		return Answer{}, fmt.Errorf("%s is not an address that a report can be posted to", excerpt(to.URI))
	}
	req.Header.Set("Content-Type", TypeGzip)
	req.Header.Set("User-Agent", p.UserAgent)
	var a Answer
	transport := &http.Transport{
		DialContext: p.Dial, TLSClientConfig: p.tls(&a), ForceAttemptHTTP2: true, DisableKeepAlives: true,
		TLSHandshakeTimeout: timeout, MaxResponseHeaderBytes: maxAnswerHeader,
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // below http.Client, which would follow redirections
	if err != nil {
		return Answer{}, fmt.Errorf("posting a report to %s: %w", to.Host, err)
	}
	defer resp.Body.Close()
	// The status is the answer; what comes after it is for people.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	a.Status, a.Text = resp.StatusCode, oneLine(string(text))
	return a, nil
}

// tls is a configuration that accepts any certificate (RFC 8460 §3: submitters
// MAY ignore validation errors; a report about a broken certificate must arrive
// where it is broken) and notes what is wrong with it.
func (p *Poster) tls(a *Answer) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // RFC 8460 §3
		MinVersion:         tls.VersionTLS12,
		VerifyConnection: func(state tls.ConnectionState) error {
			opts := x509.VerifyOptions{DNSName: state.ServerName, Roots: p.Roots, Intermediates: x509.NewCertPool()}
			if p.Now != nil {
				opts.CurrentTime = p.Now()
			}
			for _, c := range state.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			if _, err := state.PeerCertificates[0].Verify(opts); err != nil {
				a.Certificate = oneLine(err.Error())
			}
			return nil
		},
	}
}

func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(c rune) bool { return c <= ' ' || c == 0x7f }), " ")
	if len(s) > maxAnswerText {
		return strings.ToValidUTF8(s[:maxAnswerText], "") + "…"
	}
	return s
}
