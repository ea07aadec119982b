//go:build race

package lab

// The race detector makes a random network five times as long, and `make test`
// runs all of them without it as well: with it, every tenth.
const chaosShare = 10
