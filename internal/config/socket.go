package config

import (
	"os"
	"path/filepath"
)

// postfixFolder is where Debian's chrooted smtp(8) processes reach the TLS-RPT
// socket: a folder of pawl's own inside Postfix's queue directory. The package's
// systemd unit makes it.
const postfixFolder = "/var/spool/postfix/pawl"

// TLSRPTSocket is the path of the socket at which Postfix's outcomes arrive, or
// [Off]. Without a setting it is in Postfix's queue directory where pawl runs as
// a service beside Postfix, and in the data folder else.
func (c Config) TLSRPTSocket() string {
	if c.Postfix.TLSRPT != "" {
		return c.Postfix.TLSRPT
	}
	if info, err := os.Stat(postfixFolder); err == nil && info.IsDir() && service() {
		return filepath.Join(postfixFolder, "tlsrpt.sock")
	}
	return filepath.Join(c.Data, "tlsrpt.sock")
}

// service reports whether a service manager started the process (systemd.exec(5)).
func service() bool { return os.Getenv("INVOCATION_ID") != "" }
