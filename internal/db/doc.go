// Package db keeps pawl's data: in SQLite inside the data folder by default, in
// PostgreSQL where a URL is given. Both speak the same few words here, and the
// same tests run over both.
//
// # Reading and writing
//
// [DB.Read] gives a pool of connections that cannot write. Everything that
// changes the database is a function handed to [DB.Write] or [DB.WriteSoon].
// One goroutine, the writer, runs all functions that wait inside one
// transaction, each within a savepoint of its own, and commits once for all of
// them; so a hundred messages accepted at the same moment cost one fsync. Write
// returns after that COMMIT is durable: SQLite runs with synchronous=FULL, and a
// PostgreSQL session in which synchronous_commit is off turns it on.
//
// # What a write function must keep to
//
//   - It runs while everybody else's writes wait, so it does nothing but SQL: no
//     network, no locks that a caller of Write may hold, no call of Write.
//   - It may run more than once: when a connection is lost before the COMMIT was
//     sent, when PostgreSQL asks for a retry, or when another function's failure
//     took the transaction with it. Results it hands out through captured
//     variables are set anew in each run.
//   - After an error from a statement it returns: PostgreSQL refuses every further
//     statement of that savepoint, so [Tx] does the same on SQLite. What may
//     collide is written with ON CONFLICT.
//   - It must not panic. Nothing here recovers: a panic in a write function ends
//     the process, with nothing of the open transaction committed or acknowledged.
//
// # SQL for both dialects
//
// Placeholders are $1, $2, … in both. Times are unix microseconds ([Micros],
// [Time]), booleans 0 and 1 ([Flag]), ids TEXT made by [NewID], JSON TEXT. Bytes
// that came from outside go into BLOB or BYTEA columns, because PostgreSQL's TEXT
// takes neither NUL nor broken UTF-8. A package owns the SQL of its tables; its
// migrations lie in migrations/sqlite and migrations/postgres, under its name.
package db
