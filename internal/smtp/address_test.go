package smtp_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/smtp"
)

func TestPathsOfRFC5321_4_1_2AreRead(t *testing.T) {
	long := strings.Repeat("a", smtp.MaxLocalPart)
	label := strings.Repeat("b", 63)
	for _, tt := range []struct {
		in   string
		want smtp.Path
	}{
		{"<>", smtp.Path{}},
		{"<ann@example.com>", smtp.Path{Local: "ann", Domain: "example.com"}},
		{"<Ann.B+tag@Example.COM>", smtp.Path{Local: "Ann.B+tag", Domain: "Example.COM"}},
		{"<!#$%&'*+-/=?^_`{|}~@example.com>", smtp.Path{Local: "!#$%&'*+-/=?^_`{|}~", Domain: "example.com"}},
		{`<"ann b"@example.com>`, smtp.Path{Local: `"ann b"`, Domain: "example.com"}},
		{`<"a@b>c"@example.com>`, smtp.Path{Local: `"a@b>c"`, Domain: "example.com"}},
		{`<"a\"b\\"@example.com>`, smtp.Path{Local: `"a\"b\\"`, Domain: "example.com"}},
		{`<""@example.com>`, smtp.Path{Local: `""`, Domain: "example.com"}},
		{"<ann@localhost>", smtp.Path{Local: "ann", Domain: "localhost"}},
		{"<ann@1a.2b>", smtp.Path{Local: "ann", Domain: "1a.2b"}},
		{"<ann@x--y.example>", smtp.Path{Local: "ann", Domain: "x--y.example"}},
		{"<ann@[192.0.2.1]>", smtp.Path{Local: "ann", Domain: "[192.0.2.1]"}},
		{"<ann@[IPv6:2001:db8::1]>", smtp.Path{Local: "ann", Domain: "[IPv6:2001:db8::1]"}},
		{"<Postmaster>", smtp.Path{Local: "Postmaster"}},
		{"<postmaster@example.com>", smtp.Path{Local: "postmaster", Domain: "example.com"}},
		{"<@a.example:ann@example.com>", smtp.Path{Local: "ann", Domain: "example.com"}},
		{"<@a.example,@b.example:ann@example.com>", smtp.Path{Local: "ann", Domain: "example.com"}},
		{"<" + long + "@example.com>", smtp.Path{Local: long, Domain: "example.com"}},
		{"<a@" + label + ".example>", smtp.Path{Local: "a", Domain: label + ".example"}},
	} {
		got, err := smtp.ParsePath(tt.in, false)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v", tt.in, got, err)
		}
	}
}

