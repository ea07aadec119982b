package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// HandleStream adds a method whose result is bytes. An error before the first
// of them reaches the caller as from [Handle]; after it the caller only learns
// that the stream broke off.
func HandleStream[P any](s *Server, method string, fn func(context.Context, P, io.Writer) error) {
	s.mux.HandleFunc("POST /"+method, func(w http.ResponseWriter, r *http.Request) {
		var params P
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&params); err != nil {
			writeError(w, http.StatusBadRequest, fmt.Errorf("reading the parameters of %s: %w", method, err))
			return
		}
		out := &begun{to: w}
		err := fn(r.Context(), params, out)
		switch {
		case err == nil:
		case out.any:
			panic(http.ErrAbortHandler) // net/http's way to cut the connection
		default:
			writeError(w, http.StatusUnprocessableEntity, err)
		}
	})
}

// begun remembers whether anything was written.
type begun struct {
	to  io.Writer
	any bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.any = b.any || len(p) > 0
	return b.to.Write(p)
}

// Stream asks for method with params and returns its bytes, which end with
// io.EOF only if they are complete. The caller closes them.
func (c *Client) Stream(ctx context.Context, method string, params any) (io.ReadCloser, error) {
	resp, err := c.post(ctx, method, params)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, refusal(method, resp.Body)
}
