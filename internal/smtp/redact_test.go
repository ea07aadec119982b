package smtp

import (
	"strings"
	"testing"
)

func TestNoLocalPartIsLeft(t *testing.T) {
	for text, want := range map[string]string{
		"":                "",
		"250 2.0.0 ok":    "250 2.0.0 ok",
		"ann@example.com": "*@example.com",
		"sent: MAIL FROM:<ann.b+c=d@example.com> SIZE=5":   "sent: MAIL FROM:<*@example.com> SIZE=5",
		"RCPT TO:<ann@a.test> ORCPT=rfc822;bob+2Bx@b.test": "RCPT TO:<*@a.test> ORCPT=rfc822;*@b.test",
		`RCPT TO:<"ann \"the @ boss\" smith"@example.com>`: `RCPT TO:<*@example.com>`,
		`he said "ann@a.test"`:                             `he said *@a.test"`,
		"550 grün@bücher.example: no":                      "550 *@bücher.example: no",
		"a@b@c":                                            "*@*@c",
		"@ @@":                                             "@ @@",
		"*@example.com":                                    "*@example.com",
		"<ann>@x":                                          "<ann>@x",
	} {
		if got := Redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{"RCPT TO:<ann@example.com>", `"a \" b"@c`, "a@b@c", "\xff@", `00"0"@`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Redact(s)
		if Redact(got) != got {
			t.Errorf("%q became %q, and that %q", s, got, Redact(got))
		}
		if strings.Count(got, "@") > strings.Count(s, "@") {
			t.Errorf("%q became %q", s, got)
		}
		for before, rest, ok := strings.Cut(got, "@"); ok; before, rest, ok = strings.Cut(rest, "@") {
			if start := localBefore(before); start < len(before) && before[start:] != "*" {
				t.Errorf("%q became %q", s, got)
			}
		}
	})
}
