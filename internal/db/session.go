package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// session is the writer's connection with its prepared statements.
type session struct {
	engine     engine
	conn       *sql.Conn
	ctx        context.Context // of the batch
	statements map[string]*statement
	tx         *tx  // of the function that runs, or ran last
	used       bool // the savepoint holds a function's work
	bytes      int  // carried by the statements of the batch
	free       func()
}

// statement is a prepared statement of the writer's connection. While a query of
// it may be open it cannot run a second time.
type statement struct {
	*sql.Stmt
	open bool
}

func newSession(e engine, conn *sql.Conn) *session {
	return &session{engine: e, conn: conn, statements: map[string]*statement{}, free: func() {}}
}

// begin starts a batch.
func (s *session) begin() error {
	s.ctx, s.free = s.engine.bound()
	s.used, s.bytes = false, 0
	return s.engine.begin(s)
}

// trim ends a batch and keeps the prepared statements to at most so many. Texts
// are few; more than that means that someone builds them, so all are dropped.
func (s *session) trim(keep int) {
	s.free()
	if len(s.statements) > keep {
		s.forget()
	}
}

func (s *session) forget() {
	for _, st := range s.statements {
		_ = st.Close()
	}
	clear(s.statements)
}

// exec runs one of the writer's own statements.
func (s *session) exec(query string) error {
	st, err := s.statement(query)
	if err != nil {
		return err
	}
	if st == nil {
		_, err = s.conn.ExecContext(s.ctx, query)
	} else {
		_, err = st.ExecContext(s.ctx)
	}
	return err
}

// statement gives the prepared statement for a text, nil where the driver sees
// to it or the one there is has a query open.
func (s *session) statement(query string) (*statement, error) {
	if !s.engine.prepares() {
		return nil, nil
	}
	if st, ok := s.statements[query]; ok {
		if st.open {
			return nil, nil
		}
		return st, nil
	}
	st, err := s.conn.PrepareContext(s.ctx, query)
	if err != nil {
		return nil, err
	}
	kept := &statement{Stmt: st}
	s.statements[query] = kept
	return kept, nil
}

// discard closes the connection itself, not only its place in the pool, so that
// an open transaction ends with it. SQLite keeps a connection open as long as one
// of its statements is.
func (s *session) discard() {
	s.free()
	if s.tx != nil {
		_ = s.tx.end() // rows left open would keep the connection
	}
	s.forget()
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
}

// close gives the connection back.
func (s *session) close() {
	s.trim(0)
	_ = s.conn.Close()
}

// run runs one write function within the savepoint. gone says that the whole
// transaction is lost, not only this function's part.
func (s *session) run(r *request) (err error, gone bool) {
	if s.used {
		if err := s.engine.next(s); err != nil {
			return err, true
		}
		s.used = false
	}
	t := &tx{session: s}
	s.tx = t
	// Once begun it is finished: a cancelled statement would take the whole
	// transaction with it, in both dialects.
	err = r.fn(context.WithoutCancel(r.ctx), t)
	if cause := t.end(); cause != nil && err == nil {
		err = cause
	}
	if err == nil && s.engine.spoilt(s) {
		err = errSwallowed
	}
	if err == nil {
		s.used = true
		return nil, false
	}
	if cause := t.err; cause != nil && s.engine.lost(s, cause) {
		return cause, true
	}
	return err, s.engine.undo(s) != nil
}
