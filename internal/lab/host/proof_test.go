package host

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
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
		"nobody signed":                  {message, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := claim{
				from: smtp.Path{Local: "somebody", Domain: "sender.test"}, client: netip.MustParseAddr("203.0.113.9"),
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
		c := claim{from: smtp.Path{Local: local, Domain: domain}, client: netip.MustParseAddr("203.0.113.9"), start: "start@lab.test", message: message}
		if proof, err := c.prove(context.Background(), answers{}); err == nil {
			t.Errorf("%q proves it, where no name has a record", proof)
		}
		if got := site().addressed(message, "abc"); len(got) > len(Tests()) {
			t.Errorf("it went to %d tests", len(got))
		}
	})
}
