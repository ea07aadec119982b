package deliver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Route sends the mail for some domains by way of a smart host. The smart host's
// own name is the policy domain (RFC 8461 §3.4): its policy is what its hosts are
// held to, and the route may ask for more, never for less.
type Route struct {
	Pattern  string // "example.com", "*.example.com" for what is below it, or "*"
	Host     string // the next hop, A-labels
	MX       bool   // its MX records say which hosts it has
	Port     uint16 // 0: the usual one
	TLS      RouteTLS
	User     string // with Password: given to the smart host, where it is verified
	Password string
}

// RouteTLS is what a route demands beside the smart host's policy.
type RouteTLS string

// The demands, weakest first.
const (
	RoutePolicy  RouteTLS = "policy"  // nothing
	RouteEncrypt RouteTLS = "encrypt" // TLS
	RouteVerify  RouteTLS = "verify"  // TLS with a host that DANE or a trusted certificate authenticates
	RouteDANE    RouteTLS = "dane"    // TLS with a host that DANE authenticates
)

// String says where the route leads, for people; empty for none.
func (r *Route) String() string {
	if r == nil {
		return ""
	}
	host := r.Host
	if !r.MX {
		host = "[" + host + "]"
	}
	if r.Port != 0 {
		host += ":" + strconv.Itoa(int(r.Port))
	}
	return fmt.Sprintf("%s by way of %s, tls: %s", r.Pattern, host, r.demanded())
}

// demanded is TLS, or more where credentials are to be given: those go to
// nobody but who they are for.
func (r *Route) demanded() RouteTLS {
	if r.User != "" && r.TLS != RouteDANE {
		return RouteVerify
	}
	return r.TLS
}

// demand adds what the route demands of a host. It lifts nothing.
func (r *Route) demand(d *verify.Demand) {
	if r == nil {
		return
	}
	switch r.demanded() {
	case RouteEncrypt:
		d.Least = verify.Encrypted
	case RouteVerify:
		d.Least = verify.Authenticated
	case RouteDANE:
		d.Least, d.LeastDANE = verify.Authenticated, true
	case RoutePolicy:
	}
}

// routes are all routes, by what they are for.
type routes struct {
	exact map[string]*Route
	below map[string]*Route // by the domain that they are for what is below of; "": everything
}

// SetRoutes puts other routes in force, for attempts that begin from now on.
func (d *Deliverer) SetRoutes(list []Route) {
	r := &routes{exact: map[string]*Route{}, below: map[string]*Route{}}
	for i := range list {
		route := &list[i]
		switch suffix, ok := strings.CutPrefix(route.Pattern, "*."); {
		case ok:
			r.below[suffix] = route
		case route.Pattern == "*":
			r.below[""] = route
		default:
			r.exact[route.Pattern] = route
		}
	}
	d.routes.Store(r)
}

// Route returns the route for a domain, the one that names most of it; nil if
// its mail goes to its own hosts.
func (d *Deliverer) Route(domain string) *Route {
	routes := d.routes.Load()
	if r := routes.exact[domain]; r != nil {
		return r
	}
	if len(routes.below) == 0 {
		return nil
	}
	for above := domain; above != ""; {
		_, above, _ = strings.Cut(above, ".")
		if r := routes.below[above]; r != nil {
			return r
		}
	}
	return nil
}

// login gives a smart host the route's credentials. It reports whether it took
// them; if not, the mail waits: they are the operator's to mend.
func (a *attempt) login(ctx context.Context, s *session, t *queue.Try) bool {
	who := fmt.Sprintf("%s [%s]", t.MX, t.Addr)
	var err error
	if s.verdict.Transport == outcome.Verified {
		err = s.c.Authenticate(ctx, a.route.User, a.route.Password)
	} else { // nothing leads here: the route's demand has seen to it
		err = client.ErrNoTLS
	}
	if err == nil {
		return true
	}
	var refusal *client.ReplyError
	var missing *client.MissingError
	switch {
	case errors.As(err, &refusal):
		a.heed(refusal.Reply)
		t.Why = fmt.Sprintf("%s does not take the credentials of the route: %s", who, refusal.Reply)
		t.Do = "Look at user and password_file of the route to " + a.route.Host + "; the mail is tried again by itself."
	case errors.As(err, &missing):
		t.Why = who + " offers no AUTH by PLAIN or LOGIN, and the route has credentials for it"
		t.Do = "Take user out of the route, or name the port at which the smart host takes credentials, as 587."
	default:
		t.Why = who + ": " + oneLine(err.Error())
		t.Do = "It is tried again by itself; if it goes on, ask the smart host's operator what ends the connections."
	}
	a.soft = true
	t.Transport, t.Lines = outcome.NotSent, append(t.Lines, s.lines.take()...)
	a.note(t, ofTheHost)
	a.tellOf(ctx, s, false)
	a.d.pool.retire(s)
	return false
}
