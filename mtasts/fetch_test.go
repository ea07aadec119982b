package mtasts_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/mtasts"
)

// refused returns a fetch's error, and fails the test unless it has this code,
// result type and stage.
func refused(t *testing.T, err error, code mtasts.Code, resultType string, stage mtasts.Stage) *mtasts.FetchError {
	t.Helper()
	var failure *mtasts.FetchError
	if !errors.As(err, &failure) {
		t.Fatalf("error %v, want a *FetchError", err)
	}
	if failure.Code != code || failure.ResultType() != resultType || failure.Stage != stage {
		t.Fatalf("%s, %s at %s (%v), want %s, %s at %s", failure.Code, failure.ResultType(), failure.Stage, err, code, resultType, stage)
	}
	return failure
}

func TestRFC8461_3_3_APolicyIsFetched(t *testing.T) {
	h, f := answering(t, says(okAnswer))
	got, err := f.Fetch(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	want := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.com"}, MaxAge: 168 * time.Hour}
	if diff := cmp.Diff(want, got.Policy); diff != "" {
		t.Error(diff)
	}
	if string(got.Body) != okPolicy || got.URL != "https://mta-sts.example.com/.well-known/mta-sts.txt" || !got.At.Equal(today) {
		t.Errorf("body %q from %s at %v", got.Body, got.URL, got.At)
	}
	if len(got.Certificates) != 1 || got.Certificates[0].DNSNames[0] != policyHost || got.TLSVersion != tls.VersionTLS13 {
		t.Errorf("certificates %v, TLS version %x", got.Certificates, got.TLSVersion)
	}
	if got.Remote.String() != h.addr || got.MediaType != "text/plain" || got.Warnings != nil {
		t.Errorf("from %v, media type %s, warnings %v", got.Remote, got.MediaType, got.Warnings)
	}
}

func TestTheRequestIsAPlainGETWithNothingConditional(t *testing.T) {
	h, f := answering(t, says(okAnswer))
	f.UserAgent = "tester/1"
	good[mtasts.Fetched](t)(f.Fetch(t.Context(), "example.com"))
	want := "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.example.com\r\nUser-Agent: tester/1\r\nAccept: text/plain\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
	requests, _ := h.seen()
	if diff := cmp.Diff([]string{want}, requests); diff != "" {
		t.Error(diff)
	}
}

func TestAUserAgentCannotSmuggleAHeader(t *testing.T) {
	h, f := answering(t, says(okAnswer))
	f.UserAgent = "x\r\nCookie: y"
	good[mtasts.Fetched](t)(f.Fetch(t.Context(), "example.com"))
	if requests, _ := h.seen(); strings.Contains(requests[0], "Cookie") {
		t.Errorf("request %q", requests[0])
	}
}

func TestTheDiallerIsGivenThePolicyHostByName(t *testing.T) {
	for _, tt := range []struct{ name, domain, port, addr string }{
		{"the port of HTTPS", "example.com", "", "mta-sts.example.com:443"},
		{"another port", "example.com", "8443", "mta-sts.example.com:8443"},
		{"a domain in capitals with a trailing dot", "Example.COM.", "", "mta-sts.example.com:443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, f := answering(t, says(okAnswer))
			f.Port = tt.port
			var network, addr string
			dial := f.Dial
			f.Dial = func(ctx context.Context, n, a string) (net.Conn, error) {
				network, addr = n, a
				return dial(ctx, n, a)
			}
			good[mtasts.Fetched](t)(f.Fetch(t.Context(), tt.domain))
			if network != "tcp" || addr != tt.addr {
				t.Errorf("dialled %s %s, want tcp %s", network, addr, tt.addr)
			}
			requests, _ := h.seen()
			if host := strings.TrimSuffix(tt.addr, ":443"); !strings.Contains(requests[0], "\r\nHost: "+host+"\r\n") {
				t.Errorf("request %q, want Host %s", requests[0], host)
			}
		})
	}
}

func TestProxyVariablesOfTheEnvironmentAreIgnored(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	_, f := answering(t, says(okAnswer))
	good[mtasts.Fetched](t)(f.Fetch(t.Context(), "example.com"))
}

