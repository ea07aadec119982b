package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/policy"
)

// cacheSettles is how long a node rests before it is looked at: what a burst leaves
// (connections of the database, room that the collector gives back) is gone then.
const cacheSettles = 135 * time.Second

// cacheNode is a whole node, with every policy host at one address.
func cacheNode(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("cache-node DIR DNS WEB CA")
	}
	c := config.Default()
	c.Hostname = "bench.example.com"
	c.Data, c.DNS.Upstreams, c.Policy.Roots = args[0], []string{args[1]}, args[3]
	c.Postfix.Listen, c.Web.Listen, c.Relay.Listen = "127.0.0.1:0", "127.0.0.1:0", []string{"127.0.0.1:0"}
	debug.SetGCPercent(node.GCPercent)
	n, err := node.New(ctx, c, node.Wiring{
		GiveBack: true,
		Log:      slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasSuffix(addr, ":443") {
				addr = args[2]
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	err = attend(n.Addrs().Postfix, func(line string) (string, error) {
		if line != "resident" && line != "settled" {
			return nothing(line)
		}
		if line == "settled" {
			<-time.After(cacheSettles)
		}
		return residentKiB()
	})
	cancel()
	return errors.Join(err, <-ran)
}

// residentKiB is what this process has in memory, as the kernel sees it.
func residentKiB() (string, error) { return statusKiB("VmRSS:") }

// statusKiB is one of the kernel's figures of this process.
func statusKiB(key string) (string, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), nil
		}
	}
	return "", fmt.Errorf("/proc/self/status has no %s", key)
}

// cacheFill stores so many domains with a policy, and is ready when they are.
func cacheFill(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("cache-fill DIR DOMAINS")
	}
	domains, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	d, err := db.Open(ctx, db.Options{DataDir: args[0]})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	e, err := policy.New(policy.Options{Resolver: bench{}, Fetcher: bench{}, DB: d})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(context.WithoutCancel(ctx))) }()
	began := time.Now()
	var next atomic.Int64
	var workers errgroup.Group
	for range cacheConns {
		workers.Go(func() error {
			for i := int(next.Add(1)) - 1; i < domains; i = int(next.Add(1)) - 1 {
				if _, err := e.STS(ctx, mapDomain("sts", i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := errors.Join(workers.Wait(), e.Flush(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "# cache: %d domains were stored in %v\n", domains, time.Since(began).Round(time.Second))
	return attend("filled", nothing)
}
