package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

const (
	mapDomains = 1000 // of each kind are cached
	mapRounds  = 20
	mapSlice   = 80 * time.Millisecond // one round of one server
)

// mapKinds are the cached answers that are measured.
var mapKinds = [...]string{"sts", "dane", "notfound"}

// mapConns is how many connections ask at once.
var mapConns = [...]int{1, 16, 64}

// benchMap measures the rate and the server's processor time for each kind of
// answer and each number of connections: all asking for the same domain, and, for
// what a policy's answer costs when it comes out of no processor's cache, each for
// a thousand domains in turn.
func benchMap(ctx context.Context, out *report) (err error) {
	server, err := start(ctx, "map-server")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	for _, kind := range mapKinds {
		if err := benchKind(ctx, out, server, kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

func benchKind(ctx context.Context, out *report, server *process, kind string) (err error) {
	var length int
	if err := server.tell(kind, &length); err != nil {
		return err
	}
	floor, err := start(ctx, "map-floor", strconv.Itoa(length))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()
	load, err := start(ctx, "map-load", kind, server.addr, floor.addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	for _, conns := range mapConns {
		if err := benchCell(out, load, [2]*process{server, floor}, cell{"map/" + kind, 1, conns}); err != nil {
			return err
		}
		if kind == "sts" && conns > 1 {
			if err := benchCell(out, load, [2]*process{server, floor}, cell{fmt.Sprintf("map/%s-of-%d", kind, mapDomains), mapDomains, conns}); err != nil {
				return err
			}
		}
	}
	return nil
}

// cell is one thing that is measured.
type cell struct {
	name           string
	domains, conns int
}

// benchCell measures pawl and the floor in turn, each being the first as often as
// the second.
func benchCell(out *report, load *process, servers [2]*process, c cell) error {
	var all [2]series
	for round := range mapRounds {
		for i := range servers {
			target := (round + i) % 2
			if err := all[target].slice(load, servers[target], target, c); err != nil {
				return err
			}
		}
	}
	name, pawl, floor := fmt.Sprintf("%s/%d", c.name, c.conns), &all[0], &all[1]
	out.figure(name+"/rate", median(pawl.rates), "answers/s", medianRatio(pawl.rates, floor.rates), fmt.Sprintf("the echo server's %.0f", median(floor.rates)))
	out.figure(name+"/cpu", median(pawl.cpus), "µs/answer", medianRatio(pawl.cpus, floor.cpus), fmt.Sprintf("the echo server's %.2f", median(floor.cpus)))
	return nil
}

// series is what the rounds of one server came to.
type series struct{ rates, cpus []float64 }

// slice measures one server for one round.
func (s *series) slice(load, server *process, target int, c cell) error {
	if _, err := server.cpu(); err != nil {
		return err
	}
	var count, ns int64
	if err := load.tell(fmt.Sprintf("%d %d %d %d", target, c.conns, c.domains, mapSlice), &count, &ns); err != nil {
		return err
	}
	cpu, err := server.cpu()
	if err != nil {
		return err
	}
	s.rates = append(s.rates, float64(count)/time.Duration(ns).Seconds())
	s.cpus = append(s.cpus, float64(cpu.Nanoseconds())/1e3/float64(count))
	return nil
}

// medianRatio is the median of the ratios of the rounds.
func medianRatio(a, b []float64) float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return median(ratios)
}

// mapDomain is the name of a domain that has a kind of answer.
func mapDomain(kind string, i int) string { return fmt.Sprintf("domain-%04d.%s.example.com", i, kind) }

// listenLoopback opens a listener on a free port.
func listenLoopback(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}
