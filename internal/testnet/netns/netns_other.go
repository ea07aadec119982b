//go:build !linux

package netns

import (
	"context"
	"errors"
	"os/exec"
)

func isolate(cmd *exec.Cmd) { cmd.Err = errors.ErrUnsupported }

// Setup is for Linux.
func Setup(context.Context, Options) error { return errors.ErrUnsupported }

// Bind is for Linux.
func Bind(_, _ string) error { return errors.ErrUnsupported }

// Unpacked is for Linux.
func Unpacked(string) error { return errors.ErrUnsupported }

// AddUsers is for Linux.
func AddUsers(...string) error { return errors.ErrUnsupported }
