package config

import (
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/tlsrpt"
)

// checkTLSRPT sees to it that who reports says who he is: without all of it no
// report is built. Whether there is a DKIM key is for the node to find out.
func (c Config) checkTLSRPT(ps *problems) {
	t := c.TLSRPT
	ps.within("tlsrpt.window", t.Window, time.Minute, 20*time.Hour)
	ps.between("tlsrpt.max_reports", t.MaxReports, 1, 1000000)
	if t.MaxBytes < 64<<10 || t.MaxBytes > 1<<40 {
		ps.add("tlsrpt.max_bytes", "%s is outside 64KiB to 1024GiB", t.MaxBytes)
	}
	ps.within("tlsrpt.keep", t.Keep, 8*day, 3650*day)
	if t.SmartHost != "" {
		host, port, err := net.SplitHostPort(t.SmartHost)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
			ps.add("tlsrpt.smart_host", "%q is not an MTA; write HOST:PORT as 127.0.0.1:25", t.SmartHost)
		}
	}
	if !t.On() {
		return
	}
	if t.Organization == "" {
		ps.add("tlsrpt.organization", "is missing; write who is responsible for the reports, as Example Ltd")
	}
	if !tlsrpt.IsDomain(t.Domain) {
		ps.add("tlsrpt.domain", "%q is not a domain name; write the domain that the reports come from, as example.com", t.Domain)
	}
	switch {
	case !tlsrpt.IsMailbox(t.Contact):
		ps.add("tlsrpt.contact", "%q is not a mailbox; write one that somebody reads, as tlsrpt@%s", t.Contact, t.Domain)
	case !strings.EqualFold(t.Contact[strings.LastIndexByte(t.Contact, '@')+1:], t.Domain):
		// RFC 8460 §5.3: TLS-Report-Submitter MUST match the domain of contact-info.
		ps.add("tlsrpt.contact", "%s is not a mailbox of tlsrpt.domain, %s", t.Contact, t.Domain)
	}
}
