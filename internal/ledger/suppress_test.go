package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/tlsrpt"
)

func TestADeadDestinationIsLeftAloneForAWhile(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{wantsPost}
		k.answers["https://in.test/a"] = []tlsrpt.Answer{{Status: 410, Text: "gone"}}
		for day := range 5 {
			k.saw(noon.Add(time.Duration(day)*24*time.Hour), "a.test", nil, 1)
			k.pass(24 * time.Hour)
		}
		k.want("2026-03-08 a.test failed [https://in.test/a suppressed 1]", "2026-03-07 a.test failed [https://in.test/a suppressed 1]",
			"2026-03-06 a.test failed [https://in.test/a failed 1]", "2026-03-05 a.test failed [https://in.test/a failed 1]", "2026-03-04 a.test failed [https://in.test/a failed 1]")
		list, err := k.Suppressions(k.Context(), db.DefaultOrg)
		if err != nil || len(list) != 1 || list[0].Subject != "https://in.test/a" || !strings.Contains(list[0].Why, "410 gone") || list[0].Until.Sub(list[0].Since) != 30*24*time.Hour {
			k.Fatalf("%+v, %v", list, err)
		}
		// After a month it is tried again, and a success forgets what was.
		k.answers["https://in.test/a"] = nil
		k.set(noon.Add(40 * 24 * time.Hour))
		k.saw(k.clock(), "a.test", nil, 1)
		k.pass(24 * time.Hour)
		if len(k.reports["https://in.test/a"]) != 1 {
			k.Errorf("%v", k.status())
		}
	})
}

func TestSuppressingByHand(t *testing.T) {
	each(t, func(k *desk) {
		if err := k.Suppress(k.Context(), db.DefaultOrg, ledger.Suppression{Subject: "not a domain"}); !errors.Is(err, ledger.ErrSubject) {
			k.Errorf("%v", err)
		}
		if err := k.Suppress(k.Context(), db.DefaultOrg, ledger.Suppression{Subject: "https://in.test/a", Why: "ticket 1", Who: "ann"}); err != nil {
			k.Fatal(err)
		}
		k.records["a.test"] = []string{wantsPost}
		k.saw(noon, "a.test", nil, 1)
		k.pass(20 * time.Hour)
		k.want("2026-03-04 a.test failed [https://in.test/a suppressed 1]")
		if had, err := k.Resume(k.Context(), db.DefaultOrg, "https://in.test/a"); err != nil || !had {
			k.Errorf("%v, %v", had, err)
		}
		if had, err := k.Resume(k.Context(), db.DefaultOrg, "https://in.test/a"); err != nil || had {
			k.Errorf("%v, %v", had, err)
		}
	})
}
