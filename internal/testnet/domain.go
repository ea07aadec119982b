package testnet

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DefaultMaxAge is the max_age of a policy that says none.
const DefaultMaxAge = 7 * 24 * time.Hour

// wellKnown is where a policy host has the policy (RFC 8461 §3.3).
const wellKnown = "/.well-known/mta-sts.txt"

// DANE says which TLSA records a domain's MX hosts have.
type DANE int

// The TLSA records.
const (
	NoDANE DANE = iota
	DANEEE      // "3 1 1", the host's key
	DANETA      // "2 1 1", the CA's intermediate
)

// STS is a domain's MTA-STS: the zero value is none at all.
type STS struct {
	Mode     string        // "enforce", "testing", "none"; "" with an empty Text: no MTA-STS
	MaxAge   time.Duration // default DefaultMaxAge; a negative one is max_age 0
	Patterns []string      // default: the names of the MX hosts
	ID       string        // default: a new one at each SetPolicy
	Text     string        // the policy, in place of what the fields above make
	Record   string        // the TXT record, in place of "v=STSv1; id=…"
}

// DomainOptions say what a mail domain is like. The zero value is an unsigned
// zone with one honest MX host, "mx." and the domain, and no policy.
type DomainOptions struct {
	MX     []MX        // hosts are made where there are none of the name yet
	Host   HostOptions // of the hosts made
	STS    STS
	DANE   DANE
	TLSRPT string        // the rua of its TLSRPT record: "mailto:tls@a.test"
	Signed bool          // the zone is signed; DANE implies it
	TTL    time.Duration // of MX, TXT and TLSA; default DefaultTTL
}

// Domain is a mail domain: its zone, its MX hosts, its policy host.
type Domain struct {
	Name string

	n       *Net
	options DomainOptions

	mu    sync.Mutex
	mxs   []MX
	hosts []*Host
	site  *Site
	sts   STS
	text  string
	ids   int

	switching sync.Mutex // one switch of attacks at a time; guards staged
	staged    []staged
}

// Domain makes a mail domain, or returns the one of that name as it is.
func (n *Net) Domain(name string, o DomainOptions) *Domain {
	name = canonical(name)
	n.mu.Lock()
	if d := n.domains[name]; d != nil {
		n.mu.Unlock()
		return d
	}
	d := &Domain{Name: name, n: n, options: o}
	n.domains[name] = d
	n.mu.Unlock()

	d.options.Signed = o.Signed || o.DANE != NoDANE
	n.DNS.SetZone(name, d.options.Signed)
	if len(o.MX) == 0 {
		o.MX = []MX{{Preference: 10, Host: "mx." + name}}
	}
	d.SetMX(o.MX...)
	if o.TLSRPT != "" {
		n.DNS.SetTXT("_smtp._tls."+name, "v=TLSRPTv1; rua="+o.TLSRPT)
	}
	if o.STS.Mode != "" || o.STS.Text != "" {
		d.SetPolicy(o.STS)
	}
	if o.TTL != 0 {
		n.DNS.SetTTL(name, "", o.TTL)
		n.DNS.SetTTL("_mta-sts."+name, "", o.TTL)
		n.DNS.SetTTL(name, "SOA", o.TTL)
		for _, h := range d.Hosts() {
			n.DNS.SetTTL(h.Name, "", o.TTL)
			n.DNS.SetTTL(h.TLSABase(), "", o.TTL)
		}
	}
	return d
}

// Hosts returns the domain's MX hosts in the order of [DomainOptions].MX.
func (d *Domain) Hosts() []*Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.hosts)
}

// MX returns the domain's first MX host.
func (d *Domain) MX() *Host { return d.Hosts()[0] }

