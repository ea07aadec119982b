package db

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Each package puts the migrations of its tables into both folders.
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var migrations embed.FS

// How long a node waits while another one migrates the same PostgreSQL database.
const (
	migrateRetry    = time.Second
	migrateAttempts = 600
)

// provider gives goose the dialect's migrations. Out of order is allowed because
// the numbers belong to packages, and one may come to need a table after a later
// number has long been applied.
func (d *DB) provider(pool *sql.DB) (*goose.Provider, error) {
	folder, err := fs.Sub(migrations, "migrations/"+string(d.Dialect()))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	options := []goose.ProviderOption{
		goose.WithAllowOutofOrder(true),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(d.log),
	}
	dialect := goose.DialectSQLite3
	if d.Dialect() == Postgres {
		dialect = goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker(
			lock.WithLockTimeout(uint64(migrateRetry/time.Second), migrateAttempts),
		)
		if err != nil {
			return nil, fmt.Errorf("migrations: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, pool, folder, options...)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return p, nil
}

// migrate brings the tables up to date.
func (d *DB) migrate(ctx context.Context, pool *sql.DB) error {
	p, err := d.provider(pool)
	if err != nil {
		return err
	}
	missing, err := d.missing(ctx, pool, p)
	if err != nil || len(missing) == 0 {
		return err
	}
	done, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("the database's tables cannot be brought up to date: %w", d.name(err))
	}
	for _, m := range done {
		d.log.Info("database migrated", "version", m.Source.Version, "took", m.Duration)
	}
	return nil
}

// checkVersion says whether a database that must not be changed can be read.
func (d *DB) checkVersion(ctx context.Context, pool *sql.DB) error {
	p, err := d.provider(pool)
	if err != nil {
		return err
	}
	switch missing, err := d.missing(ctx, pool, p); {
	case err != nil:
		return err
	case len(missing) > 0:
		return fmt.Errorf("%w: it lacks migrations %v. Start pawl serve once to bring it up to date", ErrOlder, missing)
	}
	return nil
}

// missing gives the migrations that the database lacks. A database with one that
// this binary does not know is refused with [ErrNewer].
func (d *DB) missing(ctx context.Context, pool *sql.DB, p *goose.Provider) ([]int64, error) {
	applied, err := d.applied(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("read the database's version: %w", d.name(err))
	}
	var known, unknown, missing []int64
	for _, s := range p.ListSources() {
		known = append(known, s.Version)
		if !slices.Contains(applied, s.Version) {
			missing = append(missing, s.Version)
		}
	}
	for _, v := range applied {
		if !slices.Contains(known, v) {
			unknown = append(unknown, v)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%w: it has migrations %v, and this pawl knows those up to %d. Start the newer pawl again, or restore a backup from before the upgrade", ErrNewer, unknown, slices.Max(known))
	}
	return missing, nil
}

// applied gives the versions in goose's table, none if there is no such table.
func (d *DB) applied(ctx context.Context, pool *sql.DB) ([]int64, error) {
	exists := "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1"
	if d.Dialect() == Postgres {
		exists = "SELECT count(to_regclass($1))"
	}
	var n int64
	if err := pool.QueryRowContext(ctx, exists, goose.DefaultTablename).Scan(&n); err != nil || n == 0 {
		return nil, err
	}
	scan := func(rows *sql.Rows) (v int64, err error) { return v, rows.Scan(&v) }
	return All(ctx, newReader(pool, false, 0), scan, "SELECT DISTINCT version_id FROM "+goose.DefaultTablename+" WHERE version_id > 0 ORDER BY version_id")
}
