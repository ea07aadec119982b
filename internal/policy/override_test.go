package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/verify"
)

// override puts an override for example.com in force.
func (w *world) override(kind OverrideKind, match ...string) {
	w.Helper()
	err := w.AddOverride(w.Context(), Override{
		Domain: "Example.com", Kind: kind, Match: match, Reason: "their certificate is broken", Author: "ada", Expires: time.Now().Add(24 * time.Hour),
	})
	if err != nil {
		w.Fatal(err)
	}
}

func TestAnOverrideDecidesForTheRelayAndForPostfix(t *testing.T) {
	for _, c := range []struct {
		kind      OverrideKind
		match     []string
		level     verify.Level
		plaintext bool
		answer    verify.AnswerKind
		cell      string
	}{
		{OverrideNone, nil, verify.Opportunistic, true, verify.AnswerMay, "override/none"},
		{OverrideEncrypt, nil, verify.Encrypted, false, verify.AnswerEncrypt, "override/encrypt"},
		{OverrideSecure, []string{"MX.example.com."}, verify.Authenticated, false, verify.AnswerSecure, "override/secure"},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			inWorld(t, Options{DANE: true}, func(w *world) {
				w.dns.trust()
				w.publish("example.com", "one", week("other.example.com"))
				w.mail("example.com", true, "mx.example.com")
				w.sts("example.com")
				w.events.take()
				w.override(c.kind, c.match...)
				d := w.destination("example.com")
				if d.Source != verify.FromOverride || !strings.Contains(d.Override, "their certificate is broken (ada)") || !strings.Contains(d.Override, "weakens") {
					w.Errorf("got %s %q", d.Source, d.Override)
				}
				h := w.Host(w.Context(), d, "mx.example.com")
				if h.Unreachable != "" || h.Demand.Level != c.level || h.Demand.PlaintextAllowed() != c.plaintext || h.Demand.Cell != c.cell {
					w.Errorf("got %+v", h)
				}
				a := w.Postfix(w.Context(), "example.com")
				if a.Kind != c.answer || a.Cell != c.cell || a.Override == "" || a.Policy != nil {
					w.Errorf("got %+v", a)
				}
				w.wantEvents(event.OverrideUsed) // once
			})
		})
	}
}

func TestASecureOverrideRefusesHostsThatItDoesNotName(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.mail("example.com", false, "evil.example.net")
		w.override(OverrideSecure, "*.example.com")
		h := w.Host(w.Context(), w.destination("example.com"), "evil.example.net")
		if h.Unreachable == "" || !h.ByPolicy || h.Demand.STS == nil || !h.Demand.STS.Local {
			w.Errorf("got %+v", h)
		}
		if a := w.Postfix(w.Context(), "example.com"); a.Kind != verify.AnswerSecure || a.Match[0] != "*.example.com" {
			w.Errorf("got %+v", a)
		}
	})
}

func TestAnOverrideEndsByItself(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.override(OverrideNone)
		w.wantAnswer("example.com", verify.AnswerMay, "override/none")
		w.pass(24 * time.Hour)
		w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "mx.example.com")
		if all, err := w.Overrides(w.Context()); err != nil || len(all) != 0 {
			w.Errorf("got %v, %v", all, err)
		}
	})
}

func TestAnOverrideTakesEffectAtOnceAndEndsAtOnce(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "mx.example.com")
		w.override(OverrideEncrypt)
		if w.Cached("example.com") != nil {
			w.Error("the old answer is still given")
		}
		w.wantAnswer("example.com", verify.AnswerEncrypt, "override/encrypt")
		if there, err := w.RemoveOverride(w.Context(), "example.com"); err != nil || !there {
			w.Errorf("remove: %v, %v", there, err)
		}
		w.wantAnswer("example.com", verify.AnswerSecure, "3/dane-off/enforce", "mx.example.com")
		if there, err := w.RemoveOverride(w.Context(), "example.com"); err != nil || there {
			w.Errorf("remove again: %v, %v", there, err)
		}
	})
}

