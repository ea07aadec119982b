// Package systemd tells the service manager how the service is, in the words of
// sd_notify(3). Without a service manager that wants to know, it does nothing.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a service may say.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// socketVariable names the service manager's socket: a path, or @ and a name
// in Linux's abstract namespace.
const socketVariable = "NOTIFY_SOCKET"

// Reloading says that the configuration is being read again. [Ready] says that
// it is done.
func Reloading() string {
	var now unix.Timespec
	// It cannot fail: the clock is there on every Linux.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/int64(time.Microsecond), 10)
}

// Status is a line for people, which systemctl status shows.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// Notify says things.
func Notify(said ...string) error {
	path := os.Getenv(socketVariable)
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(said, "\n"))); err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	return nil
}
