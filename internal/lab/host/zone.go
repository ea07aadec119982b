package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	recordTTL = 300 // seconds
	// maxAge is how long a sender may keep a policy, in seconds. It is short, so that
	// what is changed here is seen, and longer than a sender goes on trying.
	maxAge = 7 * 24 * 3600
)

// Site is where a host is, and so which tests it has.
type Site struct {
	Domain string       // in lower case, without a final dot
	Addrs  []netip.Addr // of the hosts that offer STARTTLS, and of the policy hosts
	Clear  []netip.Addr // of those that do not; none: the tests that need one are left out
	DNSSEC bool         // the zone is signed; if not, there are no tests of DANE
}

// Tests returns the tests of the site, and those that it leaves out.
func (s Site) Tests() (tests, without []Test) {
	for _, t := range Tests() {
		if t.Of == DANE && !s.DNSSEC || t.needsClear() && len(s.Clear) == 0 {
			without = append(without, t)
			continue
		}
		tests = append(tests, t)
	}
	return tests, without
}

// domainOf returns the domain of a test.
func (s Site) domainOf(t Test) string { return t.Name + "." + s.Domain }

// hostOf returns the name of a test's host.
func (s Site) hostOf(t Test, r receiver) string { return r.label + "." + s.domainOf(t) }

// mail is the host that takes mail for the domain itself: that of the first test.
func (s Site) mail() string { return "mx.good." + s.Domain }

// Start is the address that a run begins with.
func (s Site) Start() string { return "start@" + s.Domain }

// Names returns the names for which certificates of a CA are needed.
func (s Site) Names() []string {
	names := []string{"mta-sts." + s.Domain}
	tests, _ := s.Tests()
	for _, t := range tests {
		for _, r := range t.receivers {
			if r.shows == trusted && r.fault != clear && r.fault != broken {
				names = append(names, s.hostOf(t, r))
			}
		}
		if t.policy != nil && t.policy.web != badWebserver {
			names = append(names, "mta-sts."+s.domainOf(t))
		}
	}
	return names
}

// policyText is a policy as it is served (RFC 8461 §3.2).
func policyText(domain string, p *policy) string {
	var b strings.Builder
	b.WriteString("version: STSv1\r\nmode: " + p.mode + "\r\n")
	for _, label := range p.mx {
		b.WriteString("mx: " + label + "." + domain + "\r\n")
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", maxAge)
	return b.String()
}

// own is the policy of the domain itself: start@ is mailed, too.
func own() *policy { return &policy{mode: "enforce", mx: []string{"mx.good"}} }

// policies returns the policies by domain.
func (s Site) policies() map[string]*policy {
	m := map[string]*policy{s.Domain: own()}
	tests, _ := s.Tests()
	for _, t := range tests {
		if t.policy != nil {
			m[s.domainOf(t)] = t.policy
		}
	}
	return m
}

// Records returns what the domain's zone must hold, in the order of the tests.
// The key is that of the hosts that only DANE can authenticate.
func (s Site) Records(key Key) []dns.RR {
	z := zone{}
	z.mx(s.Domain, s.mail())
	z.sts(s.Domain, own())
	z.addrs("mta-sts."+s.Domain, s.Addrs)
	// Answers come from here, or through the relay, whose addresses its owner adds.
	z.txt(s.Domain, "v=spf1 mx ~all")
	tests, _ := s.Tests()
	for _, t := range tests {
		domain := s.domainOf(t)
		for i, r := range t.receivers {
			host := s.hostOf(t, r)
			z.add(&dns.MX{Hdr: head(domain, dns.TypeMX), Preference: uint16(10 * (i + 1)), Mx: dns.Fqdn(host)}) //nolint:gosec // there are two at the most
			z.addrs(host, s.addrsOf(r))
			z.tlsa(host, r.tlsa, key)
		}
		if t.policy != nil {
			z.sts(domain, t.policy)
			z.addrs("mta-sts."+domain, s.Addrs)
		}
	}
	return z.rrs
}

func (s Site) addrsOf(r receiver) []netip.Addr {
	if r.fault == clear {
		return s.Clear
	}
	return s.Addrs
}

// zone gathers records.
type zone struct{ rrs []dns.RR }

func (z *zone) add(rr dns.RR) { z.rrs = append(z.rrs, rr) }

func head(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: rrtype, Class: dns.ClassINET, Ttl: recordTTL}
}

func (z *zone) mx(domain, host string) {
	z.add(&dns.MX{Hdr: head(domain, dns.TypeMX), Preference: 10, Mx: dns.Fqdn(host)})
}

func (z *zone) txt(name, text string) {
	z.add(&dns.TXT{Hdr: head(name, dns.TypeTXT), Txt: []string{text}})
}

func (z *zone) addrs(name string, addrs []netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			z.add(&dns.A{Hdr: head(name, dns.TypeA), A: a.AsSlice()})
		} else {
			z.add(&dns.AAAA{Hdr: head(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
}

// sts adds the record that says that there is a policy, and which (RFC 8461
// §3.1): its id is another when the policy is.
func (z *zone) sts(domain string, p *policy) {
	sum := sha256.Sum256([]byte(policyText(domain, p)))
	for i := range max(p.copies, 1) {
		z.txt("_mta-sts."+domain, "v=STSv1; id="+hex.EncodeToString(sum[i:i+10])+";")
	}
}

func (z *zone) tlsa(host string, a association, key Key) {
	if a == noTLSA {
		return
	}
	rr := &dns.TLSA{Hdr: head("_25._tcp."+host, dns.TypeTLSA), Usage: 3, Selector: 1, MatchingType: 1, Certificate: key.digest("")}
	switch a {
	case stale:
		rr.Certificate = key.digest("a key that no host has")
	case unusable:
		rr.Usage = 0 // PKIX-TA
	}
	z.add(rr)
}

// ZoneText returns the records as a zone file has them, names in full. The key is
// that of the data folder, where it is made if it is not there.
func (s Site) ZoneText(data string) (string, error) {
	if err := s.Check(); err != nil {
		return "", err
	}
	key, err := OpenKey(data)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, rr := range s.Records(key) {
		h := rr.Header()
		text := strings.TrimPrefix(rr.String(), h.String())
		fmt.Fprintf(&b, "%-44s %d IN %-5s %s\n", h.Name, h.Ttl, dns.TypeToString[h.Rrtype], text)
	}
	return b.String(), nil
}

// label is one of a domain (RFC 952, RFC 1123 §2.1).
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// maxDomain leaves room for the longest name below the domain.
const maxDomain = 253 - len("mx.deep.wildcard-depth.") - len("_25._tcp.")

// Check says what is wrong with a site, or nil.
func (s Site) Check() error {
	labels := strings.Split(s.Domain, ".")
	if len(labels) < 2 || len(s.Domain) > maxDomain || slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) }) {
		return fmt.Errorf("%q is no domain in lower case with a dot in it, of at most %d octets", s.Domain, maxDomain)
	}
	if len(s.Addrs) == 0 {
		return fmt.Errorf("the host of %s needs an address", s.Domain)
	}
	seen := make(map[netip.Addr]bool)
	for _, a := range slices.Concat(s.Addrs, s.Clear) {
		switch {
		case !a.IsGlobalUnicast() && !a.IsLoopback() || a.Is4In6() || a.Zone() != "":
			return fmt.Errorf("%s is not an address that a host can have in DNS", a)
		case seen[a]:
			return fmt.Errorf("%s is there twice; a host cannot both offer STARTTLS and not offer it", a)
		}
		seen[a] = true
	}
	return nil
}
