package web

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// asked is a request that came in on a local address, as net/http tells it.
func asked(local, host string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = host
	at, err := net.ResolveTCPAddr("tcp", local)
	if err != nil {
		panic(err)
	}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(at)))
}

// A site whose name is made to lead to 127.0.0.1 must not read the pages.
func TestOverLoopbackOnlyThisMachinesNamesAreAnswered(t *testing.T) {
	o := busy().options()
	o.Names = []string{"relay.example.com"}
	h := New(o)
	for _, tt := range []struct {
		local, host string
		status      int
	}{
		{"127.0.0.1:8480", "127.0.0.1:8480", http.StatusOK},
		{"127.0.0.1:8480", "localhost:8480", http.StatusOK},
		{"127.0.0.1:8480", "LocalHost.", http.StatusOK},
		{"127.0.0.1:8480", "pawl.localhost:8480", http.StatusOK},
		{"[::1]:8480", "[::1]:8480", http.StatusOK},
		{"[::1]:8480", "[::1]", http.StatusOK},
		{"127.0.0.1:8480", "Relay.Example.Com:8480", http.StatusOK},
		{"127.0.0.1:8480", "evil.example:8480", http.StatusMisdirectedRequest},
		{"[::1]:8480", "evil.example", http.StatusMisdirectedRequest},
		{"[::ffff:127.0.0.1]:8480", "evil.example", http.StatusMisdirectedRequest},
		{"127.0.0.1:8480", "relay.example.com.evil.example", http.StatusMisdirectedRequest},
		{"127.0.0.1:8480", "127.0.0.1.evil.example", http.StatusMisdirectedRequest},
		{"127.0.0.1:8480", "notlocalhost", http.StatusMisdirectedRequest},
		{"127.0.0.1:8480", "", http.StatusMisdirectedRequest},
		// Not over loopback: a name leads here because someone set it up so.
		{"192.0.2.1:8480", "mail.example.com", http.StatusOK},
	} {
		t.Run(tt.local+" as "+tt.host, func(t *testing.T) {
			ask(t, h, asked(tt.local, tt.host)).is(tt.status)
		})
	}
}

// The same through a real listener: net/http does say which address it was.
func TestARebindingSiteIsTurnedAwayByTheRealListener(t *testing.T) {
	srv := httptest.NewServer(New(busy().options()))
	defer srv.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example"
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("status %s, want 421", res.Status)
	}
}

func TestAnotherSiteMayLinkHereAndNothingElse(t *testing.T) {
	for _, tt := range []struct {
		name       string
		path       string
		site, mode string
		status     int
	}{
		{"a person follows a link", "/", "cross-site", "navigate", http.StatusOK},
		{"a person opens a bookmark", "/", "none", "navigate", http.StatusOK},
		{"the page's own htmx", "/live", "same-origin", "cors", http.StatusOK},
		{"a command line client", "/metrics", "", "", http.StatusOK},
		{"another site fetches", "/live", "cross-site", "cors", http.StatusForbidden},
		{"another site shows it as a picture", "/assets/pawl.svg", "cross-site", "no-cors", http.StatusForbidden},
		{"another site probes whether pawl runs", "/healthz", "cross-site", "no-cors", http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.Header.Set("Sec-Fetch-Site", tt.site)
			r.Header.Set("Sec-Fetch-Mode", tt.mode)
			ask(t, New(busy().options()), r).is(tt.status)
		})
	}
}

func TestAnotherSiteCannotFlipTheSwitch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header http.Header
		status int
	}{
		{"its own page", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"navigate"}}, http.StatusSeeOther},
		{"another site's form", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}}, http.StatusForbidden},
		{"another site's fetch", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}}, http.StatusForbidden},
		{"another port of this machine", http.Header{"Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Mode": {"navigate"}}, http.StatusForbidden},
		{"an old browser on another site", http.Header{"Origin": {"https://evil.example"}}, http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := busy()
			r := press("on")
			for k, v := range tt.header {
				r.Header[k] = v
			}
			ask(t, New(f.options()), r).is(tt.status)
			if want := tt.status == http.StatusSeeOther; f.lab.On != want {
				t.Errorf("the attack is on: %v, want %v", f.lab.On, want)
			}
		})
	}
}

func TestEveryAnswerSaysWhatItMayDo(t *testing.T) {
	for _, path := range []string{"/", "/live", "/destination/bank.example.com", "/message/done", "/nowhere", "/healthz", "/metrics", "/assets/pawl.js"} {
		a := get(t, busy(), path)
		for name, want := range map[string]string{
			"Content-Security-Policy":      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"Cross-Origin-Resource-Policy": "same-origin",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
	}
	for _, path := range []string{"/", "/live", "/destination/bank.example.com", "/message/done", "/nowhere"} {
		if got := get(t, busy(), path).header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q, want no-store: a page names who writes to whom", path, got)
		}
	}
}
