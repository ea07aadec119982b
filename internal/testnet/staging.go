package testnet

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// How the attacks of attack.go are staged, one family a function.

// onHosts puts what stand returns in the path to every MX host of the domain.
func onHosts(name Attack, stand func(h *Host) Interceptor) stager {
	return func(d *Domain) undo {
		var u undo
		for _, h := range d.Hosts() {
			for _, a := range h.ports() {
				u = append(u, d.n.Intercept(a, name, stand(h)))
			}
		}
		return u
	}
}

// onPath puts a proxy in the path to every MX host of the domain.
func onPath(name Attack, p proxy) stager {
	return onHosts(name, func(*Host) Interceptor { return p.intercept })
}

func sessionAttacks() map[Attack]stager {
	all := map[Attack]stager{
		StripSTARTTLS: onPath(StripSTARTTLS, proxy{
			command: answerTo("STARTTLS", "502 5.5.1 Unknown command"),
			reply:   replyTo("EHLO", cutSTARTTLS),
		}),
		STARTTLSTempFail: onPath(STARTTLSTempFail, proxy{command: answerTo("STARTTLS", "454 4.7.0 TLS not available")}),
		STARTTLSPermFail: onPath(STARTTLSPermFail, proxy{command: answerTo("STARTTLS", "502 5.5.1 Unknown command")}),
		KillHandshake: onPath(KillHandshake, proxy{secured: func(s *Session, down net.Conn) {
			_, _ = down.Read(make([]byte, 1))
			s.say("attacker", "sender", false, "(reset at the client's hello)")
			reset(down)
		}}),
		Smother: onPath(Smother, proxy{secured: func(s *Session, down net.Conn) {
			s.say("attacker", "sender", false, "(silence)")
			_, _ = io.Copy(io.Discard, down)
		}}),
		FakeCapabilities: onPath(FakeCapabilities, proxy{reply: replyTo("EHLO", fakeCapabilities)}),
		InjectReplies: onPath(InjectReplies, proxy{reply: replyTo("STARTTLS", func(reply string) string {
			return reply + "\n250-injected\n250-SIZE 10\n250 AUTH PLAIN"
		})}),
		PlainTextTap: onPath(PlainTextTap, proxy{}),
		DowngradeVersion: onHosts(DowngradeVersion, func(h *Host) Interceptor {
			return alter(h, func(_ *Host, c *tls.Config) *tls.Config {
				c.MaxVersion = tls.VersionTLS11
				return c
			})
		}),
		DowngradeCipher: onHosts(DowngradeCipher, func(h *Host) Interceptor {
			return alter(h, func(_ *Host, c *tls.Config) *tls.Config {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
				return c
			})
		}),
		ShowExpired:   onHosts(ShowExpired, show(Expired)),
		ShowWrongName: onHosts(ShowWrongName, show(WrongName)),
		ShowCNOnly:    onHosts(ShowCNOnly, show(CNOnly)),
		DeadMX: func(d *Domain) undo {
			var u undo
			for _, h := range d.Hosts() {
				u = append(u, h.Down(Refuse))
			}
			return u
		},
	}
	for a, s := range impostures() {
		all[a] = s
	}
	return all
}

// impostures are the attacks in which the attacker speaks for the host.
func impostures() map[Attack]stager {
	mitm := func(name Attack, flaw Flaw, maxTLS uint16) stager {
		return func(d *Domain) undo {
			return onHosts(name, func(h *Host) Interceptor { return d.n.foe.impersonate(h, h.Name, flaw, maxTLS) })(d)
		}
	}
	otherName := func(name Attack) stager {
		return func(d *Domain) undo {
			return onHosts(name, func(h *Host) Interceptor { return d.n.foe.impersonate(h, AttackerMX, NoFlaw, 0) })(d)
		}
	}
	forge := func(name Attack, at Stage, reply string) stager {
		return func(d *Domain) undo {
			return onHosts(name, func(h *Host) Interceptor { return d.n.foe.refuse(h, at, reply) })(d)
		}
	}
	return map[Attack]stager{
		MITMSelfSigned: mitm(MITMSelfSigned, SelfSigned, 0),
		MITMFalseCA:    mitm(MITMFalseCA, Untrusted, 0),
		MITMMisissued:  mitm(MITMMisissued, Misissued, 0),
		MITMExpired:    mitm(MITMExpired, Expired, 0),
		MITMOldTLS:     mitm(MITMOldTLS, Misissued, tls.VersionTLS10),
		MITMOtherName:  otherName(MITMOtherName),
		HijackRoute:    otherName(HijackRoute),
		ForgeGreeting:  forge(ForgeGreeting, AtConnect, "554 5.7.1 You are not welcome here"),
		ForgeBusy:      forge(ForgeBusy, AtConnect, "421 4.3.2 Too busy"),
		ForgeEHLO:      forge(ForgeEHLO, AtEHLO, "550 5.7.1 You are not welcome here"),
		ForgeRCPT:      forge(ForgeRCPT, AtRCPT, "550 5.1.1 No such mailbox"),
	}
}