// SetMX gives the domain other MX hosts, with TLSA records where the domain has
// DANE. The policy stays as it is.
func (d *Domain) SetMX(mxs ...MX) {
	var hosts []*Host
	for _, mx := range mxs {
		if mx.Host == "" {
			continue // the null MX
		}
		name := canonical(mx.Host)
		if _, zone, ok := strings.Cut(name, "."); ok && !below(name, d.Name) {
			d.n.DNS.SetZone(zone, d.options.Signed)
		}
		h := d.n.Host(name, d.options.Host)
		hosts = append(hosts, h)
		d.publishTLSA(h)
	}
	d.mu.Lock()
	d.mxs, d.hosts = mxs, hosts
	d.mu.Unlock()
	d.n.DNS.SetMX(d.Name, mxs...)
}

func (d *Domain) publishTLSA(h *Host) {
	switch d.options.DANE {
	case DANEEE:
		d.n.DNS.SetTLSA(h.TLSABase(), h.EE())
	case DANETA:
		d.n.DNS.SetTLSA(h.TLSABase(), h.TA())
	case NoDANE:
	}
}

// SetPolicy publishes a policy as RFC 8461 §8.1 has it: the policy host first,
// then the record with a new id.
func (d *Domain) SetPolicy(s STS) {
	d.ServePolicy(s)
	d.mu.Lock()
	d.ids++
	if s.ID == "" {
		s.ID = "id" + strconv.Itoa(d.ids)
	}
	d.sts = s
	d.mu.Unlock()
	d.publishRecord(s)
}

// ServePolicy changes what the policy host serves and leaves the id as it is.
func (d *Domain) ServePolicy(s STS) {
	text := s.Text
	if text == "" {
		text = d.policyText(s)
	}
	d.mu.Lock()
	d.text = text
	d.mu.Unlock()
	site := d.n.Site("mta-sts."+d.Name, http.HandlerFunc(d.servePolicy))
	d.mu.Lock()
	d.site = site
	d.mu.Unlock()
}

// BumpID publishes a new id for the policy as it is, and returns it.
func (d *Domain) BumpID() string {
	d.mu.Lock()
	d.ids++
	d.sts.ID, d.sts.Record = "id"+strconv.Itoa(d.ids), ""
	s := d.sts
	d.mu.Unlock()
	d.publishRecord(s)
	return s.ID
}

// PolicyID returns the id in the record.
func (d *Domain) PolicyID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sts.ID
}

// PolicyText returns what the policy host serves.
func (d *Domain) PolicyText() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text
}

// RemovePolicy takes record and policy away at once, which RFC 8461 §8.3 warns
// of; the policy host answers 404.
func (d *Domain) RemovePolicy() {
	d.mu.Lock()
	d.text, d.sts = "", STS{}
	d.mu.Unlock()
	d.n.DNS.SetTXT("_mta-sts." + d.Name)
}

// PolicyHost returns the site that serves the policy; nil if there never was
// one.
func (d *Domain) PolicyHost() *Site {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.site
}

// PolicyRequests returns how many requests the policy host got.
func (d *Domain) PolicyRequests() int {
	if s := d.PolicyHost(); s != nil {
		return s.Count()
	}
	return 0
}

func (d *Domain) publishRecord(s STS) {
	record := s.Record
	if record == "" {
		record = "v=STSv1; id=" + s.ID
	}
	d.n.DNS.SetTXT("_mta-sts."+d.Name, record)
}

func (d *Domain) servePolicy(w http.ResponseWriter, r *http.Request) {
	text := d.PolicyText()
	if text == "" || r.URL.Path != wellKnown {
		http.NotFound(w, r)
		return
	}
	plainText(func() string { return text }).ServeHTTP(w, r)
}

// policyText writes a policy (RFC 8461 §3.2).
func (d *Domain) policyText(s STS) string {
	if len(s.Patterns) == 0 {
		for _, h := range d.Hosts() {
			s.Patterns = append(s.Patterns, h.Name)
		}
	}
	return writePolicy(s)
}

func writePolicy(s STS) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\r\nmode: %s\r\n", s.Mode)
	for _, p := range s.Patterns {
		fmt.Fprintf(&b, "mx: %s\r\n", p)
	}
	age := s.MaxAge
	if age == 0 {
		age = DefaultMaxAge
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", max(0, int64(age/time.Second)))
	return b.String()
}
