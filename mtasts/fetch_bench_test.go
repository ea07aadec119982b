package mtasts_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/pawl-mail/pawl/mtasts"
)

// BenchmarkFetch and BenchmarkBareGET do the same over the wire, 16 at a time:
// the difference is what this package costs, or saves, against net/http.
func BenchmarkFetch(b *testing.B) {
	_, f := answering(b, says(okAnswer))
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := f.Fetch(b.Context(), "example.com"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkBareGET(b *testing.B) {
	h, f := answering(b, says(okAnswer))
	transport := &http.Transport{
		DialContext:       dialTo(h),
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: f.Roots, Time: clock},
	}
	client := &http.Client{Transport: transport}
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Get(mtasts.PolicyURL("example.com"))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
