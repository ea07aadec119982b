package db

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

func (d *DB) openPostgres(ctx context.Context, o Options, readOnly bool) error {
	d.engine = postgresEngine{}
	config, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return fmt.Errorf("the database URL is wrong: %w. It looks like postgres://user:password@host:5432/name", err)
	}
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, connectTimeout)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "pawl"
	}
	d.reads = postgresPool(config, "SET default_transaction_read_only = on")
	d.reads.SetMaxOpenConns(readers)
	d.reads.SetMaxIdleConns(readers)
	if err := d.checkServer(ctx, config); err != nil {
		return err
	}
	if readOnly {
		return d.checkVersion(ctx, d.reads)
	}
	if err := d.migratePostgres(ctx, config); err != nil {
		return err
	}
	d.writes = postgresPool(config, fmt.Sprintf(
		"SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"+
			"SET default_transaction_isolation = 'read committed';"+
			"SET statement_timeout = %d; SET lock_timeout = %d; SET idle_in_transaction_session_timeout = %d",
		statementTimeout.Milliseconds(), d.limits.lock.Milliseconds(), 2*batchTimeout.Milliseconds()))
	d.writes.SetMaxOpenConns(1)
	d.writes.SetMaxIdleConns(1)
	return nil
}

// postgresPool opens a pool whose connections each begin with a statement.
func postgresPool(config *pgx.ConnConfig, first string) *sql.DB {
	return stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, first)
		return err
	}))
}

// checkServer refuses a server that cannot hold pawl's data and warns of one
// that may lose them.
func (d *DB) checkServer(ctx context.Context, config *pgx.ConnConfig) error {
	where := fmt.Sprintf("%s:%d, database %q", config.Host, config.Port, config.Database)
	var encoding, fsync string
	err := d.reads.QueryRowContext(ctx, "SELECT current_setting('server_encoding'), current_setting('fsync')").Scan(&encoding, &fsync)
	if err != nil {
		return fmt.Errorf("PostgreSQL does not answer at %s: %w. Check that it runs and that the URL is right", where, err)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the PostgreSQL database at %s is in %s, and pawl needs UTF8. Create one with ENCODING 'UTF8'", where, encoding)
	}
	if fsync != "on" {
		d.log.Warn("PostgreSQL runs with fsync off: accepted mail can be lost with the power; turn fsync on", "database", where)
	}
	return nil
}

// migratePostgres migrates over connections of its own, on which no time limit
// holds: changing a large table takes what it takes.
func (d *DB) migratePostgres(ctx context.Context, config *pgx.ConnConfig) (err error) {
	pool := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, pool.Close()) }()
	return d.migrate(ctx, pool)
}

// postgresEngine is the writer's view of PostgreSQL.
type postgresEngine struct{}

func (postgresEngine) dialect() Dialect { return Postgres }
func (postgresEngine) batch() int       { return maxPostgresBatch }
func (postgresEngine) prepares() bool   { return false } // pgx does
func (postgresEngine) patient() bool    { return true }

func (postgresEngine) bound() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), batchTimeout)
}

// Several statements without arguments travel in one round trip.
func (postgresEngine) begin(s *session) error { return s.exec("BEGIN; SAVEPOINT w") }
func (postgresEngine) next(s *session) error  { return s.exec("RELEASE w; SAVEPOINT w") }
func (postgresEngine) undo(s *session) error  { return s.exec("ROLLBACK TO w") }

func (postgresEngine) commit(s *session) error {
	return raw(s, func(conn *pgx.Conn) error {
		if conn.IsClosed() || s.ctx.Err() != nil {
			return errNotSent
		}
		tag, err := conn.Exec(s.ctx, "COMMIT")
		if err == nil && tag.String() != "COMMIT" {
			// A COMMIT of a failed transaction succeeds, and rolls back.
			return errRolled
		}
		return err
	})
}

func (e postgresEngine) reset(s *session, cause error) bool {
	return !e.lost(s, cause) && s.exec("ROLLBACK") == nil
}

func (postgresEngine) spoilt(s *session) bool {
	const failed = 'E' // ReadyForQuery's transaction status
	status := byte(failed)
	err := raw(s, func(conn *pgx.Conn) error {
		status = conn.PgConn().TxStatus()
		return nil
	})
	return err != nil || status == failed
}

func (postgresEngine) lost(s *session, err error) bool {
	if err == nil {
		return false
	}
	closed := true
	if raw(s, func(conn *pgx.Conn) error {
		closed = conn.IsClosed()
		return nil
	}) != nil {
		return true
	}
	return closed
}

// raw gives pgx's own connection.
func raw(s *session, do func(*pgx.Conn) error) error {
	return s.conn.Raw(func(c any) error {
		conn, ok := c.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("connection of type %T", c)
		}
		return do(conn.Conn())
	})
}

// The SQLSTATEs that matter (PostgreSQL's documentation, appendix A).
const (
	pgUnique            = "23505"
	pgReadOnly          = "25006"
	pgSerialization     = "40001"
	pgCompletionUnknown = "40003"
	pgDeadlock          = "40P01"
	pgDiskFull          = "53100"
	pgLockNotAvailable  = "55P03"
	pgCanceled          = "57014"
	pgIO                = "58030"
	pgDataCorrupted     = "XX001"
	pgIndexCorrupted    = "XX002"

	pgClassConnection   = "08"
	pgClassIntegrity    = "23"
	pgClassResources    = "53"
	pgClassIntervention = "57"

	pgSeverityFatal = "FATAL"
	pgSeverityPanic = "PANIC"
)

func pgError(err error) *pgconn.PgError {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e
	}
	return &pgconn.PgError{}
}

func (postgresEngine) again(err error) bool {
	if errors.Is(err, errNotSent) {
		return true
	}
	switch pgError(err).Code {
	case pgSerialization, pgDeadlock, pgLockNotAvailable:
		return true
	}
	return false
}

// unknown: the COMMIT left, and neither its success nor a plain error came back.
// A FATAL may be the server's shutdown after the commit. pgconn.SafeToRetry says
// yes to a connection that closed after the COMMIT left, so it is not asked.
func (e postgresEngine) unknown(s *session, err error) bool {
	if errors.Is(err, errNotSent) || errors.Is(err, errRolled) {
		return false
	}
	pg := pgError(err)
	return pg.Code == "" || pg.Code == pgCompletionUnknown ||
		pg.Severity == pgSeverityFatal || pg.Severity == pgSeverityPanic || e.lost(s, err)
}

func (postgresEngine) separate(err error) bool {
	code := pgError(err).Code
	return errors.Is(err, errRolled) || len(code) == 5 && code[:2] == pgClassIntegrity
}

func (postgresEngine) kind(err error) error {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return ErrUnavailable
	}
	code := pgError(err).Code
	switch code {
	case pgUnique:
		return ErrUnique
	case pgReadOnly:
		return ErrReadOnly
	case pgDiskFull:
		return ErrFull
	case pgLockNotAvailable, pgSerialization, pgDeadlock, pgCanceled:
		return ErrBusy
	case pgIO:
		return ErrIO
	case pgDataCorrupted, pgIndexCorrupted:
		return ErrCorrupt
	}
	if len(code) == 5 {
		switch code[:2] {
		case pgClassConnection, pgClassResources, pgClassIntervention:
			return ErrUnavailable
		}
	}
	return nil
}