func TestRFC8461_7_1_SNIHasThePolicyHost(t *testing.T) {
	h, f := answering(t, says(okAnswer))
	good[mtasts.Fetched](t)(f.Fetch(t.Context(), "example.com"))
	_, names := h.seen()
	if diff := cmp.Diff([]string{"mta-sts.example.com"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestRFC8461_3_3_RedirectsAreNeverFollowed(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			h, f := answering(t, says(fmt.Sprintf("HTTP/1.1 %d Elsewhere\r\nLocation: https://mta-sts.example.com/policy.txt\r\nContent-Type: text/plain\r\nContent-Length: 68\r\n\r\n%s", status, okPolicy)))
			_, err := f.Fetch(t.Context(), "example.com")
			failure := refused(t, err, mtasts.HTTPRedirect, "sts-policy-fetch-error", mtasts.StageResponse)
			if failure.Status != status || failure.Location != "https://mta-sts.example.com/policy.txt" || failure.FailureReason() != "http-redirect" {
				t.Errorf("status %d, location %s, reason %s", failure.Status, failure.Location, failure.FailureReason())
			}
			if requests, _ := h.seen(); len(requests) != 1 {
				t.Errorf("%d requests, want 1", len(requests))
			}
		})
	}
}

func TestRFC8461_3_3_OnlyStatus200IsValid(t *testing.T) {
	for _, status := range []int{101, 201, 202, 203, 204, 205, 206, 400, 401, 403, 404, 410, 418, 429, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			_, f := answering(t, says(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: text/plain\r\n\r\n%s", status, okPolicy)))
			_, err := f.Fetch(t.Context(), "example.com")
			failure := refused(t, err, mtasts.HTTPStatus, "sts-policy-fetch-error", mtasts.StageResponse)
			if failure.Status != status || failure.FailureReason() != fmt.Sprintf("http-status-%d", status) {
				t.Errorf("status %d, reason %s", failure.Status, failure.FailureReason())
			}
		})
	}
}

func TestRFC8461_3_3_HTTPCachingIsNotUsed(t *testing.T) {
	h, f := answering(t, says(okHeader+"Cache-Control: max-age=86400\r\nETag: \"1\"\r\nLast-Modified: Sat, 14 Mar 2026 00:00:00 GMT\r\nExpires: Sun, 15 Mar 2026 00:00:00 GMT\r\n\r\n"+okPolicy))
	for range 3 {
		good[mtasts.Fetched](t)(f.Fetch(t.Context(), "example.com"))
	}
	requests, _ := h.seen()
	if len(requests) != 3 {
		t.Errorf("%d requests for 3 fetches", len(requests))
	}
	for _, request := range requests {
		if strings.Contains(request, "If-") {
			t.Errorf("a conditional request: %q", request)
		}
	}
	t.Run("and 304 is no policy", func(t *testing.T) {
		_, f := answering(t, says("HTTP/1.1 304 Not Modified\r\n\r\n"))
		_, err := f.Fetch(t.Context(), "example.com")
		refused(t, err, mtasts.HTTPRedirect, "sts-policy-fetch-error", mtasts.StageResponse)
	})
}

