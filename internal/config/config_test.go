package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsHaveNoProblems(t *testing.T) {
	if ps := Default().Check(); len(ps) != 0 {
		t.Fatalf("the defaults are refused: %v", ps)
	}
}

func TestTextReadsBackAsWritten(t *testing.T) {
	want := Default()
	want.Relay.Lifetime = Duration(36 * time.Hour)
	want.Postfix.Listen = Off
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("pawl.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	opts := cmp.Comparer(func(a, b Config) bool { x, _ := a.Text(); y, _ := b.Text(); return string(x) == string(y) })
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Error(diff)
	}
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	got, err := Parse("pawl.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Web.Listen != "127.0.0.1:8480" {
		t.Errorf("web.listen is %q", got.Web.Listen)
	}
}

func TestErrorsNameLineAndWhatIsAllowed(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line int
		says string
	}{
		"an unknown key":                          {"hostname: a.test\nreelay:\n  listen: []\n", 2, "reelay"},
		"an unknown key inside a section":         {"relay:\n  lisen: []\n", 2, "lisen"},
		"a duration without a unit":               {"relay:\n  lifetime: 5\n", 2, "write it as 30s, 5m, 4h or 5d"},
		"a mode that does not exist":              {"policy:\n  mode: Enforce\n", 2, "choose one of enforce, observe"},
		"an open relay":                           {"relay:\n  networks:\n    - 10.0.0.0/8\n    - 0.0.0.0/0\n", 4, "would relay for the world"},
		"an open relay for IPv6":                  {"relay:\n  networks: [\"::/0\"]\n", 2, "would relay for the world"},
		"an open relay in two halves":             {"relay:\n  networks: [0.0.0.0/1]\n", 2, "would relay for the world"},
		"an open relay in two halves of IPv6":     {"relay:\n  networks: [\"::/1\", \"8000::/1\"]\n", 2, "would relay for the world"},
		"an open relay as mapped IPv4":            {"relay:\n  networks:\n    - 10.0.0.0/8\n    - \"::ffff:0:0/96\"\n", 4, "write it as 192.0.2.0/24"},
		"an open relay behind NAT64":              {"relay:\n  networks: [\"64:ff9b::/96\"]\n", 2, "would relay for the world"},
		"an open relay through its load balancer": {"relay:\n  proxy: [0.0.0.0/0]\n", 2, "would relay for the world"},
		"the world may waive TLS":                 {"relay:\n  tls_optional: [0.0.0.0/0]\n", 2, "would relay for the world"},
		"implicit TLS without a certificate":      {"relay:\n  submissions: [\"127.0.0.1:4650\"]\n", 2, "needs a certificate"},
		"a certificate without its key":           {"relay:\n  tls:\n    certificate: a.pem\n", 3, "belong together"},
		"client certificates without TLS":         {"relay:\n  clients:\n    ca: a.pem\n", 3, "under TLS only"},
		"a fingerprint that is too short":         {"relay:\n  clients:\n    fingerprints: [ab:cd]\n", 3, "is not a SHA-256 fingerprint"},
		"a limit below nothing":                   {"relay:\n  limits:\n    client_messages: -1\n", 3, "is outside 0 to"},
		"no bounces at all":                       {"relay:\n  limits:\n    bounces: 0\n", 3, "is outside 1 to"},
		"a listener without a port":               {"web:\n  listen: 127.0.0.1\n", 2, "ADDRESS:PORT"},
		"a resolver given by name":                {"dns:\n  upstreams: [\"dns.example:53\"]\n", 2, "write ADDRESS:PORT as 127.0.0.1:53"},
		"a text where a number belongs":           {"relay:\n  concurrency: many\n", 2, "many"},
		"a database that is not supported":        {"database: mysql://db/pawl\n", 1, "postgres://"},
		"a message size of one byte":              {"relay:\n  max_size: 1B\n", 2, "outside 64KiB to 1GiB"},
		"broken YAML":                             {"relay:\n  listen: [\n", 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("pawl.yaml", []byte(tc.text))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a *config.Error", err)
			}
			if e.Line != tc.line || !strings.Contains(e.Error(), tc.says) {
				t.Errorf("line %d: %v\nwant line %d and %q", e.Line, e, tc.line, tc.says)
			}
			if !strings.HasPrefix(e.Error(), "pawl.yaml:") {
				t.Errorf("the error does not begin with the file: %v", e)
			}
		})
	}
}

func TestARelativeDataFolderIsTakenFromTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pawl.yaml")
	if err := os.WriteFile(file, []byte("data: store\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "store"); c.Data != want {
		t.Errorf("data is %q, want %q", c.Data, want)
	}
}

func TestDurationsAndSizesAreWrittenAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5d": 120 * time.Hour, "1d12h": 36 * time.Hour, "4h": 4 * time.Hour, "1h30m": 90 * time.Minute,
		"5m": 5 * time.Minute, "90ms": 90 * time.Millisecond, "0s": 0, "10s": 10 * time.Second, "1m10s": 70 * time.Second,
	} {
		got, err := ParseDuration(text)
		if err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("%q is written back as %q", text, got)
		}
	}
	for _, text := range []string{"", "5", "-1h", "d", "1d-1h", "99999999d", "1w"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
	for text, want := range map[string]Size{"50MiB": 50 << 20, "1GiB": 1 << 30, "3KiB": 3072, "17B": 17} {
		got, err := ParseSize(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseSize(%q) = %d, %v, written back as %q", text, got, err, got)
		}
	}
	for _, text := range []string{"", "MiB", "-1B", "9999999999GiB", "1.5GiB", "1MB "} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, _ := Default().Text()
	f.Add(text)
	f.Add([]byte("relay: {listen: [a], networks: [0.0.0.0/0]}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := Parse("f", text); err == nil && len(c.Check()) > 0 {
			t.Error("a configuration with problems was accepted")
		}
	})
}

func TestASectionWithNothingInItKeepsItsDefaults(t *testing.T) {
	got, err := Parse("pawl.yaml", []byte("# all of it commented out\nrelay:\n  # lifetime: 5d\nweb:\n  listen: off\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Relay.Lifetime != Default().Relay.Lifetime || got.Web.Listen != Off {
		t.Errorf("relay.lifetime is %s, web.listen %s", got.Relay.Lifetime, got.Web.Listen)
	}
}

func TestNoListOfNetworksAddsUpToTheWorld(t *testing.T) {
	list := func(format string, n, step int) (all []Network) {
		for i := range n {
			all = append(all, Network{netip.MustParsePrefix(fmt.Sprintf(format, i*step))})
		}
		return all
	}
	ours := list("10.%d.0.0/16", 256, 1)
	for _, n := range []string{"127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7", "fe80::/10", "198.51.100.0/24", "2001:db8::/32"} {
		ours = append(ours, Network{netip.MustParsePrefix(n)})
	}
	for name, tc := range map[string]struct {
		networks []Network
		refused  bool
	}{
		"one's own networks":            {ours, false},
		"a network and its parts":       {append(list("198.%d.0.0/16", 256, 1), Network{netip.MustParsePrefix("198.0.0.0/8")}), false},
		"two public networks of /8":     {list("%d.0.0.0/8", 2, 12), true},
		"IPv4 in 256 pieces":            {list("%d.0.0.0/8", 256, 1), true},
		"IPv6 in pieces":                {list("2001:%x00::/24", 2, 1), true},
		"a /8 and a public host beside": {[]Network{{netip.MustParsePrefix("12.0.0.0/8")}, {netip.MustParsePrefix("198.51.100.1/32")}}, true},
	} {
		c := Default()
		c.Relay.Networks = tc.networks
		if ps := c.Check(); len(ps) > 0 != tc.refused {
			t.Errorf("%s: %v", name, ps)
		}
	}
}

func TestFingerprintsAreWrittenAsOpensslPrintsThem(t *testing.T) {
	const plain = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	colons := strings.ToUpper(strings.Join(strings.Split(plain, ""), ""))
	for i := len(colons) - 2; i > 0; i -= 2 {
		colons = colons[:i] + ":" + colons[i:]
	}
	for _, text := range []string{plain, colons} {
		if f, err := ParseFingerprint(text); err != nil || f.String() != plain {
			t.Errorf("%s is read as %s, %v", text, f, err)
		}
	}
}
