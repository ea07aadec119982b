//go:build !race

package postfix_test

const (
	raceDetector = false
	idleConns    = 10_000
)
