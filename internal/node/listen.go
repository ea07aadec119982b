package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/pawl-mail/pawl/internal/control"
)

func cutUnix(addr string) (path string, ok bool) { return strings.CutPrefix(addr, "unix:") }

// removeStaleSocket removes a socket on which nobody listens any more.
func removeStaleSocket(path string) error {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return &control.Error{Text: path + " is in use by another program", Do: "Stop that program, or choose another path."}
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the socket %s that was left behind: %w", path, err)
		}
	}
	return nil
}

// listenError says which key of the configuration to change.
func listenError(key, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &control.Error{Text: fmt.Sprintf("%s: %s is in use by another program", key, addr), Do: "Stop that program (another pawl?), or choose another port in the configuration."}
	case errors.Is(err, syscall.EACCES):
		return &control.Error{Text: fmt.Sprintf("%s: this user may not listen on %s", key, addr), Do: "Choose a port above 1023, or give the program CAP_NET_BIND_SERVICE."}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return &control.Error{Text: fmt.Sprintf("%s: %s is not an address of this machine", key, addr), Do: "Name an address that the machine has, or none for all of them."}
	}
	return fmt.Errorf("%s: listening on %s: %w", key, addr, err)
}
