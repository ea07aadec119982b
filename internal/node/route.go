package node

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/relay/deliver"
	"github.com/pawl-mail/pawl/internal/resolve"
)

// maxPassword caps a password file, in bytes.
const maxPassword = 4 << 10

// routes makes the configuration's routes, with the passwords of those that have
// some.
func routes(c config.Config) ([]deliver.Route, error) {
	list := make([]deliver.Route, 0, len(c.Routes))
	for i, r := range c.Routes {
		bad := func(err error) error {
			return &control.Error{Text: fmt.Sprintf("routes[%d]: %v", i, err), Do: "Repair the route in the configuration."}
		}
		route := deliver.Route{Pattern: "*", TLS: deliver.RoutePolicy, User: r.User}
		var err error
		if route.Host, route.Port, route.MX, err = r.NextHop(); err == nil {
			route.Host, err = resolve.Name(route.Host)
		}
		if err != nil {
			return nil, bad(err)
		}
		if name, below := strings.CutPrefix(r.Domain, "*."); r.Domain != "*" {
			if route.Pattern, err = resolve.Name(name); err != nil {
				return nil, bad(err)
			}
			if below {
				route.Pattern = "*." + route.Pattern
			}
		}
		if r.TLS != "" {
			route.TLS = deliver.RouteTLS(r.TLS)
		}
		if r.User != "" {
			if route.Password, err = password(r.PasswordFile); err != nil {
				return nil, bad(err)
			}
		}
		list = append(list, route)
	}
	return list, nil
}

// password is a file's first line.
func password(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("reading password_file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPassword))
	if err != nil {
		return "", fmt.Errorf("reading password_file: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("password_file %s begins with an empty line", file)
	}
	return line, nil
}
