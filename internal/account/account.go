// Package account knows who may do what: for now the submitters, who hand mail
// to the relay by AUTH. A submitter belongs to an organisation, has a password
// that is kept as an argon2id hash, and a list of what may stand in MAIL FROM.
//
// A login goes through limits on failures (per client, per submitter), then to
// the database, then to the hash, of which only a few are computed at once. A
// password that was right a moment ago is recognised without the hash, so that a
// flood of wrong ones does not keep right ones waiting.
package account

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// The errors of submitters.
var (
	ErrSubmitter = errors.New("not a usable submitter")
	ErrExists    = errors.New("there is a submitter of this name already")
	ErrNotFound  = errors.New("there is no such submitter")
	ErrOrg       = errors.New("there is no such organisation")
)

// maxSubmitters is how many submitters are listed at most.
const maxSubmitters = 100_000

// Submitter is one who may hand mail in.
type Submitter struct {
	Org         string    `json:"org"`  // id of the organisation
	Name        string    `json:"name"` // as in AUTH, in lower case
	Senders     []string  `json:"senders"`
	TLSOptional bool      `json:"tls_optional,omitempty"` // may send TLS-Required: No (RFC 8689 §3)
	Disabled    bool      `json:"disabled,omitempty"`
	Created     time.Time `json:"created"`

	hash string
}

// Store keeps accounts in the database. It is safe for concurrent use.
type Store struct {
	db  *db.DB
	now func() time.Time
}

// NewStore returns a store on d.
func NewStore(d *db.DB, now func() time.Time) *Store { return &Store{db: d, now: now} }

// Organisation returns the id of the organisation of that name or id; the empty
// name is that of the default one. An unknown one is [ErrOrg].
func (s *Store) Organisation(ctx context.Context, name string) (id string, err error) {
	if name == "" {
		return db.DefaultOrg, nil
	}
	err = s.db.Read().QueryRowContext(ctx, `SELECT id FROM organisation WHERE id = $1 OR name = $1 ORDER BY id LIMIT 1`, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("%w: %q", ErrOrg, name)
	}
	if err != nil {
		return "", fmt.Errorf("looking the organisation %q up: %w", name, err)
	}
	return id, nil
}

// Add takes a submitter in and returns it as it was stored. What cannot be used
// is [ErrSubmitter] or [ErrPassword], a name that is taken [ErrExists].
func (s *Store) Add(ctx context.Context, sub Submitter, password string) (Submitter, error) {
	var err error
	if sub.Name, err = submitterName(sub.Name); err != nil {
		return sub, err
	}
	if sub.Senders, err = senders(sub.Senders); err != nil {
		return sub, err
	}
	if sub.Org == "" {
		sub.Org = db.DefaultOrg
	}
	sub.Created = s.now().UTC().Truncate(time.Microsecond)
	if sub.hash, err = hashPassword(password); err != nil {
		return sub, err
	}
	list, err := json.Marshal(sub.Senders)
	if err != nil {
		return sub, fmt.Errorf("writing the senders of %s: %w", sub.Name, err)
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO submitter (org, name, password, senders, tls_optional, disabled, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			sub.Org, sub.Name, sub.hash, string(list), db.Flag(sub.TLSOptional), db.Flag(sub.Disabled), db.Micros(sub.Created))
		return err
	})
	if errors.Is(err, db.ErrUnique) {
		return sub, fmt.Errorf("%w: %s", ErrExists, sub.Name)
	}
	if err != nil {
		return sub, fmt.Errorf("adding the submitter %s: %w", sub.Name, err)
	}
	return sub, nil
}

// Remove takes a submitter out. An unknown one is [ErrNotFound].
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.change(ctx, name, `DELETE FROM submitter WHERE name = $1`)
}

// Disable makes a submitter's logins fail, or work again.
func (s *Store) Disable(ctx context.Context, name string, disabled bool) error {
	return s.change(ctx, name, `UPDATE submitter SET disabled = $2 WHERE name = $1`, db.Flag(disabled))
}

// SetPassword gives a submitter another password.
func (s *Store) SetPassword(ctx context.Context, name, password string) error {
	hash, err := hashPassword(password)
	if err != nil {
		return err
	}
	return s.change(ctx, name, `UPDATE submitter SET password = $2 WHERE name = $1`, hash)
}

// change runs a statement on the row of a submitter, by its name.
func (s *Store) change(ctx context.Context, name, statement string, more ...any) error {
	name = strings.ToLower(name)
	var found int64
	err := s.db.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		done, err := tx.ExecContext(ctx, statement, append([]any{name}, more...)...)
		if err != nil {
			return err
		}
		found, err = done.RowsAffected()
		return err
	})
	if err != nil {
		return fmt.Errorf("changing the submitter %s: %w", name, err)
	}
	if found == 0 {
		return fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return nil
}

const selectSubmitter = `SELECT org, name, password, senders, tls_optional, disabled, created_at FROM submitter `

// Submitters lists the submitters of all organisations, by name.
func (s *Store) Submitters(ctx context.Context) ([]Submitter, error) {
	all, err := db.All(ctx, s.db.Read(), scanSubmitter, selectSubmitter+`ORDER BY name LIMIT $1`, maxSubmitters)
	if err != nil {
		return nil, fmt.Errorf("reading the submitters: %w", err)
	}
	return all, nil
}

// Submitter returns the submitter of a name. An unknown one is [ErrNotFound].
func (s *Store) Submitter(ctx context.Context, name string) (Submitter, error) {
	name = strings.ToLower(name)
	found, err := db.All(ctx, s.db.Read(), scanSubmitter, selectSubmitter+`WHERE name = $1`, name)
	if err != nil {
		return Submitter{}, fmt.Errorf("reading the submitter %q: %w", name, err)
	}
	if len(found) == 0 {
		return Submitter{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return found[0], nil
}

func scanSubmitter(rows *sql.Rows) (s Submitter, err error) {
	var list string
	var optional, disabled, created int64
	if err := rows.Scan(&s.Org, &s.Name, &s.hash, &list, &optional, &disabled, &created); err != nil {
		return s, err
	}
	s.TLSOptional, s.Disabled, s.Created = optional == 1, disabled == 1, db.Time(created)
	if err := json.Unmarshal([]byte(list), &s.Senders); err != nil {
		return s, fmt.Errorf("the senders of %s: %w", s.Name, err)
	}
	return s, nil
}

// MaySend reports whether the submitter may put an address into MAIL FROM; local
// and domain are its parts, the domain in A-labels. The null sender is not asked
// about here: notifications of any submitter have it.
func (s *Submitter) MaySend(local, domain string) bool {
	return slices.ContainsFunc(s.Senders, func(allowed string) bool {
		at := strings.LastIndexByte(allowed, '@')
		switch {
		case allowed == AnySender:
			return true
		case at < 0:
			return strings.EqualFold(allowed, domain)
		default:
			// Case is not told apart: RFC 5321 §2.4 lets hosts do that, and none does.
			return strings.EqualFold(allowed[:at], local) && strings.EqualFold(allowed[at+1:], domain)
		}
	})
}
