//go:build !race

package lab

const chaosShare = 1
