package mtasts_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/pawl-mail/pawl/mtasts"
)

func ExampleSelectRecord() {
	// The TXT records of mtasts.RecordName("example.com"), the strings of each joined.
	txts := []string{"some-verification=1", "v=STSv1; id=20160831085700Z;"}

	record, err := mtasts.SelectRecord(txts)
	if err != nil {
		fmt.Println("no policy:", err)
		return
	}
	fmt.Println(record.ID)
	// Output: 20160831085700Z
}

func ExampleParsePolicy() {
	policy, err := mtasts.ParsePolicy([]byte("version: STSv1\nmode: enforce\nmx: *.example.net\nmax_age: 604800\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(policy.Mode, policy.MX, policy.MaxAge)
	// Output: enforce [*.example.net] 168h0m0s
}

func ExampleParsePolicy_invalid() {
	_, err := mtasts.ParsePolicy([]byte("version: STSv1\nmode: enforced\nmx: *.example.net\nmax_age: 604800\n"))
	fmt.Println(err)

	var invalid *mtasts.PolicyError
	if errors.As(err, &invalid) {
		fmt.Println(invalid.Line, invalid.Key, invalid.Code, invalid.ResultType())
	}
	// Output:
	// invalid MTA-STS policy: line 2: the mode is "enforced", not enforce, testing or none
	// 2 mode policy-mode-invalid sts-policy-invalid
}

func ExampleInspectPolicy() {
	_, warnings, err := mtasts.InspectPolicy([]byte("version: STSv1\nmode: testing\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n"))
	fmt.Println(err)
	for _, w := range warnings {
		fmt.Println(w)
	}
	// Output:
	// <nil>
	// line 3: "mode" is given more than once, the first counts
}

func ExamplePolicy_Match() {
	policy := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mail.example.com", "*.example.net"}}
	for _, mx := range []string{"mail.example.com", "mx1.example.net", "example.net", "a.mx1.example.net"} {
		fmt.Println(mx, policy.Match(mx))
	}
	// Output:
	// mail.example.com true
	// mx1.example.net true
	// example.net false
	// a.mx1.example.net false
}

func ExamplePolicy_Text() {
	policy := mtasts.Policy{Mode: mtasts.Testing, MX: []string{"mx.example.com"}, MaxAge: 24 * time.Hour}
	if err := policy.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n", policy.Text())
	// Output: "version: STSv1\r\nmode: testing\r\nmx: mx.example.com\r\nmax_age: 86400\r\n"
}

func ExampleFetcher_Fetch() {
	// A policy host of this example's own. Against the Internet the zero Fetcher will do.
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n")
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())

	fetcher := &mtasts.Fetcher{
		Roots:   roots,
		Timeout: 10 * time.Second,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			fmt.Println("dialling", addr)
			var d net.Dialer
			return d.DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	fetched, err := fetcher.Fetch(context.Background(), "example.com")
	if err != nil {
		var failure *mtasts.FetchError
		if errors.As(err, &failure) {
			fmt.Println(failure.ResultType(), failure.FailureReason())
		}
		return
	}
	fmt.Println(fetched.URL)
	fmt.Println(fetched.Policy.Mode, fetched.Policy.MX)
	// Output:
	// dialling mta-sts.example.com:443
	// https://mta-sts.example.com/.well-known/mta-sts.txt
	// enforce [mx.example.com]
}
