package dane_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pawl-mail/pawl/dane"
)

func ExampleParseRecord() {
	r, err := dane.ParseRecord("3 1 1 E3B0C44298FC1C149AFBF4C8996FB924 27AE41E4649B934CA495991B7852B855")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r)
	fmt.Println(r.Usable())
	r.Usage = dane.UsagePKIXEE
	fmt.Println(r.Usable())
	// Output:
	// 3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
	// <nil>
	// unusable TLSA record: usage 1 asks for a public CA, which SMTP does not have; publish usage 3 or 2
}

// exampleResolver stands in for a validating resolver: one host, whose zone is
// signed, with one TLSA record.
type exampleResolver struct{}

func (exampleResolver) LookupAddr(_ context.Context, host string) (dane.AddrAnswer, error) {
	return dane.AddrAnswer{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.25")}, Canonical: host, Authentic: true, TTL: time.Hour}, nil
}

func (exampleResolver) LookupTLSA(_ context.Context, name string) (dane.TLSAAnswer, error) {
	if name != "_25._tcp.mx.example.com" {
		return dane.TLSAAnswer{}, &dane.NotFound{Authentic: true, TTL: time.Minute}
	}
	r, err := dane.ParseRecord("3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	return dane.TLSAAnswer{Records: []dane.Record{r}, Authentic: true, TTL: time.Hour}, err
}

func (exampleResolver) LookupCNAME(context.Context, string) (dane.CNAMEAnswer, error) {
	return dane.CNAMEAnswer{}, &dane.NotFound{Authentic: true, TTL: time.Minute}
}

func ExampleFind() {
	set, err := dane.Find(context.Background(), exampleResolver{}, "mx.example.com", 25)
	if err != nil {
		fmt.Println("do not connect:", err)
		return
	}
	for _, step := range set.Steps {
		fmt.Printf("%s %s: %s; %s\n", step.Type, step.Name, step.Answer, step.Note)
	}
	fmt.Println(set.State, "at", set.BaseDomain)
	// Output:
	// A/AAAA mx.example.com: 1 address; TLSA records may be at the host's name
	// TLSA _25._tcp.mx.example.com: 1 record; 1 usable: TLS with authentication
	// usable at mx.example.com
}

// A client that has sent STARTTLS to a host with usable records lets the
// handshake pass, and lets Verify decide.
func ExampleVerify() {
	set, err := dane.Find(context.Background(), exampleResolver{}, "mx.example.com", 25)
	if err != nil || set.State != dane.Usable {
		return
	}
	ref := set.Reference(dane.NextHop{Domain: "example.com", MX: true, Secure: true})
	config := &tls.Config{
		ServerName:         ref.BaseDomain, // RFC 7672 §8.1
		InsecureSkipVerify: true,           // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := dane.Verify(state.PeerCertificates, set.Records, ref, time.Now())
			return err
		},
	}

	err = config.VerifyConnection(tls.ConnectionState{}) // as of a server without a certificate
	fmt.Println(err)
	var failure *dane.Error
	if errors.As(err, &failure) {
		fmt.Println(failure.ResultType(), failure.FailureReason())
	}
	// Output:
	// mx.example.com: the server showed no certificate
	// validation-failure no-certificate
}

func ExampleSet_Reference() {
	set := dane.Set{Host: "mx.example.com", BaseDomain: "mx.example.com"}
	fmt.Println(set.Reference(dane.NextHop{Domain: "example.com", MX: true, Secure: true}).Names)
	fmt.Println(set.Reference(dane.NextHop{Domain: "example.com", MX: true, Secure: false}).Names)
	// Output:
	// [example.com]
	// []
}
