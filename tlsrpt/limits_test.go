package tlsrpt_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/tlsrpt"
)

// blankReader is a gzip bomb's content: blanks, which JSON allows anywhere.
type blankReader struct{ left int64 }

func (z *blankReader) Read(p []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.left))
	for i := range p[:n] {
		p[i] = ' '
	}
	z.left -= int64(n)
	return n, nil
}

func TestRFC8460_7_HostileReportsEndInAnError(t *testing.T) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	if _, err := io.Copy(w, io.MultiReader(strings.NewReader("{"), &blankReader{9 << 20}, strings.NewReader("}"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	packed, err := tlsrpt.Compress([]byte(rfcExample))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(packed)
	damaged[len(damaged)/2] ^= 0x55
	small := tlsrpt.Limits{Packed: 1 << 20, Size: 8 << 20, Policies: 3, Details: 2}
	for _, c := range []struct {
		name string
		data string
		want error
	}{
		{"a gzip bomb", bomb.String(), tlsrpt.ErrTooLarge},
		{"more bytes than are taken", "{" + strings.Repeat(" ", 2<<20), tlsrpt.ErrTooLarge},
		{"deep nesting", `{"x":` + strings.Repeat("[", 10000), tlsrpt.ErrTooDeep},
		{"too many policies", doc(`"policies":[`, `"policies":[{},{},{},`), tlsrpt.ErrTooLarge},
		{"too many details", doc(`"failure-details":[`, `"failure-details":[{},{},`), tlsrpt.ErrTooLarge},
		{"nothing", "", tlsrpt.ErrTruncated},
		{"cut off", rfcExample[:200], tlsrpt.ErrTruncated},
		{"cut off, packed", string(packed[:len(packed)/2]), tlsrpt.ErrTruncated},
		{"damaged, packed", string(damaged), nil},
		{"HTML", "<html>", tlsrpt.ErrNotReport},
		{"a missing comma", `{"x":1 "y":2}`, tlsrpt.ErrNotReport},
		{"a comma too many", `{"x":1,}`, tlsrpt.ErrNotReport},
		{"the wrong bracket", `{"x":[1}`, tlsrpt.ErrNotReport},
		{"no colon", `{"x" 1}`, tlsrpt.ErrNotReport},
		{"a number without end", `{"x":` + strings.Repeat("1", 1000) + `}`, tlsrpt.ErrNotReport},
		{"no value", `{"x":nil}`, tlsrpt.ErrNotReport},
		{"a false escape", `{"x":"\x"}`, tlsrpt.ErrNotReport},
		{"a text without end", `{"x":"` + strings.Repeat("x", 2<<20), tlsrpt.ErrTooLarge},
		{"a list", "[]", tlsrpt.ErrNotReport},
		{"a string", `"x"`, tlsrpt.ErrNotReport},
		{"gzip's first bytes alone", "\x1f\x8b", tlsrpt.ErrTruncated},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := small.Stream(strings.NewReader(c.data), func(tlsrpt.Policy) error { return nil })
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestPoliciesAreHandedOverOneByOne(t *testing.T) {
	text := doc(`"policies":[`, `"policies":[{"policy":{"policy-type":"tlsa","policy-domain":"mx.b.test"}},`)
	var domains []string
	r, _, err := tlsrpt.Limits{}.Stream(strings.NewReader(text), func(p tlsrpt.Policy) error {
		domains = append(domains, p.Domain)
		return nil
	})
	if err != nil || strings.Join(domains, " ") != "mx.b.test b.test" || len(r.Policies) != 0 || r.ID != "1" {
		t.Errorf("%v, %+v, %v", domains, r, err)
	}
	enough := errors.New("enough")
	if _, _, err := (tlsrpt.Limits{}).Stream(strings.NewReader(text), func(tlsrpt.Policy) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}
