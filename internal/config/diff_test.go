package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDiffNamesTheKeysWhoseValuesDiffer(t *testing.T) {
	a, b := Default(), Default()
	if got := Diff(a, b); got != nil {
		t.Errorf("two times the defaults differ in %v", got)
	}
	b.Hostname = "other.test"
	b.Relay.Listen = []string{Off}
	b.Relay.Networks = b.Relay.Networks[:1]
	b.Relay.History = Duration(time.Hour)
	want := []string{"hostname", "relay.listen", "relay.networks", "relay.history"}
	if got := Diff(a, b); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWithTakesOverTheKeysThatAreNamedAndNoOther(t *testing.T) {
	a, b := Default(), Default()
	b.Hostname = "other.test"
	b.Log.Level = "debug"
	b.Relay.MaxSize = 1 << 20
	got := a.With(b, func(key string) bool { return key == "log.level" || key == "relay.max_size" })
	if want := []string{"log.level", "relay.max_size"}; !slices.Equal(Diff(a, got), want) {
		t.Errorf("took over %v, want %v", Diff(a, got), want)
	}
	if a.Log.Level != "info" {
		t.Error("the original was changed")
	}
}

func TestKeysAreThoseOfTheFile(t *testing.T) {
	text, err := Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range Keys() {
		parts := strings.Split(key, ".")
		if !strings.Contains(string(text), parts[len(parts)-1]+":") {
			t.Errorf("the file has no key %s", key)
		}
	}
	if len(Keys()) < 30 {
		t.Errorf("only the keys %v were found", Keys())
	}
}
