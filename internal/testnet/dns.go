package testnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What a resolver check asks for (decisions table 4): a validating resolver
// answers TXT of SignedName with AD and SERVFAILs BogusName.
const (
	SignedName = "signed.probe.test"
	BogusName  = "bogus.probe.test"
)

const (
	// DefaultTTL is the TTL of records whose TTL was not set, and of denials.
	DefaultTTL = 5 * time.Minute

	maxAliases  = 10  // CNAMEs walked for one answer
	plainUDP    = 512 // octets of an answer to a query without EDNS (RFC 1035 §4.2.1)
	bindTries   = 20  // UDP and TCP must have the same port
	maxCounted  = 100_000
	dropMessage = "dropped" // tells a client of Net.Dial that its query was dropped
)

// DNS is the recursive resolver of the small Internet, and all its zones at
// once. It answers over UDP and TCP. Signed zones are not really signed: the
// resolver acts as one that validated them, and sets AD where the client asked
// for it with AD or DO (RFC 6840 §5.7). It is safe for concurrent use.
type DNS struct {
	udp, tcp *dns.Server
	addr     netip.AddrPort
	done     <-chan struct{}
	served   sync.WaitGroup
	asked    broadcast

	mu         sync.Mutex
	validating bool
	records    map[question][]dns.RR
	names      map[string]int // how many RRsets are at or below a name
	zones      map[string]bool
	ttls       map[question]uint32
	faults     map[question][]placed
	placed     int
	counts     map[question]int
	quick      map[string]bool // clients that want to be told of a dropped query
	chaos      *chaos
}

type question struct {
	name string
	rr   uint16
}

// newDNS starts a resolver on addr ("127.0.0.1:0"), until done is closed and
// close is called.
func newDNS(addr string, done <-chan struct{}) (*DNS, error) {
	d := &DNS{
		done: done, validating: true,
		records: make(map[question][]dns.RR), names: make(map[string]int), zones: make(map[string]bool),
		ttls: make(map[question]uint32), faults: make(map[question][]placed), counts: make(map[question]int),
		quick: make(map[string]bool),
	}
	pc, l, err := listenBoth(addr)
	if err != nil {
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	d.addr = l.Addr().(*net.TCPAddr).AddrPort()
	d.udp = &dns.Server{PacketConn: pc, Handler: d}
	d.tcp = &dns.Server{Listener: l, Handler: d}
	for _, s := range []*dns.Server{d.udp, d.tcp} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		d.served.Go(func() { _ = s.ActivateAndServe() })
		<-up // Shutdown needs a server that has started
	}
	d.SetZone("probe.test", true)
	d.SetTXT(SignedName, "signed")
	d.SetTXT(BogusName, "bogus")
	d.Break(BogusName, "", Bogus())
	return d, nil
}

// listenBoth binds UDP and TCP to one port.
func listenBoth(addr string) (net.PacketConn, net.Listener, error) {
	var lc net.ListenConfig
	ctx := context.Background()
	for try := 0; ; try++ {
		pc, err := lc.ListenPacket(ctx, "udp", addr)
		if err != nil {
			return nil, nil, err
		}
		l, err := lc.Listen(ctx, "tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l, nil
		}
		_ = pc.Close()
		if try == bindTries {
			return nil, nil, err
		}
	}
}

func (d *DNS) close() {
	_ = d.udp.Shutdown()
	_ = d.tcp.Shutdown()
	d.served.Wait()
}

// Addr returns where the resolver listens, for UDP and TCP.
func (d *DNS) Addr() string { return d.addr.String() }

// SetValidating says whether the resolver validates. One that does not never
// sets AD and passes on every lie.
func (d *DNS) SetValidating(v bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.validating = v
}

// Queries returns how often a name and type were asked for; an empty type is
// the sum over all types.
func (d *DNS) Queries(name, rrType string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := question{canonical(name), rrtype(rrType)}
	if rrType != "" {
		return d.counts[q]
	}
	sum := 0
	for k, n := range d.counts {
		if k.name == q.name {
			sum += n
		}
	}
	return sum
}

// TotalQueries returns how many queries the resolver got.
func (d *DNS) TotalQueries() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := 0
	for _, n := range d.counts {
		sum += n
	}
	return sum
}

// WaitQueries waits until a name and type were asked for n times in all.
func (d *DNS) WaitQueries(ctx context.Context, name, rrType string, n int) error {
	for {
		asked := d.asked.wait()
		if d.Queries(name, rrType) >= n {
			return nil
		}
		select {
		case <-asked:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reply is what the resolver came to for one question.
type reply struct {
	rcode   int
	answer  []dns.RR
	soa     dns.RR
	secure  bool
	drop    bool
	tcOnly  bool
	release <-chan struct{}
}

// ServeDNS answers one query; it makes DNS a dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	if len(r.Question) != 1 || r.Opcode != dns.OpcodeQuery {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNotImplemented)
		_ = w.WriteMsg(m)
		return
	}
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	ans := d.ask(r.Question[0].Name, r.Question[0].Qtype, r.CheckingDisabled)
	if ans.release != nil {
		select {
		case <-ans.release:
		case <-d.done:
			return
		}
	}
	if ans.drop {
		if udp && d.isQuick(w.RemoteAddr()) {
			_, _ = w.Write([]byte(dropMessage))
		}
		return
	}
	_ = w.WriteMsg(message(r, ans, udp))
}

// message puts an answer into the form that the query asked for.
func message(r *dns.Msg, ans reply, udp bool) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	m.Rcode = ans.rcode
	m.CheckingDisabled = r.CheckingDisabled
	size := plainUDP
	opt := r.IsEdns0()
	wantsAD := r.AuthenticatedData
	if opt != nil {
		wantsAD = wantsAD || opt.Do()
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(opt.UDPSize(), opt.Do())
	}
	if ans.tcOnly && udp {
		m.Truncated = true
		return m
	}
	m.AuthenticatedData = ans.secure && wantsAD && !r.CheckingDisabled
	m.Answer = ans.answer
	if ans.soa != nil {
		m.Ns = []dns.RR{ans.soa}
	}
	if udp {
		m.Truncate(size)
	}
	return m
}

