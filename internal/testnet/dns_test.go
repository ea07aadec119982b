package testnet

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// ask puts one question to the Net's resolver over a network and returns the
// answer; DO and CD as given.
func ask(t *testing.T, n *Net, network, name, rrType string, do, cd bool) (*dns.Msg, error) {
	t.Helper()
	c, err := n.Dial(limit(t), network, n.DNSAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), rrtype(rrType))
	m.SetEdns0(1232, do)
	m.CheckingDisabled = cd
	conn := &dns.Conn{Conn: c}
	if err := conn.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	return conn.ReadMsg()
}

// brief is an answer in a few words: "NOERROR AD MX 10 mx.a.test.".
func brief(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	if m.AuthenticatedData {
		words = append(words, "AD")
	}
	if m.Truncated {
		words = append(words, "TC")
	}
	for _, rr := range m.Answer {
		words = append(words, dns.TypeToString[rr.Header().Rrtype], strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	for _, rr := range m.Ns {
		words = append(words, dns.TypeToString[rr.Header().Rrtype], rr.Header().Name)
	}
	return strings.Join(words, " ")
}

func TestAnswersOfTheResolver(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetZone("plain.test", false)
	n.DNS.SetZone("signed.test", true)
	n.DNS.SetZone("island.signed.test", false)
	for _, z := range []string{"plain.test", "signed.test", "island.signed.test"} {
		n.DNS.SetMX(z, MX{10, "mx." + z})
		n.DNS.SetAddrs("mx."+z, netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("2001:db8::1"))
	}
	n.DNS.SetCNAME("alias.signed.test", "mx.plain.test")
	n.DNS.SetCNAME("alias.plain.test", "mx.signed.test")
	n.DNS.SetCNAME("gone.signed.test", "nowhere.test")
	n.DNS.SetCNAME("loop1.signed.test", "loop2.signed.test")
	n.DNS.SetCNAME("loop2.signed.test", "loop1.signed.test")
	n.DNS.SetTLSA("_25._tcp.mx.signed.test", TLSA{3, 1, 1, []byte{0xab, 0xcd}})
	n.DNS.Set("txt.plain.test", "TXT", TXTStrings("v=STSv1;", " id=1;"))
	n.DNS.SetMX("null.test", MX{0, ""})
	tests := []struct{ what, name, rrType, want string }{
		{"an MX record of an unsigned zone", "plain.test", "MX", "NOERROR MX 10 mx.plain.test."},
		{"an MX record of a signed zone has AD", "signed.test", "MX", "NOERROR AD MX 10 mx.signed.test."},
		{"names are matched in any case", "SIGNED.test", "MX", "NOERROR AD MX 10 mx.signed.test."},
		{"an unsigned zone under a signed one has no AD", "island.signed.test", "MX", "NOERROR MX 10 mx.island.signed.test."},
		{"addresses by type", "mx.signed.test", "AAAA", "NOERROR AD AAAA 2001:db8::1"},
		{"an alias out of the signed zone loses AD", "alias.signed.test", "A", "NOERROR CNAME mx.plain.test. A 192.0.2.200"},
		{"an alias into the signed zone has no AD", "alias.plain.test", "A", "NOERROR CNAME mx.signed.test. A 192.0.2.200"},
		{"the alias itself has AD", "alias.signed.test", "CNAME", "NOERROR AD CNAME mx.plain.test."},
		{"a dangling alias", "gone.signed.test", "A", "NXDOMAIN CNAME nowhere.test. SOA ."},
		{"a loop of aliases", "loop1.signed.test", "A", "SERVFAIL"},
		{"TLSA", "_25._tcp.mx.signed.test", "TLSA", "NOERROR AD TLSA 3 1 1 abcd"},
		{"TXT of several strings", "txt.plain.test", "TXT", `NOERROR TXT "v=STSv1;" " id=1;"`},
		{"the null MX", "null.test", "MX", "NOERROR MX 0 ."},
		{"no data is proven in a signed zone", "mx.signed.test", "MX", "NOERROR AD SOA signed.test."},
		{"an empty non-terminal exists", "_tcp.mx.signed.test", "A", "NOERROR AD SOA signed.test."},
		{"no such name in a signed zone", "no.signed.test", "A", "NXDOMAIN AD SOA signed.test."},
		{"no such name in an unsigned zone", "no.plain.test", "A", "NXDOMAIN SOA plain.test."},
		{"the signed probe", SignedName, "TXT", `NOERROR AD TXT "signed"`},
		{"the bogus probe", BogusName, "TXT", "SERVFAIL"},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			t.Run(network+"/"+tt.what, func(t *testing.T) {
				m, err := ask(t, n, network, tt.name, tt.rrType, true, false)
				if err != nil {
					t.Fatal(err)
				}
				if got := brief(m); got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
			})
		}
	}
	if got := n.DNS.Queries("signed.test", "MX"); got != 4 {
		t.Errorf("counted %d queries for MX signed.test, want 4", got)
	}
}

func TestFaultsOfTheResolver(t *testing.T) {
	forged := Forge(MXs(MX{1, "mx.attacker.test"}))
	tests := []struct {
		what                    string
		fault                   DNSFault
		plain, signed, signedCD string
	}{
		{"NXDOMAIN", NXDomain(), "NXDOMAIN SOA plain.test.", "SERVFAIL", "NXDOMAIN SOA signed.test."},
		{"no data", NoData(), "NOERROR SOA plain.test.", "SERVFAIL", "NOERROR SOA signed.test."},
		{"a forged answer", forged, "NOERROR MX 1 mx.attacker.test.", "SERVFAIL", "NOERROR MX 1 mx.attacker.test."},
		{"a forged answer that is believed", forged.Believed(), "NOERROR MX 1 mx.attacker.test.", "NOERROR AD MX 1 mx.attacker.test.", "NOERROR MX 1 mx.attacker.test."},
		{"SERVFAIL", ServFail(), "SERVFAIL", "SERVFAIL", "SERVFAIL"},
		{"bogus", Bogus(), "NOERROR MX 10 mx.test.", "SERVFAIL", "NOERROR MX 10 mx.test."},
		{"REFUSED", Refused(), "REFUSED", "REFUSED", "REFUSED"},
		{"truncation", Truncate(), "NOERROR TC", "NOERROR TC", "NOERROR TC"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			n := Start(t, Options{})
			for zone, wants := range map[string][2]string{"plain.test": {tt.plain, tt.plain}, "signed.test": {tt.signed, tt.signedCD}} {
				n.DNS.SetZone(zone, zone == "signed.test")
				n.DNS.SetMX(zone, MX{10, "mx.test"})
				before, err := ask(t, n, "udp", zone, "MX", true, false)
				if err != nil {
					t.Fatal(err)
				}
				mend := n.DNS.Break(zone, "MX", tt.fault)
				for i, cd := range []bool{false, true} {
					m, err := ask(t, n, "udp", zone, "MX", true, cd)
					if err != nil {
						t.Fatal(err)
					}
					if got := brief(m); got != wants[i] {
						t.Errorf("%s, CD %v: got %s, want %s", zone, cd, got, wants[i])
					}
				}
				mend()
				after, err := ask(t, n, "udp", zone, "MX", true, false)
				if err != nil || brief(after) != brief(before) {
					t.Errorf("%s: mended it answers %v, before %v", zone, after, before)
				}
			}
		})
	}
}

