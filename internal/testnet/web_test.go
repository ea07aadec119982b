package testnet

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// browser is an HTTPS client that lives on the Net.
func browser(t *testing.T, n *Net) *http.Client {
	t.Helper()
	tr := &http.Transport{
		DialContext:     n.Dial,
		TLSClientConfig: &tls.Config{RootCAs: n.Roots(), Time: n.Clock.Now},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch gets a domain's policy and says what came: the status and media type
// and the body, or the error.
func fetch(ctx context.Context, c *http.Client, domain string) (string, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+wellKnown, nil)
	if err != nil {
		return "", "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.Status + " " + resp.Header.Get("Content-Type"), string(body), err
}

func TestAPolicyIsServedToItsOwnDomain(t *testing.T) {
	n := Start(t, Options{})
	a := n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}})
	n.Domain("b.test", DomainOptions{MX: []MX{{10, "mx1.b.test"}, {20, "mx2.b.test"}}, STS: STS{Mode: "testing", MaxAge: time.Hour, Patterns: []string{"*.b.test"}}})
	for domain, want := range map[string]string{
		"a.test": "version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmax_age: 604800\r\n",
		"b.test": "version: STSv1\r\nmode: testing\r\nmx: *.b.test\r\nmax_age: 3600\r\n",
	} {
		head, body, err := fetch(limit(t), browser(t, n), domain)
		if err != nil || head != "200 OK text/plain" || body != want {
			t.Errorf("%s: got %q %q %v, want %q", domain, head, body, err, want)
		}
	}
	if got := a.PolicyRequests(); got != 1 {
		t.Errorf("counted %d requests for a.test, want 1", got)
	}
}

func TestANewPolicyHasANewIDAndARemovedOneIsGone(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "testing"}})
	record := func() string {
		m, err := ask(t, n, "udp", "_mta-sts.a.test", "TXT", false, false)
		if err != nil {
			t.Fatal(err)
		}
		return brief(m)
	}
	if got, want := record(), `NOERROR TXT "v=STSv1; id=id1"`; got != want {
		t.Errorf("first: got %s, want %s", got, want)
	}
	d.SetPolicy(STS{Mode: "enforce"})
	if got, want := record(), `NOERROR TXT "v=STSv1; id=id2"`; got != want {
		t.Errorf("second: got %s, want %s", got, want)
	}
	if id := d.BumpID(); id != "id3" || record() != `NOERROR TXT "v=STSv1; id=id3"` {
		t.Errorf("bumped to %s, record %s", id, record())
	}
	d.RemovePolicy()
	if got, want := record(), "NXDOMAIN SOA a.test."; got != want {
		t.Errorf("removed: got %s, want %s", got, want)
	}
	if head, _, err := fetch(limit(t), browser(t, n), "a.test"); err != nil || !strings.HasPrefix(head, "404") {
		t.Errorf("removed: got %s %v", head, err)
	}
}

func TestFaultsOfAPolicyHost(t *testing.T) {
	tests := []struct {
		what  string
		fault SiteFault
		want  string // in the status or the error
	}{
		{"refused", SiteFault{Dead: Refuse}, "connection refused"},
		{"killed at the hello", SiteFault{Kill: true}, "connection reset by peer"},
		{"self-signed", SiteFault{Flaw: SelfSigned}, "certificate signed by unknown authority"},
		{"expired", SiteFault{Flaw: Expired}, "certificate has expired"},
		{"not yet valid", SiteFault{Flaw: NotYetValid}, "is before"},
		{"wrong name", SiteFault{Flaw: WrongName}, "certificate is valid for other.test"},
		{"name in the CN only", SiteFault{Flaw: CNOnly}, "relies on legacy Common Name"},
		{"false CA", SiteFault{Flaw: Untrusted}, "certificate signed by unknown authority"},
		{"incomplete chain", SiteFault{Flaw: Incomplete}, "certificate signed by unknown authority"},
		{"mis-issued", SiteFault{Flaw: Misissued}, "200 OK text/plain"},
		{"TLS 1.1", SiteFault{MaxTLS: tls.VersionTLS11}, "protocol version not supported"},
		{"redirect", SiteFault{Status: 302, Header: http.Header{"Location": {"https://other.test/"}}}, "302 Found text/plain"},
		{"not found", SiteFault{Status: 404}, "404 Not Found"},
		{"HTML", SiteFault{Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>"}, "200 OK text/html"},
		{"no end", SiteFault{Size: 1 << 30}, "200 OK text/plain"},
		{"cut off", SiteFault{CutAfter: 10}, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			n := Start(t, Options{})
			d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}})
			mend := d.PolicyHost().Break(tt.fault)
			head, body, err := fetch(limit(t), browser(t, n), "a.test")
			if err != nil {
				head = err.Error()
			}
			if !strings.Contains(head, tt.want) {
				t.Errorf("got %s, want %s", head, tt.want)
			}
			if tt.fault.Size > 0 && len(body) != 1<<20 {
				t.Errorf("read %d octets", len(body))
			}
			mend()
			if head, _, err := fetch(limit(t), browser(t, n), "a.test"); err != nil || head != "200 OK text/plain" {
				t.Errorf("mended: got %s, %v", head, err)
			}
		})
	}
}

func TestASlowPolicyHostSendsAnOctetASecond(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "none", Text: "ab"}})
	d.PolicyHost().Break(SiteFault{Slow: time.Second})
	type result struct {
		body string
		err  error
	}
	got := make(chan result)
	go func() {
		_, body, err := fetch(limit(t), browser(t, n), "a.test")
		got <- result{body, err}
	}()
	for range 2 {
		if err := n.Clock.WaitTimers(limit(t), 1); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-got:
			t.Fatalf("came too early: %+v", r)
		default:
		}
		n.Clock.Advance(time.Second)
	}
	if r := <-got; r.err != nil || r.body != "ab" {
		t.Errorf("got %+v", r)
	}
}

func TestAHangingPolicyHostNeverAnswers(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}})
	d.PolicyHost().Break(SiteFault{Hang: true})
	ctx, cancel := context.WithCancel(limit(t))
	got := make(chan error)
	go func() {
		_, _, err := fetch(ctx, browser(t, n), "a.test")
		got <- err
	}()
	if err := d.PolicyHost().WaitCount(limit(t), 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
