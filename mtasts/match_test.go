package mtasts_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/mtasts"
)

func TestRFC8461_4_1_MXHostValidation(t *testing.T) {
	for _, tt := range []struct {
		name, pattern, host string
		want                bool
	}{
		{"the same name", "mail.example.com", "mail.example.com", true},
		{"the same name in another case", "mail.example.com", "Mail.EXAMPLE.com", true},
		{"a pattern in another case", "MAIL.example.com", "mail.example.com", true},
		{"the host with its trailing dot", "mail.example.com", "mail.example.com.", true},
		{"another name", "mail.example.com", "mail.example.net", false},
		{"a name below it", "example.com", "mail.example.com", false},
		{"a name above it", "mail.example.com", "example.com", false},
		{"a name that ends the same", "example.com", "notexample.com", false},
		{"a wildcard matches one label", "*.example.com", "mail.example.com", true},
		{"a wildcard does not match the name itself", "*.example.com", "example.com", false},
		{"a wildcard does not match two labels", "*.example.com", "foo.bar.example.com", false},
		{"a wildcard does not match an empty label", "*.example.com", ".example.com", false},
		{"a wildcard matches an A-label", "*.example.com", "xn--bcher-kva.example.com", true},
		{"a wildcard matches a label with an underscore", "*.example.com", "mx_1.example.com", true},
		{"a wildcard does not match a part of a label", "*.example.com", "mail-example.com", false},
		{"a * within a label is no wildcard", "mx*.example.com", "mx1.example.com", false},
		{"a * further right is no wildcard", "mx.*.com", "mx.example.com", false},
		{"a lone * is no wildcard", "*", "localhost", false},
		{"a host that is a wildcard", "*.example.com", "*.example.com", false},
		{"a host in Unicode", "bücher.example", "bücher.example", false},
		{"a Kelvin sign is no k", "mk.example.com", "m\u212a.example.com", false},
		{"an empty host", "*.example.com", "", false},
		{"a host that is a dot", "*.example.com", ".", false},
		{"two trailing dots", "mail.example.com", "mail.example.com..", false},
		{"a host with a NUL", "*.example.com", "a\x00.example.com", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := mtasts.MatchPattern(tt.pattern, tt.host); got != tt.want {
				t.Errorf("pattern %q, host %q: %v, want %v", tt.pattern, tt.host, got, tt.want)
			}
			p := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"unrelated.test", tt.pattern}}
			if got := p.Match(tt.host); got != tt.want {
				t.Errorf("policy with %q, host %q: %v, want %v", tt.pattern, tt.host, got, tt.want)
			}
		})
	}
}

func TestAPolicyWithoutPatternsMatchesNothing(t *testing.T) {
	if (mtasts.Policy{Mode: mtasts.None}).Match("mail.example.com") {
		t.Error("it matches")
	}
}

func TestMatchingAgreesWithThePseudocodeOfAppendixB(t *testing.T) {
	name := rapid.StringMatching(`([ab]\.){0,3}[ab]`)
	rapid.Check(t, func(t *rapid.T) {
		host := name.Draw(t, "host")
		pattern := rapid.SampledFrom([]string{"", "*."}).Draw(t, "wildcard") + name.Draw(t, "pattern")
		want := pattern == host
		if pattern[0] == '*' {
			parts := strings.SplitN(host, ".", 2)
			want = len(parts) > 1 && parts[1] == pattern[2:]
		}
		if got := mtasts.MatchPattern(pattern, host); got != want {
			t.Errorf("pattern %q, host %q: %v, want %v", pattern, host, got, want)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "mail.example.com")
	f.Add("mail.example.com", "MAIL.example.com.")
	f.Add("*.", "a.")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, pattern, host string) {
		if !mtasts.MatchPattern(pattern, host) {
			return
		}
		host = strings.TrimSuffix(host, ".")
		labels, want := strings.Split(strings.ToLower(host), "."), strings.Split(strings.ToLower(pattern), ".")
		if len(labels) != len(want) {
			t.Fatalf("%q matches %q, which has another number of labels", pattern, host)
		}
		for i := range labels {
			if labels[i] == "" || labels[i] != want[i] && (i != 0 || want[0] != "*") {
				t.Fatalf("%q matches %q", pattern, host)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	p := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx1.example.com", "mx2.example.com", "*.mail.example.net"}}
	b.ReportAllocs()
	for b.Loop() {
		if !p.Match("in7.mail.example.net") {
			b.Fatal("no match")
		}
	}
}
