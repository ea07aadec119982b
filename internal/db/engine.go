package db

import "context"

// engine is what differs between SQLite and PostgreSQL for the writer. Within a
// transaction there is one savepoint, named w: begin and next leave it fresh for
// a write function, undo goes back to it and leaves it fresh again.
type engine interface {
	dialect() Dialect
	// batch is how many write functions share a COMMIT at most.
	batch() int
	// prepares says that the writer has to keep prepared statements itself.
	prepares() bool
	// patient says that a database that cannot be reached is waited for.
	patient() bool
	// bound gives the context of one batch.
	bound() (context.Context, context.CancelFunc)

	begin(s *session) error
	next(s *session) error
	undo(s *session) error
	// commit returns nil only when the transaction is durable.
	commit(s *session) error
	// reset ends whatever transaction is open after cause, and says whether the
	// session can be used again.
	reset(s *session, cause error) bool

	// spoilt says that a statement has failed and the transaction takes no more.
	spoilt(s *session) bool
	// lost says that err came from the connection and not from a statement.
	lost(s *session, err error) bool
	// again says that the server wants the function to be run once more.
	again(err error) bool
	// unknown says that after err from commit the outcome is not known.
	unknown(s *session, err error) bool
	// separate says that err from commit is the fault of some of the functions
	// in the batch, so that each should be tried by itself.
	separate(err error) bool
	// kind is the package's error for a driver's, or nil.
	kind(err error) error
}
