package db

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile is held by the process that has the data folder open. It holds that
// process's id, for people; what counts is the flock, which ends with the process.
const lockFile = "pawl.lock"

// Lock takes a data folder for this process, or returns [ErrLocked]. The result
// gives it back.
func Lock(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder cannot be locked: %w. Give pawl's user write access to it", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %s%s. Stop that one, or give this one a data folder of its own", ErrLocked, dir, holder(f))
		} else {
			err = fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// holder says which process has the lock, as far as its file tells.
func holder(f *os.File) string {
	const longestPID = 20
	b, _ := io.ReadAll(io.LimitReader(f, longestPID))
	pid := strings.TrimSpace(string(b))
	if pid == "" {
		return ""
	}
	return " (process " + pid + ")"
}
