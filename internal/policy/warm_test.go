package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWarmingFindsPoliciesBeforeThereIsMail(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("a.example", "one", week("mx.a.example"))
		w.publish("b.example", "one", policyText("none", "86400"))
		w.dns.fail("TXT _mta-sts.d.example")
		names := []string{"a.example", "A.example.", "b.example", "c.example", "d.example", "192.0.2.1", "a.example"}
		calls := 0
		got, err := w.Warm(w.Context(), slices.Values(names), func(Warmed) { calls++ })
		if want := (Warmed{Asked: 4, Policies: 1, None: 2, Unknown: 1, Bad: 1}); err != nil || got != want || calls != 5 {
			w.Errorf("got %+v after %d calls, %v", got, calls, err)
		}
		w.wantEvents("discovery-held") // a new policy of many is no news
		w.start()
		w.web.block("a.example")
		w.dns.fail("TXT _mta-sts.a.example")
		w.want("a.example", "enforce", "1/not-asked/not-asked/live")
	})
}

func TestDomainsAreReadFromListsAddressesAndMailLogs(t *testing.T) {
	text := strings.Join([]string{
		"# recipients",
		"example.com",
		"",
		"  Alice@Example.ORG  ",
		"<bob@münchen.example>",
		"2026-06-01T12:00:00.000000+00:00 mail postfix/smtp[1]: 4F: to=<carol@log.example>, orig_to=<root>, relay=mx.log.example[192.0.2.1]:25, status=sent",
		"Jun  1 12:00:00 mail postfix/qmgr[1]: 4F: from=<dave@ours.example>, size=1, nrcpt=1 (queue active)",
		"eve@[192.0.2.1]",
		"localhost",
		"one.example 12 messages",
		strings.Repeat("x", 2*maxWarmLine) + ".example",
		"last.example",
	}, "\n")
	var got []string
	for domain, err := range Domains(strings.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, domain)
	}
	want := []string{"example.com", "example.org", "xn--mnchen-3ya.example", "log.example", "one.example", "last.example"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	broken := errors.New("the disk is gone")
	var last error
	for _, err := range Domains(iotest.ErrReader(broken)) {
		last = err
	}
	if !errors.Is(last, broken) {
		t.Errorf("got %v", last)
	}
}

func FuzzDomains(f *testing.F) {
	for _, seed := range []string{"example.com\n", "to=<a@b.example>, to=<c@d.example>", "a@b@c.example", "<>\x00,;", "\xff\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for domain, err := range Domains(strings.NewReader(text)) {
			if err != nil {
				t.Fatal(err)
			}
			if again, err := domainOf(domain); err != nil || again != domain {
				t.Fatalf("%q is no domain in its one form", domain)
			}
		}
	})
}
