package dkim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRFC8463_A_2_TheRecordOfAnEd25519Key(t *testing.T) {
	seed, err := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	if err != nil {
		t.Fatal(err)
	}
	k := Key{Domain: "football.example.com", Selector: "brisbane", Service: Email, signer: ed25519.NewKeyFromSeed(seed)}
	const published = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	if err := k.Published([]string{published}); err != nil {
		t.Error(err)
	}
	const want = "brisbane._domainkey.football.example.com. IN TXT \"v=DKIM1; k=ed25519; h=sha256; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\""
	if got, err := k.Zone(); err != nil || got != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
}

func TestRFC6376_3_6_2_2_ALongRecordIsCutIntoStrings(t *testing.T) {
	k := key(t, "example.com", "r1", Email, RSA)
	zone, err := k.Zone()
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(zone, "(")
	if head != "r1._domainkey.example.com. IN TXT " {
		t.Errorf("it begins with %q", head)
	}
	joined := ""
	for _, s := range strings.Fields(strings.ReplaceAll(strings.Trim(rest, " )\n"), "; ", ";~")) {
		s = strings.ReplaceAll(strings.Trim(s, `"`), "~", " ")
		if len(s) > 255 {
			t.Errorf("a string of %d octets", len(s))
		}
		joined += s
	}
	record, err := k.Record()
	if err != nil || joined != record {
		t.Errorf("the strings joined are\n%s\nwant\n%s\n%v", joined, record, err)
	}
	if err := k.Published([]string{joined}); err != nil {
		t.Error(err)
	}
}

