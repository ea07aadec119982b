package db

import "time"

// What bounds the writer. Tests set smaller ones.
const (
	// maxBatch is how many write functions share one COMMIT on SQLite.
	maxBatch = 512
	// maxPostgresBatch keeps a transaction's savepoints within the 64 that a
	// PostgreSQL backend keeps in shared memory; beyond them every snapshot of
	// every session gets slower.
	maxPostgresBatch = 60
	// maxBatchBytes ends a batch whose statements carried so many bytes: it
	// bounds the WAL that one COMMIT writes.
	maxBatchBytes = 16 << 20
	// maxBatchTime ends a batch, so that the first in it does not wait for ever
	// for those that keep arriving.
	maxBatchTime = 50 * time.Millisecond
	// maxSoon is how many WriteSoon wait before the next one has to.
	maxSoon = 4096
	// soonDelay is how late the commit of a WriteSoon begins.
	soonDelay = 20 * time.Millisecond
	// maxAttempts is how often a function is run when PostgreSQL asks for a
	// retry or its batch broke under it.
	maxAttempts = 10
	// maxStatements is how many prepared statements the writer keeps.
	maxStatements = 256

	// busyTimeout is how long SQLite waits for another process's lock.
	busyTimeout = 5 * time.Second
	// lockTimeout is how long a PostgreSQL statement waits for a row's lock
	// before its function makes way for the rest of the batch and is run again.
	// It also ends a deadlock between two nodes, long before the server would.
	lockTimeout = 250 * time.Millisecond
	// statementTimeout ends a PostgreSQL statement, batchTimeout whatever the
	// server says nothing about.
	statementTimeout = 25 * time.Second
	batchTimeout     = 30 * time.Second
	// patience is how long a write waits for a server that cannot be reached.
	patience = 10 * time.Second
	// connectTimeout bounds one attempt to connect; minBackoff and maxBackoff
	// the time between two.
	connectTimeout = 5 * time.Second
	minBackoff     = 50 * time.Millisecond
	maxBackoff     = time.Second
	// readers is how many connections read at the same time.
	readers = 8
)

type limits struct {
	batch, soon, attempts, statements      int
	bytes                                  int
	batchTime, soonDelay, busy, lock, wait time.Duration
}

func (l limits) withDefaults() limits {
	def(&l.batch, maxBatch)
	def(&l.soon, maxSoon)
	def(&l.attempts, maxAttempts)
	def(&l.statements, maxStatements)
	def(&l.bytes, maxBatchBytes)
	def(&l.batchTime, maxBatchTime)
	def(&l.soonDelay, soonDelay)
	def(&l.busy, busyTimeout)
	def(&l.lock, lockTimeout)
	def(&l.wait, patience)
	return l
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}