func TestAnOverrideLiftsTheDiscoveryHold(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.mail("example.com", false, "mx.example.com")
		if d := w.destination("example.com"); d.Hold == nil {
			w.Fatal("not held")
		}
		w.override(OverrideEncrypt)
		d := w.destination("example.com")
		if d.Hold != nil {
			w.Errorf("still held: %+v", d.Hold)
		}
		if h := w.Host(w.Context(), d, "mx.example.com"); h.Unreachable != "" || h.Demand.PlaintextAllowed() {
			w.Errorf("got %+v", h)
		}
	})
}

func TestAnObserveOverrideKeepsThePolicyAndStopsNothing(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.mail("example.com", false, "other.example.com")
		w.override(OverrideObserve)
		d := w.destination("example.com")
		h := w.Host(w.Context(), d, "other.example.com")
		if !d.Observe || d.Source != verify.FromSTS || h.Unreachable != "" || h.Observed == "" || h.Demand.STS == nil {
			w.Errorf("got %+v\n%+v", d, h)
		}
		if a := w.Postfix(w.Context(), "example.com"); a.Kind != verify.AnswerNotFound || a.Would != verify.AnswerSecure || a.Override == "" {
			w.Errorf("got %+v", a)
		}
	})
}

func TestOverridesThatEndedAreNeitherCountedNorKept(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		add := func(domain string, d time.Duration) {
			t.Helper()
			if err := w.AddOverride(w.Context(), Override{Domain: domain, Kind: OverrideEncrypt, Reason: "r", Author: "a", Expires: w.now().Add(d)}); err != nil {
				t.Fatal(err)
			}
		}
		add("a.example", time.Hour)
		add("b.example", time.Hour)
		if n := w.Stats().Overrides; n != 2 {
			t.Errorf("%d are counted, want 2", n)
		}
		w.Postfix(w.Context(), "a.example")
		if n := w.Stats().Overridden; n != 1 {
			t.Errorf("%d answers are counted, want 1", n)
		}
		w.pass(2 * time.Hour)
		if n := w.Stats().Overrides; n != 0 {
			t.Errorf("after their end %d are counted, want none", n)
		}
		add("c.example", time.Hour)
		var rows int
		if err := w.db.Read().QueryRowContext(w.Context(), `SELECT count(*) FROM policy_override`).Scan(&rows); err != nil || rows != 1 {
			t.Errorf("%d are stored (%v), want the one that holds", rows, err)
		}
	})
}

func TestOverridesAreListedWithWhatTheyWeaken(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.override(OverrideSecure, "mx.example.com")
		all, err := w.Overrides(w.Context())
		if err != nil || len(all) != 1 || all[0].Weakens != "" || all[0].Domain != "example.com" {
			w.Errorf("got %+v, %v", all, err)
		}
		w.override(OverrideNone)
		if all, _ = w.Overrides(w.Context()); all[0].Weakens == "" {
			w.Errorf("got %+v", all)
		}
	})
}

func TestAnOverrideThatCannotBeTakenSaysWhy(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		good := Override{Domain: "example.com", Kind: OverrideNone, Reason: "r", Author: "a", Expires: time.Now().Add(time.Hour)}
		for name, spoil := range map[string]func(o *Override){
			"no domain":              func(o *Override) { o.Domain = "192.0.2.1" },
			"no kind":                func(o *Override) { o.Kind = "" },
			"no reason":              func(o *Override) { o.Reason = " " },
			"no author":              func(o *Override) { o.Author = "" },
			"a reason without end":   func(o *Override) { o.Reason = strings.Repeat("x", 1000) },
			"a reason with NUL":      func(o *Override) { o.Reason = "a\x00b" },
			"no expiry":              func(o *Override) { o.Expires = time.Time{} },
			"an expiry in the past":  func(o *Override) { o.Expires = time.Now().Add(-time.Second) },
			"names for none":         func(o *Override) { o.Match = []string{"mx.example.com"} },
			"secure without names":   func(o *Override) { o.Kind = OverrideSecure },
			"secure with a bad name": func(o *Override) { o.Kind, o.Match = OverrideSecure, []string{"mx.*.example.com"} },
		} {
			o := good
			spoil(&o)
			if err := w.AddOverride(w.Context(), o); !errors.Is(err, ErrOverride) {
				w.Errorf("%s: %v", name, err)
			}
		}
	})
}
