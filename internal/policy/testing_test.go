package policy

import (
	"strings"
	"testing"
)

func TestWhetherADomainIsInTestingIsKnownFromMemory(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("t.test", "one", strings.Replace(week("mx.t.test"), "enforce", "testing", 1))
		w.publish("e.test", "one", week("mx.e.test"))
		if w.Testing("t.test") {
			w.Error("known before anybody asked")
		}
		for _, domain := range []string{"t.test", "e.test"} {
			w.Postfix(w.Context(), domain)
		}
		if !w.Testing("T.test.") || w.Testing("e.test") || w.Testing("unknown.test") || w.Testing("not a domain") {
			w.Errorf("t.test %v, e.test %v", w.Testing("t.test"), w.Testing("e.test"))
		}
	})
}
