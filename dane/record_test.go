package dane_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/dane"
)

const (
	digest256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	digest512 = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

func parse(t testing.TB, text string) dane.Record {
	t.Helper()
	r, err := dane.ParseRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseRecordReadsPresentationText(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", "3 1 1 " + digest256, "3 1 1 " + digest256},
		{"upper case", "3 1 1 " + strings.ToUpper(digest256), "3 1 1 " + digest256},
		{"blanks in the data", "2 0 1 " + digest256[:20] + " " + digest256[20:40] + "\t" + digest256[40:], "2 0 1 " + digest256},
		{"in parentheses over lines", "2 0 1 (\n  " + digest256[:32] + "\r\n  " + digest256[32:] + " )", "2 0 1 " + digest256},
		{"values nobody knows", "255 9 77 00", "255 9 77 00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := dane.ParseRecord(tt.text)
			if err != nil || r.String() != tt.want {
				t.Fatalf("got %q, %v; want %q", r, err, tt.want)
			}
			again, err := dane.ParseWire(r.Wire())
			if err != nil || !again.Equal(r) {
				t.Fatalf("through wire format: got %q, %v; want %q", again, err, r)
			}
		})
	}
}

func TestParseRecordRefusesWhatIsNoRecord(t *testing.T) {
	for _, tt := range []struct{ name, text string }{
		{"nothing", ""},
		{"no data", "3 1 1"},
		{"usage over a byte", "256 1 1 00"},
		{"negative selector", "3 -1 1 00"},
		{"a sign", "3 +1 1 00"},
		{"a mnemonic", "DANE-EE 1 1 00"},
		{"odd number of digits", "3 1 1 000"},
		{"no hexadecimal", "3 1 1 zz"},
		{"an open parenthesis", "3 1 1 ( 00"},
		{"parentheses the wrong way round", "3 1 1 ) 00 ("},
		{"too much data", "3 0 0 " + strings.Repeat("00", dane.MaxDataSize+1)},
		{"too much text", "3 0 0 " + strings.Repeat(" ", 4*dane.MaxDataSize) + "00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := dane.ParseRecord(tt.text); !errors.Is(err, dane.ErrRecord) {
				t.Fatalf("got %q, %v; want ErrRecord", r, err)
			}
		})
	}
}

func TestParseWireRefusesWhatIsNoRecord(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rdata []byte
	}{
		{"nothing", nil},
		{"two bytes", []byte{3, 1}},
		{"no data", []byte{3, 1, 1}},
		{"too much data", make([]byte, dane.MaxDataSize+4)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := dane.ParseWire(tt.rdata); !errors.Is(err, dane.ErrRecord) {
				t.Fatalf("got %q, %v; want ErrRecord", r, err)
			}
		})
	}
}

func TestRecordIsTextInJSON(t *testing.T) {
	out, err := json.Marshal([]dane.Record{parse(t, "3 1 1 "+digest256)})
	if want := `["3 1 1 ` + digest256 + `"]`; err != nil || string(out) != want {
		t.Fatalf("got %s, %v; want %s", out, err, want)
	}
	var back []dane.Record
	if err := json.Unmarshal(out, &back); err != nil || len(back) != 1 || back[0].String() != "3 1 1 "+digest256 {
		t.Fatalf("back from JSON: %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`["3 1"]`), &back); !errors.Is(err, dane.ErrRecord) {
		t.Fatalf("half a record from JSON: %v", err)
	}
}

func TestUsableTellsWhyARecordIsNot(t *testing.T) {
	leaf := newLeaf(t, nil)
	cert, key := hex.EncodeToString(leaf.cert.Raw), hex.EncodeToString(leaf.cert.RawSubjectPublicKeyInfo)
	for _, tt := range []struct{ name, text, why string }{
		{"3 1 1", "3 1 1 " + digest256, ""},
		{"3 0 2", "3 0 2 " + digest512, ""},
		{"2 0 1", "2 0 1 " + digest256, ""},
		{"3 0 0 with a certificate", "3 0 0 " + cert, ""},
		{"2 1 0 with a key", "2 1 0 " + key, ""},
		{"a key of an unknown algorithm", "3 1 0 300b3006060429050607030100", ""},
		{"usage 0", "0 0 1 " + digest256, "usage 0 asks for a public CA"},
		{"usage 1", "1 1 1 " + digest256, "usage 1 asks for a public CA"},
		{"usage 4", "4 1 1 " + digest256, "usage 4 is unknown"},
		{"private usage", "255 1 1 " + digest256, "usage 255 is unknown"},
		{"selector 2", "3 2 1 " + digest256, "selector 2 is unknown"},
		{"matching type 3", "3 1 3 " + digest256, "matching type 3 is unknown"},
		{"a short SHA-256", "3 1 1 " + digest256[2:], "a SHA-256 digest of 31 bytes"},
		{"a SHA-512 that says SHA-256", "3 1 1 " + digest512, "a SHA-256 digest of 64 bytes"},
		{"a SHA-256 that says SHA-512", "3 1 2 " + digest256, "a SHA-512 digest of 32 bytes"},
		{"a digest that says certificate", "3 0 0 " + digest256, "not a certificate"},
		{"a key that says certificate", "3 0 0 " + key, "not a certificate"},
		{"a certificate that says key", "2 1 0 " + cert, "not a public key"},
		{"a key with a byte behind it", "3 1 0 " + key + "00", "not a public key"},
		{"a certificate cut short", "2 0 0 " + cert[:len(cert)-2], "not a certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := parse(t, tt.text).Usable()
			if tt.why == "" {
				if err != nil {
					t.Fatalf("got %v, want usable", err)
				}
				return
			}
			if !errors.Is(err, dane.ErrUnusable) || !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("got %v, want %q", err, tt.why)
			}
		})
	}
	long := dane.Record{Usage: 3, Data: make([]byte, dane.MaxDataSize+1)}
	if err := long.Usable(); !errors.Is(err, dane.ErrUnusable) {
		t.Errorf("more data than MaxDataSize: got %v, want unusable", err)
	}
}

