package mtasts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/mtasts"
)

func TestRFC8461_3_2_ThePolicyOfTheRFC(t *testing.T) {
	got := good[mtasts.Policy](t)(mtasts.ParsePolicy([]byte("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n")))
	want := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mail.example.com", "*.example.net", "backupmx.example.com"}, MaxAge: 168 * time.Hour}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// policyText is a valid policy with one line changed, or left out if the new one is "-".
func policyText(old, replacement string) string {
	const text = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"
	if replacement == "-" {
		return strings.Replace(text, old+"\n", "", 1)
	}
	return strings.Replace(text, old, replacement, 1)
}

func TestRFC8461_3_2_PolicyGrammar(t *testing.T) {
	plain := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.com"}, MaxAge: 24 * time.Hour}
	with := func(change func(*mtasts.Policy)) mtasts.Policy {
		p := plain
		change(&p)
		return p
	}
	for _, tt := range []struct {
		name, body string
		want       mtasts.Policy
	}{
		{"lines that end in LF", policyText("", ""), plain},
		{"lines that end in CRLF", strings.ReplaceAll(policyText("", ""), "\n", "\r\n"), plain},
		{"lines that end in either", policyText("enforce\n", "enforce\r\n"), plain},
		{"no line end at the end", strings.TrimSuffix(policyText("", ""), "\n"), plain},
		{"one blank line at the end", policyText("", "") + "\n", plain},
		{"one blank line at the end, with CRLF", policyText("", "") + "\r\n", plain},
		{"one line of blanks at the end", policyText("", "") + " \t", plain},
		{"fields in another order", "max_age: 86400\nmx: mx.example.com\nmode: enforce\nversion: STSv1", plain},
		{"no blank after the colon", "version:STSv1\nmode:enforce\nmx:mx.example.com\nmax_age:86400", plain},
		{"blanks and tabs after colon and value", "version: \t STSv1 \t\nmode:\tenforce\t\nmx: mx.example.com  \nmax_age: 86400 ", plain},
		{"mode testing", policyText("enforce", "testing"), with(func(p *mtasts.Policy) { p.Mode = mtasts.Testing })},
		{"mode none", policyText("enforce", "none"), with(func(p *mtasts.Policy) { p.Mode = mtasts.None })},
		{"mode none without mx", "version: STSv1\nmode: none\nmax_age: 86400\n", mtasts.Policy{Mode: mtasts.None, MaxAge: 24 * time.Hour}},
		{"max_age 0", policyText("86400", "0"), with(func(p *mtasts.Policy) { p.MaxAge = 0 })},
		{"max_age of ten digits", policyText("86400", "0000086400"), plain},
		{"the longest max_age", policyText("86400", "31557600"), with(func(p *mtasts.Policy) { p.MaxAge = 31557600 * time.Second })},
		{"unknown fields, in UTF-8", policyText("mx:", "note: bücher für alle\nx_y-z.1: a:b\nmx:"), with(func(p *mtasts.Policy) {
			p.Extensions = []mtasts.Field{{Name: "note", Value: "bücher für alle"}, {Name: "x_y-z.1", Value: "a:b"}}
		})},
		{"mx in capitals", policyText("mx.example.com", "MX.Example.COM"), plain},
		{"mx of one label", policyText("mx.example.com", "localhost"), with(func(p *mtasts.Policy) { p.MX = []string{"localhost"} })},
		{"an A-label in mx", policyText("mx.example.com", "xn--bcher-kva.example"), with(func(p *mtasts.Policy) { p.MX = []string{"xn--bcher-kva.example"} })},
		{"a wildcard before one label", policyText("mx.example.com", "*.test"), with(func(p *mtasts.Policy) { p.MX = []string{"*.test"} })},
		{"the same mx twice is kept twice", policyText("mx:", "mx: mx.example.com\nmx:"), with(func(p *mtasts.Policy) { p.MX = []string{"mx.example.com", "mx.example.com"} })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := good[mtasts.Policy](t)(mtasts.ParsePolicy([]byte(tt.body)))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRFC8461_3_2_InvalidPoliciesAreRefusedWithLineAndCode(t *testing.T) {
	long := strings.Repeat("a", 63) + "."
	for _, tt := range []struct {
		name, body string
		line       int
		want       mtasts.Code
	}{
		{"an empty body", "", 0, mtasts.PolicyVersionMissing},
		{"only a line end", "\n", 0, mtasts.PolicyVersionMissing},
		{"a page of HTML", "<!DOCTYPE html>\n<html></html>", 1, mtasts.PolicyLineInvalid},
		{"a byte order mark", "\ufeff" + policyText("", ""), 1, mtasts.PolicyBOM},
		{"UTF-16", "v\x00e\x00r\x00\xff\xfe:", 1, mtasts.PolicyNotUTF8},
		{"Latin-1 in an unknown field", policyText("mode", "note: b\xfccher\nmode"), 2, mtasts.PolicyNotUTF8},
		{"lines that end in CR", strings.ReplaceAll(policyText("", ""), "\n", "\r"), 1, mtasts.PolicyBareCR},
		{"a CR within a line", policyText("enforce", "enf\rorce"), 2, mtasts.PolicyBareCR},
		{"a CR at the very end", strings.TrimSuffix(policyText("", ""), "\n") + "\r", 4, mtasts.PolicyBareCR},
		{"two CR before the LF", policyText("enforce\n", "enforce\r\r\n"), 2, mtasts.PolicyBareCR},
		{"a blank line in between", policyText("enforce\n", "enforce\n\n"), 3, mtasts.PolicyBlankLine},
		{"a blank line at the beginning", "\n" + policyText("", ""), 1, mtasts.PolicyBlankLine},
		{"two blank lines at the end", policyText("", "") + "\n\n", 5, mtasts.PolicyBlankLine},
		{"all fields on one line", "version: STSv1 mode: enforce mx: mx.example.com max_age: 86400", 1, mtasts.PolicyOneLine},
		{`all fields on one line with \n written out`, `version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400` + "\n", 1, mtasts.PolicyOneLine},
		{"a line without a colon", policyText("mode", "nonsense\nmode"), 2, mtasts.PolicyLineInvalid},
		{"a key with a blank before the colon", policyText("mode:", "mode :"), 2, mtasts.PolicyLineInvalid},
		{"a blank before the key", policyText("mode:", " mode:"), 2, mtasts.PolicyLineInvalid},
		{"a key with a character it must not have", policyText("mode:", "mo/de:"), 2, mtasts.PolicyLineInvalid},
		{"a key of 33 characters", policyText("mode:", "abcdefghijklmnopqrstuvwxyzabcdefg: x\nmode:"), 2, mtasts.PolicyLineInvalid},
		{"an unknown field without a value", policyText("mode:", "x:\nmode:"), 2, mtasts.PolicyLineInvalid},
		{"an unknown field with a tab in its value", policyText("mode:", "x: a\tb\nmode:"), 2, mtasts.PolicyLineInvalid},
		{"an unknown field with a NUL in its value", policyText("mode:", "x: a\x00b\nmode:"), 2, mtasts.PolicyLineInvalid},
		{"a comment", policyText("mode:", "# a comment\nmode:"), 2, mtasts.PolicyLineInvalid},
		{"no version", policyText("version: STSv1", "-"), 0, mtasts.PolicyVersionMissing},
		{"another version", policyText("STSv1", "STSv2"), 1, mtasts.PolicyVersionInvalid},
		{"the version in another case", policyText("STSv1", "stsv1"), 1, mtasts.PolicyVersionInvalid},
		{"no mode", policyText("mode: enforce", "-"), 0, mtasts.PolicyModeMissing},
		{"the mode's key in another case", policyText("mode:", "Mode:"), 0, mtasts.PolicyModeMissing},
		{"the mode in another case", policyText("enforce", "Enforce"), 2, mtasts.PolicyModeInvalid},
		{"a mode that is nearly one", policyText("enforce", "enforced"), 2, mtasts.PolicyModeInvalid},
		{"an empty mode", policyText("enforce", ""), 2, mtasts.PolicyModeInvalid},
		{"the first of two modes invalid", policyText("mode:", "mode: report\nmode:"), 2, mtasts.PolicyModeInvalid},
		{"no max_age", policyText("max_age: 86400", "-"), 0, mtasts.PolicyMaxAgeMissing},
		{"an empty max_age", policyText("86400", ""), 4, mtasts.PolicyMaxAgeInvalid},
		{"a negative max_age", policyText("86400", "-1"), 4, mtasts.PolicyMaxAgeInvalid},
		{"a max_age with a sign", policyText("86400", "+86400"), 4, mtasts.PolicyMaxAgeInvalid},
		{"a max_age with a unit", policyText("86400", "1d"), 4, mtasts.PolicyMaxAgeInvalid},
		{"a max_age with a fraction", policyText("86400", "86400.0"), 4, mtasts.PolicyMaxAgeInvalid},
		{"a max_age over a year", policyText("86400", "31557601"), 4, mtasts.PolicyMaxAgeTooLong},
		{"a max_age of eleven digits", policyText("86400", "00000086400"), 4, mtasts.PolicyMaxAgeTooLong},
		{"a max_age beyond 64 bits", policyText("86400", "99999999999999999999"), 4, mtasts.PolicyMaxAgeTooLong},
		{"no mx in mode enforce", policyText("mx: mx.example.com", "-"), 0, mtasts.PolicyMXMissing},
		{"an empty mx", policyText("mx.example.com", ""), 3, mtasts.PolicyMXInvalid},
		{"two mx on a line, with a comma", policyText("mx.example.com", "a.example.com, b.example.com"), 3, mtasts.PolicyMXSeveral},
		{"two mx on a line, with a blank", policyText("mx.example.com", "a.example.com b.example.com"), 3, mtasts.PolicyMXSeveral},
		{"an mx with a trailing dot", policyText("mx.example.com", "mx.example.com."), 3, mtasts.PolicyMXInvalid},
		{"a wildcard with a trailing dot", policyText("mx.example.com", "*.example.com."), 3, mtasts.PolicyMXInvalid},
		{"an mx that is a URL", policyText("mx.example.com", "smtp://mx.example.com"), 3, mtasts.PolicyMXInvalid},
		{"an mx with a port", policyText("mx.example.com", "mx.example.com:25"), 3, mtasts.PolicyMXInvalid},
		{"an mx that is an address literal", policyText("mx.example.com", "[192.0.2.1]"), 3, mtasts.PolicyMXInvalid},
		{"an mx that is an IPv6 address", policyText("mx.example.com", "2001:db8::1"), 3, mtasts.PolicyMXInvalid},
		{"an mx with a preference", policyText("mx.example.com", "10 mx.example.com"), 3, mtasts.PolicyMXInvalid},
		{"an mx with an underscore", policyText("mx.example.com", "mx_1.example.com"), 3, mtasts.PolicyMXInvalid},
		{"an mx with an empty label", policyText("mx.example.com", "mx..example.com"), 3, mtasts.PolicyMXInvalid},
		{"an mx with a label that begins with a hyphen", policyText("mx.example.com", "-mx.example.com"), 3, mtasts.PolicyMXInvalid},
		{"an mx with a label of 64", policyText("mx.example.com", strings.Repeat("a", 64)+".example.com"), 3, mtasts.PolicyMXInvalid},
		{"an mx of more than 253", policyText("mx.example.com", long+long+long+long+"example.com"), 3, mtasts.PolicyMXInvalid},
		{"a lone *", policyText("mx.example.com", "*"), 3, mtasts.PolicyMXWildcard},
		{"a * with nothing after its dot", policyText("mx.example.com", "*."), 3, mtasts.PolicyMXWildcard},
		{"a * within a label", policyText("mx.example.com", "mx*.example.com"), 3, mtasts.PolicyMXWildcard},
		{"a * that is not left-most", policyText("mx.example.com", "mx.*.example.com"), 3, mtasts.PolicyMXWildcard},
		{"two *", policyText("mx.example.com", "*.*.example.com"), 3, mtasts.PolicyMXWildcard},
		{"a leading dot for a wildcard", policyText("mx.example.com", ".example.com"), 3, mtasts.PolicyMXWildcard},
		{"an invalid mx after valid ones", policyText("max_age", "mx: foo..bar\nmax_age"), 4, mtasts.PolicyMXInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mtasts.ParsePolicy([]byte(tt.body))
			var refused *mtasts.PolicyError
			if !errors.As(err, &refused) {
				t.Fatalf("error %v, want a *PolicyError", err)
			}
			if refused.Code != tt.want || refused.Line != tt.line {
				t.Errorf("line %d, code %s (%v), want line %d, %s", refused.Line, refused.Code, err, tt.line, tt.want)
			}
			if refused.ResultType() != "sts-policy-invalid" || refused.FailureReason() != string(tt.want) {
				t.Errorf("reported as %s (%s)", refused.ResultType(), refused.FailureReason())
			}
		})
	}
}

func TestAPolicyErrorNamesTheLineAndShowsWhatStandsThere(t *testing.T) {
	_, err := mtasts.ParsePolicy([]byte(policyText("enforce", "Enforce\x1b[31m")))
	want := `invalid MTA-STS policy: line 2: the mode is "Enforce\x1b[31m", not enforce, testing or none`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestRFC8461_3_3_APolicyOver64KiBIsRefused(t *testing.T) {
	fill := func(size int) []byte {
		body := policyText("", "")
		for size-len(body) > 1000 {
			body += "x: " + strings.Repeat("y", 500) + "\n"
		}
		return []byte(body + "x: " + strings.Repeat("y", size-len(body)-4) + "\n")
	}
	if body := fill(mtasts.MaxPolicySize); len(body) != 65536 {
		t.Fatalf("the test's policy has %d bytes", len(body))
	} else if _, err := mtasts.ParsePolicy(body); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	_, err := mtasts.ParsePolicy(fill(mtasts.MaxPolicySize + 1))
	var refused *mtasts.PolicyError
	if !errors.As(err, &refused) || refused.Code != mtasts.PolicyTooLarge {
		t.Errorf("one byte more: %v, want %s", err, mtasts.PolicyTooLarge)
	}
}

func TestRFC8461_3_2_OfDuplicatedFieldsTheFirstCounts(t *testing.T) {
	body := "version: STSv1\nversion: STSv2\nmode: testing\nmode: enforce\nmode: nonsense\nmx: a.example.com\nmx: b.example.com\nmax_age: 1\nmax_age: 2\nx: 1\nx: 2\n"
	got := good[mtasts.Policy](t)(mtasts.ParsePolicy([]byte(body)))
	want := mtasts.Policy{Mode: mtasts.Testing, MX: []string{"a.example.com", "b.example.com"}, MaxAge: time.Second, Extensions: []mtasts.Field{{Name: "x", Value: "1"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOddPoliciesAreAcceptedWithAWarningThatNamesTheLine(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       []mtasts.Warning
	}{
		{"an ordinary policy has none", policyText("", ""), nil},
		{"a duplicated key", policyText("mx:", "mode: none\nmx:"), []mtasts.Warning{
			{Code: mtasts.PolicyKeyDuplicate, Line: 3, Text: `"mode" is given more than once, the first counts`},
		}},
		{"a duplicated unknown key", policyText("mx:", "x: 1\nx: 2\nmx:"), []mtasts.Warning{
			{Code: mtasts.PolicyKeyDuplicate, Line: 4, Text: `"x" is given more than once, the first counts`},
		}},
		{"a key in another case", policyText("mx:", "MX: a.example.com\nmx:"), []mtasts.Warning{
			{Code: mtasts.PolicyKeyCase, Line: 3, Text: `the key "MX" is ignored: keys are in lower case, "mx"`},
		}},
		{"an IPv4 address for an mx", policyText("mx.example.com", "192.0.2.1"), []mtasts.Warning{
			{Code: mtasts.PolicyMXAddress, Line: 3, Text: `"192.0.2.1" is an address: mx takes a host name, and this will match none`},
		}},
		{"a U-label for an mx", policyText("mx.example.com", "*.bücher.example"), []mtasts.Warning{
			{Code: mtasts.PolicyMXULabel, Line: 3, Text: `"*.b\u00fccher.example" is not in A-labels (xn--…), and will match no host`},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := mtasts.InspectPolicy([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, warnings); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRFC8461_3_2_MXInULabelsMatchesNothingAndKeepsEnforcementOn(t *testing.T) {
	p := good[mtasts.Policy](t)(mtasts.ParsePolicy([]byte(policyText("mx.example.com", "mx.bücher.example"))))
	if p.Mode != mtasts.Enforce {
		t.Errorf("mode %s, want enforce", p.Mode)
	}
	for _, host := range []string{"mx.xn--bcher-kva.example", "mx.bücher.example"} {
		if p.Match(host) {
			t.Errorf("%s matches", host)
		}
	}
}

func TestAHostilePolicyHasNoMoreThan64WarningsAndUnknownFields(t *testing.T) {
	var b strings.Builder
	b.WriteString(policyText("", ""))
	for b.Len() < 60000 {
		b.WriteString("mode: x\n")
	}
	p, warnings, err := mtasts.InspectPolicy([]byte(b.String()))
	if err != nil || len(warnings) != 64 || p.Mode != mtasts.Enforce {
		t.Errorf("mode %s, %d warnings, error %v, want enforce, 64, none", p.Mode, len(warnings), err)
	}
}

func TestPolicyStringsAreTheLinesOfATLSReport(t *testing.T) {
	p := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"a.example.com", "*.example.net"}, MaxAge: time.Hour, Extensions: []mtasts.Field{{Name: "x", Value: "y"}}}
	want := []string{"version: STSv1", "mode: enforce", "mx: a.example.com", "mx: *.example.net", "max_age: 3600", "x: y"}
	if diff := cmp.Diff(want, p.Strings()); diff != "" {
		t.Error(diff)
	}
	if got, want := string(p.Text()), strings.Join(want, "\r\n")+"\r\n"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
}

func TestPoliciesAreEqualIfTheyDemandTheSame(t *testing.T) {
	p := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"a.test", "b.test"}, MaxAge: time.Hour}
	for _, tt := range []struct {
		name  string
		other mtasts.Policy
		equal bool
	}{
		{"the same", p, true},
		{"patterns in another order and case, one twice", mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"B.test", "a.test", "b.test"}, MaxAge: time.Hour}, true},
		{"an unknown field more", mtasts.Policy{Mode: mtasts.Enforce, MX: p.MX, MaxAge: time.Hour, Extensions: []mtasts.Field{{Name: "x", Value: "y"}}}, true},
		{"another mode", mtasts.Policy{Mode: mtasts.Testing, MX: p.MX, MaxAge: time.Hour}, false},
		{"another max_age", mtasts.Policy{Mode: mtasts.Enforce, MX: p.MX, MaxAge: time.Minute}, false},
		{"a pattern less", mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"a.test"}, MaxAge: time.Hour}, false},
		{"a pattern more", mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"a.test", "b.test", "c.test"}, MaxAge: time.Hour}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p.Equal(tt.other) != tt.equal || tt.other.Equal(p) != tt.equal {
				t.Errorf("equal: %v, want %v", !tt.equal, tt.equal)
			}
		})
	}
}

func TestAPolicyThatWouldNotBeReadBackIsNotValid(t *testing.T) {
	p := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"a.test"}, MaxAge: time.Hour}
	for _, tt := range []struct {
		name   string
		change func(*mtasts.Policy)
		want   mtasts.Code // "": valid
	}{
		{"a valid one", func(*mtasts.Policy) {}, ""},
		{"the zero policy", func(p *mtasts.Policy) { *p = mtasts.Policy{} }, mtasts.PolicyModeInvalid},
		{"no mx", func(p *mtasts.Policy) { p.MX = nil }, mtasts.PolicyMXMissing},
		{"an mx that smuggles a line", func(p *mtasts.Policy) { p.MX = []string{"a.test\nmx: b.test"} }, mtasts.PolicyLineInvalid},
		{"a U-label", func(p *mtasts.Policy) { p.MX = []string{"bücher.example"} }, mtasts.PolicyMXULabel},
		{"a max_age that is too long", func(p *mtasts.Policy) { p.MaxAge = 366 * 24 * time.Hour }, mtasts.PolicyMaxAgeTooLong},
		{"a negative max_age", func(p *mtasts.Policy) { p.MaxAge = -time.Second }, mtasts.PolicyMaxAgeInvalid},
		{"a max_age with a fraction", func(p *mtasts.Policy) { p.MaxAge = 1500 * time.Millisecond }, mtasts.PolicyMaxAgeInvalid},
		{"an unknown field called mode", func(p *mtasts.Policy) { p.Extensions = []mtasts.Field{{Name: "mode", Value: "none"}} }, mtasts.PolicyLineInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := p
			tt.change(&q)
			err := q.Validate()
			var refused *mtasts.PolicyError
			if errors.As(err, &refused) {
				if refused.Code != tt.want {
					t.Errorf("error %v (%s), want %s", err, refused.Code, tt.want)
				}
			} else if err != nil || tt.want != "" {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAPolicyInJSONGivesMaxAgeInSeconds(t *testing.T) {
	p := mtasts.Policy{Mode: mtasts.Testing, MX: []string{"a.test"}, MaxAge: time.Hour, Extensions: []mtasts.Field{{Name: "x", Value: "y"}}}
	text := good[[]byte](t)(json.Marshal(p))
	want := `{"mode":"testing","mx":["a.test"],"max_age":3600,"extensions":[{"name":"x","value":"y"}]}`
	if string(text) != want {
		t.Errorf("%s, want %s", text, want)
	}
	var back mtasts.Policy
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, back); diff != "" {
		t.Error(diff)
	}
	if err := json.Unmarshal([]byte(`{"mode":"none","max_age":9223372036854775807}`), &back); err == nil {
		t.Error("a max_age of 292 thousand million years is accepted")
	}
}

func policies() *rapid.Generator[mtasts.Policy] {
	return rapid.Custom(func(t *rapid.T) mtasts.Policy {
		label := `[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?`
		p := mtasts.Policy{
			Mode:   rapid.SampledFrom([]mtasts.Mode{mtasts.Enforce, mtasts.Testing, mtasts.None}).Draw(t, "mode"),
			MX:     rapid.SliceOfN(rapid.StringMatching(`(\*\.)?(`+label+`\.){0,3}`+label), 1, 5).Draw(t, "mx"),
			MaxAge: time.Duration(rapid.IntRange(0, 31557600).Draw(t, "max_age")) * time.Second,
		}
		for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`x[A-Za-z0-9._-]{0,31}`), 0, 5, rapid.ID).Draw(t, "names") {
			p.Extensions = append(p.Extensions, mtasts.Field{Name: name, Value: rapid.StringMatching(`[!-~ü€😀]([ -~ü€😀]{0,20}[!-~ü€😀])?`).Draw(t, "value")})
		}
		return p
	})
}

func TestPoliciesSurviveWritingAndReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := policies().Draw(t, "policy")
		text := want.Text()
		if rapid.Bool().Draw(t, "LF") {
			text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		}
		if rapid.Bool().Draw(t, "unterminated") {
			text = bytes.TrimRight(text, "\r\n")
		}
		got, err := mtasts.ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if !got.Equal(want) || got.Validate() != nil {
			t.Errorf("equal: %v, validate: %v", got.Equal(want), got.Validate())
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	for _, seed := range []string{
		policyText("", ""), strings.ReplaceAll(policyText("", ""), "\n", "\r\n"), policyText("", "") + "\n", policyText("mx.example.com", "*.bücher.example"),
		"version: STSv1\nmode: none\nmax_age: 0", "\ufeffversion: STSv1", "version: STSv1\rmode: none", "mx: *", "<html>", "x: \xff\n", "Mode: enforce\nmode: testing\nmode: none",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, warnings, err := mtasts.InspectPolicy(body)
		if err != nil {
			var refused *mtasts.PolicyError
			if !errors.As(err, &refused) || refused.Code == "" || len(err.Error()) > 1000 {
				t.Fatalf("not a proper error: %#v", err)
			}
			return
		}
		again, err := mtasts.ParsePolicy(p.Text())
		if err != nil || !cmp.Equal(p, again) {
			t.Fatalf("%q was read as %q, and that as %q (%v)", body, p.Text(), again.Text(), err)
		}
		if p.MaxAge < 0 || p.MaxAge > mtasts.MaxMaxAge || p.Mode != mtasts.None && len(p.MX) == 0 || len(warnings) > 64 {
			t.Fatalf("%q was read as %q", body, p.Text())
		}
	})
}

func BenchmarkParsePolicy(b *testing.B) {
	body := []byte("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := mtasts.ParsePolicy(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRecord(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := mtasts.ParseRecord("v=STSv1; id=20160831085700Z;"); err != nil {
			b.Fatal(err)
		}
	}
}