func TestRFC8461_3_2_TheMediaTypeIsTextPlain(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		ok           bool
	}{
		{"text/plain", "Content-Type: text/plain\r\n", true},
		{"in another case", "content-type: Text/PLAIN\r\n", true},
		{"with charset utf-8", "Content-Type: text/plain; charset=utf-8\r\n", true},
		{"with charset us-ascii", "Content-Type: text/plain;charset=us-ascii\r\n", true},
		{"with another charset, which is ignored", "Content-Type: text/plain; charset=utf-16\r\n", true},
		{"with parameters that make no sense", "Content-Type: text/plain ;;=\"\r\n", true},
		{"HTML", "Content-Type: text/html; charset=utf-8\r\n", false},
		{"any other text", "Content-Type: text/plainer\r\n", false},
		{"octets", "Content-Type: application/octet-stream\r\n", false},
		{"an image", "Content-Type: image/png\r\n", false},
		{"empty", "Content-Type: \r\n", false},
		{"absent", "", false},
		{"text/plain in a parameter", "Content-Type: text/html; x=text/plain\r\n", false},
		{"two headers that differ", "Content-Type: text/plain\r\nContent-Type: text/html\r\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, f := answering(t, says("HTTP/1.1 200 OK\r\n"+tt.header+"Content-Length: 68\r\n\r\n"+okPolicy))
			_, err := f.Fetch(t.Context(), "example.com")
			if tt.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, mtasts.MediaType, "sts-policy-fetch-error", mtasts.StageResponse)

			f.MediaType = mtasts.WarnOfMediaType
			got, err := f.Fetch(t.Context(), "example.com")
			if err != nil {
				t.Fatalf("when only a warning is asked for: %v", err)
			}
			if diff := cmp.Diff([]mtasts.Code{mtasts.MediaType}, codes(got.Warnings)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResponsesThatCarryAPolicy(t *testing.T) {
	for _, tt := range []struct{ name, answer string }{
		{"with a length", okAnswer},
		{"in chunks", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + okPolicy[:16] + "\r\n34;extension\r\n" + okPolicy[16:] + "\r\n0\r\nTrailer: x\r\n\r\n"},
		{"until the connection is closed properly", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + okPolicy},
		{"in HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + okPolicy},
		{"after interim responses", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + okAnswer},
		{"encoded as identity", okHeader + "Content-Encoding: identity\r\n\r\n" + okPolicy},
		{"with more after it", okAnswer + "HTTP/1.1 302 Found\r\n\r\n"},
		{"with header names and values of others", okHeader + "Set-Cookie: a=b\r\nStrict-Transport-Security: max-age=1\r\nX: \xff\r\n\r\n" + okPolicy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, f := answering(t, says(tt.answer))
			if got := good[mtasts.Fetched](t)(f.Fetch(t.Context(), "example.com")); string(got.Body) != okPolicy {
				t.Errorf("body %q", got.Body)
			}
		})
	}
}

func TestResponsesThatAreNoPolicy(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	for _, tt := range []struct {
		name, answer string
		want         mtasts.Code
	}{
		{"nothing at all", "", mtasts.HTTPMalformed},
		{"the policy without headers", okPolicy, mtasts.HTTPMalformed},
		{"headers that end early", head, mtasts.HTTPMalformed},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", mtasts.HTTPMalformed},
		{"a status that is no number", "HTTP/1.1 2OO OK\r\n\r\n", mtasts.HTTPMalformed},
		{"a header without a colon", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", mtasts.HTTPMalformed},
		{"a negative length", head + "Content-Length: -1\r\n\r\n", mtasts.HTTPMalformed},
		{"two lengths", head + "Content-Length: 68\r\nContent-Length: 10\r\n\r\n" + okPolicy, mtasts.HTTPMalformed},
		{"a transfer encoding that was not asked for", head + "Transfer-Encoding: gzip, chunked\r\n\r\n", mtasts.HTTPMalformed},
		{"a chunk whose size is no number", head + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", mtasts.HTTPMalformed},
		{"interim responses and no end", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 6) + okAnswer, mtasts.HTTPMalformed},
		{"gzip, not asked for", head + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", mtasts.ContentEncoding},
		{"brotli in a second header", head + "Content-Encoding: identity\r\nContent-Encoding: br\r\n\r\n", mtasts.ContentEncoding},
		{"a body shorter than its length", head + "Content-Length: 80\r\n\r\n" + okPolicy, mtasts.BodyTruncated},
		{"chunks without the last", head + "Transfer-Encoding: chunked\r\n\r\n44\r\n" + okPolicy + "\r\n", mtasts.BodyTruncated},
		{"a length over 64 KiB", head + "Content-Length: 65537\r\n\r\n", mtasts.BodyTooLarge},
		{"a length of a petabyte", head + "Content-Length: 1125899906842624\r\n\r\n", mtasts.BodyTooLarge},
		{"over 64 KiB without a length", head + "\r\n" + strings.Repeat("x", 65537), mtasts.BodyTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, f := answering(t, says(tt.answer))
			_, err := f.Fetch(t.Context(), "example.com")
			refused(t, err, tt.want, "sts-policy-fetch-error", mtasts.StageResponse)
		})
	}
}

func TestABodyCutWithoutTheTLSGoodbyeIsNoPolicy(t *testing.T) {
	_, f := answering(t, func(conn *tls.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"+okPolicy)
		conn.NetConn().Close()
	})
	_, err := f.Fetch(t.Context(), "example.com")
	refused(t, err, mtasts.BodyTruncated, "sts-policy-fetch-error", mtasts.StageResponse)
}

// endless writes a part again and again until the other side has had enough.
func endless(head, part string) func(*tls.Conn) {
	return func(conn *tls.Conn) {
		_, err := io.WriteString(conn, head)
		for err == nil {
			_, err = io.WriteString(conn, part)
		}
	}
}

func TestWhatHasNoEndIsBrokenOff(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	for _, tt := range []struct {
		name       string
		head, part string
		want       mtasts.Code
	}{
		{"an endless status line", "HTTP/1.1 200 ", strings.Repeat("x", 512), mtasts.HeaderTooLarge},
		{"an endless header", head + "X: ", strings.Repeat("x", 4096), mtasts.HeaderTooLarge},
		{"endless headers", head, strings.Repeat("X: y\r\n", 100), mtasts.HeaderTooLarge},
		{"an endless body", head + "\r\n", strings.Repeat("x", 4096), mtasts.BodyTooLarge},
		{"endless chunks", head + "Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 100), mtasts.BodyTooLarge},
		{"an endless chunk extension", head + "Transfer-Encoding: chunked\r\n\r\n1;", strings.Repeat("x", 512), mtasts.HTTPMalformed},
		{"endless trailers", head + "Transfer-Encoding: chunked\r\n\r\n0\r\n", strings.Repeat("X: y\r\n", 100), mtasts.HTTPMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, f := answering(t, endless(tt.head, tt.part))
			_, err := f.Fetch(t.Context(), "example.com")
			refused(t, err, tt.want, "sts-policy-fetch-error", mtasts.StageResponse)
		})
	}
}

func TestAnUnwantedBodyIsNotWaitedFor(t *testing.T) {
	for _, tt := range []struct {
		name, head string
		want       mtasts.Code
	}{
		{"of a 404", "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n", mtasts.HTTPStatus},
		{"of a redirect", "HTTP/1.1 302 Found\r\nContent-Length: 100\r\n\r\n", mtasts.HTTPRedirect},
		{"of a page", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n", mtasts.MediaType},
		{"that is too large", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n", mtasts.BodyTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gone := make(chan struct{})
			_, f := answering(t, func(conn *tls.Conn) {
				defer close(gone)
				io.WriteString(conn, tt.head)
				io.Copy(io.Discard, conn) // until the fetcher hangs up
			})
			_, err := f.Fetch(t.Context(), "example.com")
			refused(t, err, tt.want, "sts-policy-fetch-error", mtasts.StageResponse)
			<-gone
		})
	}
}

func TestFailuresToConnectAreToldApart(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	_, refusal := net.Dial("tcp", nobody)

	for _, tt := range []struct {
		name string
		err  error
		want mtasts.Code
	}{
		{"there is no such name", &net.DNSError{Err: "no such host", Name: policyHost, IsNotFound: true}, mtasts.HostNotFound},
		{"there is no such name, in a wrapping", fmt.Errorf("dialling: %w", &net.DNSError{Err: "no such host", IsNotFound: true}), mtasts.HostNotFound},
		{"the lookup failed", &net.DNSError{Err: "server misbehaving", Name: policyHost, IsTemporary: true}, mtasts.HostLookup},
		{"the lookup took too long", &net.DNSError{Err: "timeout", Name: policyHost, IsTimeout: true}, mtasts.HostLookup},
		{"the connection was refused", refusal, mtasts.ConnectRefused},
		{"anything else", errors.New("network is unreachable"), mtasts.ConnectError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &mtasts.Fetcher{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, tt.err }}
			got, err := f.Fetch(t.Context(), "example.com")
			failure := refused(t, err, tt.want, "sts-policy-fetch-error", mtasts.StageConnect)
			if !errors.Is(err, tt.err) || failure.Domain != "example.com" || failure.URL != got.URL {
				t.Errorf("error %v, domain %s, URL %s", err, failure.Domain, failure.URL)
			}
		})
	}
}

func TestRFC8461_3_4_ThereIsNoPolicyForWhatIsNoDomain(t *testing.T) {
	for _, domain := range []string{"", ".", "[192.0.2.1]", "192.0.2.1", "[IPv6:2001:db8::1]", "2001:db8::1", "bücher.example", "a..test", "-a.test", "a b.test", "a.test/x", "a.test:443", "user@a.test", "a_b.test", strings.Repeat("a.", 123) + "test"} {
		t.Run(domain, func(t *testing.T) {
			f := &mtasts.Fetcher{Dial: func(context.Context, string, string) (net.Conn, error) {
				t.Error("dialled")
				return nil, io.EOF
			}}
			_, err := f.Fetch(t.Context(), domain)
			refused(t, err, mtasts.DomainInvalid, "sts-policy-fetch-error", mtasts.StageDomain)
		})
	}
}

func TestRFC8461_3_4_TheParentsPolicyIsNotAskedFor(t *testing.T) {
	var dialled []string
	f := &mtasts.Fetcher{Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled = append(dialled, addr)
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}}
	if _, err := f.Fetch(t.Context(), "mail.example.com"); err == nil {
		t.Error("no error")
	}
	if diff := cmp.Diff([]string{"mta-sts.mail.example.com:443"}, dialled); diff != "" {
		t.Error(diff)
	}
}

