package config

import (
	"strings"
	"testing"
)

func TestNextHopsAreReadAsTheyAreWritten(t *testing.T) {
	for written, want := range map[string]struct {
		host string
		port uint16
		mx   bool
	}{
		"smtp.example.net":        {"smtp.example.net", 0, true},
		"SMTP.example.net.:587":   {"smtp.example.net", 587, true},
		"[smtp.example.net]":      {"smtp.example.net", 0, false},
		"[smtp.example.net]:2525": {"smtp.example.net", 2525, false},
	} {
		host, port, mx, err := Route{Host: written}.NextHop()
		if err != nil || host != want.host || port != want.port || mx != want.mx {
			t.Errorf("%s: %s, %d, %v, %v", written, host, port, mx, err)
		}
	}
	for _, written := range []string{
		"", "[]", "[a", "[a]b", "a:0", "a:65536", "a:x", "a:1:2", "*", "a b", "a@b", "192.0.2.1", "[192.0.2.1]:25", "[2001:db8::1]", "[2001:db8::1]:25",
	} {
		if host, port, mx, err := (Route{Host: written}).NextHop(); err == nil {
			t.Errorf("%q: %s, %d, %v", written, host, port, mx)
		}
	}
}

func TestARouteThatCannotWorkIsNamedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"routes:\n  - domain: '*'\n    host: relay.test":                                                              "pawl.yaml:3: routes[0].host: relay.test is this host itself",
		"routes:\n  - domain: 'a*'\n    host: b":                                                                      "routes[0].domain: \"a*\" is not a domain pattern",
		"routes:\n  - domain: ''\n    host: b":                                                                        "routes[0].domain:",
		"routes:\n  - domain: a\n    host: b\n  - domain: A.\n    host: c":                                            "routes[1].domain: there is another route",
		"routes:\n  - domain: a\n    host: '[192.0.2.1]'":                                                             "there is no policy and no certificate",
		"routes:\n  - domain: a\n    host: b\n    tls: may":                                                           "routes[0].tls: \"may\" is not allowed",
		"routes:\n  - domain: a\n    host: b\n    user: me":                                                           "user and password_file go together",
		"routes:\n  - domain: a\n    host: b\n    tls: encrypt\n    user: me\n    password_file: f":                   "would give the password to a host that is not verified",
		"routes:\n  - domain: a\n    host: b\n    user: me\n    password_file: f\n    colour: red":                    "colour",
		"dkim:\n  - domain: a\n    selectors: []":                                                                     "dkim[0].selectors: 0 is outside 1 to 8",
		"dkim:\n  - selectors: [a]":                                                                                   "dkim[0]: names no domain",
		"dkim:\n  - domain: a\n    selectors: [a]\n    service: web":                                                  "dkim[0].service",
		"routes:\n  - domain: '*.a.test'\n    host: b\n  - domain: a.test\n    host: c\n  - domain: '*'\n    host: d": "",
	} {
		_, err := Parse("pawl.yaml", []byte("hostname: relay.test\n"+text+"\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), strings.Replace(want, "yaml:3", "yaml:4", 1))) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}