func TestRFC7672_3_1_3_PKIXUsagesAreUnusable(t *testing.T) {
	rs := []dane.Record{
		parse(t, "0 0 1 "+digest256),
		parse(t, "3 1 1 "+digest256),
		parse(t, "1 1 1 "+digest256),
	}
	got := dane.UsableRecords(rs)
	if len(got) != 1 || got[0].Usage != dane.UsageDANEEE || len(rs) != 3 {
		t.Fatalf("got %v of %v, want the one of usage 3", got, rs)
	}
}

func TestRFC7671_9_StrongestDigestOfEachUsageAndSelector(t *testing.T) {
	leaf := newLeaf(t, nil)
	full := "3 1 0 " + hex.EncodeToString(leaf.cert.RawSubjectPublicKeyInfo)
	for _, tt := range []struct {
		name     string
		in, want []string
	}{
		{
			"SHA-512 is preferred, the full value is kept",
			[]string{"3 1 1 " + digest256, "3 1 2 " + digest512, full},
			[]string{"3 1 2 " + digest512, full},
		},
		{
			"another selector is another matter",
			[]string{"3 0 1 " + digest256, "3 1 2 " + digest512},
			[]string{"3 0 1 " + digest256, "3 1 2 " + digest512},
		},
		{
			"another usage is another matter",
			[]string{"2 1 1 " + digest256, "3 1 2 " + digest512},
			[]string{"2 1 1 " + digest256, "3 1 2 " + digest512},
		},
		{
			"SHA-256 alone stays",
			[]string{"3 1 1 " + digest256, full},
			[]string{"3 1 1 " + digest256, full},
		},
		{
			"a malformed SHA-512 displaces nothing",
			[]string{"3 1 1 " + digest256, "3 1 2 " + digest256},
			[]string{"3 1 1 " + digest256},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in []dane.Record
			for _, text := range tt.in {
				in = append(in, parse(t, text))
			}
			got := dane.Set{Records: dane.Strongest(dane.UsableRecords(in))}.Strings()
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNewRecordNamesTheCertificateItIsMadeOf(t *testing.T) {
	leaf, other := newLeaf(t, nil), newLeaf(t, nil)
	for selector := range uint8(2) {
		for matchingType := range uint8(3) {
			r := tlsa(t, 3, selector, matchingType, leaf)
			if err := r.Usable(); err != nil {
				t.Errorf("3 %d %d: %v", selector, matchingType, err)
			}
			if !r.Matches(leaf.cert) || r.Matches(other.cert) || r.Matches(new(x509.Certificate)) {
				t.Errorf("3 %d %d: does not match its certificate, or another", selector, matchingType)
			}
		}
	}
	for _, bad := range [][2]uint8{{2, 1}, {0, 3}} {
		if r, err := dane.NewRecord(leaf.cert, 3, bad[0], bad[1]); err == nil {
			t.Errorf("selector %d, matching type %d: got %v, want an error", bad[0], bad[1], r)
		}
	}
}
