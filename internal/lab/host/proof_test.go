package host

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// signer is a domain's DKIM key.
var signer = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func signed(t *testing.T, domain string, fields []string, message string) string {
	t.Helper()
	var b bytes.Buffer
	err := dkim.Sign(&b, strings.NewReader(message), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: signer, HeaderKeys: fields})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDKIMProvesAReturnPathThatSPFDoesNot(t *testing.T) {
	key := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(signer.Public().(ed25519.PublicKey))
	resolver := answers{txt: map[string]string{
		"s._domainkey.sender.test": key, "s._domainkey.mail.sender.test": key, "s._domainkey.other.test": key, "s._domainkey.test": key,
	}}
	const message = "From: <somebody@sender.test>\r\nTo: <start@lab.test>\r\nSubject: test me\r\n\r\nHello.\r\n"
	whole := []string{"From", "To", "Subject"}
	for name, c := range map[string]struct {
		message string
		ok      bool
	}{
		"its domain signed":              {signed(t, "sender.test", whole, message), true},
		"a domain below it signed":       {signed(t, "mail.sender.test", whole, message), false},
		"a parent of it signed":          {signed(t, "test", whole, message), true},
		"another domain signed":          {signed(t, "other.test", whole, message), false},
		"To is not signed":               {signed(t, "sender.test", []string{"From", "Subject"}, message), false},
		"it was changed since":           {strings.Replace(signed(t, "sender.test", whole, message), "Hello", "Hullo", 1), false},
		"it is to somebody else":         {signed(t, "sender.test", whole, strings.Replace(message, "start@lab.test", "friend@lab.test", 1)), false},
		"it is from somebody else there": {signed(t, "sender.test", whole, strings.Replace(message, "somebody@", "another@", 1)), false},
		"it has a second To":             {"To: <start@lab.test>\r\n" + signed(t, "sender.test", whole, message), false},
		"it was to somebody else, whose field others read": {
			"To: <start@lab.test>\r\n" + strings.Replace(signed(t, "sender.test", whole, strings.Replace(message, "start@lab.test", "friend@lab.test", 1)), "To: ", "To : ", 1), false,
		},
		"nobody signed": {message, false},
	} {
		t.Run(name, func(t *testing.T) {
			header, err := readHeader([]byte(c.message))
			if err != nil {
				if c.ok {
					t.Fatal(err)
				}
				return // it is refused
			}
			got, err := claim{
				header: header, from: smtp.Path{Local: "somebody", Domain: "sender.test"}, client: netip.MustParseAddr("203.0.113.9"),
				hello: "mail.sender.test", start: "start@lab.test", message: []byte(c.message),
			}.prove(t.Context(), resolver)
			if c.ok && (err != nil || got != "DKIM") {
				t.Errorf("it is not believed: %q, %v", got, err)
			}
			if !c.ok && err == nil {
				t.Errorf("it is believed: %q", got)
			}
		})
	}
}

func TestAHeaderIsReadStrictly(t *testing.T) {
	for name, c := range map[string]struct {
		message string
		fields  int
		err     error
	}{
		"fields, one folded":       {"From: a\r\nTo: b,\r\n c\r\n\r\nx: y\r\n", 2, nil},
		"no body":                  {"From: a\r\n", 1, nil},
		"no header":                {"\r\nFrom: a\r\n", 0, nil},
		"a blank before the colon": {"To : b\r\n\r\n", 0, errHeader},
		"a tab before the colon":   {"To\t: b\r\n\r\n", 0, errHeader},
		"a line that is no field":  {"From: a\r\nhello\r\n\r\n", 0, errHeader},
		"it begins with a fold":    {" From: a\r\n\r\n", 0, errHeader},
		"a name beyond ASCII":      {"Fr\xc3\xb6m: a\r\n\r\n", 0, errHeader},
		"too many fields":          {strings.Repeat("A: b\r\n", maxFields+1) + "\r\n", 0, errTooMuch},
		"too large":                {"A: " + strings.Repeat("b", maxHeader) + "\r\n\r\n", 0, errTooMuch},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readHeader([]byte(c.message))
			if !errors.Is(err, c.err) || len(got) != c.fields {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestSignaturesThatWouldCostMuchAreNotLookedAt(t *testing.T) {
	for name, header := range map[string]string{
		"a long list of fields": "DKIM-Signature: v=1; h=" + strings.Repeat("a:", maxSigned+1) + "b\r\n",
		"many signatures":       strings.Repeat("DKIM-Signature: v=1\r\n", maxSignature+1),
	} {
		fields, err := readHeader([]byte(header))
		if err != nil {
			t.Fatal(err)
		}
		if signable(fields) == nil {
			t.Errorf("%s is looked at", name)
		}
	}
}

func TestTheHeaderSaysWhichTestsAMailWentTo(t *testing.T) {
	const message = "From: <a@sender.test>\r\nTo: <abc@good.lab.test>,\r\n\tABC@Self-Signed.lab.test, xyz@testing.lab.test\r\nCc: abc@below.good.lab.test\r\n" +
		"\r\nabc@wildcard.lab.test\r\n"
	got := site().addressed([]byte(message), "abc")
	if want := []string{"good", "self-signed", "below.good"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzClaim(f *testing.F) {
	f.Add([]byte("From: <a@sender.test>\r\nTo: <start@lab.test>\r\nDKIM-Signature: v=1; a=ed25519-sha256; d=sender.test; s=s; h=from:to; bh=; b=\r\n\r\n"), "a", "sender.test")
	f.Add([]byte("\r\n"), "", "")
	f.Add([]byte("To: "+strings.Repeat("<abc@good.lab.test>,\r\n ", 100)), "abc", "x")
	f.Fuzz(func(t *testing.T, message []byte, local, domain string) {
		header, err := readHeader(message)
		if err != nil {
			return
		}
		c := claim{header: header, from: smtp.Path{Local: local, Domain: domain}, client: netip.MustParseAddr("203.0.113.9"), start: "start@lab.test", message: message}
		if proof, err := c.prove(context.Background(), answers{}); err == nil {
			t.Errorf("%q proves it, where no name has a record", proof)
		}
		if got := site().addressed(message, "abc"); len(got) > len(Tests()) {
			t.Errorf("it went to %d tests", len(got))
		}
	})
}
