package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	relaySize     = 10 << 10
	relaySessions = 20
	relayRounds   = 3
	relaySlice    = 30 * time.Second
	relayDrain    = 5 * time.Minute  // to deliver what was taken
	relayDial     = 30 * time.Second // what a node waits for a connection
)

// relayTarget is what takes the mail.
type relayTarget interface {
	cpu() (time.Duration, error)
}

// benchRelay measures mail from a generator through pawl, everything on, into a
// sink, against Postfix in its place: to a destination with an enforced policy
// over verified TLS, and to one without either.
func benchRelay(ctx context.Context, out *report) (err error) {
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
	slice, err := duration("PAWL_BENCH_SLICE", relaySlice)
	if err != nil {
		return err
	}
	if os.Getenv("PAWL_BENCH_ALONE") != "" {
		return relayAlone(out, w, pawl, slice)
	}
	postfix, err := w.startPostfix(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postfix.stop()) }()
	for _, c := range []struct{ name, domain string }{{"tls", domainTLS}, {"plain", domainPlain}} {
		var ours, theirs relaySeries
		for _, warm := range []struct {
			to   relayTarget
			addr string
		}{{pawl, pawl.relay}, {postfix, postfix.addr}} {
			if err := new(relaySeries).slice(w, warm.to, warm.addr, c.domain, 2*time.Second); err != nil {
				return err
			}
		}
		for range relayRounds {
			if err := pawl.profile(c.name, func() error { return ours.slice(w, pawl, pawl.relay, c.domain, slice) }); err != nil {
				return fmt.Errorf("pawl: %w", err)
			}
			if err := theirs.slice(w, postfix, postfix.addr, c.domain, slice); err != nil {
				return fmt.Errorf("postfix: %w", err)
			}
		}
		out.figure("relay/"+c.name+"/rate", median(ours.rates), "messages/s", medianRatio(ours.rates, theirs.rates),
			fmt.Sprintf("tuned Postfix's %.0f", median(theirs.rates)))
		out.figure("relay/"+c.name+"/cpu", median(ours.cpus), "µs/message", medianRatio(ours.cpus, theirs.cpus),
			fmt.Sprintf("tuned Postfix's %.0f", median(theirs.cpus)))
	}
	return nil
}

// relayAlone measures pawl without the yardstick, for profiles.
func relayAlone(out *report, w *world, pawl *nodeProcess, slice time.Duration) error {
	var s relaySeries
	if err := s.slice(w, pawl, pawl.relay, domainTLS, 2*time.Second); err != nil {
		return err
	}
	if err := pawl.profile("tls", func() error { return s.slice(w, pawl, pawl.relay, domainTLS, slice) }); err != nil {
		return err
	}
	out.figure("relay/tls/rate", s.rates[1], "messages/s", 1, "itself")
	out.figure("relay/tls/cpu", s.cpus[1], "µs/message", 1, "itself")
	return nil
}

// relaySeries is what the rounds came to.
type relaySeries struct{ rates, cpus []float64 }

// slice presses for a time, and counts until the last message has arrived.
func (s *relaySeries) slice(w *world, target relayTarget, addr, domain string, slice time.Duration) error {
	if _, err := target.cpu(); err != nil {
		return err
	}
	n, took, err := w.press(addr, "someone@"+domain, slice)
	if err != nil {
		return err
	}
	cpu, err := target.cpu()
	if err != nil {
		return err
	}
	s.rates = append(s.rates, float64(n)/took.Seconds())
	s.cpus = append(s.cpus, float64(cpu.Microseconds())/float64(n))
	return nil
}

// world is a folder with the processes around what is measured.
type world struct {
	folder         string
	net, load      *process
	dns, web, port string
}

func startWorld(ctx context.Context) (w *world, err error) {
	w = &world{}
	if w.folder, err = os.MkdirTemp("", "pawl-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	// Postfix gives up root and has to get in.
	if err := os.Chmod(w.folder, 0o755); err != nil {
		return nil, err
	}
	if w.net, err = start(ctx, "relay-world", w.folder); err != nil {
		return nil, err
	}
	if _, err := fmt.Sscan(w.net.addr, &w.dns, &w.web, &w.port); err != nil {
		return nil, err
	}
	w.load, err = start(ctx, "relay-load")
	return w, err
}

func (w *world) stop() (err error) {
	for _, p := range []*process{w.load, w.net} {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	return errors.Join(err, os.RemoveAll(w.folder))
}

// press hands mail in for a time and waits until all of it has arrived. It
// returns how much it was, and how long it took from the first to the last.
func (w *world) press(addr, to string, slice time.Duration) (n int64, took time.Duration, err error) {
	var before, begin, have, end int64
	if err := w.net.tell("count", &before, &end); err != nil {
		return 0, 0, err
	}
	if err := w.load.tell(fmt.Sprint(addr, " ", to, " ", relaySize, " ", relaySessions, " ", int64(slice)), &n, &begin); err != nil {
		return 0, 0, err
	}
	if err := w.net.tell(fmt.Sprintf("wait %d %d", before+n, relayDrain), &have, &end); err != nil {
		return 0, 0, err
	}
	if have-before < n {
		return 0, 0, fmt.Errorf("%d messages were taken, and %d arrived within %s", n, have-before, relayDrain)
	}
	return n, time.Duration(end - begin), nil
}

// nodeProcess is a pawl in a process of its own.
type nodeProcess struct {
	*process
	relay, control string
}

// startNode starts one that keeps everything in a folder of this name.
func (w *world) startNode(ctx context.Context, name string) (*nodeProcess, error) {
	folder := filepath.Join(w.folder, name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	p, err := start(ctx, "relay-node", folder, w.dns, w.web, w.port)
	if err != nil {
		return nil, err
	}
	relay, control, _ := strings.Cut(p.addr, " ")
	return &nodeProcess{p, relay, control}, nil
}

// profile runs do; if PAWL_BENCH_PROFILE names a folder, a profile of the node's
// processor time during it lies there afterwards.
func (n *nodeProcess) profile(name string, do func() error) error {
	folder := os.Getenv("PAWL_BENCH_PROFILE")
	if folder == "" {
		return do()
	}
	var ok string
	if err := n.tell("profile "+filepath.Join(folder, name+".pprof"), &ok); err != nil {
		return err
	}
	return errors.Join(do(), n.tell("profile", &ok))
}

func (w *world) startPostfix(ctx context.Context) (*postfixServer, error) {
	folder := filepath.Join(w.folder, "postfix")
	ca, err := os.ReadFile(filepath.Join(w.folder, "ca.pem"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(folder+"/ca.pem", ca, 0o644)); err != nil {
		return nil, err
	}
	return startPostfix(ctx, folder, w.port)
}

// duration is a duration from the environment.
func duration(variable string, otherwise time.Duration) (time.Duration, error) {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", variable, err)
	}
	return d, nil
}