// ask resolves one question and counts it.
func (d *DNS) ask(name string, t uint16, cd bool) reply {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.asked.send()
	q := question{canonical(name), t}
	if _, known := d.counts[q]; known || len(d.counts) < maxCounted {
		d.counts[q]++
	}
	if d.chaos != nil && d.chaos.losesQuery(q) {
		return reply{drop: true}
	}
	return d.resolve(q, cd)
}

// resolve walks aliases as a recursive resolver does. The lock is held.
func (d *DNS) resolve(q question, cd bool) reply {
	check := d.validating && !cd
	ans := reply{secure: d.validating}
	for range maxAliases {
		ans.secure = ans.secure && d.signed(q.name)
		if f := d.fault(q); f != nil {
			if check && f.lie() && d.signed(q.name) {
				return reply{rcode: dns.RcodeServerFailure}
			}
			ans.secure = ans.secure && !f.lie()
			if d.spoil(&ans, q, f) {
				return ans
			}
		}
		if rrs := d.records[q]; len(rrs) > 0 {
			ans.answer = append(ans.answer, d.dated(q, rrs)...)
			return ans
		}
		alias := question{q.name, dns.TypeCNAME}
		rrs := d.records[alias]
		if len(rrs) == 0 {
			if d.names[q.name] == 0 {
				ans.rcode = dns.RcodeNameError
			}
			ans.soa = d.soa(q.name)
			return ans
		}
		ans.answer = append(ans.answer, d.dated(alias, rrs)...)
		cname, _ := rrs[0].(*dns.CNAME)
		q.name = canonical(cname.Target)
	}
	return reply{rcode: dns.RcodeServerFailure} // a loop
}

// spoil does to an answer what a fault says and reports whether that is the
// whole answer. The lock is held.
func (d *DNS) spoil(ans *reply, q question, f *DNSFault) bool {
	switch f.kind {
	case faultNXDomain:
		ans.rcode, ans.soa = dns.RcodeNameError, d.soa(q.name)
	case faultNoData:
		ans.soa = d.soa(q.name)
	case faultServFail:
		*ans = reply{rcode: dns.RcodeServerFailure}
	case faultRefused:
		*ans = reply{rcode: dns.RcodeRefused}
	case faultDrop:
		*ans = reply{drop: true}
	case faultTruncate:
		ans.tcOnly = true
		return false
	case faultDelay:
		ans.release = f.release
		return false
	case faultForge:
		d.forge(ans, q, f)
	case faultBogus:
		return false // whoever does not validate sees the records
	}
	return true
}

// forge answers with what the forger has for the type asked.
func (d *DNS) forge(ans *reply, q question, f *DNSFault) {
	n := len(ans.answer)
	for _, rr := range d.dated(q, f.record(q.name)) {
		if t := rr.Header().Rrtype; t == q.rr || t == dns.TypeCNAME {
			ans.answer = append(ans.answer, rr)
		}
	}
	if len(ans.answer) == n {
		ans.soa = d.soa(q.name)
	}
}

// dated returns copies of records with their TTL.
func (d *DNS) dated(q question, rrs []dns.RR) []dns.RR {
	ttl := uint32(DefaultTTL / time.Second)
	if v, ok := d.ttls[question{q.name, dns.TypeANY}]; ok {
		ttl = v
	}
	if v, ok := d.ttls[q]; ok {
		ttl = v
	}
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Ttl = ttl
	}
	return out
}

// zone returns the zone that a name lies in: "." where none was made.
func (d *DNS) zone(name string) string {
	for {
		if _, ok := d.zones[name]; ok {
			return name
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return "."
		}
		name = parent
	}
}

func (d *DNS) signed(name string) bool { return d.zones[d.zone(name)] }

// soa is what a denial carries (RFC 2308 §3).
func (d *DNS) soa(name string) dns.RR {
	zone := d.zone(name)
	ttl := uint32(DefaultTTL / time.Second)
	if v, ok := d.ttls[question{zone, dns.TypeSOA}]; ok {
		ttl = v
	}
	h := header(zone, dns.TypeSOA)
	h.Ttl = ttl
	return &dns.SOA{
		Hdr: h, Ns: dns.Fqdn("ns." + strings.TrimPrefix(zone, ".")), Mbox: dns.Fqdn("hostmaster." + strings.TrimPrefix(zone, ".")),
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

func (d *DNS) isQuick(a net.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.quick[a.String()]
}

func (d *DNS) setQuick(a net.Addr, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if on {
		d.quick[a.String()] = true
	} else {
		delete(d.quick, a.String())
	}
}
