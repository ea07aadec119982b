package config

import (
	"strings"
	"testing"
)

func TestWhoReportsMustSayWhoHeIs(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"no organization":                 {"tlsrpt: {contact: t@a.test, domain: a.test}", "tlsrpt.organization: is missing"},
		"no contact":                      {"tlsrpt: {organization: A, domain: a.test}", "tlsrpt.contact: \"\" is not a mailbox"},
		"no domain":                       {"tlsrpt: {organization: A, contact: t@a.test}", "tlsrpt.domain: \"\" is not a domain name"},
		"a contact of another domain":     {"tlsrpt: {organization: A, contact: t@b.test, domain: a.test}", "is not a mailbox of tlsrpt.domain, a.test"},
		"a smart host without a port":     {"tlsrpt: {smart_host: mail.a.test}", "write HOST:PORT"},
		"a window that lasts a day":       {"tlsrpt: {window: 1d}", "tlsrpt.window"},
		"no reports at all to a host":     {"tlsrpt: {max_reports: 0}", "tlsrpt.max_reports"},
		"outcomes gone before their time": {"tlsrpt: {keep: 1d}", "tlsrpt.keep"},
		"bytes that no report fits into":  {"tlsrpt: {max_bytes: 1KiB}", "tlsrpt.max_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("pawl.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	c, err := Parse("pawl.yaml", []byte("tlsrpt: {organization: A, contact: t@A.test, domain: a.test, smart_host: \"127.0.0.1:25\"}"))
	if err != nil || !c.TLSRPT.On() || Default().TLSRPT.On() {
		t.Errorf("%v", err)
	}
}
