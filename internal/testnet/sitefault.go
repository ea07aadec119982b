package testnet

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// SiteFault is what is wrong with an HTTPS host, put in place by [Site.Break].
// The zero value of each field is the honest thing.
type SiteFault struct {
	Dead   Unreachable // connections are refused, or not answered
	Kill   bool        // connections are reset at the client's hello
	Flaw   Flaw        // of the certificate
	MaxTLS uint16      // the best version spoken, as tls.VersionTLS11

	Hang     bool          // the request gets no answer
	Status   int           // in place of the honest one
	Header   http.Header   // set on the answer: Location, Content-Type
	Body     string        // in place of the honest one
	Size     int64         // the body is filled up with blank lines to this many octets
	Slow     time.Duration // before each octet of the body, on the Net's clock
	CutAfter int           // the connection ends after so many octets of the body
}

// Break puts a fault on the site; of several the one placed last holds. The
// function it returns takes this one away.
func (s *Site) Break(f SiteFault) (mend func()) {
	placed := &f
	s.mu.Lock()
	s.faults = append(s.faults, placed)
	s.mu.Unlock()
	undos := undo{func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(p *SiteFault) bool { return p == placed })
	}}
	for _, a := range s.ports() {
		if f.Dead != 0 {
			undos = append(undos, s.n.Unreach(a, f.Dead))
		}
		if f.Kill {
			undos = append(undos, s.n.Intercept(a, "", killAtHello))
		}
	}
	return undos.all
}

// killAtHello resets a connection as soon as the client has said something.
func killAtHello(_ context.Context, s *Session, down net.Conn, _ func() (net.Conn, error)) {
	_, _ = down.Read(make([]byte, 1))
	s.say("attacker", "sender", false, "(reset)")
	reset(down)
}

// handler is the honest handler spoiled.
func (f *SiteFault) handler(n *Net, honest http.Handler) http.Handler {
	if !f.Hang && f.Status == 0 && f.Header == nil && f.Body == "" && f.Size == 0 && f.Slow == 0 && f.CutAfter == 0 {
		return honest
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.Hang {
			<-r.Context().Done()
			hangUp(w) // a return would be an answer
			return
		}
		answer := kept{header: w.Header(), status: http.StatusOK}
		if honest != nil {
			honest.ServeHTTP(&answer, r)
		}
		maps.Copy(w.Header(), f.Header)
		body := answer.body.Bytes()
		if f.Body != "" {
			body = []byte(f.Body)
		}
		if f.Status != 0 {
			answer.status = f.Status
		}
		w.Header().Set("Content-Length", strconv.FormatInt(max(f.Size, int64(len(body))), 10))
		w.WriteHeader(answer.status)
		f.send(r.Context(), n, w, body)
	})
}

// send writes the body in the fault's way.
func (f *SiteFault) send(ctx context.Context, n *Net, w http.ResponseWriter, body []byte) {
	flush := http.NewResponseController(w).Flush
	switch {
	case f.CutAfter > 0:
		_, _ = w.Write(body[:min(f.CutAfter, len(body))])
		_ = flush()
		hangUp(w)
	case f.Slow > 0:
		for i := range body {
			if flush() != nil || n.Clock.Sleep(ctx, f.Slow) != nil {
				return
			}
			if _, err := w.Write(body[i : i+1]); err != nil {
				return
			}
		}
	default:
		_, err := w.Write(body)
		blank := bytes.Repeat([]byte("\n"), 64<<10)
		for left := f.Size - int64(len(body)); left > 0 && err == nil; left -= int64(len(blank)) {
			_, err = w.Write(blank[:min(left, int64(len(blank)))])
		}
	}
}

// hangUp closes a request's connection.
func hangUp(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

// kept takes a handler's answer so that it can be spoiled.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }

// plainText serves a text as policy hosts do.
func plainText(text func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text())
	})
}
