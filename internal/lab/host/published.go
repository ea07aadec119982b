package host

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Unpublished looks the records up and returns those that DNS does not have yet,
// each with what is wrong. TLSA records are not among them: [Resolver] has no
// way to ask.
func (h *Host) Unpublished(ctx context.Context) []string {
	var missing []string
	seen := make(map[string][]string) // answers by name and type
	for _, rr := range h.site.Records(h.key) {
		kind, name, want := wanted(rr)
		if kind == "" {
			continue
		}
		k := kind + " " + name
		found, ok := seen[k]
		if !ok {
			found = lookUp(ctx, h.o.Resolver, kind, name)
			seen[k] = found
		}
		if !slices.Contains(found, want) {
			missing = append(missing, fmt.Sprintf("%s %s %s", strings.TrimSuffix(name, "."), kind, want))
		}
	}
	return missing
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

// lookUp returns what DNS has; what it does not is nothing.
func lookUp(ctx context.Context, resolver Resolver, kind, name string) []string {
	var found []string
	switch kind {
	case "MX":
		records, _ := resolver.LookupMX(ctx, name)
		for _, mx := range records {
			found = append(found, fmt.Sprintf("%d %s", mx.Pref, strings.ToLower(mx.Host)))
		}
	case "TXT":
		found, _ = resolver.LookupTXT(ctx, name)
	case "A":
		addrs, _ := resolver.LookupIPAddr(ctx, name)
		for _, a := range addrs {
			found = append(found, a.IP.String())
		}
	}
	return found
}
