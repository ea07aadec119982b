package host

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// wellKnown is where a policy is (RFC 8461 §3.2).
const wellKnown = "/.well-known/mta-sts.txt"

// web answers for all policy hosts.
func (h *Host) web() http.Handler {
	policies := h.site.policies()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := strings.ToLower(r.Host)
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		domain, ok := strings.CutPrefix(host, "mta-sts.")
		p := policies[domain]
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !ok || p == nil || r.URL.Path != wellKnown {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "Nothing is here. To test the mail server that sends your mail, write to "+h.site.Start()+".\n")
			return
		}
		if t, ok := h.tests[domain]; ok {
			if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
				h.visits.note(addr.Addr().Unmap(), t.Name, gotPolicy, h.now())
			}
		}
		switch p.web {
		case notFound:
			http.Error(w, "There is no policy here, on purpose.", http.StatusNotFound)
		case redirected:
			http.Redirect(w, r, "https://mta-sts.good."+h.site.Domain+wellKnown, http.StatusFound)
		default:
			_, _ = io.WriteString(w, policyText(domain, p))
		}
	})
}
