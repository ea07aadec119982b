package testnet

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Chaos is weather on the small Internet: how likely each mishap is, from 0 to
// 1, for each connection or query on its own. What happens follows from the
// Net's seed, the address or name, and how many came before it there, so that
// a run can be repeated whatever the order of its goroutines.
type Chaos struct {
	LoseQuery float64 // a DNS query gets no answer
	Refuse    float64 // a connection is refused
	BlackHole float64 // a connection attempt is not answered
	Reset     float64 // a connection is reset after some octets from the far end
	Truncate  float64 // a connection ends, as if closed, after some octets
	Delay     float64 // the far end's octets come late, by MaxDelay at most on the Net's clock

	MaxOctets int           // octets before a reset or an end; default 8 KiB
	MaxDelay  time.Duration // default 30 s
}

const (
	defaultMaxOctets = 8 << 10
	defaultMaxDelay  = 30 * time.Second
)

// SetChaos sets the weather for what begins from now on; the zero Chaos is
// calm.
func (n *Net) SetChaos(c Chaos) {
	if c.MaxOctets <= 0 {
		c.MaxOctets = defaultMaxOctets
	}
	if c.MaxDelay <= 0 {
		c.MaxDelay = defaultMaxDelay
	}
	state := &chaos{Chaos: c, seed: n.Seed, before: make(map[string]uint64)}
	n.mu.Lock()
	n.weather = state
	n.mu.Unlock()
	n.DNS.mu.Lock()
	n.DNS.chaos = state
	n.DNS.mu.Unlock()
}

// chaos draws from the weather.
type chaos struct {
	Chaos
	seed uint64

	mu     sync.Mutex
	before map[string]uint64 // how many draws there were for a name
}

// draw returns the random numbers for the next event at name.
func (c *chaos) draw(name string) *rand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before[name]++
	h := fnv.New64a()
	_, _ = io.WriteString(h, name+"/"+strconv.FormatUint(c.before[name], 10))
	return rand.New(rand.NewPCG(c.seed, h.Sum64()))
}

func (c *chaos) losesQuery(q question) bool {
	return c.LoseQuery > 0 && c.draw("dns "+q.name+" "+strconv.Itoa(int(q.rr))).Float64() < c.LoseQuery
}

// plan is what will happen to one connection.
type plan struct {
	dead  Unreachable
	cut   int // octets until the end; 0: none comes
	reset bool
	delay time.Duration
}

func (n *Net) chaosPlan(to netip.AddrPort) plan {
	n.mu.Lock()
	c := n.weather
	n.mu.Unlock()
	if c == nil || c.Chaos == (Chaos{}) {
		return plan{}
	}
	r := c.draw("tcp " + to.String())
	var p plan
	switch x := r.Float64(); {
	case x < c.Refuse:
		p.dead = Refuse
	case x < c.Refuse+c.BlackHole:
		p.dead = BlackHole
	case x < c.Refuse+c.BlackHole+c.Reset:
		p.cut, p.reset = 1+r.IntN(c.MaxOctets), true
	case x < c.Refuse+c.BlackHole+c.Reset+c.Truncate:
		p.cut = 1 + r.IntN(c.MaxOctets)
	}
	if r.Float64() < c.Delay {
		p.delay = time.Duration(r.Int64N(int64(c.MaxDelay)))
	}
	return p
}

// wrap makes the far end of a connection suffer the plan.
func (p plan) wrap(n *Net, c *conn) farEnd {
	if p.cut == 0 && p.delay == 0 {
		return c
	}
	return &stormy{conn: c, n: n, plan: p, left: p.cut}
}

// stormy is the far end of a connection that suffers a plan.
type stormy struct {
	*conn
	n    *Net
	plan plan

	mu   sync.Mutex
	left int
}

// Write sends what the weather lets through.
func (s *stormy) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.plan.delay; d > 0 {
		s.plan.delay = 0
		if err := s.n.Clock.Sleep(s.n.ctx, d); err != nil {
			return 0, err
		}
	}
	if s.plan.cut == 0 {
		return s.conn.Write(b)
	}
	if len(b) < s.left {
		s.left -= len(b)
		return s.conn.Write(b)
	}
	sent, err := s.conn.Write(b[:s.left])
	s.left = 0
	if s.plan.reset {
		reset(s.conn)
	} else {
		_ = s.conn.Close()
	}
	if err == nil {
		err = net.ErrClosed
	}
	return sent, err
}

// ReadFrom keeps io.Copy from going around Write.
func (s *stormy) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}
