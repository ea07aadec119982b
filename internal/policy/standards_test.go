package policy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestRFC8461_3_1_WithoutExactlyOneValidRecordThereIsNoPolicyAndTheCacheIsUntouched(t *testing.T) {
	for name, records := range map[string][]string{
		"two valid ones":               {"v=STSv1; id=a;", "v=STSv1; id=b;"},
		"one without an id":            {"v=STSv1;"},
		"one that begins otherwise":    {"id=a; v=STSv1;"},
		"one in other letters":         {"v=stsv1; id=a;"},
		"none but those of others":     {"v=spf1 -all", "something"},
		"one whose id is of 33 digits": {"v=STSv1; id=" + strings.Repeat("1", 33) + ";"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.web.serve("new.example", week("mx.new.example"))
				w.dns.txt("new.example", time.Hour, records...)
				w.want("new.example", "", "1/none/not-asked/no-cache")
				if n := w.web.count("new.example"); n != 0 {
					w.Errorf("HTTPS was asked %d times", n)
				}
				w.publish("old.example", "one", week("mx.old.example"))
				w.sts("old.example")
				w.dns.txt("old.example", time.Hour, records...)
				w.pass(2 * time.Hour)
				w.sts("old.example")
				w.pass(time.Second) // looked at behind
				w.want("old.example", "enforce", "1/none/not-asked/live")
			})
		})
	}
}

func TestRFC8461_3_1_RecordsOfOthersBesideTheValidOneAreDiscarded(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.web.serve("example.com", week("mx.example.com"))
		w.dns.txt("example.com", time.Hour, "v=spf1 -all", "v=STSv1; id=a;")
		w.want("example.com", "enforce", "1/new-id/policy/no-cache")
	})
}

func TestRFC8461_3_1_CNAMEsOfTheRecordAndOfThePolicyHostAreFollowed(t *testing.T) {
	n, e, _ := onNet(t)
	n.Domain("provider.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	n.Domain("customer.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	n.DNS.SetCNAME("_mta-sts.customer.test", "_mta-sts.provider.test")
	if got := sightOf(t, e, "customer.test"); got != enforced {
		t.Errorf("got %+v, want %+v", got, enforced)
	}
}

func TestRFC8461_6_FailuresToFetchAreReportedButUnderModeNone(t *testing.T) {
	for cached, want := range map[string]int{"": 1, "enforce": 1, "testing": 1, "none": 0} {
		t.Run("cached: "+cached, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				if cached != "" {
					w.publish("example.com", "one", policyText(cached, "604800", "mx.example.com"))
					w.sts("example.com")
				}
				w.told.take()
				w.web.block("example.com")
				w.dns.txt("example.com", time.Hour, "v=STSv1; id=two;")
				w.pass(2 * time.Hour)
				w.sts("example.com")
				w.pass(time.Second)
				attempts := w.told.take()
				if len(attempts) != want {
					w.Fatalf("%d are reported, want %d: %+v", len(attempts), want, attempts)
				}
				for _, a := range attempts {
					if p := a.Policies[0]; p.Type != outcome.STS || p.Failure.Result != outcome.STSPolicyFetchError || cached != "" && len(p.MXHosts) != 1 {
						w.Errorf("reported as %+v", p)
					}
				}
			})
		})
	}
}

func TestRFC8461_10_2_ARefreshThatFailsIsAnEventButUnderModeNone(t *testing.T) {
	for cached, want := range map[string][]event.Kind{"enforce": {event.PolicyRefreshFailing}, "testing": {event.PolicyRefreshFailing}, "none": nil} {
		t.Run(cached, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.publish("example.com", "one", policyText(cached, "604800", "mx.example.com"))
				w.sts("example.com")
				w.events.take()
				w.web.block("example.com")
				if _, err := w.fly(w.Context(), "example.com", errand{refresh: true}); err != nil {
					w.Fatal(err)
				}
				w.wantEvents(want...)
			})
		})
	}
}

// The page names a test for each demand of the standards, and the test is there.
func TestTheTestsThatTheStandardsPageNamesExist(t *testing.T) {
	const root = "../.."
	page, err := os.ReadFile(filepath.Join(root, "docs", "standards.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 50 {
		t.Fatalf("the page names only %d tests", len(named))
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
}
