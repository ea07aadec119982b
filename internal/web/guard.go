package web

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// contentSecurity allows what the binary itself serves and nothing else; no
// script and no style stands in a page.
const contentSecurity = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guarded lets through what a reader may have asked for, and says in each answer
// what it may do.
func guarded(names []string, next http.Handler) http.Handler {
	// Another site's page must not flip the switch in the reader's name.
	next = http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurity)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		switch {
		case rebound(r, names):
			plain(w, http.StatusMisdirectedRequest, "pawl is not known under the name "+strings.ToValidUTF8(r.Host, "?")+" here. Open it by its address, as http://127.0.0.1:8480; a proxy in front of it sends that as the Host.")
		case probed(r):
			plain(w, http.StatusForbidden, "Another site's page may link here, but not load anything from here.")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// rebound reports whether a request that came in over loopback asks for a name
// that is not this machine's: a site whose name is made to lead to 127.0.0.1
// would read the pages as its own (DNS rebinding).
func rebound(r *http.Request, names []string) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	if at, err := netip.ParseAddrPort(local.String()); err != nil || !at.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return false
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost") && !slices.Contains(names, host)
}

// probed reports whether another site's page loads something from here, rather
// than a person following a link.
func probed(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	// A failure to write is the reader having gone.
	_, _ = w.Write([]byte(text + "\n"))
}
