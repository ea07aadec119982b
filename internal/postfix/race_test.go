//go:build race

package postfix_test

// The race detector follows 8128 goroutines at most, and makes each larger.
const (
	raceDetector = true
	idleConns    = 6_000
)
