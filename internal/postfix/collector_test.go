package postfix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// collecting is a Collector that runs, with a clock that the test moves.
type collecting struct {
	*testing.T
	*Collector
	path, setting string
	tick          chan time.Time
	asked         chan time.Duration // what was waited for

	mu   sync.Mutex
	all  []outcome.Attempt
	came chan struct{}
}

func collect(t *testing.T, cached map[string]*verify.Answer) *collecting {
	t.Helper()
	dir := t.TempDir()
	c := &collecting{
		T: t, path: filepath.Join(dir, "tlsrpt.sock"), setting: filepath.Join(dir, "max_dgram_qlen"),
		tick: make(chan time.Time), asked: make(chan time.Duration, 100), came: make(chan struct{}, 1),
	}
	c.set("512")
	var err error
	c.Collector, err = NewCollector(CollectorOptions{
		Path: c.path, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon },
		After: func(d time.Duration) <-chan time.Time {
			c.asked <- d
			return c.tick
		},
		Record: c.record, Cached: func(domain string) *verify.Answer { return cached[domain] }, setting: c.setting,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *collecting) set(queue string) {
	c.Helper()
	if err := os.WriteFile(c.setting, []byte(queue+"\n"), 0o600); err != nil {
		c.Fatal(err)
	}
}

func (c *collecting) record(_ context.Context, a outcome.Attempt) {
	c.mu.Lock()
	c.all = append(c.all, a)
	c.mu.Unlock()
	select {
	case c.came <- struct{}{}:
	default:
	}
}

// until waits for n outcomes.
func (c *collecting) until(n int) []outcome.Attempt {
	c.Helper()
	for {
		c.mu.Lock()
		all := slices.Clone(c.all)
		c.mu.Unlock()
		if len(all) >= n {
			return all
		}
		select {
		case <-c.came:
		case <-time.After(30 * time.Second):
			c.Fatalf("%d outcomes came, want %d: %+v", len(all), n, c.Stats())
		}
	}
}

// emit sends as libtlsrpt does: a socket for each datagram, and no waiting.
func emit(path string, b []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, b, unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: path})
}

func success(domain string) []byte {
	return fmt.Appendf(nil, `{"d":%q,"policies":[{"policy-type":9,"policy-domain":%[1]q,"t":0,"f":0}]}`, domain)
}

func TestOddDatagramsAreCountedByKindAndEndNothing(t *testing.T) {
	c := collect(t, nil)
	want := map[BadDatagram]int64{}
	for _, odd := range oddDatagrams {
		if odd.kind == BadTooLong {
			continue // larger than the kernel lets one be sent
		}
		if err := send(c.path, []byte(odd.datagram)); err != nil {
			t.Fatalf("%s: %v", odd.name, err)
		}
		want[odd.kind]++
	}
	if err := send(c.path, success("good.test")); err != nil {
		t.Fatal(err)
	}
	if got := c.until(1); got[0].Domain != "good.test" {
		t.Errorf("got %+v, want good.test's", got)
	}
	st := c.Stats()
	if fmt.Sprint(st.Bad) != fmt.Sprint(want) || st.Counted != 1 || st.Dropped != 0 {
		t.Errorf("got %+v, want %v bad and 1 counted", st, want)
	}
}

// send waits for room, as a test that is about something else may.
func send(path string, b []byte) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(b)
	return err
}

func TestABurstThatTheKernelHoldsIsNotLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tlsrpt.sock")
	var n int
	c, err := NewCollector(CollectorOptions{
		Path: path, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon }, After: time.After,
		Record: func(context.Context, outcome.Attempt) { n++ }, Cached: func(string) *verify.Answer { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nobody reads yet: what the kernel takes must be there.
	taken := 0
	for emit(path, success("a.test")) == nil && taken < 100_000 {
		taken++
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := c.Serve(ctx); err != nil {
		t.Fatal(err)
	}
	if taken < 10 || n != taken {
		t.Errorf("%d of %d datagrams were counted", n, taken)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there after the end: %v", err)
	}
}

func TestTheSocketIsMadeAnewWhen(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *collecting)
	}{
		{"the kernel's setting changed", func(c *collecting) { c.set("1024") }},
		{"its file is gone", func(c *collecting) {
			if err := os.Remove(c.path); err != nil {
				c.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := collect(t, nil)
			<-c.asked
			tt.change(c)
			c.tick <- noon
			<-c.asked // it waits again: the change was seen
			if err := emit(c.path, success("a.test")); err != nil {
				t.Fatal(err)
			}
			c.until(1)
			if st := c.Stats(); st.Remade != 1 {
				t.Errorf("it was made anew %d times, want once", st.Remade)
			}
		})
	}
}

func TestWhatPostfixCannotKnowIsToldApart(t *testing.T) {
	policy := func(mode mtasts.Mode) *verify.Answer {
		return &verify.Answer{Policy: &mtasts.Policy{Mode: mode, MX: []string{"mx.a.test"}, MaxAge: 86400}}
	}
	c := collect(t, map[string]*verify.Answer{"testing.test": policy(mtasts.Testing), "none.test": policy(mtasts.None), "failing.test": policy(mtasts.Enforce)})
	for _, d := range [][]byte{
		success("testing.test"), success("none.test"), success("unknown.test"),
		[]byte(strings.ReplaceAll(string(success("failing.test")), `"t":0,"f":0`, `"failure-details":[{"c":201}],"t":1,"f":1`)),
	} {
		if err := send(c.path, d); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, a := range c.until(4) {
		p := a.Policies[0]
		got[a.Domain] = fmt.Sprintf("%s %s %v", p.Type, a.Transport, p.Failure != nil)
	}
	want := map[string]string{
		"testing.test": "sts encrypted false", // success, but nothing was verified
		"none.test":    "no-policy-found encrypted false",
		"unknown.test": "no-policy-found encrypted false",
		"failing.test": "sts none true",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestASocketThatAnotherProcessReadsIsLeftAlone(t *testing.T) {
	c := collect(t, nil)
	_, err := NewCollector(CollectorOptions{Path: c.path, setting: c.setting})
	if !errors.Is(err, ErrCollecting) {
		t.Errorf("got %v, want ErrCollecting", err)
	}
	if err := send(c.path, success("a.test")); err != nil {
		t.Fatal(err)
	}
	c.until(1)
}

func TestAFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCollector(CollectorOptions{Path: path}); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestASocketThatACrashLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close() // the file stays
	c, err := NewCollector(CollectorOptions{Path: path, Log: slog.New(slog.DiscardHandler), Now: time.Now, After: time.After})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket's mode is %v (%v), want one that smtp(8) can write to", info.Mode(), err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := c.Serve(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestAFolderThatPostfixCannotEnterIsNamed(t *testing.T) {
	dir := t.TempDir()
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Reachable(filepath.Join(closed, "tlsrpt.sock")); err == nil || !strings.Contains(err.Error(), closed) {
		t.Errorf("got %v, want %s named", err, closed)
	}
}
