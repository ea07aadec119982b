package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/verify"
)

const (
	// datagramSetting is the kernel's; it belongs to the network namespace.
	datagramSetting = "/proc/sys/net/unix/max_dgram_qlen"
	datagramDomains = 1000
)

// flood is how many datagrams are sent, how fast, into how long a queue.
type flood struct {
	name  string
	queue int
	count int
	rate  int // a second; 0: as fast as the sender can
}

func floods() []flood {
	return []flood{
		{"20000/s for 10 s", 512, 200_000, 20_000},
		{"burst of 1000", 512, 1000, 0},
		{"5000 at 40000/s", 512, 5000, 40_000},
		{"burst of 10", 10, 10, 0},
	}
}

// benchDatagrams sends what libtlsrpt sends, as it sends it: a socket for each
// datagram, and no waiting. What the reader did not get is lost.
func benchDatagrams(ctx context.Context, out *report) (err error) {
	before, err := os.ReadFile(datagramSetting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.WriteFile(datagramSetting, before, 0o600)) }()
	for _, f := range floods() {
		if err := os.WriteFile(datagramSetting, []byte(strconv.Itoa(f.queue)), 0o600); err != nil {
			return fmt.Errorf("setting net.unix.max_dgram_qlen, which takes root: %w", err)
		}
		floor, _, err := f.run(ctx, "datagram-floor")
		if err != nil {
			return err
		}
		got, cpu, err := f.run(ctx, "datagram-reader")
		if err != nil {
			return err
		}
		out.figure("tlsrpt "+f.name, float64(f.count-got), "lost", float64(got)/float64(f.count),
			fmt.Sprintf("of %d sent, max_dgram_qlen %d; a reader that only counts lost %d; %s of CPU each",
				f.count, f.queue, f.count-floor, (cpu/time.Duration(f.count)).Round(100*time.Nanosecond)))
	}
	return nil
}

// run sends to a reader, and returns how many it got and what they cost it.
func (f flood) run(ctx context.Context, reader string) (got int, cpu time.Duration, err error) {
	r, err := start(ctx, reader)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	s, err := start(ctx, "datagram-sender")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if _, err := r.cpu(); err != nil {
		return 0, 0, err
	}
	var taken int
	if err := s.tell(fmt.Sprintf("%s %d %d", r.addr, f.count, f.rate), &taken); err != nil {
		return 0, 0, err
	}
	if err := r.tell(fmt.Sprintf("wait %d", taken), &got); err != nil {
		return 0, 0, err
	}
	cpu, err = r.cpu()
	return got, cpu, err
}

// datagramSender is the role that sends. A line is path, count, rate; the answer
// is how many the kernel took.
func datagramSender(context.Context, []string) error {
	return attend("ready", func(line string) (string, error) {
		var path string
		var count, rate int
		if _, err := fmt.Sscan(line, &path, &count, &rate); err != nil {
			return "", err
		}
		texts := make([][]byte, datagramDomains)
		for i := range texts {
			texts[i] = datagram(i)
		}
		taken, began := 0, time.Now()
		for i := range count {
			// Not asleep: what wakes late would send bursts.
			for rate > 0 && time.Since(began) < time.Duration(i)*time.Second/time.Duration(rate) {
			}
			switch err := emit(path, texts[i%datagramDomains]); {
			case err == nil:
				taken++
			case !errors.Is(err, unix.EAGAIN):
				return "", err
			}
		}
		return strconv.Itoa(taken), nil
	})
}

// datagram is a failed session to one of many domains, in libtlsrpt's words.
func datagram(i int) []byte {
	d := fmt.Sprintf("d%d.example.com", i)
	return fmt.Appendf(nil, `{"dpv": "1","d": %[1]q,"pr": "v=TLSRPTv1; rua=mailto:r@%[2]s","policies":[{"policy-type":2,"policy-domain": %[1]q,`+
		`"policy-string":["version: STSv1","mode: enforce","mx: mx.%[2]s","max_age: 604800"],"mx-host":["mx.%[2]s"],"failure-details":[{"c":205,`+
		`"s": "192.0.2.1","n": "mx.%[2]s","h": "250-mx.%[2]s\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 STARTTLS","r": "198.51.100.%[3]d","f": "self-signed_certificate"}],"t":1,"f":1}]}`,
		d, d, i%250)
}

// emit sends as libtlsrpt does.
func emit(path string, b []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Sendto(fd, b, unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: path})
	return errors.Join(err, unix.Close(fd))
}

// waitFor answers "wait N" once N have come, or no more come.
func waitFor(got func() int) func(string) (string, error) {
	return func(line string) (string, error) {
		text, ok := strings.CutPrefix(line, "wait ")
		n, err := strconv.Atoi(text)
		if !ok || err != nil {
			return nothing(line)
		}
		for deadline := time.Now().Add(10 * time.Second); got() < n && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // the other side is another process
		}
		return strconv.Itoa(got()), nil
	}
}

// datagramReader is pawl's socket with the real ledger behind it.
func datagramReader(ctx context.Context, _ []string) (err error) {
	dir, err := os.MkdirTemp("", "pawl-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := db.Open(ctx, db.Options{DataDir: dir, Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log := slog.New(slog.DiscardHandler)
	l := ledger.New(ledger.Options{DB: store, Log: log, After: time.After})
	c, err := postfix.NewCollector(postfix.CollectorOptions{
		Path: filepath.Join(dir, "tlsrpt.sock"), Now: time.Now, After: time.After, Log: log,
		Record: l.Record, Cached: func(string) *verify.Answer { return nil },
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 2)
	go func() { ended <- l.Run(ctx) }()
	go func() { ended <- c.Serve(ctx) }()
	err = attend(c.Stats().Path, waitFor(func() int { return int(c.Stats().Counted) }))
	stop()
	return errors.Join(err, <-ended, <-ended)
}

// datagramFloor reads, and does nothing with it.
func datagramFloor(ctx context.Context, _ []string) (err error) {
	dir, err := os.MkdirTemp("", "pawl-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "tlsrpt.sock"), Net: "unixgram"})
	if err != nil {
		return err
	}
	var n atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for ctx.Err() == nil {
			if _, err := conn.Read(b); err != nil {
				return
			}
			n.Add(1)
		}
	}()
	err = attend(conn.LocalAddr().String(), waitFor(func() int { return int(n.Load()) }))
	err = errors.Join(err, conn.Close())
	<-done
	return err
}