// onNames puts a fault on the answers for names of the domain.
func onNames(rrType string, f DNSFault, names func(d *Domain) []string) stager {
	return func(d *Domain) undo {
		var u undo
		for _, name := range names(d) {
			u = append(u, d.n.DNS.Break(name, rrType, f))
		}
		return u
	}
}

// intoDomain makes the MX answer a host of the attacker's under the domain's own
// name.
func intoDomain(label string) stager {
	return func(d *Domain) undo {
		rogue := label + d.Name
		d.n.foe.own(rogue)
		d.n.DNS.SetAddrs(rogue, hostileMX)
		return undo{
			func() { d.n.DNS.SetAddrs(rogue) },
			d.n.DNS.Break(d.Name, "MX", Forge(MXs(MX{10, rogue}))),
		}
	}
}

func nameAttacks() map[Attack]stager {
	self := func(d *Domain) []string { return []string{d.Name} }
	txt := func(d *Domain) []string { return []string{"_mta-sts." + d.Name} }
	hosts := func(d *Domain) (names []string) {
		for _, h := range d.Hosts() {
			names = append(names, h.Name)
		}
		return names
	}
	tlsa := func(d *Domain) (names []string) {
		for _, h := range d.Hosts() {
			names = append(names, h.TLSABase())
		}
		return names
	}
	everything := func(d *Domain) []string {
		names := []string{d.Name, "_mta-sts." + d.Name, "mta-sts." + d.Name, "_smtp._tls." + d.Name}
		return append(append(names, hosts(d)...), tlsa(d)...)
	}
	return map[Attack]stager{
		SpoofMX:     onNames("MX", Forge(MXs(MX{10, AttackerMX})), self),
		SpoofNullMX: onNames("MX", Forge(MXs(MX{})), self),
		RogueMX: func(d *Domain) undo {
			d.mu.Lock()
			mxs := append([]MX{{0, AttackerMX}}, d.mxs...)
			d.mu.Unlock()
			return undo{d.n.DNS.Break(d.Name, "MX", Forge(MXs(mxs...)))}
		},
		SpoofAddrs: func(d *Domain) undo {
			var u undo
			for _, h := range d.Hosts() {
				f := ForgeAddrs(hostileMX)
				u = append(u, d.n.DNS.Break(h.Name, "A", f), d.n.DNS.Break(h.Name, "AAAA", f))
			}
			return u
		},
		WildcardAbuse: intoDomain("rogue."),
		WildcardDepth: intoDomain("rogue.deep."),
		HideTXT:       onNames("TXT", NXDomain(), txt),
		DropTXT:       onNames("TXT", Drop(), txt),
		ServFailTXT:   onNames("TXT", ServFail(), txt),
		ReplayTXT: func(d *Domain) undo {
			name := "_mta-sts." + d.Name
			return undo{d.n.DNS.Break(name, "TXT", Forge(d.n.DNS.current(name, "TXT")).Believed())}
		},
		HideTLSRPT:   onNames("TXT", NXDomain(), func(d *Domain) []string { return []string{"_smtp._tls." + d.Name} }),
		ServFailTLSA: onNames("TLSA", ServFail(), tlsa),
		BogusTLSA:    onNames("TLSA", Bogus(), tlsa),
		DropTLSA:     onNames("TLSA", Drop(), tlsa),
		ServFailMX:   onNames("MX", ServFail(), self),
		DropAll:      onNames("", Drop(), everything),
	}
}

// current returns what stands at a name now.
func (d *DNS) current(name, rrType string) Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	rrs := d.records[question{canonical(name), rrtype(rrType)}]
	return func(string) []dns.RR { return rrs }
}

// onSite puts a fault on the domain's policy host, if it has one.
func onSite(f SiteFault) stager {
	return func(d *Domain) undo {
		if s := d.PolicyHost(); s != nil {
			return undo{s.Break(f)}
		}
		return nil
	}
}

const (
	hugePolicy  = 1 << 30
	octetSecond = time.Second
)

