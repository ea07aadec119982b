package postfix

import (
	"net"
	"strings"

	"github.com/pawl-mail/pawl/internal/resolve"
)

// target is what a lookup key asks about.
type target struct {
	domain    string // A-labels; empty: nothing that could have a policy
	port      uint16 // 0: not named
	smartHost bool   // the key names a host, not a domain with MX records
}

// parseKey reads a next-hop as Postfix writes it: "domain", "domain:port",
// "[host]", "[host]:port", "[address]" or an address; and the parents that it asks
// for after a NOTFOUND, with a leading dot.
func parseKey(key string) target {
	if key == "" || key[0] == '.' {
		// RFC 8461 §3.4: a parent's policy is never a subdomain's.
		return target{}
	}
	host, port, smartHost := key, "", false
	if inner, after, found := strings.Cut(strings.TrimPrefix(key, "["), "]"); key[0] == '[' {
		if !found || after != "" && after[0] != ':' {
			return target{}
		}
		host, port, smartHost = inner, strings.TrimPrefix(after, ":"), true
	} else if name, after, found := strings.Cut(key, ":"); found && !strings.Contains(after, ":") {
		host, port = name, after
	}
	name, err := resolve.Name(host)
	if err != nil { // RFC 8461 §3.4: address literals among others have no policy
		return target{}
	}
	return target{domain: name, port: parsePort(port), smartHost: smartHost}
}

// parsePort reads a port or a service's name. One that is unknown here is as if
// it were not named.
func parsePort(s string) uint16 {
	if s == "" {
		return 0
	}
	n, err := net.LookupPort("tcp", s)
	if err != nil {
		return 0
	}
	return uint16(n)
}
