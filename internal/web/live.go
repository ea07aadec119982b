package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"

	"github.com/a-h/templ"
)

// every is how often a live part asks whether it is still what holds.
const every = "every 2s"

// livePlace is where a live part is asked for.
type livePlace struct {
	url    string
	closed bool // what it shows has ended: nothing will change
}

// trigger is when htmx asks; "refresh" comes from the page's own script.
func (p livePlace) trigger() string {
	if p.closed {
		return "refresh"
	}
	return every + ", refresh"
}

// part is a live part as it is sent, with the Overview of its moment.
type part struct {
	overview Overview
	title    string
	html     []byte
	version  string
}

// newPart renders content into its frame. The version is the content's hash, so
// that a page on which nothing changed costs no more than the question.
func newPart(ctx context.Context, o Overview, title string, place livePlace, content templ.Component) (part, error) {
	var inner bytes.Buffer
	if err := content.Render(ctx, &inner); err != nil {
		return part{}, err
	}
	sum := sha256.Sum256(inner.Bytes())
	p := part{overview: o, title: title, version: hex.EncodeToString(sum[:8])}
	var whole bytes.Buffer
	err := livePart(place, p.version).Render(templ.WithChildren(ctx, templ.Raw(inner.String())), &whole)
	p.html = whole.Bytes()
	return p, err
}

// front makes the front page's live part.
func (s *server) front(ctx context.Context) (part, error) {
	return s.parts.get(ctx, "front", func(ctx context.Context) (part, error) {
		o, err := s.Source.Overview(ctx)
		if err != nil {
			return part{}, err
		}
		var lab *LabState
		if s.Lab != nil {
			state, err := s.Lab.Attack(ctx)
			if err != nil {
				return part{}, err
			}
			lab = &state
		}
		return newPart(ctx, o, o.Hostname, livePlace{url: "/live"}, front(o, lab, s.lastRun()))
	})
}

// delivery makes the live part of a message's page.
func (s *server) delivery(ctx context.Context, id string) (part, error) {
	f, err := s.front(ctx)
	if err != nil {
		return part{}, err
	}
	return s.parts.get(ctx, "message "+id, func(ctx context.Context) (part, error) {
		m, err := s.Source.Message(ctx, id)
		if err != nil {
			return part{}, err
		}
		place := livePlace{url: "/live/message/" + url.PathEscape(id), closed: !m.waits()}
		return newPart(ctx, f.overview, "Mail to "+m.Domain, place, message(m, f.overview))
	})
}

func (s *server) liveFront(w http.ResponseWriter, r *http.Request) {
	p, err := s.front(r.Context())
	s.sendLive(w, r, p, err)
}

func (s *server) liveDelivery(w http.ResponseWriter, r *http.Request) {
	p, err := s.delivery(r.Context(), r.PathValue("id"))
	s.sendLive(w, r, p, err)
}

// sendLive answers with the part, or with nothing if the reader has it.
func (s *server) sendLive(w http.ResponseWriter, r *http.Request, p part, err error) {
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case err != nil:
		s.failed(w, r, err)
	case r.URL.Query().Get("seen") == p.version:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// A failure to write is the reader having gone.
		_, _ = w.Write(p.html)
	}
}
