package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/mtasts"
)

// mapServer is the TLS policy map as pawl serves it: the real server on the real
// policy, whose cache is filled from a DNS and policy hosts in the same process.
// Asked for a kind, it fills the cache with it and says how long a reply is.
func mapServer(ctx context.Context, _ []string) (err error) {
	dir, err := os.MkdirTemp("", "pawl-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := db.Open(ctx, db.Options{DataDir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	engine, err := policy.New(policy.Options{Resolver: bench{}, Fetcher: bench{}, DB: d, DANE: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close(context.WithoutCancel(ctx))) }()
	l, err := listenLoopback(ctx)
	if err != nil {
		return err
	}
	s := postfix.New(postfix.Options{Source: engine, Log: slog.New(slog.DiscardHandler), After: time.After})
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-served)
	}()
	return attend(l.Addr().String(), func(kind string) (string, error) {
		for i := range mapDomains {
			engine.Postfix(ctx, mapDomain(kind, i))
		}
		if err := engine.Flush(ctx); err != nil {
			return "", err
		}
		reply, err := askOnce(ctx, l.Addr().String(), mapDomain(kind, 0))
		if err != nil {
			return "", err
		}
		return strconv.Itoa(len(reply)), wanted(kind, reply)
	})
}

// askOnce asks the map about one domain.
func askOnce(ctx context.Context, addr, domain string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write(mapQuery(domain)); err != nil {
		return "", err
	}
	c := asker{conn: conn}
	n, err := c.reply()
	return string(c.buf[:n]), err
}

// wanted makes sure that it is the right thing that is measured.
func wanted(kind, reply string) error {
	if part := map[string]string{"sts": "max_age: 604800 }", "dane": ":OK dane-only,", "notfound": ":NOTFOUND ,"}[kind]; !strings.Contains(reply, part) {
		return fmt.Errorf("the answer for %s is %q", kind, reply)
	}
	return nil
}

func mapQuery(domain string) []byte {
	query := postfix.MapAttributes + " " + domain
	return fmt.Appendf(nil, "%d:%s,", len(query), query)
}

// mapFloor is the yardstick: a server that takes netstrings and answers each with
// the same bytes, as many as pawl's answer has.
func mapFloor(ctx context.Context, args []string) error {
	length, err := strconv.Atoi(strings.Join(args, " "))
	if err != nil {
		return err
	}
	text := strings.Repeat("x", length)
	for n := length; n >= 0; n-- { // the payload for which the whole is as long
		if reply := fmt.Sprintf("%d:%s,", n, text[:n]); len(reply) == length {
			text = reply
			break
		}
	}
	l, err := listenLoopback(ctx)
	if err != nil {
		return err
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				echo(c, []byte(text))
			})
		}
	})
	err = attend(l.Addr().String(), nothing)
	l.Close()
	conns.Wait()
	return err
}

// echo answers netstrings until the client goes.
func echo(c net.Conn, reply []byte) {
	buf := make([]byte, 512)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		i := bytes.IndexByte(buf[:have], ':')
		if i < 0 {
			continue
		}
		size, err := strconv.Atoi(string(buf[:i]))
		if err != nil {
			return
		}
		if have < i+size+2 {
			continue
		}
		have = copy(buf, buf[i+size+2:have])
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}

// mapLoad asks: "TARGET CONNECTIONS DOMAINS NANOSECONDS" is answered with how many
// answers came in how many nanoseconds. Its connections stay open.
func mapLoad(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("map-load KIND ADDR ADDR")
	}
	queries := make([][]byte, mapDomains)
	for i := range queries {
		queries[i] = mapQuery(mapDomain(args[0], i))
	}
	pools := make([][]*asker, 2)
	for i, addr := range args[1:] {
		for n := range mapConns[len(mapConns)-1] {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			pools[i] = append(pools[i], &asker{conn: c, queries: queries, next: n * 17})
		}
	}
	return attend("ready", func(line string) (string, error) {
		var target, conns, domains int
		var slice time.Duration
		if _, err := fmt.Sscan(line, &target, &conns, &domains, (*int64)(&slice)); err != nil {
			return "", err
		}
		return press(pools[target][:conns], domains, slice)
	})
}

