package resolve

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxUpstreams is how many resolvers are asked at most.
	maxUpstreams = 8

	// An upstream that was silent or out of reach this often in a row is asked
	// after the others for a while.
	unwellAfter = 3
	unwellFor   = 30 * time.Second

	// maxIdle is how many UDP sockets to an upstream on loopback are kept for
	// the next questions. Opening one costs more than the question.
	maxIdle = 16
)

// upstream is one recursive resolver.
type upstream struct {
	addr     string
	loopback bool
	udpSize  uint16
	misses   atomic.Int32 // in a row
	unwell   atomic.Int64 // until when, unix nanoseconds

	idle   chan net.Conn // UDP sockets that may be used again
	closed atomic.Bool
}

func newUpstream(addr string) *upstream {
	u := &upstream{addr: addr, udpSize: udpSize}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
			u.loopback, u.udpSize = true, udpSizeLoopback
			u.idle = make(chan net.Conn, maxIdle)
		}
	}
	return u
}

// reuse returns a UDP socket that was used before, or nil. An upstream elsewhere
// has none: each question there goes out from a port of its own, which whoever
// wants to forge the answer must guess (RFC 5452 §9.2). Nobody can send forged
// packets over loopback.
func (u *upstream) reuse() net.Conn {
	select {
	case conn := <-u.idle:
		return conn
	default:
		return nil
	}
}

// keep takes a UDP socket back on which nothing is under way, or closes it.
func (u *upstream) keep(conn net.Conn) {
	select {
	case u.idle <- conn:
		if u.closed.Load() {
			u.close()
		}
	default:
		conn.Close()
	}
}

// close closes the sockets that are kept.
func (u *upstream) close() {
	u.closed.Store(true)
	for conn := u.reuse(); conn != nil; conn = u.reuse() {
		conn.Close()
	}
}

// heard notes that the upstream answered, and unheard that it did not.
func (u *upstream) heard() { u.misses.Store(0); u.unwell.Store(0) }

func (u *upstream) unheard(now time.Time) {
	if u.misses.Add(1) >= unwellAfter {
		u.unwell.Store(now.Add(unwellFor).UnixNano())
	}
}

// inOrder returns the upstreams as they should be asked: as configured, those
// that are unwell last.
func inOrder(upstreams []*upstream, now time.Time) []*upstream {
	if len(upstreams) < 2 {
		return upstreams
	}
	order := make([]*upstream, 0, len(upstreams))
	for _, well := range []bool{true, false} {
		for _, u := range upstreams {
			if (u.unwell.Load() <= now.UnixNano()) == well {
				order = append(order, u)
			}
		}
	}
	return order
}

// SystemUpstreams reads the resolvers out of a file such as /etc/resolv.conf.
func SystemUpstreams(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the system's resolvers: %w", err)
	}
	var upstreams []string
	for _, server := range conf.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil {
			continue // resolv.conf(5) has addresses only
		}
		upstreams = append(upstreams, net.JoinHostPort(addr.String(), conf.Port))
	}
	if len(upstreams) == 0 {
		return nil, fmt.Errorf("%s names no resolver; set dns.upstreams", path)
	}
	return upstreams[:min(len(upstreams), maxUpstreams)], nil
}