func TestMalformedPathsAreRefused(t *testing.T) {
	label := strings.Repeat("b", 63)
	for name, in := range map[string]string{
		"nothing":                        "",
		"no brackets":                    "ann@example.com",
		"no closing bracket":             "<ann@example.com",
		"text after the path":            "<ann@example.com>x",
		"no domain":                      "<ann>",
		"an empty domain":                "<ann@>",
		"an empty local part":            "<@example.com>",
		"a dot at the front":             "<.ann@example.com>",
		"a dot at the end":               "<ann.@example.com>",
		"two dots":                       "<a..b@example.com>",
		"a blank":                        "<ann b@example.com>",
		"two at signs":                   "<ann@b@example.com>",
		"a trailing dot of the domain":   "<ann@example.com.>",
		"an empty label":                 "<ann@example..com>",
		"a hyphen at the front":          "<ann@-example.com>",
		"a hyphen at the end":            "<ann@example-.com>",
		"an underscore in the domain":    "<ann@a_b.example>",
		"an address without brackets":    "<ann@192.0.2.1>",
		"an empty literal":               "<ann@[]>",
		"an open literal":                "<ann@[192.0.2.1>",
		"a false literal":                "<ann@[192.0.2.256]>",
		"IPv6 without its tag":           "<ann@[2001:db8::1]>",
		"IPv4 with the IPv6 tag":         "<ann@[IPv6:192.0.2.1]>",
		"a zone":                         "<ann@[IPv6:fe80::1%eth0]>",
		"an unknown literal":             "<ann@[x400:c=us]>",
		"a line end":                     "<ann\r\n@example.com>",
		"a CR in the domain":             "<ann@example\r.com>",
		"an LF in quotes":                "<\"a\nb\"@example.com>",
		"a NUL":                          "<a\x00b@example.com>",
		"a NUL in quotes":                "<\"a\x00b\"@example.com>",
		"a DEL in quotes":                "<\"a\x7fb\"@example.com>",
		"a tab in quotes":                "<\"a\tb\"@example.com>",
		"an open quote":                  `<"ann@example.com>`,
		"a backslash at the end":         `<"ann\`,
		"text beside quotes":             `<"ann"b@example.com>`,
		"a quoted control":               "<\"a\\\x01b\"@example.com>",
		"a source route without a colon": "<@a.example ann@example.com>",
		"a source route that ends early": "<@a.example",
		"a source route without a host":  "<@a.example,:ann@example.com>",
		"a local part too long":          "<" + strings.Repeat("a", smtp.MaxLocalPart+1) + "@example.com>",
		"a label too long":               "<a@" + label + "b.example>",
		"a domain too long":              "<a@" + strings.Repeat(label+".", 4) + "example>",
		"a second opening bracket":       "<<ann@example.com>>",
		"a comment":                      "<ann(x)@example.com>",
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := smtp.ParsePath(in, false); !errors.Is(err, smtp.ErrAddress) {
				t.Errorf("%q: got %+v, %v", in, p, err)
			}
		})
	}
}

func TestRFC6531_3_3_CharactersBeyondASCIINeedSMTPUTF8(t *testing.T) {
	for _, in := range []string{"<jürgen@example.com>", "<ann@bücher.example>", `<"j ü"@example.com>`, "<用户@例子.example>"} {
		if _, err := smtp.ParsePath(in, false); !errors.Is(err, smtp.ErrNonASCII) {
			t.Errorf("%s without SMTPUTF8: %v", in, err)
		}
		p, err := smtp.ParsePath(in, true)
		if err != nil || "<"+p.String()+">" != in || p.IsASCII() {
			t.Errorf("%s with SMTPUTF8: %+v, %v", in, p, err)
		}
	}
	for name, in := range map[string]string{
		"broken UTF-8":                "<j\xfcrgen@example.com>",
		"an overlong slash":           "<a\xc0\xafb@example.com>",
		"a C1 control":                "<a\u0085b@example.com>",
		"a line separator":            "<a\u2028b@example.com>",
		"an ideographic full stop":    "<ann@example\u3002com>",
		"a fullwidth at in the host":  "<ann@example\uff20b.example>",
		"broken UTF-8 in the domain":  "<ann@b\xfc.example>",
		"a non-breaking space":        "<ann@a\u00a0b.example>",
		"a replacement char as break": "<ann@\xff>",
	} {
		if p, err := smtp.ParsePath(in, true); !errors.Is(err, smtp.ErrAddress) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestALiteralGivesItsAddress(t *testing.T) {
	for domain, want := range map[string]string{
		"[192.0.2.1]":        "192.0.2.1",
		"[IPv6:2001:db8::1]": "2001:db8::1",
		"[ipv6:2001:DB8::1]": "2001:db8::1",
	} {
		addr, ok := smtp.Path{Local: "a", Domain: domain}.Literal()
		if !ok || addr != netip.MustParseAddr(want) {
			t.Errorf("%s: %v, %v", domain, addr, ok)
		}
	}
	if addr, ok := (smtp.Path{Local: "a", Domain: "example.com"}).Literal(); ok {
		t.Errorf("a name gave %v", addr)
	}
}

func TestAMailboxIsReadAsItIsWritten(t *testing.T) {
	for _, in := range []string{"", "ann@example.com", `"a b"@[192.0.2.1]`, "postmaster"} {
		p, err := smtp.ParseMailbox(in, false)
		if err != nil || p.String() != in {
			t.Errorf("%q: %+v, %v", in, p, err)
		}
	}
	for _, in := range []string{"<ann@example.com>", "ann@example.com>", "ann@example.com x", "@a.example:ann@example.com", "ann"} {
		if p, err := smtp.ParseMailbox(in, false); err == nil {
			t.Errorf("%q: %+v", in, p)
		}
	}
}

func TestHelloNamesCannotHarmALog(t *testing.T) {
	for _, in := range []string{"mx.example.com", "localhost", "[192.0.2.1]", "[IPv6:2001:db8::1]", "MY_PC", "example.com."} {
		if got, err := smtp.ParseHello(in); got != in || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "a b", "a\tb", "a\x00", "a;b", "<x>", "bücher.example", strings.Repeat("a", 256)} {
		if got, err := smtp.ParseHello(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"<>", "<ann@example.com>", `<"a\"b c"@[IPv6:::1]>`, "<@a.b,@c:d@e.f>", "<ü@ü.example>", "<postmaster>"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, utf8 bool) {
		p, err := smtp.ParsePath(s, utf8)
		if err != nil {
			if !errors.Is(err, smtp.ErrAddress) {
				t.Fatalf("error %v is no ErrAddress", err)
			}
			return
		}
		if strings.ContainsFunc(p.String(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%q gave a control character: %q", s, p)
		}
		if !utf8 && !p.IsASCII() {
			t.Fatalf("%q gave %q without SMTPUTF8", s, p)
		}
		again, err := smtp.ParsePath("<"+p.String()+">", utf8)
		if err != nil || again != p {
			t.Fatalf("%q became %+v, then %+v, %v", s, p, again, err)
		}
		if again, err = smtp.ParseMailbox(p.String(), utf8); err != nil || again != p {
			t.Fatalf("%q became %+v, then as a mailbox %+v, %v", s, p, again, err)
		}
	})
}
