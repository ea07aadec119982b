package db

import (
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// Tuning sets the limits that tests make smaller.
type Tuning struct {
	Batch, Soon, Attempts, Statements, Bytes int
	Busy, Lock, Wait                         time.Duration
}

// Tune gives o with the limits of t; those that are zero stay as they are.
func Tune(o Options, t Tuning) Options {
	o.limits = limits{
		batch: t.Batch, soon: t.Soon, attempts: t.Attempts, statements: t.Statements, bytes: t.Bytes,
		busy: t.Busy, lock: t.Lock, wait: t.Wait,
	}
	return o
}

// MigrationFiles are the embedded migrations of a dialect.
func MigrationFiles(d Dialect) ([]string, error) {
	entries, err := migrations.ReadDir("migrations/" + string(d))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// RollBack undoes the migrations after a version, as an operator would who goes
// back to the pawl of that time. Nothing may have the database open.
func RollBack(ctx context.Context, o Options, version int64) error {
	d := &DB{log: slog.New(slog.DiscardHandler)}
	var pool *sql.DB
	if o.URL == "" {
		d.engine = &sqliteEngine{}
		var err error
		if pool, err = sqlitePool(filepath.Join(o.DataDir, File), "rw"); err != nil {
			return err
		}
	} else {
		d.engine = postgresEngine{}
		config, err := pgx.ParseConfig(o.URL)
		if err != nil {
			return err
		}
		pool = postgresPool(config, "SELECT 1")
	}
	defer pool.Close()
	p, err := d.provider(pool)
	if err != nil {
		return err
	}
	_, err = p.DownTo(ctx, version)
	return err
}
