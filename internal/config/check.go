package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Problem is one thing that is wrong with a configuration's values.
type Problem struct {
	Key  string // as in "relay.listen[0]"
	Text string // what is wrong and what is allowed
}

// Check looks at every value and returns what is wrong, in the file's order.
func (c Config) Check() []Problem {
	var ps problems
	if c.Hostname == "" || strings.ContainsAny(c.Hostname, " \t@/") {
		ps.add("hostname", "%q is not a host name; write the name that this machine gives itself in EHLO, as mail.example.com", c.Hostname)
	}
	if c.Data == "" {
		ps.add("data", "is empty; write the folder in which pawl keeps its database, as /var/lib/pawl")
	}
	if c.Database != "" {
		u, err := url.Parse(c.Database)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			ps.add("database", "is not a PostgreSQL URL; write postgres://user:password@host/name, or nothing for SQLite in the data folder")
		}
	}
	ps.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	ps.oneOf("log.format", c.Log.Format, "text", "json")
	for i, u := range c.DNS.Upstreams {
		ps.address(fmt.Sprintf("dns.upstreams[%d]", i), u)
	}
	ps.within("dns.timeout", c.DNS.Timeout, 100*time.Millisecond, time.Minute)
	ps.oneOf("policy.mode", c.Policy.Mode, "enforce", "observe")
	ps.within("policy.discovery_hold", c.Policy.DiscoveryHold, 0, 5*day)
	ps.within("policy.warm", c.Policy.Warm, 0, 3650*day)
	ps.listener("postfix.listen", c.Postfix.Listen)
	if s := c.Postfix.TLSRPT; s != "" && s != Off && len(s) > maxSocketPath {
		ps.add("postfix.tlsrpt", "a socket's path has at most %d letters, and this one has %d", maxSocketPath, len(s))
	}
	c.checkRelay(&ps)
	c.checkRoutes(&ps)
	c.checkDKIM(&ps)
	c.checkTLSRPT(&ps)
	ps.listener("web.listen", c.Web.Listen)
	return ps
}

func (c Config) checkRelay(ps *problems) {
	r := c.Relay
	for i, l := range r.Listen {
		ps.listener(fmt.Sprintf("relay.listen[%d]", i), l)
	}
	for i, l := range r.Submissions {
		key := fmt.Sprintf("relay.submissions[%d]", i)
		ps.listener(key, l)
		if l != Off && r.TLS.Certificate == "" {
			ps.add(key, "needs a certificate; name it with relay.tls.certificate and relay.tls.key")
		}
	}
	if (r.TLS.Certificate == "") != (r.TLS.Key == "") {
		ps.add("relay.tls", "certificate and key belong together; name both, or none")
	}
	if r.TLS.Certificate == "" && (r.Clients.CA != "" || len(r.Clients.Fingerprints) > 0) {
		ps.add("relay.clients", "clients show certificates under TLS only; name the relay's own with relay.tls")
	}
	ps.ownNetworks("relay.networks", r.Networks)
	ps.ownNetworks("relay.proxy", r.Proxy)
	ps.ownNetworks("relay.tls_optional", r.TLSOptional)
	r.Limits.check(ps)
	if r.MinFree < 0 || r.MaxQueuedSize < 0 {
		ps.add("relay.min_free", "sizes are not negative")
	}
	ps.between("relay.max_queued", r.MaxQueued, 1, 1000000000)
	if r.MaxSize < 64<<10 || r.MaxSize > 1<<30 {
		ps.add("relay.max_size", "%s is outside 64KiB to 1GiB", r.MaxSize)
	}
	ps.between("relay.max_recipients", r.MaxRcpts, 100, 100000) // RFC 5321 §4.5.3.1.8: at least 100
	ps.between("relay.connections", r.Connections, 1, 1000000)
	ps.between("relay.per_client", r.PerClient, 1, r.Connections)
	ps.between("relay.concurrency", r.Concurrency, 1, 10000)
	ps.between("relay.destination", r.Destination, 1, r.Concurrency)
	ps.within("relay.lifetime", r.Lifetime, time.Hour, 30*day)
	ps.within("relay.history", r.History, time.Hour, 3650*day)
	ps.within("relay.retry_first", r.RetryFirst, time.Second, day)
	ps.within("relay.retry_max", r.RetryMax, r.RetryFirst.Std(), 2*day)
	ps.within("relay.delay_notice", r.DelayNotice, 0, 30*day)
	if r.SourceIPv4.IsValid() && !r.SourceIPv4.Is4() {
		ps.add("relay.source_ipv4", "%s is not an IPv4 address", r.SourceIPv4)
	}
	if r.SourceIPv6.IsValid() && !r.SourceIPv6.Is6() {
		ps.add("relay.source_ipv6", "%s is not an IPv6 address", r.SourceIPv6)
	}
}

// maxSelectors caps the keys of one domain: each adds a signature to every message.
const maxSelectors = 8

func (c Config) checkDKIM(ps *problems) {
	for i, d := range c.DKIM {
		key := fmt.Sprintf("dkim[%d]", i)
		if d.Domain == "" {
			ps.add(key, "names no domain; write domain: example.com")
		}
		ps.between(key+".selectors", len(d.Selectors), 1, maxSelectors)
		if d.Service != "" {
			ps.oneOf(key+".service", d.Service, "email", "tlsrpt")
		}
	}
}

// maxSocketPath is what the kernel takes for a socket's path (unix(7): 108 bytes
// with a closing zero), less the four that pawl adds while it makes one.
const maxSocketPath = 103

type problems []Problem

func (ps *problems) add(key, format string, args ...any) {
	*ps = append(*ps, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (ps *problems) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		ps.add(key, "%q is not allowed; choose one of %s", value, strings.Join(allowed, ", "))
	}
}

func (ps *problems) between(key string, value, low, high int) {
	if value < low || value > high {
		ps.add(key, "%d is outside %d to %d", value, low, high)
	}
}

func (ps *problems) within(key string, value Duration, low, high time.Duration) {
	if value.Std() < low || value.Std() > high {
		ps.add(key, "%s is outside %s to %s", value, Duration(low), Duration(high))
	}
}

func (ps *problems) listener(key, value string) {
	if value == Off {
		return
	}
	if path, ok := strings.CutPrefix(value, "unix:"); ok {
		if path == "" {
			ps.add(key, "names no path after unix:")
		}
		return
	}
	host, port, err := net.SplitHostPort(value)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
		ps.add(key, "%q cannot be listened on; write ADDRESS:PORT as 127.0.0.1:8461, unix:PATH, or off", value)
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		ps.add(key, "%q is not an address of this machine; write ADDRESS:PORT as 127.0.0.1:8461", host)
	}
}

func (ps *problems) address(key, value string) {
	host, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = netip.ParseAddr(host)
	}
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 {
		ps.add(key, "%q is not a resolver; write ADDRESS:PORT as 127.0.0.1:53", value)
	}
}
