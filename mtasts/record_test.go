package mtasts_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pawl-mail/pawl/mtasts"
)

// good returns a function that fails the test unless there was no error.
func good[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		return v
	}
}

func TestRFC8461_3_1_RecordGrammar(t *testing.T) {
	for _, tt := range []struct{ name, txt, id string }{
		{"the record of appendix A", "v=STSv1; id=20160831085700Z;", "20160831085700Z"},
		{"no delimiter at the end", "v=STSv1; id=a", "a"},
		{"no blank after the delimiter", "v=STSv1;id=a;", "a"},
		{"a blank before the first semicolon, as the grammar allows", "v=STSv1 ; id=a", "a"},
		{"a tab before the first semicolon", "v=STSv1\t;id=a", "a"},
		{"blanks and tabs around each delimiter", "v=STSv1 \t; \tid=a \t; \tx=y \t; \t", "a"},
		{"an id of 32 characters", "v=STSv1; id=abcdefghijklmnopqrstuvwxyzABCDEF", "abcdefghijklmnopqrstuvwxyzABCDEF"},
		{"unknown fields before and after the id", "v=STSv1; a.b-c_d=1; id=a; z=2", "a"},
		{"the first of two ids counts", "v=STSv1; id=first; id=second", "first"},
		{"a second id that is no id is ignored all the same", "v=STSv1; id=first; id=not-an-id", "first"},
		{"the version a second time", "v=STSv1; id=a; v=STSv2", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := good[mtasts.Record](t)(mtasts.ParseRecord(tt.txt)); got.ID != tt.id {
				t.Errorf("id %q, want %q", got.ID, tt.id)
			}
		})
	}
}

func TestRFC8461_3_1_InvalidRecordsAreRefusedWithACode(t *testing.T) {
	for _, tt := range []struct {
		name, txt string
		want      mtasts.Code
	}{
		{"nothing", "", mtasts.RecordVersion},
		{"another version", "v=STSv2; id=a", mtasts.RecordVersion},
		{"a version that only begins like ours", "v=STSv10; id=a", mtasts.RecordVersion},
		{"the version in another case", "v=stsv1; id=a", mtasts.RecordVersion},
		{"the key of the version in another case", "V=STSv1; id=a", mtasts.RecordVersion},
		{"a blank before the version", " v=STSv1; id=a", mtasts.RecordVersion},
		{"the version not first", "id=a; v=STSv1", mtasts.RecordVersion},
		{"blanks around the equals sign of the version", "v = STSv1; id=a", mtasts.RecordVersion},
		{"another record of the same name", "v=spf1 -all", mtasts.RecordVersion},
		{"the version and nothing else", "v=STSv1", mtasts.RecordIDMissing},
		{"the version and a delimiter", "v=STSv1;", mtasts.RecordIDMissing},
		{"no id but another field", "v=STSv1; x=y;", mtasts.RecordIDMissing},
		{"the id's key in another case is another key", "v=STSv1; ID=a;", mtasts.RecordIDMissing},
		{"an empty id", "v=STSv1; id=;", mtasts.RecordIDInvalid},
		{"an id with a hyphen", "v=STSv1; id=2026-01-01;", mtasts.RecordIDInvalid},
		{"an id of 33 characters", "v=STSv1; id=abcdefghijklmnopqrstuvwxyzABCDEFG", mtasts.RecordIDInvalid},
		{"an id with a blank in it", "v=STSv1; id=a b;", mtasts.RecordIDInvalid},
		{"a blank after the last field", "v=STSv1; id=a ", mtasts.RecordIDInvalid},
		{"an id in quotes", `v=STSv1; id="a";`, mtasts.RecordIDInvalid},
		{"the first of two ids invalid", "v=STSv1; id=-; id=a", mtasts.RecordIDInvalid},
		{"no delimiter after the version", "v=STSv1 id=a", mtasts.RecordFieldInvalid},
		{"a comma for a delimiter", "v=STSv1, id=a", mtasts.RecordVersion},
		{"two delimiters in a row", "v=STSv1;; id=a", mtasts.RecordFieldInvalid},
		{"two delimiters at the end", "v=STSv1; id=a;;", mtasts.RecordFieldInvalid},
		{"a field without an equals sign", "v=STSv1; id=a; x", mtasts.RecordFieldInvalid},
		{"a field without a name", "v=STSv1; id=a; =x", mtasts.RecordFieldInvalid},
		{"a field without a value", "v=STSv1; id=a; x=", mtasts.RecordFieldInvalid},
		{"a value with an equals sign", "v=STSv1; id=a; x=y=z", mtasts.RecordFieldInvalid},
		{"a value with a blank", "v=STSv1; id=a; x=y z", mtasts.RecordFieldInvalid},
		{"a name of 33 characters", "v=STSv1; id=a; abcdefghijklmnopqrstuvwxyzabcdefg=x", mtasts.RecordFieldInvalid},
		{"a name that begins with a hyphen", "v=STSv1; id=a; -x=y", mtasts.RecordFieldInvalid},
		{"blanks around an equals sign", "v=STSv1; id = a", mtasts.RecordFieldInvalid},
		{"a line end", "v=STSv1; id=a;\n", mtasts.RecordFieldInvalid},
		{"larger than a TXT record can be", "v=STSv1; id=a; x=" + strings.Repeat("y", 65536), mtasts.RecordTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mtasts.ParseRecord(tt.txt)
			var refused *mtasts.RecordError
			if !errors.As(err, &refused) {
				t.Fatalf("error %v, want a *RecordError", err)
			}
			if refused.Code != tt.want {
				t.Errorf("code %s (%v), want %s", refused.Code, err, tt.want)
			}
			if refused.Text != tt.txt {
				t.Errorf("the error carries %q, want the record", refused.Text)
			}
			if refused.ResultType() != "sts-policy-invalid" || refused.FailureReason() != string(tt.want) {
				t.Errorf("reported as %s (%s)", refused.ResultType(), refused.FailureReason())
			}
		})
	}
}