func TestATruncatedAnswerIsWholeOverTCP(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetMX("a.test", MX{10, "mx.a.test"})
	n.DNS.Break("a.test", "", Truncate())
	m, err := ask(t, n, "tcp", "a.test", "MX", false, false)
	if err != nil || brief(m) != "NOERROR MX 10 mx.a.test." {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestALargeAnswerIsTruncatedOverUDP(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetTXT("a.test", strings.Repeat("x", 2000))
	m, err := ask(t, n, "udp", "a.test", "TXT", false, false)
	if err != nil || !m.Truncated {
		t.Errorf("got %v, %v; want TC", m, err)
	}
}

func TestADroppedQueryTimesOutAtOnceForClientsOfDial(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetMX("a.test", MX{10, "mx.a.test"})
	n.DNS.Break("a.test", "MX", Drop())
	_, err := ask(t, n, "udp", "a.test", "MX", false, false)
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestADelayedAnswerComesOnceReleased(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetMX("a.test", MX{10, "mx.a.test"})
	release := make(chan struct{})
	n.DNS.Break("a.test", "MX", Delay(release))
	got := make(chan string)
	go func() {
		m, err := ask(t, n, "udp", "a.test", "MX", false, false)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- brief(m)
	}()
	if err := n.DNS.WaitQueries(limit(t), "a.test", "MX", 1); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-got:
		t.Fatalf("answered before the release: %s", s)
	default:
	}
	close(release)
	if s := <-got; s != "NOERROR MX 10 mx.a.test." {
		t.Errorf("got %s", s)
	}
}

func TestTheFaultPlacedLastHoldsUntilItIsMended(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetMX("a.test", MX{10, "mx.a.test"})
	first := n.DNS.Break("a.test", "", ServFail())
	second := n.DNS.Break("a.test", "MX", Refused())
	var got []string
	look := func() {
		m, err := ask(t, n, "udp", "a.test", "MX", false, false)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, dns.RcodeToString[m.Rcode])
	}
	look()
	second()
	look()
	first()
	look()
	if want := []string{"REFUSED", "SERVFAIL", "NOERROR"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAResolverThatDoesNotValidateNeverSaysAD(t *testing.T) {
	n := Start(t, Options{})
	n.DNS.SetValidating(false)
	for name, want := range map[string]string{SignedName: `NOERROR TXT "signed"`, BogusName: `NOERROR TXT "bogus"`} {
		m, err := ask(t, n, "udp", name, "TXT", true, false)
		if err != nil || brief(m) != want {
			t.Errorf("%s: got %v, %v; want %s", name, m, err, want)
		}
	}
}

func TestTTLs(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{TTL: 60e9, STS: STS{Mode: "enforce"}})
	for _, q := range [][2]string{{"a.test", "MX"}, {"mx.a.test", "A"}, {"_mta-sts.a.test", "TXT"}} {
		m, err := ask(t, n, "udp", q[0], q[1], false, false)
		if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 60 {
			t.Errorf("%v: got %v, %v; want TTL 60", q, m, err)
		}
	}
	m, err := ask(t, n, "udp", "nothing."+d.Name, "A", false, false)
	if err != nil || len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 60 {
		t.Errorf("denial: got %v, %v; want TTL 60", m, err)
	}
}
