package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Route sends the mail for some domains by way of a smart host.
type Route struct {
	Domain       string `yaml:"domain"`        // example.com, *.example.com for what is below it, or *
	Host         string `yaml:"host"`          // HOST[:PORT], or [HOST][:PORT] for the host itself without asking for its MX
	TLS          string `yaml:"tls"`           // policy, encrypt, verify, dane; empty: policy
	User         string `yaml:"user"`          // given to the smart host, under verified TLS
	PasswordFile string `yaml:"password_file"` // whose first line is the password
}

// maxRoutes caps the routes.
const maxRoutes = 10000

// NextHop takes Host apart: whether its MX records are to be asked for, and the
// port, 0 where none is named.
func (r Route) NextHop() (host string, port uint16, mx bool, err error) {
	host, mx = r.Host, true
	number := ""
	if rest, ok := strings.CutPrefix(host, "["); ok {
		mx = false
		if host, number, ok = strings.Cut(rest, "]"); !ok || number != "" && number[0] != ':' {
			return "", 0, false, fmt.Errorf("%q has no closing bracket where it belongs", r.Host)
		}
		number = strings.TrimPrefix(number, ":")
	} else if strings.Contains(host, ":") {
		if host, number, err = net.SplitHostPort(host); err != nil {
			return "", 0, false, fmt.Errorf("%q is not HOST or HOST:PORT", r.Host)
		}
	}
	if number != "" {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return "", 0, false, fmt.Errorf("%q is not a port", number)
		}
		port = uint16(n)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		// RFC 8461 §3.4: an address literal has no policy, and no certificate is for it.
		return "", 0, false, fmt.Errorf("%q is an address, for which there is no policy and no certificate; write the host's name", host)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || strings.ContainsAny(host, " \t@/*[]") {
		return "", 0, false, fmt.Errorf("%q is not a host name; write smtp.example.net, smtp.example.net:587 or [smtp.example.net]:587", r.Host)
	}
	return host, port, mx, nil
}

func (c Config) checkRoutes(ps *problems) {
	if len(c.Routes) > maxRoutes {
		ps.add("routes", "there are more than %d", maxRoutes)
	}
	seen := map[string]bool{}
	for i, r := range c.Routes {
		key := fmt.Sprintf("routes[%d]", i)
		name := strings.TrimPrefix(r.Domain, "*.")
		if r.Domain != "*" && (name == "" || strings.ContainsAny(name, " \t@/*")) {
			ps.add(key+".domain", "%q is not a domain pattern; write example.com, *.example.com for what is below it, or *", r.Domain)
		}
		if pattern := strings.ToLower(strings.TrimSuffix(r.Domain, ".")); seen[pattern] {
			ps.add(key+".domain", "there is another route for %s", r.Domain)
		} else {
			seen[pattern] = true
		}
		host, _, _, err := r.NextHop()
		switch {
		case err != nil:
			ps.add(key+".host", "%v", err)
		case host == c.Hostname:
			ps.add(key+".host", "%s is this host itself: the mail would come back", host)
		}
		if r.TLS != "" {
			ps.oneOf(key+".tls", r.TLS, "policy", "encrypt", "verify", "dane")
		}
		if (r.User == "") != (r.PasswordFile == "") {
			ps.add(key, "user and password_file go together")
		}
		if r.User != "" && (r.TLS == "policy" || r.TLS == "encrypt") {
			ps.add(key+".tls", "%q would give the password to a host that is not verified; write verify or dane, or nothing", r.TLS)
		}
	}
}
