package event

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// Store logs events and keeps them in the database.
type Store struct {
	db  *db.DB
	log *slog.Logger
	now func() time.Time
}

// NewStore returns a store on d.
func NewStore(d *db.DB, now func() time.Time, log *slog.Logger) *Store {
	return &Store{db: d, now: now, log: log}
}

// Record logs e at once and writes it with the next commit. An event that
// cannot be stored is in the log, with the reason.
func (s *Store) Record(ctx context.Context, e Event) {
	if e.ID == "" {
		e.ID = db.NewID()
	}
	if e.Org == "" {
		e.Org = db.DefaultOrg
	}
	if e.At.IsZero() {
		e.At = s.now()
	}
	s.log.LogAttrs(ctx, level(e.Severity), e.Text,
		slog.String("event", string(e.Kind)), slog.String("domain", e.Domain), slog.String("do", e.Do))
	evidence, err := json.Marshal(e.Evidence)
	if err != nil {
		evidence = []byte("{}")
	}
	// The event outlives the request that it happened in.
	s.db.WriteSoon(context.WithoutCancel(ctx), func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx,
			`INSERT INTO event (org, id, at, kind, severity, domain, text, advice, evidence)
			 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			e.Org, e.ID, e.At.UnixMicro(), e.Kind, e.Severity, e.Domain, e.Text, e.Do, string(evidence))
		return err
	}, func(err error) {
		if err != nil {
			s.log.Error("an event could not be stored; it is in this log only", "event", e.Kind, "domain", e.Domain, "err", err)
		}
	})
}

func level(s Severity) slog.Level {
	switch s {
	case Error:
		return slog.LevelError
	case Warning:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// Recent returns the latest n events of an organisation, newest first. An
// empty domain means all domains.
func (s *Store) Recent(ctx context.Context, org, domain string, n int) ([]Event, error) {
	rows, err := s.db.Read().QueryContext(ctx,
		`SELECT id, at, kind, severity, domain, text, advice, evidence FROM event
		 WHERE org = $1 AND ($2 = '' OR domain = $2) ORDER BY at DESC, id DESC LIMIT $3`, org, domain, n)
	if err != nil {
		return nil, fmt.Errorf("reading the latest events: %w", err)
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		e := Event{Org: org}
		var at int64
		var evidence string
		if err := rows.Scan(&e.ID, &at, &e.Kind, &e.Severity, &e.Domain, &e.Text, &e.Do, &evidence); err != nil {
			return nil, fmt.Errorf("reading the latest events: %w", err)
		}
		e.At = time.UnixMicro(at).UTC()
		if err := json.Unmarshal([]byte(evidence), &e.Evidence); err != nil {
			return nil, fmt.Errorf("reading the evidence of event %s: %w", e.ID, err)
		}
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the latest events: %w", err)
	}
	return events, nil
}