func TestWhatIsPublishedIsHeldAgainstTheKey(t *testing.T) {
	k, other := key(t, "example.com", "e1", Email, Ed25519), key(t, "example.com", "e1", Email, Ed25519)
	report := k
	report.Service = TLSRPT
	p, err := k.public()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Record()
	if err != nil {
		t.Fatal(err)
	}
	own, err := report.Record()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		key   Key
		texts []string
		want  error
	}{
		"as it should be":             {k, []string{"v=DKIM1; k=ed25519; p=" + p}, nil},
		"blanks in the key":           {k, []string{"v=DKIM1;k=ed25519;p=" + p[:5] + " \t" + p[5:] + ";"}, nil},
		"without a version":           {k, []string{"k=ed25519; p=" + p}, nil},
		"for reports":                 {report, []string{own}, nil},
		"for all services":            {report, []string{"k=ed25519; s=*; p=" + p}, nil},
		"for reports, used for mail":  {k, []string{own}, ErrUnusable},
		"for mail, used for reports":  {report, []string{"k=ed25519; s=email; p=" + p}, ErrUnusable},
		"no record":                   {k, nil, ErrManyRecords},
		"two records":                 {k, []string{"p=" + p, "p=" + p}, ErrManyRecords},
		"another key":                 {k, []string{foreign}, ErrOtherKey},
		"another algorithm":           {k, []string{"v=DKIM1; p=" + p}, ErrOtherKey},
		"a revoked key":               {k, []string{"v=DKIM1; k=ed25519; p="}, ErrRevoked},
		"without a key":               {k, []string{"v=DKIM1; k=ed25519"}, ErrRecord},
		"another version":             {k, []string{"v=DKIM2; k=ed25519; p=" + p}, ErrRecord},
		"something else":              {k, []string{"hello world"}, ErrRecord},
		"a tag twice":                 {k, []string{"k=ed25519; p=" + p + "; p=" + p}, ErrRecord},
		"a key that is not base64":    {k, []string{"k=ed25519; p=!!!!"}, ErrRecord},
		"very many tags":              {k, []string{manyTags()}, ErrRecord},
		"a hash that pawl has not":    {k, []string{"k=ed25519; h=sha1; p=" + p}, ErrUnusable},
		"a hash that pawl has, too":   {k, []string{"k=ed25519; h=sha1:sha256; p=" + p}, nil},
		"only for a test":             {k, []string{"k=ed25519; t=s:y; p=" + p}, ErrTestMode},
		"only for the domain itself":  {k, []string{"k=ed25519; t=s; p=" + p}, nil},
		"a record ending in nonsense": {k, []string{"k=ed25519; p=" + p + "; x"}, ErrRecord},
	} {
		if err := tc.key.Published(tc.texts); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func manyTags() string {
	var b strings.Builder
	for i := range maxTags + 1 {
		b.WriteString("a" + strings.Repeat("b", i) + "=c;")
	}
	return b.String()
}

func TestNames(t *testing.T) {
	for _, tc := range []struct{ domain, selector string }{
		{"", "s"},
		{"..", "s"},
		{"../..", "s"},
		{"example.com/x", "s"},
		{"under_score.test", "s"},
		{"192.0.2.1", "s"},
		{"example.com", ""},
		{"example.com", "."},
		{"example.com", ".."},
		{"example.com", "../x"},
		{"example.com", "a/b"},
		{"example.com", "-a"},
		{"example.com", "a-"},
		{"example.com", "a_b"},
		{"example.com", strings.Repeat("a", 64)},
		{"example.com", strings.Repeat("a.", 120) + "a"},
		{"example.com", "ä"},
	} {
		if k, err := New(tc.domain, tc.selector, Email, Ed25519); !errors.Is(err, ErrName) {
			t.Errorf("%q, %q: %+v, %v", tc.domain, tc.selector, k, err)
		}
	}
	k := key(t, "Bücher.Example.", "S1.Berlin", Email, Ed25519)
	if got := k.Name(); got != "s1.berlin._domainkey.xn--bcher-kva.example" {
		t.Error(got)
	}
	if _, err := New("example.com", "s", Email, "dsa"); !errors.Is(err, ErrKey) {
		t.Errorf("an unknown algorithm: %v", err)
	}
}

func TestAKeyIsKeptForItsOwnerOnlyAndReadBack(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "dkim"))
	for _, a := range []Algorithm{RSA, Ed25519} {
		k := key(t, "example.com", string(a), Email, a)
		if err := f.Save(k); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(f.Path(k))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		back, err := f.Load("Example.com", string(a))
		if err != nil {
			t.Fatal(err)
		}
		want, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := back.Record(); err != nil || got != want || back.Algorithm() != a {
			t.Errorf("%v\n got %s\nwant %s", err, got, want)
		}
		if err := f.Save(key(t, "example.com", string(a), Email, a)); !Exists(err) {
			t.Errorf("a second key of that name: %v", err)
		}
		if again, err := f.Load("example.com", string(a)); err != nil || again.Published([]string{want}) != nil {
			t.Errorf("the key that was there is another: %v", err)
		}
	}
	left, err := filepath.Glob(filepath.Join(string(f), "*", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	list, err := f.List()
	if err != nil || len(list) != 2 || list[0].Name() != "ed25519._domainkey.example.com" || list[1].Name() != "rsa._domainkey.example.com" {
		t.Errorf("listed: %v, %v", list, err)
	}
}

func TestFilesThatAreNoGoodAsKeys(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der := func(v any) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	f := Folder(t.TempDir())
	if err := os.Mkdir(filepath.Join(string(f), "example.com"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty":     nil,
		"nonsense":  []byte("hello"),
		"a-cert":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
		"broken":    pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte("x")}),
		"too-small": pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der(small)}), // RFC 8301 §3.2
	} {
		if err := os.WriteFile(filepath.Join(string(f), "example.com", name+keyExt), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load("example.com", name); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Load("example.com", "nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
	k := key(t, "example.com", "open", Email, Ed25519)
	if err := f.Save(k); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Path(k), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load("example.com", "open"); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestAnRSAKeyOfOlderToolsIsRead(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, minRSA)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemRSA, Bytes: x509.MarshalPKCS1PrivateKey(k)})
	if _, err := unmarshal(text); err != nil {
		t.Error(err)
	}
}

func FuzzPublished(f *testing.F) {
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Add("v=DKIM1;;p=; t=y:s; h=sha256")
	k := key(f, "example.com", "e1", Email, Ed25519)
	p, err := k.public()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// White space means nothing in a key; without all of it the text must have it.
		if k.Published([]string{text}) == nil && !strings.Contains(strings.Join(strings.Fields(text), ""), p) {
			t.Errorf("%q is taken for the key", text)
		}
	})
}