func TestRFC8461_3_1_RecordsMustBeASCII(t *testing.T) {
	_, err := mtasts.ParseRecord("v=STSv1; id=a; name=bücher;")
	var refused *mtasts.RecordError
	if !errors.As(err, &refused) || refused.Code != mtasts.RecordFieldInvalid {
		t.Errorf("error %v, want %s", err, mtasts.RecordFieldInvalid)
	}
}

func TestRFC8461_3_2_UnknownFieldsOfARecordAreIgnored(t *testing.T) {
	got := good[mtasts.Record](t)(mtasts.ParseRecord("v=STSv1; b=2; id=x1; a=1; b=3; B=4"))
	want := mtasts.Record{ID: "x1", Extensions: []mtasts.Field{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}, {Name: "B", Value: "4"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestARecordWithManyUnknownFieldsIsReadAndKeepsTheFirst64(t *testing.T) {
	var b strings.Builder
	b.WriteString("v=STSv1")
	for i := range 3000 {
		b.WriteString("; f" + strings.Repeat("x", i%20) + string(rune('a'+i%26)) + "=1")
	}
	b.WriteString("; id=last")
	got := good[mtasts.Record](t)(mtasts.ParseRecord(b.String()))
	if got.ID != "last" || len(got.Extensions) != mtasts.MaxExtensions {
		t.Errorf("id %q with %d fields, want last with 64", got.ID, len(got.Extensions))
	}
}

func TestRFC8461_3_1_ExactlyOneRecordIsSelected(t *testing.T) {
	for _, tt := range []struct {
		name string
		txts []string
		id   string
		want error
	}{
		{"one record", []string{"v=STSv1; id=a;"}, "a", nil},
		{"one record among others", []string{"v=spf1 -all", "v=STSv1; id=a;", "v=STSv2; id=b"}, "a", nil},
		{"a record of the version without a delimiter is discarded", []string{"v=STSv1", "v=STSv1; id=a;"}, "a", nil},
		{"a record with a blank before the delimiter counts", []string{"v=STSv1 ; id=a;", "x"}, "a", nil},
		{"no record", nil, "", mtasts.ErrNoRecord},
		{"only others", []string{"v=spf1 -all"}, "", mtasts.ErrNoRecord},
		{"two records", []string{"v=STSv1; id=a;", "v=STSv1; id=b;"}, "", mtasts.ErrMultipleRecords},
		{"two records that say the same", []string{"v=STSv1; id=a;", "v=STSv1; id=a;"}, "", mtasts.ErrMultipleRecords},
		{"two records of which one is invalid", []string{"v=STSv1; id=a;", "v=STSv1; x"}, "", mtasts.ErrMultipleRecords},
		{"two records of which one has a blank before the delimiter", []string{"v=STSv1; id=a;", "v=STSv1 ; id=a;"}, "", mtasts.ErrMultipleRecords},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mtasts.SelectRecord(tt.txts)
			if !errors.Is(err, tt.want) || got.ID != tt.id {
				t.Errorf("id %q, error %v, want %q, %v", got.ID, err, tt.id, tt.want)
			}
		})
	}
	t.Run("one record, and it is invalid", func(t *testing.T) {
		_, err := mtasts.SelectRecord([]string{"v=STSv1; id=-;"})
		var refused *mtasts.RecordError
		if !errors.As(err, &refused) || refused.Code != mtasts.RecordIDInvalid {
			t.Errorf("error %v, want a *RecordError with %s", err, mtasts.RecordIDInvalid)
		}
	})
}

func TestEveryRecordErrorCanBeReported(t *testing.T) {
	type reported interface{ ResultType() string }
	type reasoned interface{ FailureReason() string }
	for _, tt := range []struct {
		err            error
		result, reason string
	}{
		{mtasts.ErrNoRecord, "sts-policy-fetch-error", "record-none"},
		{mtasts.ErrMultipleRecords, "sts-policy-invalid", "record-several"},
	} {
		if got := tt.err.(reported).ResultType(); got != tt.result {
			t.Errorf("%v: result type %s, want %s", tt.err, got, tt.result)
		}
		if got := tt.err.(reasoned).FailureReason(); got != tt.reason {
			t.Errorf("%v: reason %s, want %s", tt.err, got, tt.reason)
		}
	}
}

func TestOddRecordsAreAcceptedWithAWarning(t *testing.T) {
	for _, tt := range []struct {
		name, txt string
		want      []mtasts.Code
	}{
		{"an ordinary record has none", "v=STSv1; id=a; x=y;", nil},
		{"a blank before the first delimiter", "v=STSv1 ; id=a", []mtasts.Code{mtasts.RecordBlankBeforeDelimiter}},
		{"two ids and two others", "v=STSv1; id=a; id=b; x=1; x=2", []mtasts.Code{mtasts.RecordFieldDuplicate, mtasts.RecordFieldDuplicate}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := mtasts.InspectRecord(tt.txt)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, codes(warnings)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func codes(warnings []mtasts.Warning) []mtasts.Code {
	var cs []mtasts.Code
	for _, w := range warnings {
		cs = append(cs, w.Code)
	}
	return cs
}

func TestARecordIsWrittenAsDNSWantsIt(t *testing.T) {
	r := mtasts.Record{ID: "20260101", Extensions: []mtasts.Field{{Name: "x", Value: strings.Repeat("y", 300)}}}
	want := "v=STSv1; id=20260101; x=" + strings.Repeat("y", 300) + ";"
	if got := r.Text(); got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	parts := r.Strings()
	if len(parts) != 2 || len(parts[0]) != 255 || strings.Join(parts, "") != want {
		t.Errorf("strings %q, want two, the first of 255 bytes, that join to the text", parts)
	}
}

func TestARecordThatWouldNotBeReadBackIsNotValid(t *testing.T) {
	for _, tt := range []struct {
		name  string
		r     mtasts.Record
		valid bool
	}{
		{"an id", mtasts.Record{ID: "a"}, true},
		{"an id and a field", mtasts.Record{ID: "a", Extensions: []mtasts.Field{{Name: "x", Value: "y"}}}, true},
		{"no id", mtasts.Record{}, false},
		{"an id that smuggles a field", mtasts.Record{ID: "a; x=y"}, false},
		{"a field that is called id", mtasts.Record{ID: "a", Extensions: []mtasts.Field{{Name: "id", Value: "b"}}}, false},
		{"a value with a semicolon", mtasts.Record{ID: "a", Extensions: []mtasts.Field{{Name: "x", Value: "y; z=1"}}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.r.Validate(); (err == nil) != tt.valid {
				t.Errorf("error %v, valid should be %v", err, tt.valid)
			}
		})
	}
}

func TestRecordsSurviveWritingAndReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := mtasts.Record{ID: rapid.StringMatching(`[A-Za-z0-9]{1,32}`).Draw(t, "id")}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`x[A-Za-z0-9._-]{0,31}`), 0, 5, rapid.ID).Draw(t, "names")
		for _, name := range names {
			want.Extensions = append(want.Extensions, mtasts.Field{Name: name, Value: rapid.StringMatching(`[!-:<>-~]{1,40}`).Draw(t, "value")})
		}
		got, err := mtasts.SelectRecord([]string{strings.Join(want.Strings(), "")})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		"v=STSv1; id=20160831085700Z;", "v=STSv1 ; id=a; x=y", "v=STSv1;;", "v=STSv1; id=a; id=b; v=x", "v=STSv1; ID=a", "v=spf1", "", "v=STSv1\x00;id=\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		r, err := mtasts.ParseRecord(txt)
		if err != nil {
			var refused *mtasts.RecordError
			if !errors.As(err, &refused) || refused.Code == "" || len(err.Error()) > 1000 {
				t.Fatalf("not a proper error: %#v", err)
			}
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("%q was read as %q, which is invalid: %v", txt, r.Text(), err)
		}
		if _, err := mtasts.SelectRecord([]string{txt}); err != nil {
			t.Fatalf("%q is valid and not selected: %v", txt, err)
		}
	})
}
