package db

import "time"

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