func TestAPolicyThatDoesNotParseIsReportedWithItsLine(t *testing.T) {
	body := strings.Replace(okPolicy, "enforce", "Enforce", 1)
	_, f := answering(t, says(okHeader+"\r\n"+body))
	got, err := f.Fetch(t.Context(), "example.com")
	failure := refused(t, err, mtasts.PolicyModeInvalid, "sts-policy-invalid", mtasts.StagePolicy)
	var cause *mtasts.PolicyError
	if !errors.As(err, &cause) || cause.Line != 2 || cause.Key != "mode" || failure.Status != 200 {
		t.Errorf("cause %v, status %d", cause, failure.Status)
	}
	if string(got.Body) != body || got.Policy.Mode != "" {
		t.Errorf("body %q, policy %v", got.Body, got.Policy)
	}
	want := `the MTA-STS policy of example.com, fetched from https://mta-sts.example.com/.well-known/mta-sts.txt, cannot be used: invalid MTA-STS policy: line 2: the mode is "Enforce", not enforce, testing or none`
	if err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

func TestAFetcherCanBeUsedByManyAtATime(t *testing.T) {
	_, f := answering(t, says(okAnswer))
	var fetches sync.WaitGroup
	for range 20 {
		fetches.Go(func() {
			if _, err := f.Fetch(t.Context(), "example.com"); err != nil {
				t.Error(err)
			}
		})
	}
	fetches.Wait()
}

func TestTheZeroFetcherHasADiallerOfItsOwn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that it does not get far
	_, err := new(mtasts.Fetcher).Fetch(ctx, "example.com")
	refused(t, err, mtasts.Cancelled, "sts-policy-fetch-error", mtasts.StageConnect)
}

func TestAFetchErrorSaysWhatWasTriedAndWhatHappened(t *testing.T) {
	_, f := answering(t, says("HTTP/1.1 404 Not Found\r\n\r\n"))
	_, err := f.Fetch(t.Context(), "example.com")
	want := "the MTA-STS policy of example.com could not be fetched from https://mta-sts.example.com/.well-known/mta-sts.txt: http-status: status 404"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
	_, err = f.Fetch(t.Context(), "[192.0.2.1]")
	want = `no MTA-STS policy can be fetched: "[192.0.2.1]" is not a domain name in A-labels`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}
