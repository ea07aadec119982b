package dkim

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

func now() time.Time { return time.Unix(1795636800, 0) }

// key makes a key or ends the test.
func key(t testing.TB, domain, selector string, service Service, a Algorithm) Key {
	t.Helper()
	k, err := New(domain, selector, service, a)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign writes a message to a signer in pieces of n bytes and returns it signed.
func sign(t testing.TB, s *Signer, message string, n int) (string, error) {
	t.Helper()
	m := s.Begin()
	if m == nil {
		return message, nil
	}
	for rest := message; rest != ""; {
		piece := rest[:min(n, len(rest))]
		rest = rest[len(piece):]
		if _, err := io.WriteString(m, piece); err != nil {
			t.Fatal(err)
		}
	}
	head, err := m.Close()
	return string(head) + message, err
}

// verify asks go-msgauth, which shares no code with the signer, what it thinks of
// each signature.
func verify(t testing.TB, message string, keys ...Key) []string {
	t.Helper()
	records := map[string]string{}
	for _, k := range keys {
		text, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		// go-msgauth verifies for the service email.
		records[k.Name()] = strings.ReplaceAll(text, "s=tlsrpt; ", "")
	}
	found, err := dkim.VerifyWithOptions(strings.NewReader(message), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if text, ok := records[name]; ok {
			return []string{text}, nil
		}
		return nil, errors.New("no such record")
	}})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, v := range found {
		word := "good"
		if v.Err != nil {
			word = v.Err.Error()
		}
		said = append(said, v.Domain+" "+word)
	}
	return said
}

