package event_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/event"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// settle returns once everything that was to ride on a commit has been written.
func settle(t *testing.T, d *db.DB) {
	t.Helper()
	if err := d.Write(t.Context(), func(context.Context, db.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestEventsAreReadBackNewestFirst(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var log bytes.Buffer
		s := event.NewStore(d, func() time.Time { return noon }, slog.New(slog.NewTextHandler(&log, nil)))
		older := event.Event{
			ID: "1", At: noon.Add(-time.Hour), Kind: event.PolicyWeakened, Severity: event.Warning, Domain: "a.test",
			Text: "the policy of a.test went from enforce to testing", Do: "Ask its owner.", Evidence: map[string]string{"from": "enforce"},
		}
		s.Record(t.Context(), older)
		s.Record(t.Context(), event.Event{ID: "2", Kind: event.DiscoveryHeld, Severity: event.Error, Domain: "b.test", Text: "held"})
		settle(t, d)

		older.Org = db.DefaultOrg
		newer := event.Event{ID: "2", Org: db.DefaultOrg, At: noon, Kind: event.DiscoveryHeld, Severity: event.Error, Domain: "b.test", Text: "held"}
		for domain, want := range map[string][]event.Event{"": {newer, older}, "a.test": {older}, "c.test": nil} {
			got, err := s.Recent(t.Context(), db.DefaultOrg, domain, 10)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("domain %q: %s", domain, diff)
			}
		}
		if got, err := s.Recent(t.Context(), db.NewID(), "", 10); err != nil || len(got) != 0 {
			t.Errorf("another organisation sees %v, %v", got, err)
		}
		if !strings.Contains(log.String(), "the policy of a.test went from enforce to testing") {
			t.Errorf("the event is not in the log:\n%s", log.String())
		}
	})
}
