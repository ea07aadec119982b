package dane_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/pawl-mail/pawl/dane"
)

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		"3 1 1 " + digest256, "2 0 2 " + digest512, "0 0 0 00", "2 0 1 ( 00\n11 )", "3 1 1", "256 0 0 00", "3 1 1 0", "( 3 1 1 00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := dane.ParseRecord(text)
		if err != nil {
			if !errors.Is(err, dane.ErrRecord) {
				t.Fatalf("error %v is not ErrRecord", err)
			}
			return
		}
		again, err := dane.ParseRecord(r.String())
		if err != nil || !again.Equal(r) {
			t.Fatalf("%q became %q, and then %q, %v", text, r, again, err)
		}
		_ = r.Usable()
	})
}

func FuzzParseWire(f *testing.F) {
	f.Add([]byte{3, 1, 1, 0})
	f.Add([]byte{})
	f.Add([]byte{2, 1, 0, 0x30, 0x0b, 0x30, 0x06, 0x06, 0x04, 0x29, 0x05, 0x06, 0x07, 0x03, 0x01, 0x00})
	f.Fuzz(func(t *testing.T, rdata []byte) {
		r, err := dane.ParseWire(rdata)
		if err != nil {
			if !errors.Is(err, dane.ErrRecord) {
				t.Fatalf("error %v is not ErrRecord", err)
			}
			return
		}
		if !bytes.Equal(r.Wire(), rdata) {
			t.Fatalf("%x became %x", rdata, r.Wire())
		}
		_ = r.Usable()
	})
}

// FuzzVerify holds odd certificates against odd records. Whatever they are, a
// match must be one: of a usable record, and for usage 3 by its data, for usage 2
// with a name.
func FuzzVerify(f *testing.F) {
	root := newCA(f, "root", nil)
	inter := newCA(f, "intermediate", root)
	leaf := newLeaf(f, inter)
	for _, usage := range []uint8{2, 3} {
		for selector := range uint8(2) {
			for matchingType := range uint8(3) {
				f.Add(leaf.cert.Raw, inter.cert.Raw, root.cert.Raw, tlsa(f, usage, selector, matchingType, root).Wire())
				f.Add(leaf.cert.Raw, inter.cert.Raw, root.cert.Raw, tlsa(f, usage, selector, matchingType, leaf).Wire())
			}
		}
	}
	f.Add(leaf.cert.Raw, leaf.cert.Raw, leaf.cert.Raw, []byte{2, 1, 0, 0})
	key, _ := hex.DecodeString("300b3006060429050607030100")
	f.Add(root.cert.Raw, root.cert.Raw, []byte{}, append([]byte{2, 1, 0}, key...))
	f.Fuzz(func(t *testing.T, a, b, c, rdata []byte) {
		r, err := dane.ParseWire(rdata)
		if err != nil {
			return
		}
		var certs []*x509.Certificate
		for _, der := range [][]byte{a, b, c} {
			if cert, err := x509.ParseCertificate(der); err == nil {
				certs = append(certs, cert)
			}
		}
		m, err := dane.Verify(certs, []dane.Record{r}, mx, now)
		if err != nil {
			var de *dane.Error
			if !errors.As(err, &de) || de.Result == "" || de.Reason == "" {
				t.Fatalf("error %v does not say what it is", err)
			}
			return
		}
		if r.Usable() != nil || !m.Record.Equal(r) || len(m.Path) == 0 || m.Path[0] != certs[0] {
			t.Fatalf("matched %+v by %q", m, r)
		}
		switch {
		case r.Usage == dane.UsageDANEEE && r.Matches(certs[0]):
		case r.Usage == dane.UsageDANETA && m.Name == mx.BaseDomain && m.Depth >= 1:
		default:
			t.Fatalf("matched %+v by %q", m, r)
		}
	})
}
