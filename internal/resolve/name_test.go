package resolve

import (
	"errors"
	"strings"
	"testing"
)

func TestANameHasOneForm(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"example.com":                   "example.com",
		"Example.COM.":                  "example.com",
		"_25._tcp.MX.example.com":       "_25._tcp.mx.example.com",
		"_mta-sts.bücher.example":       "_mta-sts.xn--bcher-kva.example",
		"BÜCHER.example":                "xn--bcher-kva.example",
		"straße.example":                "xn--strae-oqa.example",
		"a。b.example":                   "a.b.example",
		"localhost":                     "localhost",
		long + ".test":                  long + ".test",
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a",
		"1.2.3.4.example":               "1.2.3.4.example",
	} {
		got, err := Name(in)
		if err != nil || got != want {
			t.Errorf("Name(%q) is %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestWhatIsNoNameIsRefused(t *testing.T) {
	for why, in := range map[string]string{
		"empty":                   "",
		"the root":                ".",
		"two dots at the end":     "example.com..",
		"an empty label":          "a..test",
		"a leading dot":           ".test",
		"an IPv4 address":         "192.0.2.1",
		"an IPv4 address, dotted": "192.0.2.1.",
		"an address literal":      "[192.0.2.1]",
		"an IPv6 address":         "2001:db8::1",
		"a bracketed one":         "[2001:db8::1]",
		"a wide IPv4 address":     "１９２.0.2.1",
		"a short IPv4 address":    "127.1",
		"a space":                 "a b.test",
		"a line feed":             "a\n.test",
		"a backslash":             `a\.test`,
		"a wildcard":              "*.example.com",
		"a NUL":                   "a\x00.test",
		"bytes that are no UTF-8": "\xff\xfe.test",
		"a label too long":        strings.Repeat("a", 64) + ".test",
		"a name too long":         strings.Repeat("a.", 127) + "a",
		"a U-label too long":      strings.Repeat("ü", 64) + ".test",
		"a megabyte":              strings.Repeat("ü.", 1<<19),
	} {
		if got, err := Name(in); !errors.Is(err, ErrName) {
			t.Errorf("%s: Name(%.50q) is %q, %v; want ErrName", why, in, got, err)
		}
	}
}

func TestANameTooLongForDNSDoesNotExistAndABadOneIsAFailure(t *testing.T) {
	r := ask(t, Options{})
	_, err := r.TXT(t.Context(), "_mta-sts."+strings.Repeat("a.", 124)+"test")
	if got := outcome(err); got != "NXDOMAIN" {
		t.Errorf("the long name ended as %s, want NXDOMAIN", got)
	}
	if _, err = r.TXT(t.Context(), "a..test"); outcome(err) != "bad-name" {
		t.Errorf("the bad name ended as %s, want bad-name", outcome(err))
	}
	if _, err = r.Addrs(t.Context(), "192.0.2.1"); outcome(err) != "bad-name" {
		t.Errorf("the address ended as %s, want bad-name", outcome(err))
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"example.com", "Bücher.Example.", "192.0.2.1", "a..b", "xn--a", "_25._tcp.mx", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := Name(s)
		if err != nil {
			return
		}
		if again, err := Name(name); err != nil || again != name {
			t.Errorf("Name(%q) is %q, and of that %q, %v", s, name, again, err)
		}
		if check(name) != nil || !plain(name) {
			t.Errorf("Name(%q) is %q, which is not in its one form", s, name)
		}
	})
}
