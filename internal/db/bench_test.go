package db_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

// BenchmarkWrite measures durable inserts of 10 KiB: one after another, and from
// many goroutines whose writes share commits.
func BenchmarkWrite(b *testing.B) {
	const goroutines = 64 // for each processor
	open := map[string]func(testing.TB) *db.DB{
		"sqlite": dbtest.SQLite,
		"postgres": func(tb testing.TB) *db.DB {
			return dbtest.Open(tb, db.Options{URL: dbtest.OwnPostgres(tb).URL(tb)})
		},
	}
	for _, dialect := range []string{"sqlite", "postgres"} {
		b.Run(dialect+"/one by one", func(b *testing.B) {
			write := writer(b, open[dialect](b))
			for b.Loop() {
				write()
			}
			perSecond(b)
		})
		b.Run(dialect+"/together", func(b *testing.B) {
			write := writer(b, open[dialect](b))
			b.SetParallelism(goroutines)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					write()
				}
			})
			perSecond(b)
		})
	}
}

func perSecond(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

func writer(b *testing.B, d *db.DB) func() {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 10<<10/16)
	create := "CREATE TABLE letter (org TEXT, id TEXT, body BLOB, PRIMARY KEY (org, id))"
	if d.Dialect() == db.Postgres {
		create = "CREATE TABLE letter (org TEXT, id TEXT, body BYTEA, PRIMARY KEY (org, id)); ALTER TABLE letter ALTER body SET STORAGE EXTERNAL"
	}
	err := d.Write(b.Context(), func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, create)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	return func() {
		err := d.Write(b.Context(), func(ctx context.Context, tx db.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO letter (org, id, body) VALUES ($1, $2, $3)", db.DefaultOrg, db.NewID(), body)
			return err
		})
		if err != nil {
			b.Error(err)
		}
	}
}
