// Package control is the socket through which the command line speaks to a
// running server: JSON calls over HTTP on a Unix socket in the data folder,
// readable by its owner only. The command line never writes the database beside
// a running server; it asks here.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// Caps of one call.
const (
	maxRequest    = 64 << 20 // a list of a million domains to warm fits
	headerTimeout = 10 * time.Second
)

// ErrNotRunning says that no server listens on the socket.
var ErrNotRunning = errors.New("no pawl server is running on this data folder")

// Error is a refusal that the server explains: what happened and what to do.
type Error struct {
	Text string `json:"error"`
	Do   string `json:"do,omitempty"`
}

func (e *Error) Error() string { return e.Text }

// Server answers calls. Add methods with [Handle] before [Server.Serve].
type Server struct {
	mux *http.ServeMux
}

// NewServer returns a server without methods.
func NewServer() *Server { return &Server{mux: http.NewServeMux()} }

// Handle adds a method: its parameters are read as P, its result is written as
// JSON. An error that is an *[Error] reaches the caller as such, any other by
// its text.
func Handle[P, R any](s *Server, method string, fn func(context.Context, P) (R, error)) {
	s.mux.HandleFunc("POST /"+method, func(w http.ResponseWriter, r *http.Request) {
		var params P
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&params); err != nil {
			writeError(w, http.StatusBadRequest, fmt.Errorf("reading the parameters of %s: %w", method, err))
			return
		}
		result, err := fn(r.Context(), params)
		if err != nil {
			writeError(w, http.StatusUnprocessableEntity, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// A failure to write is the caller having gone: nobody is left to tell.
		_ = json.NewEncoder(w).Encode(result)
	})
}

func writeError(w http.ResponseWriter, status int, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Text: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}

// Listen makes the socket, replacing one that a server left behind. The caller
// holds the data folder's lock, so nobody listens on it.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replacing the control socket: %w", err)
	}
	// The folder's mode keeps others out between the bind and the chmod.
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protecting the control socket: %w", err)
	}
	return l, nil
}

// Serve answers calls on l until ctx ends; calls that are under way may finish,
// for a while.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s.mux, ReadHeaderTimeout: headerTimeout, ConnContext: withCaller}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), headerTimeout)
		defer cancel()
		err := srv.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close() // their contexts end
		}
		stopped <- err
	})
	err := srv.Serve(l)
	if !stop() {
		return <-stopped
	}
	return fmt.Errorf("control socket: %w", err)
}

// Client makes calls.
type Client struct {
	http *http.Client
	path string
}

// NewClient returns a client of the socket at path. It does not connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, path: path}
}

// Call asks for method with params and reads the answer into result. It returns
// [ErrNotRunning] if nobody listens, an *[Error] if the server refuses.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	resp, err := c.post(ctx, method, params)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(result); err != nil {
			return fmt.Errorf("reading the server's answer to %s: %w", method, err)
		}
		return nil
	}
	return refusal(method, resp.Body)
}

func (c *Client) post(ctx context.Context, method string, params any) (*http.Response, error) {
	body, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("writing the parameters of %s: %w", method, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://pawl/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", method, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(method, err)
	}
	return resp, nil
}

// refusal reads why the server did not do what it was asked.
func refusal(method string, body io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(body, maxRequest))
	var e Error
	if err != nil || json.Unmarshal(text, &e) != nil || e.Text == "" {
		return &Error{Text: fmt.Sprintf("the running server does not know %q", method), Do: "The server and this command are of different versions; restart the server."}
	}
	return &e
}

func (c *Client) unreachable(method string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (%s)", ErrNotRunning, c.path)
	case errors.Is(err, fs.ErrPermission):
		return &Error{Text: "the running server's socket " + c.path + " is not yours to use", Do: "Run this as the user that runs pawl."}
	}
	return fmt.Errorf("calling %s: %w", method, err)
}