func crlfText(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

var letter = crlfText(`Received: from client.test by relay.test; Wed, 25 Nov 2026 20:00:00 +0000
From: "A. Author" <a@example.com>
To: b@elsewhere.test
Subject: the harbour,
 at noon
Date: Wed, 25 Nov 2026 20:00:00 +0000
Message-ID: <1@example.com>

Meet me at  noon.
.
Come alone.

`)

func TestBothAlgorithmsSignAndVerify(t *testing.T) {
	r, e := key(t, "example.com", "r1", Email, RSA), key(t, "example.com", "e1", Email, Ed25519)
	s := NewSigner([]Key{r, e}, now)
	for _, n := range []int{1, 7, 4096} {
		text, err := sign(t, s, letter, n)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(verify(t, text, r, e)); got != "[example.com good example.com good]" {
			t.Errorf("in pieces of %d: %s\n%s", n, got, text)
		}
		for _, want := range []string{"a=rsa-sha256;", "a=ed25519-sha256;", "c=relaxed/relaxed;", "s=r1;", "s=e1;", "t=1795636800;"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
	}
}

func TestRFC6376_8_2_TheBodyIsSignedToItsEnd(t *testing.T) {
	k := key(t, "example.com", "e1", Email, Ed25519)
	text, err := sign(t, NewSigner([]Key{k}, now), letter, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if head, _, _ := strings.Cut(text, "Received:"); strings.Contains(head, " l=") {
		t.Errorf("a body length is given:\n%s", head)
	}
}

func TestWhatIsChangedOrAddedBreaksTheSignature(t *testing.T) {
	k := key(t, "example.com", "e1", Email, Ed25519)
	text, err := sign(t, NewSigner([]Key{k}, now), letter, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for name, tampered := range map[string]string{
		"a word of the body":    strings.Replace(text, "alone", "with them", 1),
		"a line behind it":      text + "PS: bring money.\r\n",
		"the subject":           strings.Replace(text, "harbour", "airport", 1),
		"the author":            strings.Replace(text, "<a@example.com>", "<ceo@example.com>", 1),
		"a second author":       "From: ceo@example.com\r\n" + text,
		"a second subject":      "Subject: urgent\r\n" + text,
		"a Reply-To":            "Reply-To: thief@elsewhere.test\r\n" + text,
		"a Content-Type":        strings.Replace(text, "To: b@", "Content-Type: text/html\r\nTo: b@", 1),
		"TLS-Required: No":      "TLS-Required: No\r\n" + text,
		"the date taken out":    strings.Replace(text, "Date: Wed, 25 Nov 2026 20:00:00 +0000\r\n", "", 1),
		"the signer's domain":   strings.Replace(text, "d=example.com", "d=example.org", 1),
		"another key published": text,
	} {
		published := k
		if name == "another key published" {
			published = key(t, "example.com", "e1", Email, Ed25519)
		}
		if got := verify(t, tampered, published); len(got) != 1 || strings.HasSuffix(got[0], "good") {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, harmless := range map[string]string{
		"another trace line":     "Received: from a by b; today\r\n" + text,
		"blanks in the subject":  strings.Replace(text, "the harbour", "the   harbour", 1),
		"empty lines at the end": text + "\r\n\r\n",
		"a list's own field":     "List-Id: <list.elsewhere.test>\r\n" + text,
	} {
		if got := verify(t, harmless, k); fmt.Sprint(got) != "[example.com good]" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhoSigns(t *testing.T) {
	e := key(t, "example.com", "e1", Email, Ed25519)
	sub := key(t, "shop.example.com", "s1", Email, Ed25519)
	wide := key(t, "wide.test", "w1", Email, Ed25519)
	wide.Subdomains = true
	report := key(t, "example.com", "t1", TLSRPT, Ed25519)
	idn := key(t, "bücher.example", "i1", Email, Ed25519)
	s := NewSigner([]Key{e, sub, wide, report, idn}, now)
	for from, want := range map[string]string{
		"a@example.com":                                 "e1",
		"A <a@EXAMPLE.COM>":                             "e1",
		"a@shop.example.com":                            "s1",
		"a@other.example.com":                           "", // example.com signs for itself only
		"a@deep.below.wide.test":                        "w1",
		"a@wide.test":                                   "w1",
		"a@example.org":                                 "",
		"a@notexample.com":                              "",
		"a@bücher.example":                              "i1",
		"a@xn--bcher-kva.example":                       "i1",
		"=?koi8-r?B?8NLJ18XU?= <a@example.com>":         "e1",
		"a@example.com, b@example.com":                  "e1",
		"\"b@evil.test\" <a@example.com>":               "e1",
		"A\r\n <a@example.com>":                         "e1",
		"a@example.com (a comment, with <angles@evil>)": "e1",
	} {
		m := "From: " + from + "\r\nSubject: x\r\n\r\nx\r\n"
		text, err := sign(t, s, m, 4096)
		if err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		got := ""
		if _, after, ok := strings.Cut(text, "\ts="); ok {
			got, _, _ = strings.Cut(after, ";")
		}
		if got != want {
			t.Errorf("%s is signed by %q, want %q", from, got, want)
		}
	}
}

func TestWhatIsNotSigned(t *testing.T) {
	s := NewSigner([]Key{key(t, "example.com", "e1", Email, Ed25519)}, now)
	for name, m := range map[string]string{
		"no From":               "Subject: x\r\n\r\nx\r\n",
		"no header":             "\r\nx\r\n",
		"nothing at all":        "",
		"two From":              "From: a@example.com\r\nFrom: b@example.com\r\n\r\nx\r\n",
		"two From, a blank":     "From: a@example.com\r\nFROM : b@example.com\r\n\r\nx\r\n",
		"authors of two places": "From: a@example.com, b@example.org\r\n\r\nx\r\n",
		"a broken From":         "From: <<\r\n\r\nx\r\n",
		"a continuation first":  " From: a@example.com\r\n\r\nx\r\n",
		"a line without a name": "From: a@example.com\r\nhello\r\n\r\nx\r\n",
		"a huge From":           "From: a@example.com" + strings.Repeat(" ", maxFrom) + "\r\n\r\nx\r\n",
		"a huge header":         "From: a@example.com\r\n" + strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", 300) + "\r\nx\r\n",
		"200 Subjects":          "From: a@example.com\r\n" + strings.Repeat("Subject: x\r\n", 200) + "\r\nx\r\n",
	} {
		for _, n := range []int{1000, 1 << 20} {
			text, err := sign(t, s, m, n)
			if !errors.Is(err, ErrUnsigned) || text != m {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	var none *Signer
	if none.Begin() != nil || NewSigner(nil, now).Begin() != nil {
		t.Error("a signer without keys has something to do")
	}
}

func TestAMessageWithoutABodyIsSigned(t *testing.T) {
	k := key(t, "example.com", "e1", Email, Ed25519)
	text, err := sign(t, NewSigner([]Key{k}, now), "From: a@example.com\r\n", 4096)
	if err != nil {
		t.Fatal(err)
	}
	if got := verify(t, text+"\r\n", k); fmt.Sprint(got) != "[example.com good]" {
		t.Error(got)
	}
}

func TestRFC8460_3_ReportsAreSignedByTheirOwnKey(t *testing.T) {
	own, all := key(t, "example.com", "t1", TLSRPT, RSA), key(t, "example.com", "e1", Email, Ed25519)
	for name, tc := range map[string]struct {
		keys []Key
		want string
	}{
		"a key for reports":     {[]Key{all, own}, "s=t1;"},
		"a key for all mail":    {[]Key{all}, "s=e1;"},
		"no key of this domain": {[]Key{key(t, "example.org", "x", TLSRPT, Ed25519)}, ""},
	} {
		head, err := NewSigner(tc.keys, now).Sign("Example.COM", TLSRPT, strings.NewReader(letter))
		if err != nil || (tc.want == "") != (len(head) == 0) || !strings.Contains(string(head), tc.want) {
			t.Errorf("%s: %v\n%s", name, err, head)
		}
		if tc.want != "" {
			if got := verify(t, string(head)+letter, own, all); fmt.Sprint(got) != "[example.com good]" {
				t.Errorf("%s: %v", name, got)
			}
		}
	}
	if text, err := sign(t, NewSigner([]Key{own}, now), letter, 4096); err != nil || text != letter {
		t.Errorf("the key for reports signed other mail: %v", err)
	}
	if _, err := NewSigner([]Key{all}, now).Sign("a b", Email, strings.NewReader(letter)); err == nil {
		t.Error("it signed for what is no domain")
	}
	broken := io.MultiReader(strings.NewReader(letter), iotestErr{})
	if _, err := NewSigner([]Key{all}, now).Sign("example.com", Email, broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a message that could not be read: %v", err)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestALargeMessageIsNotKeptInMemory(t *testing.T) {
	s := NewSigner([]Key{key(t, "example.com", "e1", Email, Ed25519)}, now)
	for name, line := range map[string]string{
		"text": "0123456789abcdef 0123456789abcdef\r\n", "nothing but line ends": "\r\n", "nothing but blanks": " ", "one line": "0123456789abcdef",
	} {
		chunk := []byte(strings.Repeat(line, 20<<10/len(line)))
		allocated := testing.AllocsPerRun(1, func() {
			m := s.Begin()
			if _, err := io.WriteString(m, "From: a@example.com\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			for range 500 { // 10 MiB
				if _, err := m.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			if len(m.head) > 100 || cap(m.body.out) > hashBlock {
				t.Errorf("%s: %d bytes of the head and %d of the body are kept", name, len(m.head), cap(m.body.out))
			}
			if head, err := m.Close(); err != nil || len(head) == 0 {
				t.Fatalf("%q, %v", head, err)
			}
		})
		if allocated > 200 {
			t.Errorf("%s: %.0f allocations", name, allocated)
		}
	}
}

func FuzzSigning(f *testing.F) {
	f.Add([]byte(letter), 10)
	f.Add([]byte("From: a@example.com\r\n folded\r\n\r\n\r\n"), 1)
	f.Add([]byte("\r\n\r\n"), 3)
	k := key(f, "example.com", "e1", Email, Ed25519)
	s := NewSigner([]Key{k}, now)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		// What comes over SMTP has no bare CR or LF and ends in CR LF.
		m := strings.ReplaceAll(strings.ReplaceAll(string(body), "\r", ""), "\n", "\r\n") + "\r\n"
		text, err := sign(t, s, m, 1+max(n, 0)%4096)
		if err != nil || text == m {
			return
		}
		if !strings.Contains(m, blankLine) && !strings.HasPrefix(m, crlf) {
			text += crlf
		}
		if got := verify(t, text, k); len(got) == 0 || got[0] != "example.com good" {
			t.Errorf("%v\n%q", got, text)
		}
	})
}

func BenchmarkSign10KiB(b *testing.B) {
	text := letter + strings.Repeat("a line of some text, as people write it, with an end\r\n", 190)
	for name, keys := range map[string][]Key{
		"none for the domain": {key(b, "example.org", "e1", Email, Ed25519)},
		"ed25519":             {key(b, "example.com", "e1", Email, Ed25519)},
		"rsa":                 {key(b, "example.com", "r1", Email, RSA)},
		"both":                {key(b, "example.com", "e1", Email, Ed25519), key(b, "example.com", "r1", Email, RSA)},
	} {
		s := NewSigner(keys, now)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := sign(b, s, text, 32<<10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
