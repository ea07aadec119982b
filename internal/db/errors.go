package db

import (
	"errors"
	"fmt"
)

// The errors of opening a database. What Open returns says the rest in full sentences.
var (
	ErrLocked  = errors.New("the data folder is in use by another pawl")
	ErrNewer   = errors.New("the database was written by a newer pawl")
	ErrOlder   = errors.New("the database was written by an older pawl")
	ErrMissing = errors.New("there is no database")
)

// The errors of reading and writing. After each of them but ErrUnknownOutcome
// nothing of the failed write function is in the database.
var (
	// ErrClosed: the database is closed or closing.
	ErrClosed = errors.New("the database is closed")
	// ErrReadOnly: the database was opened for reading, or its disk or server takes no writes.
	ErrReadOnly = errors.New("the database is read-only")
	// ErrFull: the disk is full. Later writes succeed once there is room.
	ErrFull = errors.New("the disk of the database is full")
	// ErrBusy: another process or node held a lock for longer than one waits.
	ErrBusy = errors.New("the database is locked by another process")
	// ErrIO: the disk failed.
	ErrIO = errors.New("the disk of the database failed")
	// ErrCorrupt: the file is not a sound database.
	ErrCorrupt = errors.New("the database file is damaged")
	// ErrUnavailable: the PostgreSQL server could not be reached for a while.
	ErrUnavailable = errors.New("the database server cannot be reached")
	// ErrUnique: a row with this key exists.
	ErrUnique = errors.New("a row with this key exists")
	// ErrUnknownOutcome: the COMMIT was sent and no answer came, or the disk
	// failed under it. The write may or may not be in the database.
	ErrUnknownOutcome = errors.New("it is not known whether the write was committed")
)

var (
	errTxEnded   = errors.New("the transaction has ended with its write function")
	errGoexit    = errors.New("the write function ended its goroutine")
	errSwallowed = errors.New("a statement failed and the write function did not return its error")
	errNotSent   = errors.New("the connection was gone before the COMMIT")
	errRolled    = errors.New("the server rolled the transaction back")
)

// named puts the sentinel for a driver's error in front of it, once.
func named(e engine, err error) error {
	if err == nil {
		return nil
	}
	kind := e.kind(err)
	if kind == nil || errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}
