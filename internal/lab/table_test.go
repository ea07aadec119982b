package lab

import (
	"slices"
	"testing"

	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestTheTableCanBeRead(t *testing.T) {
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := table.Named("11A"); !ok || a.Attack != "11a" {
		t.Errorf("row 11a: %+v", a)
	}
	if w := table.Attacks[0].Variants[0].Want(Testing); w.Expect != Leaked || len(w.Results) != 1 {
		t.Errorf("1, testing: %+v", w)
	}
	if w := table.WantOf(table.Attacks[0].Variants[0], "postfix", Testing); w.Expect != Leaked || len(w.Results) != 0 {
		t.Errorf("1, testing, Postfix: %+v", w)
	}
	for _, a := range table.Attacks {
		if a.Name == "" || a.Says == "" || a.Section == "" || len(a.Variants) == 0 {
			t.Errorf("row %s lacks something: %+v", a.Attack, a)
		}
	}
}

// The rows of the table are those of the design, none missing.
func TestEveryRowIsThere(t *testing.T) {
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range table.Attacks {
		got = append(got, a.Attack)
	}
	want := []string{
		"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11a", "11b", "12", "13", "14", "15", "16", "17", "18", "19", "20",
		"21", "22", "23", "24", "25", "27", "28", "30", "31", "32", "34", "36", "37", "38", "41", "42",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Each way in which the small Internet can stage a row is a variant here.
func TestEveryStagingIsAVariant(t *testing.T) {
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range table.Attacks {
		for _, staging := range testnet.Row(a.Attack) {
			has := slices.ContainsFunc(a.Variants, func(v Variant) bool {
				return !slices.ContainsFunc(staging.Attacks, func(s testnet.Attack) bool { return !slices.Contains(v.Stage, s) })
			})
			if !has {
				t.Errorf("row %s: no variant for %q: %v", a.Attack, staging.Name, staging.Attacks)
			}
		}
	}
}

func TestAMistakeInTheTableIsFound(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown key":       "attacks: [{attack: '1', magic: true}]",
		"an unknown attack":    "attacks: [{attack: '1', variants: [{stage: [magic]}]}]",
		"an unknown column":    "attacks: [{attack: '1', variants: [{stage: [spoof-mx], cells: {sometimes: held}}]}]",
		"an unknown outcome":   "attacks: [{attack: '1', variants: [{stage: [spoof-mx], cells: {none: eaten}}]}]",
		"a key in a cell":      "attacks: [{attack: '1', variants: [{stage: [spoof-mx], cells: {none: {expect: held, magic: 1}}}]}]",
		"an unknown base":      "attacks: [{attack: '1', variants: [{stage: [spoof-mx], cells: {none: {expect: held, base: magic}}}]}]",
		"an unknown sender":    "attacks: [{attack: '1', variants: [{stage: [spoof-mx], senders: {sendmail: {none: held}}}]}]",
		"a fall from a leak":   "attacks: [{attack: '1', variants: [{stage: [spoof-mx], cells: {none: {expect: leaked, then: held}}}]}]",
		"an attack of nothing": "attacks: [{attack: '1', variants: [{cells: {none: held}}]}]",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseTable([]byte(text)); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}