func policyAttacks() map[Attack]stager {
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	return map[Attack]stager{
		BlockPolicyHost:     onSite(SiteFault{Dead: Refuse}),
		BlackHolePolicyHost: onSite(SiteFault{Dead: BlackHole}),
		HidePolicyHost: onNames("", NXDomain(), func(d *Domain) []string {
			return []string{"mta-sts." + d.Name}
		}),
		PolicySelfSigned: onSite(SiteFault{Flaw: SelfSigned}),
		PolicyUntrusted:  onSite(SiteFault{Flaw: Untrusted}),
		PolicyExpired:    onSite(SiteFault{Flaw: Expired}),
		PolicyWrongName:  onSite(SiteFault{Flaw: WrongName}),
		PolicyCNOnly:     onSite(SiteFault{Flaw: CNOnly}),
		PolicyOldTLS:     onSite(SiteFault{MaxTLS: tls.VersionTLS11}),
		PolicyRedirect: func(d *Domain) undo {
			elsewhere := "elsewhere." + d.Name
			d.n.Site(elsewhere, plainText(d.PolicyText))
			return onSite(SiteFault{Status: http.StatusFound, Header: http.Header{"Location": {"https://" + elsewhere + wellKnown}}})(d)
		},
		PolicyNotFound:       onSite(SiteFault{Status: http.StatusNotFound, Header: html, Body: "<html><title>Not here</title></html>"}),
		PolicyHTML:           onSite(SiteFault{Header: html, Body: "<html><title>Welcome</title></html>"}),
		PolicyMediaType:      onSite(SiteFault{Header: http.Header{"Content-Type": {"application/octet-stream"}}}),
		PolicyHuge:           onSite(SiteFault{Size: hugePolicy}),
		PolicySlow:           onSite(SiteFault{Slow: octetSecond}),
		PolicyHang:           onSite(SiteFault{Hang: true}),
		PoisonPolicy:         poisonPolicy,
		TakeOverPolicyHost:   takeOverPolicyHost,
		BlockReportCollector: blockReportCollector,
	}
}

// poisonPolicy leads the policy host's address to the attacker, who serves a
// policy of his own under a mis-issued certificate, and forges a new id.
func poisonPolicy(d *Domain) undo {
	d.n.foe.policySite(d, Misissued)
	u := undo{d.n.DNS.Break("_mta-sts."+d.Name, "TXT", Forge(TXTs("v=STSv1; id=poisoned")))}
	if s := d.PolicyHost(); s != nil {
		for _, a := range s.ports() {
			u = append(u, d.n.Intercept(a, PoisonPolicy, d.n.foe.servePolicy))
		}
	}
	return u
}

// takeOverPolicyHost is a dangling alias that the attacker has claimed: he
// controls the name, so a CA rightly gives him a certificate.
func takeOverPolicyHost(d *Domain) undo {
	d.n.foe.policySite(d, NoFlaw)
	name := "mta-sts." + d.Name
	var old []netip.Addr
	if s := d.PolicyHost(); s != nil {
		old = s.Addrs
	}
	d.n.DNS.SetAddrs(name)
	d.n.DNS.SetCNAME(name, AttackerWeb)
	return undo{func() {
		d.n.DNS.SetCNAME(name, "")
		d.n.DNS.SetAddrs(name, old...)
	}}
}

// blockReportCollector makes the host of an HTTPS rua refuse connections.
func blockReportCollector(d *Domain) undo {
	_, rest, ok := strings.Cut(d.options.TLSRPT, "https://")
	if !ok {
		return nil
	}
	host, _, _ := strings.Cut(rest, "/")
	s := d.n.site(host)
	if s == nil {
		return nil
	}
	return undo{s.Break(SiteFault{Dead: Refuse})}
}

func mistakes() map[Attack]stager {
	return map[Attack]stager{
		MoveMX: func(d *Domain) undo { return undo{d.moveMX("moved." + d.Name)} },
		UncoveredBackup: func(d *Domain) undo {
			primary := d.MX()
			back := d.replaceMX(MX{10, primary.Name}, MX{20, "backup." + d.Name})
			return undo{back, primary.Down(Refuse)}
		},
		DeletePolicy: func(d *Domain) undo {
			return undo{d.withPolicy(d.RemovePolicy), d.moveMX("moved." + d.Name)}
		},
		ULabelMX: func(d *Domain) undo {
			back := d.moveMX("mx.xn--bcher-kva." + d.Name)
			d.mu.Lock()
			sts := d.sts
			d.mu.Unlock()
			restore := d.withPolicy(func() {
				d.SetPolicy(STS{Mode: sts.Mode, MaxAge: sts.MaxAge, Patterns: []string{"mx.bücher." + d.Name}})
			})
			return undo{restore, back}
		},
		StaleTLSA: func(d *Domain) undo {
			var u undo
			for _, h := range d.Hosts() {
				u = append(u, h.RollKey())
			}
			return u
		},
	}
}

// withPolicy changes the policy for a while, if the domain has one.
func (d *Domain) withPolicy(change func()) (restore func()) {
	d.mu.Lock()
	old := d.sts
	d.mu.Unlock()
	if old.Mode == "" && old.Text == "" {
		return func() {}
	}
	change()
	return func() { d.SetPolicy(old) }
}

// moveMX makes a new host the domain's only one.
func (d *Domain) moveMX(name string) (back func()) { return d.replaceMX(MX{10, name}) }

// replaceMX gives the domain other MX hosts for a while.
func (d *Domain) replaceMX(mxs ...MX) (back func()) {
	d.mu.Lock()
	old := d.mxs
	d.mu.Unlock()
	d.SetMX(mxs...)
	return func() { d.SetMX(old...) }
}
