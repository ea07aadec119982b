package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	backlogMessages     = 1_000_000
	backlogDestinations = 10_000
	backlogSize         = 1 << 10
	backlogRounds       = 3
	backlogSlice        = 10 * time.Second
	backlogFirst        = time.Minute // to wait for the first delivery after a restart
)

// benchBacklog measures what a million messages for destinations that cannot be
// reached do to mail for one that can: the rate against that of a queue that is
// empty, the memory, and how soon mail goes again after a kill. Once the
// destinations refuse connections, and once they do not answer.
func benchBacklog(ctx context.Context, out *report) error {
	for _, zone := range []string{zoneRefused, zoneHole} {
		if err := backlog(ctx, out, zone); err != nil {
			return fmt.Errorf("%s: %w", zone, err)
		}
	}
	return nil
}

// messages is how many messages wait.
func messages() (int, error) {
	text := os.Getenv("PAWL_BENCH_BACKLOG")
	if text == "" {
		return backlogMessages, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("PAWL_BENCH_BACKLOG: %w", err)
	}
	return n, nil
}

// fillQueue puts so many messages into the queue of a node that does not run
// yet, and returns how many there are.
func (w *world) fillQueue(ctx context.Context, name, zone string) (n int, err error) {
	if n, err = messages(); err != nil {
		return 0, err
	}
	folder := filepath.Join(w.folder, name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return 0, err
	}
	p, err := start(ctx, "backlog-fill", folder, zone)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	var ns int64
	if err := p.tell(strconv.Itoa(n), &ns); err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "# %d messages for %s were put into the queue in %s\n", n, zone, time.Duration(ns).Round(time.Second))
	return n, nil
}

func backlog(ctx context.Context, out *report, zone string) (err error) {
	w, err := startWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	n, err := w.fillQueue(ctx, "full", zone)
	if err != nil {
		return err
	}
	empty, err := w.startNode(ctx, "empty")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, empty.stop()) }()
	full, err := w.startNode(ctx, "full")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, full.stop()) }()
	slice, err := duration("PAWL_BENCH_SLICE", backlogSlice)
	if err != nil {
		return err
	}
	var rates [2][]float64
	err = full.profile("backlog-"+zone, func() (err error) {
		rates, err = w.compare(empty, full, slice)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "# rounds: %.0f messages/s with an empty queue, %.0f with the backlog\n", rates[0], rates[1])
	name := fmt.Sprintf("backlog/%s/%d/", zone[:len(zone)-len(".test")], n)
	out.figure(name+"rate", median(rates[1]), "messages/s", medianRatio(rates[1], rates[0]), fmt.Sprintf("an empty queue's %.0f", median(rates[0])))
	if err := memoryOf(out, name, full, empty); err != nil {
		return err
	}
	full, took, err := w.killed(ctx, full)
	if err != nil {
		return err
	}
	out.figure(name+"first", took.Seconds(), "s", took.Seconds()/5, "5 s from the start after a kill to a delivery")
	// What came due during the restart.
	return memoryOf(out, name+"restarted/", full, empty)
}

func memoryOf(out *report, name string, full, empty *nodeProcess) error {
	_, peak, err := resident(full.cmd.Process.Pid)
	if err != nil {
		return err
	}
	_, bare, err := resident(empty.cmd.Process.Pid)
	if err != nil {
		return err
	}
	out.figure(name+"memory", peak, "MiB", peak/300, fmt.Sprintf("300 MiB; with an empty queue it is %.0f", bare))
	return nil
}

// compare measures the rate of mail for a live destination through both, in
// turn. The one that is not measured stands still, so that it takes nothing from
// the other.
func (w *world) compare(empty, full *nodeProcess, slice time.Duration) (rates [2][]float64, err error) {
	nodes := [2]*nodeProcess{empty, full}
	for _, n := range nodes {
		if _, _, err := w.press(n.relay, "someone@"+domainTLS, time.Second); err != nil {
			return rates, err
		}
	}
	for range backlogRounds {
		for i, n := range nodes {
			other := nodes[1-i].cmd.Process
			if err := other.Signal(syscall.SIGSTOP); err != nil {
				return rates, err
			}
			count, took, err := w.press(n.relay, "someone@"+domainTLS, slice)
			if err = errors.Join(err, other.Signal(syscall.SIGCONT)); err != nil {
				return rates, err
			}
			rates[i] = append(rates[i], float64(count)/took.Seconds())
		}
	}
	return rates, nil
}

// killed kills a node, starts it again, and returns how long it took until the
// first message was delivered: one is handed in as soon as it listens.
func (w *world) killed(ctx context.Context, n *nodeProcess) (*nodeProcess, time.Duration, error) {
	if err := n.cmd.Process.Kill(); err != nil {
		return n, 0, err
	}
	_ = n.stop() // it says that it was killed
	var before, last, have int64
	if err := w.net.tell("count", &before, &last); err != nil {
		return n, 0, err
	}
	begin := time.Now()
	again, err := w.startNode(ctx, "full")
	if err != nil {
		return n, 0, err
	}
	c, err := dialSubmit(ctx, again.relay)
	if err != nil {
		return again, 0, err
	}
	defer c.Close()
	if err := c.submit([]byte("MAIL FROM:<bench@sender.test>\r\nRCPT TO:<someone@"+domainTLS+">\r\nDATA\r\n"), content(relaySize)); err != nil {
		return again, 0, err
	}
	if err := w.net.tell(fmt.Sprintf("wait %d %d", before+1, backlogFirst), &have, &last); err != nil {
		return again, 0, err
	}
	if have == before {
		return again, 0, fmt.Errorf("nothing was delivered within %s of the start", backlogFirst)
	}
	return again, time.Unix(0, last).Sub(begin), nil
}
