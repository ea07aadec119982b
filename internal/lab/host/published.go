package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// lookUpsAtOnce is how many names are looked up at a time.
const lookUpsAtOnce = 8

// Unpublished looks the records up and returns those that DNS does not have yet.
// TLSA records are not among them: [Resolver] has no way to ask. The error is
// that of a look-up that came to nothing.
func (h *Host) Unpublished(ctx context.Context) (missing []string, err error) {
	type query struct{ kind, name string }
	records := h.site.Records(h.key)
	var queries []query
	for _, rr := range records {
		if kind, name, _ := wanted(rr); kind != "" && !slices.Contains(queries, query{kind, name}) {
			queries = append(queries, query{kind, name})
		}
	}
	var mu sync.Mutex
	answers := make(map[query][]string)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookUpsAtOnce)
	for _, q := range queries {
		g.Go(func() error {
			found, err := lookUp(ctx, h.o.Resolver, q.kind, q.name)
			mu.Lock()
			defer mu.Unlock()
			answers[q] = found
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, rr := range records {
		if kind, name, want := wanted(rr); kind != "" && !slices.ContainsFunc(answers[query{kind, name}], func(got string) bool { return does(got, want) }) {
			missing = append(missing, fmt.Sprintf("%s %s %s", strings.TrimSuffix(name, "."), kind, want))
		}
	}
	return missing, nil
}

// spfVersion is how an SPF record begins. Its owner adds to it what else sends answers.
const spfVersion = "v=spf1 "

// does reports whether a record does for one that is wanted.
func does(got, want string) bool {
	return got == want || strings.HasPrefix(want, spfVersion) && strings.HasPrefix(got, spfVersion)
}

// wanted is a record in the form of [lookUp]'s answers; kind is "" for one that
// cannot be looked up.
func wanted(rr dns.RR) (kind, name, want string) {
	name = rr.Header().Name
	switch rr := rr.(type) {
	case *dns.MX:
		return "MX", name, fmt.Sprintf("%d %s", rr.Preference, strings.ToLower(rr.Mx))
	case *dns.TXT:
		return "TXT", name, strings.Join(rr.Txt, "")
	case *dns.A:
		return "A", name, rr.A.String()
	case *dns.AAAA:
		return "A", name, rr.AAAA.String()
	default:
		return "", name, ""
	}
}

// lookUp returns what DNS has, which may be nothing.
func lookUp(ctx context.Context, resolver Resolver, kind, name string) (found []string, err error) {
	switch kind {
	case "MX":
		var records []*net.MX
		records, err = resolver.LookupMX(ctx, name)
		for _, mx := range records {
			found = append(found, fmt.Sprintf("%d %s", mx.Pref, strings.ToLower(mx.Host)))
		}
	case "TXT":
		found, err = resolver.LookupTXT(ctx, name)
	case "A":
		var addrs []net.IPAddr
		addrs, err = resolver.LookupIPAddr(ctx, name)
		for _, a := range addrs {
			found = append(found, a.IP.String())
		}
	}
	var none *net.DNSError
	if errors.As(err, &none) && none.IsNotFound {
		return nil, nil
	}
	return found, err
}
