package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	idleConns   = 10000
	idlePerAddr = 500 // connections from one source address: less than relay.per_client
	idleAtOnce  = 64  // being opened
	idleSlice   = 10 * time.Second
	idleFiles   = idleConns + 1000
	idleTarget  = 200 // MiB
)

// benchIdle measures what ten thousand clients that said EHLO and then nothing
// take of memory, and whether mail still goes beside them.
func benchIdle(ctx context.Context, out *report) (err error) {
	if err := moreFiles(); err != nil {
		return err
	}
	w, err := startWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	pawl, err := w.startNode(ctx, "pawl")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pawl.stop()) }()
	clients, err := start(ctx, "idle-clients", pawl.relay)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clients.stop()) }()
	slice, err := duration("PAWL_BENCH_SLICE", idleSlice)
	if err != nil {
		return err
	}
	press := func() (float64, error) {
		n, took, err := w.press(pawl.relay, "someone@"+domainTLS, slice)
		return float64(n) / took.Seconds(), err
	}
	if _, err := press(); err != nil { // what mail takes of memory it has by then
		return err
	}
	alone, err := press()
	if err != nil {
		return err
	}
	before, _, err := resident(pawl.cmd.Process.Pid)
	if err != nil {
		return err
	}
	var open int
	if err := clients.tell("open", &open); err != nil {
		return err
	}
	after, _, err := resident(pawl.cmd.Process.Pid)
	if err != nil {
		return err
	}
	beside, err := press()
	if err != nil {
		return err
	}
	var alive int
	if err := clients.tell("alive", &alive); err != nil {
		return err
	}
	if alive != open {
		return fmt.Errorf("of %d connections %d were left at the end", open, alive)
	}
	name := fmt.Sprintf("idle/%d/", open)
	out.figure(name+"memory", after-before, "MiB", (after-before)/idleTarget, fmt.Sprintf("%d MiB above the %.0f without them", idleTarget, before))
	out.figure(name+"rate", beside, "messages/s", beside/alone, fmt.Sprintf("%.0f without them", alone))
	return nil
}

// moreFiles raises the limit of open files as far as it may be, for this process
// and those that it starts.
func moreFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Max < idleFiles {
		l.Max = idleFiles // root may
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("raising the limit of open files to %d: %w", l.Cur, err)
	}
	return nil
}

// idleClients opens connections to a relay, says EHLO on each, and leaves them:
// "open" is answered with how many there are, "alive" with how many the relay
// has not ended.
func idleClients(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("idle-clients ADDRESS")
	}
	conns := make([]*submitter, idleConns)
	return attend("ready", func(line string) (string, error) {
		switch line {
		case "open":
			return openIdle(ctx, args[0], conns)
		case "alive":
			return aliveOf(conns)
		}
		return nothing(line)
	})
}

func openIdle(ctx context.Context, addr string, conns []*submitter) (string, error) {
	room := make(chan struct{}, idleAtOnce)
	errs := make([]error, len(conns))
	var wait sync.WaitGroup
	for i := range conns {
		room <- struct{}{}
		wait.Go(func() {
			conns[i], errs[i] = dialSubmitFrom(ctx, idleSource(i), addr)
			<-room
		})
	}
	wait.Wait()
	runtime.GC()
	return fmt.Sprint(len(conns)), errors.Join(errs...)
}

// idleSource is the loopback address that a connection comes from.
func idleSource(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, 0, byte(1 + i/idlePerAddr)})
}

// aliveOf says NOOP on every connection.
func aliveOf(conns []*submitter) (string, error) {
	alive := 0
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return "", err
		}
		if c.say([]byte("NOOP\r\n"), "250") == nil {
			alive++
		}
	}
	return fmt.Sprint(alive), nil
}

// dialSubmitFrom is dialSubmit from a source address.
func dialSubmitFrom(ctx context.Context, source netip.Addr, addr string) (*submitter, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}
	return submitOver(d.DialContext(ctx, "tcp", addr))
}