// press has askers ask for a time.
func press(askers []*asker, domains int, slice time.Duration) (string, error) {
	var end atomic.Bool
	errs := make([]error, len(askers))
	counts := make([]int64, len(askers))
	var wait sync.WaitGroup
	begin := time.Now()
	for i, a := range askers {
		wait.Go(func() {
			for !end.Load() && errs[i] == nil {
				errs[i] = a.ask(domains)
				counts[i]++
			}
		})
	}
	timer := time.AfterFunc(slice, func() { end.Store(true) })
	defer timer.Stop()
	wait.Wait()
	took := time.Since(begin)
	var count int64
	for _, n := range counts {
		count += n
	}
	return fmt.Sprint(count, took.Nanoseconds()), errors.Join(errs...)
}

// asker is one connection that asks.
type asker struct {
	conn    net.Conn
	queries [][]byte
	next    int
	buf     [4096]byte
}

// ask asks for the next of so many domains.
func (a *asker) ask(domains int) error {
	if a.next++; a.next >= domains {
		a.next %= domains
	}
	if _, err := a.conn.Write(a.queries[a.next]); err != nil {
		return err
	}
	_, err := a.reply()
	return err
}

// reply reads one netstring and returns how long it is.
func (a *asker) reply() (int, error) {
	have := 0
	for {
		n, err := a.conn.Read(a.buf[have:])
		if err != nil {
			return 0, err
		}
		have += n
		size, i := 0, 0
		for ; i < have && a.buf[i] != ':'; i++ {
			size = size*10 + int(a.buf[i]-'0')
		}
		if whole := i + size + 2; i < have && have >= whole {
			return whole, nil
		}
		if have == len(a.buf) {
			return 0, io.ErrShortBuffer
		}
	}
}

// bench is a DNS and its policy hosts in which the names of [mapDomain] have what
// they are called after.
type bench struct{}

func kindOf(name string) string {
	for _, kind := range mapKinds {
		if strings.HasSuffix(name, "."+kind+".example.com") {
			return kind
		}
	}
	return ""
}

func (bench) MX(_ context.Context, name string) (resolve.Answer[resolve.MX], error) {
	return resolve.Answer[resolve.MX]{Canonical: name, Records: []resolve.MX{{Preference: 10, Host: "mx." + name}}, TTL: time.Hour, Authentic: true}, nil
}

func (bench) Addrs(_ context.Context, name string) (resolve.Answer[netip.Addr], error) {
	return resolve.Answer[netip.Addr]{Canonical: name, Records: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}, TTL: time.Hour, Authentic: true}, nil
}

func (bench) TXT(_ context.Context, name string) (resolve.Answer[string], error) {
	if kindOf(name) != "sts" {
		return resolve.Answer[string]{}, &resolve.NotFound{Name: name, Type: "TXT", TTL: time.Hour}
	}
	return resolve.Answer[string]{Canonical: name, Records: []string{"v=STSv1; id=20260601;"}, TTL: time.Hour}, nil
}

func (bench) TLSA(_ context.Context, name string) (resolve.Answer[dane.Record], error) {
	if kindOf(name) != "dane" {
		return resolve.Answer[dane.Record]{}, &resolve.NotFound{Name: name, Type: "TLSA", TTL: time.Hour, Authentic: true}
	}
	record := dane.Record{Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 32)}
	return resolve.Answer[dane.Record]{Canonical: name, Records: []dane.Record{record}, TTL: time.Hour, Authentic: true}, nil
}

func (bench) CNAME(_ context.Context, name string) (resolve.Answer[string], error) {
	return resolve.Answer[string]{}, &resolve.NotFound{Name: name, Type: "CNAME", TTL: time.Hour, Authentic: true}
}

func (bench) Validation() resolve.Validation { return resolve.Validation{Trusted: true} }

func (bench) Fetch(_ context.Context, domain string) (mtasts.Fetched, error) {
	p := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx." + domain, "*.mail.example.org"}, MaxAge: 7 * 24 * time.Hour}
	return mtasts.Fetched{Policy: p, Body: p.Text(), At: time.Now()}, nil
}
