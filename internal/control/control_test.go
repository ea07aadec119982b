package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server with two methods on a socket of its own until the test ends.
func serve(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	s := NewServer()
	Handle(s, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	Handle(s, "refuse", func(context.Context, struct{}) (int, error) {
		return 0, &Error{Text: "no such message", Do: "Look at the list."}
	})
	Handle(s, "who", func(ctx context.Context, _ struct{}) (string, error) { return Caller(ctx), nil })
	HandleStream(s, "count", func(_ context.Context, n int, w io.Writer) error {
		for i := range n {
			if i == 1000 {
				return errors.New("that is too far")
			}
			fmt.Fprintln(w, i)
		}
		if n == 0 {
			return &Error{Text: "nothing to count"}
		}
		return nil
	})
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

func TestACallIsAnswered(t *testing.T) {
	var got int
	if err := NewClient(serve(t)).Call(t.Context(), "double", 21, &got); err != nil || got != 42 {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestARefusalKeepsItsAdvice(t *testing.T) {
	var e *Error
	err := NewClient(serve(t)).Call(t.Context(), "refuse", struct{}{}, new(int))
	if !errors.As(err, &e) || e.Text != "no such message" || e.Do != "Look at the list." {
		t.Errorf("got %#v", err)
	}
}

func TestTheServerKnowsWhoCalls(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := NewClient(serve(t)).Call(t.Context(), "who", struct{}{}, &got); err != nil || got != me.Username {
		t.Errorf("got %q, %v, want %q", got, err, me.Username)
	}
}

func TestAStreamIsReadToItsEndAndOneThatBreaksOffIsNoWholeOne(t *testing.T) {
	c := NewClient(serve(t))
	read := func(n int) (string, error) {
		t.Helper()
		r, err := c.Stream(t.Context(), "count", n)
		if err != nil {
			return "", err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		return string(b), err
	}
	if got, err := read(3); got != "0\n1\n2\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := read(2000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that breaks off ends with %v, want an unexpected end", err)
	}
	var e *Error
	if _, err := read(0); !errors.As(err, &e) || e.Text != "nothing to count" {
		t.Errorf("a refusal is %v", err)
	}
}

func TestAnUnknownMethodSaysThatVersionsDiffer(t *testing.T) {
	var e *Error
	err := NewClient(serve(t)).Call(t.Context(), "later", 1, new(int))
	if !errors.As(err, &e) || e.Do == "" {
		t.Errorf("got %v", err)
	}
}

func TestParametersOfTheWrongTypeAreRefused(t *testing.T) {
	if err := NewClient(serve(t)).Call(t.Context(), "double", "x", new(int)); err == nil {
		t.Error("a string was taken for a number")
	}
}

func TestNoServerIsItsOwnError(t *testing.T) {
	dir := t.TempDir()
	err := NewClient(filepath.Join(dir, "control.sock")).Call(t.Context(), "double", 1, new(int))
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
	// A socket that a killed server left behind.
	path := filepath.Join(dir, "left.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	l.Close()
	if err := NewClient(path).Call(t.Context(), "double", 1, new(int)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("with a socket left behind: %v", err)
	}
	if l, err = Listen(path); err != nil {
		t.Errorf("the socket left behind is not replaced: %v", err)
	} else {
		l.Close()
	}
}

func TestOthersCannotUseTheSocket(t *testing.T) {
	info, err := os.Stat(serve(t))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket's mode is %o", mode)
	}
}
