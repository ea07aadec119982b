// Package web is the dashboard, the API's place and the node's health: pages
// made on the server from what a [Source] knows, complete without script, kept
// fresh by htmx where there is script. Assets are embedded; nothing is loaded
// from elsewhere, and the Content-Security-Policy says so.
package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"
)

// ErrNotFound is returned by a [Source] for what it does not know.
var ErrNotFound = errors.New("not found")

// Options are what the pages need.
type Options struct {
	Source  Source
	Lab     Lab              // the demo's attacker; nil outside the demo
	Runs    Runs             // of the lab; nil: there is nothing to show
	Metrics http.Handler     // answers /metrics
	Ready   func() error     // nil: the node can take mail
	Names   []string         // names of this machine, lower case, under which a reader on it may open the page; "localhost" and addresses always do
	Now     func() time.Time // nil: time.Now; for how long an answer of the Source is kept
	Log     *slog.Logger
}

type server struct {
	Options
	assets assets
	parts  memo[part]
}

// New returns the handler of the dashboard's listener.
func New(o Options) http.Handler {
	files := newAssets()
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &server{Options: o, assets: files, parts: memo[part]{now: o.Now}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.overview)
	mux.HandleFunc("GET /live", s.liveFront)
	mux.HandleFunc("GET /destination", s.lookUp)
	mux.HandleFunc("GET /destination/{domain}", s.destination)
	mux.HandleFunc("GET /message/{id}", s.message)
	mux.HandleFunc("GET /live/message/{id}", s.liveDelivery)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", o.Metrics)
	mux.Handle("GET /assets/{name}", files)
	if o.Runs != nil {
		mux.HandleFunc("GET /lab/run", s.labRun)
	}
	if o.Lab != nil {
		mux.HandleFunc("POST /lab", s.attack)
	}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusNotFound, "There is no such page", "The overview links to all that there is.")
	})
	return guarded(o.Names, mux)
}

func (s *server) overview(w http.ResponseWriter, r *http.Request) {
	p, err := s.front(r.Context())
	if err != nil {
		s.failed(w, r, err)
		return
	}
	f := frame{title: p.title, overview: p.overview, assets: s.assets, live: true}
	s.render(w, r, http.StatusOK, f.overviewPage(p.html))
}

// lookUp sends the reader of the masthead's form to the page of a domain.
func (s *server) lookUp(w http.ResponseWriter, r *http.Request) {
	domain := strings.ToLower(strings.TrimSpace(r.URL.Query().Get("domain")))
	if _, after, ok := strings.Cut(domain, "@"); ok { // a whole address was put in
		domain = after
	}
	if domain == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, "/destination/"+url.PathEscape(domain), http.StatusSeeOther)
}

func (s *server) destination(w http.ResponseWriter, r *http.Request) {
	p, err := s.front(r.Context())
	if err != nil {
		s.failed(w, r, err)
		return
	}
	d, err := s.Source.Destination(r.Context(), r.PathValue("domain"))
	if err != nil {
		s.failed(w, r, err)
		return
	}
	f := frame{title: d.Domain, overview: p.overview, assets: s.assets}
	s.render(w, r, http.StatusOK, f.destinationPage(d))
}

func (s *server) message(w http.ResponseWriter, r *http.Request) {
	p, err := s.delivery(r.Context(), r.PathValue("id"))
	if err != nil {
		s.failed(w, r, err)
		return
	}
	f := frame{title: p.title, overview: p.overview, assets: s.assets, live: true}
	s.render(w, r, http.StatusOK, f.messagePage(p.html))
}

// attack flips the demo's switch. Without script the reader is sent back to
// the page; htmx gets the live part as it is now.
func (s *server) attack(w http.ResponseWriter, r *http.Request) {
	if err := s.Lab.SetAttack(r.Context(), r.PostFormValue("attack") == "on"); err != nil {
		s.failed(w, r, err)
		return
	}
	s.parts.forget()
	if r.Header.Get("HX-Request") != "true" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	s.liveFront(w, r)
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.Ready(); err != nil {
		plain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	plain(w, http.StatusOK, "ready")
}

func (s *server) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "Not known here", "pawl has no record of it. It may have been delivered and its history purged, or never have passed through here.")
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The reader has gone.
	default:
		s.Log.ErrorContext(r.Context(), "a page could not be made", "path", r.URL.Path, "err", err)
		s.problem(w, r, http.StatusServiceUnavailable, "This page could not be made", "The reason is in pawl's log. Mail is not affected.")
	}
}

func (s *server) problem(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	s.render(w, r, status, frame{title: title, assets: s.assets}.problemPage(text))
}

func (s *server) render(w http.ResponseWriter, r *http.Request, status int, c templ.Component) {
	w.Header().Set("Cache-Control", "no-store")
	templ.Handler(c, templ.WithStatus(status)).ServeHTTP(w, r)
}

// frame is what stands around a page.
type frame struct {
	title    string
	overview Overview // zero where it could not be had
	assets   assets
	live     bool // the page has a part that renews itself
}

func (f frame) known() bool { return !f.overview.Now.IsZero() }
