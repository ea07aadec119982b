package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// tx is a write function's view of the session.
type tx struct {
	session *session
	err     error // of the first statement that failed
	ended   bool
	rows    []*sql.Rows
	single  []*sql.Row
	open    []*statement
}

//nolint:contextcheck // the batch's context holds, as Tx says
func (t *tx) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	st, err := t.prepare(query, args)
	if err != nil {
		return nil, err
	}
	var res sql.Result
	if st == nil {
		res, err = t.session.conn.ExecContext(t.session.ctx, query, args...)
	} else {
		res, err = st.ExecContext(t.session.ctx, args...)
	}
	return res, t.failed(err)
}

//nolint:contextcheck // the batch's context holds, as Tx says
func (t *tx) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := t.prepare(query, args)
	if err != nil {
		return nil, err
	}
	var rows *sql.Rows
	if st == nil {
		rows, err = t.session.conn.QueryContext(t.session.ctx, query, args...)
	} else {
		t.opened(st)
		rows, err = st.QueryContext(t.session.ctx, args...)
	}
	if err != nil {
		return nil, t.failed(err)
	}
	t.rows = append(t.rows, rows)
	return rows, nil
}

//nolint:contextcheck // the batch's context holds, as Tx says
func (t *tx) QueryRowContext(_ context.Context, query string, args ...any) *sql.Row {
	st, err := t.prepare(query, args)
	if err != nil {
		return refusedRow(query, err)
	}
	var row *sql.Row
	if st == nil {
		row = t.session.conn.QueryRowContext(t.session.ctx, query, args...)
	} else {
		t.opened(st)
		row = st.QueryRowContext(t.session.ctx, args...)
	}
	t.single = append(t.single, row)
	_ = t.failed(row.Err())
	return row
}

// prepare refuses what must not run, counts what the statement carries, and
// finds its prepared form.
func (t *tx) prepare(query string, args []any) (*statement, error) {
	if t.ended {
		return nil, errTxEnded
	}
	if t.err != nil {
		return nil, t.err
	}
	for _, a := range args {
		switch a := a.(type) {
		case []byte:
			t.session.bytes += len(a)
		case string:
			t.session.bytes += len(a)
		}
	}
	st, err := t.session.statement(query)
	return st, t.failed(err)
}

func (t *tx) opened(st *statement) {
	st.open = true
	t.open = append(t.open, st)
}

// failed remembers the first error: PostgreSQL takes no statement after it.
func (t *tx) failed(err error) error {
	if err == nil {
		return nil
	}
	err = named(t.session.engine, err)
	if t.err == nil {
		t.err = err
	}
	return err
}

// end closes what the function left open and returns its first statement's error.
func (t *tx) end() error {
	t.ended = true
	for _, rows := range t.rows {
		_ = t.failed(rows.Err())
		_ = rows.Close()
	}
	for _, row := range t.single {
		_ = row.Scan() // closes one that was not scanned
	}
	for _, st := range t.open {
		st.open = false
	}
	return t.err
}

// refusedRow is a row whose Scan gives err. Only database/sql can make a Row, so
// it is made by a pool that cannot connect.
func refusedRow(query string, err error) *sql.Row {
	pool := sql.OpenDB(refusal{err})
	row := pool.QueryRowContext(context.Background(), query)
	_ = pool.Close()
	return row
}

type refusal struct{ err error }

func (r refusal) Connect(context.Context) (driver.Conn, error) { return nil, r.err }
func (r refusal) Driver() driver.Driver                        { return r }
func (r refusal) Open(string) (driver.Conn, error)             { return nil, r.err }
