package policy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

func (w *world) explain(domain string) Explanation {
	w.Helper()
	x, err := w.Explain(w.Context(), domain)
	if err != nil {
		w.Fatal(err)
	}
	return x
}

func TestExplainShowsEverythingThatDecides(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("example.com", "one", week("a.example.com"))
		w.mail("example.com", true, "a.example.com", "b.example.com", "c.example.com")
		w.dns.tlsa("b.example.com", usableTLSA())
		w.dns.fail("TLSA _25._tcp.c.example.com")
		x := w.explain("Example.com")
		if x.Summary != "The MTA-STS policy one of example.com is in mode enforce and holds until 2000-01-08T00:00:00Z; of its 3 MX hosts DANE holds 1." {
			w.Errorf("summary: %s", x.Summary)
		}
		for i, want := range []struct {
			cell, level string
			state       dane.State
			usable      bool
		}{
			{"2/absent/enforce", "authenticated", dane.Absent, true},
			{"2/usable/enforce", "authenticated", dane.Usable, true},
			{"2/failed/enforce", "authenticated", dane.Failed, false},
		} {
			h := x.Hosts[i]
			if h.Cell != want.cell || h.Level != want.level || h.DANE != want.state || (h.Unreachable == "") != want.usable || len(h.Steps) == 0 {
				w.Errorf("host %d: got %+v", i, h)
			}
		}
		if x.Postfix.Kind != verify.AnswerDANEOnly || x.Postfix.Cell != "3/some-usable+failed/enforce" || x.Trust.Cell != "4/trusted" {
			w.Errorf("got %+v, %+v", x.Postfix, x.Trust)
		}
	})
}

func TestAnExplanationGoesThroughJSON(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("example.com", "one", week("mx.example.com"))
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", usableTLSA())
		w.override(OverrideEncrypt)
		data, err := json.Marshal(w.explain("example.com"))
		if err != nil {
			w.Fatal(err)
		}
		var x Explanation
		if err := json.Unmarshal(data, &x); err != nil {
			w.Fatal(err)
		}
		if x.Postfix.Kind != verify.AnswerEncrypt || x.Hosts[0].DANE != dane.Usable || x.Override == nil || x.Override.Weakens == "" ||
			x.Destination.STS.Policy.Mode != "enforce" || x.Summary != "An override decides, whatever example.com asks for." || !strings.HasPrefix(x.Destination.Override, "encrypt until ") {
			w.Errorf("got %s", data)
		}
	})
}

func TestExplainSaysInASentenceWhatHolds(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.fail("TXT _mta-sts.held.example")
		w.mail("held.example", false, "mx.held.example")
		w.dns.mx("null.example", false, "")
		w.dns.set("MX gone.example", &resolve.NotFound{Name: "gone.example", Type: "MX", NXDomain: true})
		for domain, want := range map[string]string{
			"held.example": "Mail waits: it could not be found out whether held.example has an MTA-STS policy: TXT _mta-sts.held.example could not be looked up: SERVFAIL.",
			"null.example": "null.example takes no mail (null MX).",
			"gone.example": "There is no domain gone.example: mail to it is returned.",
			"none.example": "none.example has no MTA-STS policy; nobody checked.",
		} {
			if x := w.explain(domain); x.Summary != want {
				w.Errorf("%s:\n got %s\nwant %s", domain, x.Summary, want)
			}
		}
		if _, err := w.Explain(w.Context(), "192.0.2.1"); !errors.Is(err, ErrNotDomain) {
			w.Errorf("got %v", err)
		}
	})
}

func TestARouteThatLeadsNowhereIsNotSaidToReturnMail(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.set("MX gone.example", &resolve.NotFound{Name: "gone.example", Type: "MX", NXDomain: true})
		x, err := w.ExplainVia(w.Context(), "gone.example", 0, true)
		if want := "There is no smart host gone.example: mail by this route waits."; err != nil || x.Summary != want {
			w.Errorf("got %q, %v, want %q", x.Summary, err, want)
		}
	})
}
