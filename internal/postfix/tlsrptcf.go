package postfix

import (
	"path/filepath"
	"strings"
)

// queueDirectory is Postfix's, where the package has not moved it. The names of
// sockets in main.cf are taken from it, inside a chroot too.
const queueDirectory = "/var/spool/postfix/"

// TLSRPT returns what main.cf needs for a version of Postfix to tell its outcomes
// at a socket; nothing before 3.10, which has no TLS-RPT.
func TLSRPT(v Version, socket string) []Setting {
	if !v.attributes() {
		return nil
	}
	name, why := socket, "Tell pawl there. smtp(8) must be able to reach it: where master.cf runs smtp in a chroot, as Debian's does, set postfix.tlsrpt to a path in "+queueDirectory+"."
	if abs, err := filepath.Abs(socket); err == nil {
		name = abs
	}
	if inside, ok := strings.CutPrefix(name, queueDirectory); ok {
		name, why = inside, "Tell pawl there; the name is taken from the queue directory, in a chroot too."
	}
	return []Setting{
		{"smtp_tlsrpt_enable", "yes", "Tell what each TLS session came to, for the reports of RFC 8460."},
		{"smtp_tlsrpt_socket_name", name, why},
		{"smtp_tlsrpt_skip_reused_handshakes", "no", "Tell of sessions that resume an earlier one, too."},
	}
}
