package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	cacheDomains = 10_000
	cacheKnown   = 1_000_000
	cacheAsked   = 200_000 // of those known: three times what there is room for in memory
	cacheConns   = 16

	cacheMiB   = 20.0 // what the cached domains may add to an idle node
	knownMiB   = 300.0
	firstReply = 2.0 // seconds
)

// benchCache measures what a whole node (every part of it, as `pawl serve` runs it)
// has resident in memory: idle, with ten thousand domains cached, and over a
// database with a million; and how soon after its start it answers then. The ratio
// is the value's to what it may be.
func benchCache(ctx context.Context, out *report) (err error) {
	dir, err := os.MkdirTemp("", "pawl-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	world, err := newFillWorld(cacheDomains)
	if err != nil {
		return err
	}
	defer world.close()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, world.rootPEM, 0o600); err != nil {
		return err
	}
	node := func(data string) (*process, error) {
		return start(ctx, "cache-node", filepath.Join(dir, data), world.dnsAddr, world.webAddr, ca)
	}
	if err := cachedMemory(ctx, out, world, node); err != nil {
		return err
	}
	return knownMemory(ctx, out, filepath.Join(dir, "known"), node)
}

// cachedMemory is what ten thousand cached domains take: once fetched by the node
// that has them, and once read from its database by the next.
func cachedMemory(ctx context.Context, out *report, world *fillWorld, start func(string) (*process, error)) error {
	for _, how := range []string{"fetched", "restarted"} {
		err := withNode(start, "cached", func(n *process) error {
			idle, err := n.resident("resident")
			if err != nil {
				return err
			}
			if err := askAll(ctx, n.addr, world.domains); err != nil {
				return err
			}
			for _, when := range []string{"resident", "settled"} {
				full, err := n.resident(when)
				if err != nil {
					return err
				}
				above := full - idle
				out.figure("cache/10000/"+how+"/"+when, above, "MiB", above/cacheMiB, fmt.Sprintf("the %.0f MiB allowed above the %.0f of the idle node", cacheMiB, idle))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// knownMemory is the same over a database of a million.
func knownMemory(ctx context.Context, out *report, dir string, startNode func(string) (*process, error)) error {
	filler, err := start(ctx, "cache-fill", dir, fmt.Sprint(cacheKnown))
	if err != nil {
		return err
	}
	if err := filler.stop(); err != nil {
		return err
	}
	asked := make([]string, cacheAsked)
	for i := range asked {
		asked[i] = mapDomain("sts", i*(cacheKnown/cacheAsked))
	}
	began := time.Now()
	return withNode(startNode, filepath.Base(dir), func(n *process) error {
		if err := askAll(ctx, n.addr, asked[:1]); err != nil {
			return err
		}
		first := time.Since(began).Seconds()
		out.figure("cache/1000000/first", first, "s", first/firstReply, fmt.Sprintf("the %.0f s allowed from the process's start to its first answer", firstReply))
		if err := askAll(ctx, n.addr, asked); err != nil {
			return err
		}
		full, err := n.resident("resident")
		if err != nil {
			return err
		}
		out.figure("cache/1000000/resident", full, "MiB", full/knownMiB, fmt.Sprintf("the %.0f MiB allowed, after %d of them were asked for", knownMiB, cacheAsked))
		return nil
	})
}

func withNode(start func(string) (*process, error), data string, f func(n *process) error) (err error) {
	n, err := start(data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	return f(n)
}

// resident is what the process has in memory, in MiB: now, or when it has "settled".
func (p *process) resident(when string) (float64, error) {
	var kib float64
	err := p.tell(when, &kib)
	return kib / 1024, err
}

// askAll asks the map about each domain once and wants a policy for each.
func askAll(ctx context.Context, addr string, domains []string) error {
	next := make(chan string)
	errs := make([]error, min(cacheConns, len(domains)))
	var wait sync.WaitGroup
	for i := range errs {
		wait.Go(func() {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", addr)
			if errs[i] = err; err != nil {
				for range next { // the others go on, and this one's share is asked by nobody
				}
				return
			}
			defer conn.Close()
			a := asker{conn: conn}
			for domain := range next {
				if errs[i] == nil {
					errs[i] = a.wantSecure(domain)
				}
			}
		})
	}
	for _, domain := range domains {
		next <- domain
	}
	close(next)
	wait.Wait()
	return errors.Join(errs...)
}

func (a *asker) wantSecure(domain string) error {
	if _, err := a.conn.Write(mapQuery(domain)); err != nil {
		return err
	}
	n, err := a.reply()
	if err != nil {
		return err
	}
	if reply := string(a.buf[:n]); !strings.Contains(reply, ":OK secure match=") {
		return fmt.Errorf("the answer for %s is %q", domain, reply)
	}
	return nil
}
