package account

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "correct horse battery"

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func noon() *clock { return &clock{time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)} }

func TestASubmitterIsKeptUntilItIsRemoved(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		s := NewStore(d, noon().now)
		_, err := s.Add(t.Context(), Submitter{Name: "App", Senders: []string{"Example.COM", "ann@münchen.example"}, TLSOptional: true}, secret)
		if err != nil {
			t.Fatal(err)
		}
		want := Submitter{
			Org: db.DefaultOrg, Name: "app", Senders: []string{"example.com", "ann@xn--mnchen-3ya.example"},
			TLSOptional: true, Created: noon().Time,
		}
		got, err := s.Submitter(t.Context(), "APP")
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Submitter{})); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
		if _, err := s.Add(t.Context(), Submitter{Name: "app", Senders: []string{"*"}}, secret); !errors.Is(err, ErrExists) {
			t.Errorf("the name is given twice: %v", err)
		}
		if err := s.Disable(t.Context(), "app", true); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Submitters(t.Context()); err != nil || len(all) != 1 || !all[0].Disabled {
			t.Errorf("the list: %v, %v", all, err)
		}
		if err := s.Remove(t.Context(), "App"); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"remove": s.Remove(t.Context(), "app"), "disable": s.Disable(t.Context(), "app", true), "password": s.SetPassword(t.Context(), "app", secret),
		} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s of a submitter that is gone: %v", what, err)
			}
		}
	})
}

func TestWhatCannotBeASubmitterIsRefused(t *testing.T) {
	s := NewStore(dbtest.SQLite(t), noon().now)
	everyone := []string{AnySender}
	for name, tc := range map[string]struct {
		sub      Submitter
		password string
		want     error
	}{
		"no name":                   {Submitter{Senders: everyone}, secret, ErrSubmitter},
		"a name with a blank":       {Submitter{Name: "a b", Senders: everyone}, secret, ErrSubmitter},
		"a name that is too long":   {Submitter{Name: strings.Repeat("a", 129), Senders: everyone}, secret, ErrSubmitter},
		"no senders":                {Submitter{Name: "app"}, secret, ErrSubmitter},
		"a sender of no form":       {Submitter{Name: "app", Senders: []string{"not a domain"}}, secret, ErrSubmitter},
		"an address of no form":     {Submitter{Name: "app", Senders: []string{"a b@example.com"}}, secret, ErrSubmitter},
		"an address literal":        {Submitter{Name: "app", Senders: []string{"ann@[192.0.2.1]"}}, secret, ErrSubmitter},
		"a short password":          {Submitter{Name: "app", Senders: everyone}, "elevenchars", ErrPassword},
		"a password too long":       {Submitter{Name: "app", Senders: everyone}, strings.Repeat("a", 256), ErrPassword},
		"a password with a control": {Submitter{Name: "app", Senders: everyone}, secret + "\x07", ErrPassword},
	} {
		if _, err := s.Add(t.Context(), tc.sub, tc.password); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestASubmitterSendsAsItsAddressesAndDomainsOnly(t *testing.T) {
	sub := Submitter{Senders: []string{"example.com", "ann@example.net"}}
	for addr, want := range map[string]bool{
		"any@example.com": true, "Ann@Example.NET": true,
		"bob@example.net": false, "any@sub.example.com": false, "any@notexample.com": false, "ann@example.org": false,
		"ann@example.net@example.org": false,
	} {
		at := strings.LastIndexByte(addr, '@')
		if got := sub.MaySend(addr[:at], addr[at+1:]); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if sub := (Submitter{Senders: []string{AnySender}}); !sub.MaySend("x", "example.org") {
		t.Error("any sender is not any")
	}
	if new(Submitter).MaySend("x", "example.org") {
		t.Error("without senders anything may be sent")
	}
}

func TestOrganisationsAreFoundByNameAndId(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		s := NewStore(d, noon().now)
		for _, name := range []string{"", "default", db.DefaultOrg} {
			if id, err := s.Organisation(t.Context(), name); err != nil || id != db.DefaultOrg {
				t.Errorf("%q: %q, %v", name, id, err)
			}
		}
		if _, err := s.Organisation(t.Context(), "other"); !errors.Is(err, ErrOrg) {
			t.Errorf("an unknown one: %v", err)
		}
	})
}
