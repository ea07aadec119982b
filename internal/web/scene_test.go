package web

import (
	"fmt"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/verify"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const longName = "a-department-with-a-very-long-name.of-an-even-longer-organisation.xn--fiqs8s-of-the-far-side.example.com"

// quiet is a server that nothing happened to.
func quiet() *fake {
	return &fake{overview: Overview{
		Hostname: "relay.example.com", Version: "0.1.0", Mode: "enforce", Started: noon.Add(-90 * time.Second), Now: noon,
		Checks: []Check{
			{Name: "roots", OK: true, Text: "trusted certificate authorities are there"},
			{Name: "clock", OK: true, Text: "it is 2026-11-24 12:00 UTC"},
			{Name: "data folder", OK: true, Text: "/var/lib/pawl can be written"},
			{Name: "resolver", OK: true, Text: "answers"},
			{Name: "DNSSEC", OK: true, Text: "the resolver validates: it is on this machine"},
		},
	}}
}

// busy is a server of a large site on a bad day.
func busy() *fake {
	f := quiet()
	o := &f.overview
	o.Hostname, o.Started = "relay-3.mail.example.com", noon.Add(-(41*24*time.Hour + 5*time.Hour))
	o.Checks[4] = Check{
		Name: "DNSSEC", Text: "no resolver on this machine validates DNSSEC, and the word of one elsewhere can be forged: DANE is off: 192.0.2.53 is not on this machine",
		Do: "Run a validating resolver on this machine, as unbound, and name it with `dns.upstreams`.",
	}
	o.Held = busyHeld()
	o.Totals = Totals{Queued: 1204, Held: 17, Destinations: 48211, Verified: 1283940, Encrypted: 20411, Clear: 312, Refused: 46}
	for i := range 30 {
		o.Destinations = append(o.Destinations, busyDestination(i))
		o.Outcomes = append(o.Outcomes, busyOutcomes(i))
	}
	o.Totals.WouldHold = 12
	o.Outcomes[8].WouldHold = 12
	o.Events = busyEvents()
	o.Reports = busyReports()
	o.Overrides = []Override{
		{Domain: "customer-07.example.com", Text: "encrypt until 2026-12-01T00:00:00Z: their certificate is being renewed (root)", Weakens: "the MTA-STS policy, which is in mode enforce"},
		{Domain: longName, Text: "secure *.mail.example.com until 2027-01-01T00:00:00Z: agreed by phone, ticket 4711 (uid 1000)"},
	}
	f.lab = demoLab()
	f.destinations = map[string]DestinationPage{"bank.example.com": bankPage(o.Held[:2]), longName: {Domain: longName, Summary: longName + " has no MTA-STS policy; none of its MX hosts has DANE."}}
	f.messages = map[string]MessagePage{o.Held[0].ID: heldMessage(o.Held[0]), "done": doneMessage(o.Held[3])}
	return f
}

func demoLab() LabState {
	return LabState{
		Domain: "four domains",
		Attack: "Between the relay and the hosts stands an attacker: enforce.test gets a self-signed certificate, testing.test gets a self-signed certificate, dane.test gets a certificate that a trusted CA mis-issued, plain.test gets STARTTLS taken away.",
		Domains: []LabDomain{
			{Domain: "enforce.test", Kind: "MTA-STS enforce", Delivered: 1418},
			{Domain: "testing.test", Kind: "MTA-STS testing", Delivered: 1390, Stolen: 22},
			{Domain: "dane.test", Kind: "DANE", Delivered: 1407},
			{Domain: "plain.test", Kind: "no policy", Delivered: 1399, Stolen: 1021},
			{Domain: "broken.test", Kind: "MTA-STS enforce, and its certificate has expired"},
		},
	}
}

func busyHeld() []Held {
	held := []Held{
		{
			Domain: "bank.example.com", From: "statements@example.net", Recipients: 1, Attempts: 7, ByPolicy: true,
			Why: "mx1.bank.example.com showed a certificate that no trusted authority signed (CN=mx1.bank.example.com, self-signed, SHA-256 5f:0a:…:c1), which the MTA-STS policy of bank.example.com (mode enforce) does not allow; mx2.bank.example.com does not offer STARTTLS, which the MTA-STS policy of bank.example.com (mode enforce) does not allow",
			Do:  "If the path is under attack, nothing needs to be done: the mail leaves when it ends. Else ask postmaster@bank.example.com to install a certificate from a trusted authority.",
		},
		{
			Domain: "bank.example.com", From: "", Recipients: 1, Attempts: 2, ByPolicy: true,
			Why: "mx1.bank.example.com showed a certificate that expired on 2026-11-23, which the MTA-STS policy of bank.example.com (mode enforce) does not allow",
			Do:  "Ask the operator of bank.example.com to renew the certificate.",
		},
		{
			Domain: longName, From: "a.person.with.a.really.long.mailbox.name+and-a-tag@" + longName, Recipients: 12403, Attempts: 31,
			Why: "the MX hosts of " + longName + " could not be looked up: MX " + longName + " could not be looked up: SERVFAIL", Do: "Look at the name servers of " + longName + " and at pawl's resolver.",
		},
		{Domain: "shop.example.org", From: "orders@example.net", Recipients: 3, Attempts: 1, ByHand: true, Why: "held by root: waits for the all-clear", Do: "Release it with `pawl queue release`."},
		{Domain: "slow.example.org", From: "news@example.net", Recipients: 250, Attempts: 4, Why: `mx.slow.example.org asks to try again later: 451 4.7.1 Greylisted, see https://postgrey.example.org/`, Do: "It is tried again by itself; the reply says what the destination waits for."},
	}
	for i := range 10 {
		h := held[1]
		h.Domain, h.From = fmt.Sprintf("branch-%d.bank.example.com", i), "statements@example.net"
		held = append(held, h)
	}
	for i := range held {
		held[i].ID = fmt.Sprintf("01932c5e-7b1a-7c3d-9e4f-%012d", i)
		held[i].Since = noon.Add(-time.Duration(i*i+3) * 17 * time.Minute)
		held[i].Next = noon.Add(time.Duration(i*7)*time.Minute + 12*time.Second)
	}
	return held
}

func busyDestination(i int) Destination {
	domain := fmt.Sprintf("customer-%02d.example.com", i)
	d := Destination{Domain: domain, Source: "sts", Mode: "enforce", ID: "20261101", MX: []string{"mx1." + domain, "*.mail." + domain}, Fetched: noon.Add(-time.Hour), Expires: noon.Add(time.Duration(i+1) * 19 * time.Hour)}
	switch {
	case i == 3:
		d.Domain, d.Mode, d.Failed, d.Failing = "bank.example.com", "enforce", 5, "sts-policy-fetch-error the policy host refused the connection"
	case i == 5:
		d.Domain, d.Source, d.Mode, d.MX, d.Expires = longName, "none", "", nil, time.Time{}
	case i == 7:
		d.Source, d.Override = "override", "encrypt until 2026-12-01, by root: their certificate is being renewed"
	case i == 8:
		d.Observe = true
		d.MX = []string{"mx1." + domain, "mx2." + domain, "mx3." + domain, "mx4." + domain, "mx5." + domain}
	case i == 6:
		d.Vanished = true
	case i%5 == 1:
		d.Mode = "testing"
	case i%5 == 2:
		d.Source, d.Mode, d.MX, d.Expires = "none", "", nil, time.Time{}
	case i%5 == 4:
		d.Source = "dane"
	}
	return d
}

func busyOutcomes(i int) Outcomes {
	n := int64(41000 / (i + 1))
	s := Outcomes{Domain: busyDestination(i).Domain, Verified: n, Last: noon.Add(-time.Duration(i) * time.Minute)}
	switch {
	case i == 3:
		s.Verified, s.Refused = 812, 46
		s.Failures = []Failure{
			{Result: "certificate-not-trusted", Reason: "self-signed", MX: "mx1.bank.example.com", Sessions: 31},
			{Result: "starttls-not-supported", MX: "mx2.bank.example.com", Sessions: 15},
			{Result: "sts-policy-fetch-error", Reason: "connection-refused", Sessions: 4},
			{Result: "certificate-expired", MX: "mx1.bank.example.com", Sessions: 1},
		}
	case i == 5:
		s.Verified, s.Clear = 0, 312
	case i%5 == 2:
		s.Verified, s.Encrypted = 0, n
	case i == 9:
		return Outcomes{Domain: "only-outcomes.example.com", Encrypted: 1}
	}
	return s
}

func busyReports() []Report {
	reports := []Report{
		{Day: "2026-11-23", Domain: "bank.example.com", State: "sending", To: []ReportTo{
			{RUA: "https://reports.bank.example.com/v1/tls-rpt/a-path-that-somebody-made-very-long-indeed", State: "waiting", Answer: "500 Internal Server Error", Tried: noon.Add(-20 * time.Minute)},
			{RUA: "mailto:tls-reports@" + longName, State: "accepted", Answer: "250 2.0.0 Ok: queued as 4XyZ", Tried: noon.Add(-21 * time.Minute)},
		}},
		{Day: "2026-11-23", Domain: longName, State: "skipped", Why: "the domain wants no reports: no TXT record begins with v=TLSRPTv1;"},
		{Day: "2026-11-22", Domain: "shop.example.org", State: "failed", Why: "no destination took it; the last was failed: 410 Gone", To: []ReportTo{{RUA: "https://gone.example.org/", State: "failed", Answer: "410 Gone", Tried: noon.Add(-30 * time.Hour)}}},
	}
	for i := range 9 {
		reports = append(reports, Report{Day: "2026-11-22", Domain: fmt.Sprintf("customer-%02d.example.com", i), State: "sent", To: []ReportTo{{RUA: "mailto:r@example.com", State: "accepted", Tried: noon.Add(-30 * time.Hour)}}})
	}
	return reports
}

func busyEvents() []event.Event {
	events := []event.Event{
		{Kind: event.PolicyWeakened, Severity: event.Error, Domain: "bank.example.com", Text: "the MTA-STS policy of bank.example.com went from mode enforce to mode testing", Do: "Ask its operator by another way whether that was meant; who can change its web site can do this."},
		{Kind: event.PolicyRefreshFailing, Severity: event.Warning, Domain: "bank.example.com", Text: "the MTA-STS policy of bank.example.com could not be renewed 5 times in a row: https://mta-sts.bank.example.com/.well-known/mta-sts.txt refused the connection", Do: "Nothing is lost until 2026-11-30, when the cached policy ends; tell its operator before then."},
		{Kind: event.MessageReleased, Severity: event.Info, Domain: longName, Text: "3 messages that were held left over verified TLS"},
	}
	for i := range 12 {
		events = append(events, event.Event{Kind: event.PolicyNew, Severity: event.Info, Domain: fmt.Sprintf("customer-%02d.example.com", i), Text: fmt.Sprintf("customer-%02d.example.com has an MTA-STS policy now, in mode enforce", i)})
	}
	for i := range events {
		events[i].ID, events[i].At = fmt.Sprintf("e%d", i), noon.Add(-time.Duration(i*i)*7*time.Minute-3*time.Second)
	}
	return events
}

func bankPage(held []Held) DestinationPage {
	steps := []verify.Step{
		{Asked: "TXT _mta-sts.bank.example.com", Answer: `"v=STSv1; id=20261101T120000;"`, Authentic: true},
		{Asked: "GET https://mta-sts.bank.example.com/.well-known/mta-sts.txt", Answer: "the connection was refused", Note: "asked again five minutes after a failure at the earliest (RFC 8461 §3.3)"},
		{Asked: "MTA-STS of bank.example.com", Answer: "the cached policy holds until 2026-11-30T12:00:00Z", Cell: "1/valid-same-id/policy"},
		{Asked: "MX bank.example.com", Answer: "10 mx1.bank.example.com, 20 mx2.bank.example.com, 90 rogue." + longName, Authentic: true},
	}
	host := func(name string, preference uint16) Host {
		return Host{
			Name: name, Preference: preference, Addrs: []string{"192.0.2.25", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:25"}, Demand: "TLS with an identity that was proven", Cell: "2/absent/enforce",
			Steps: []verify.Step{{Asked: "A/AAAA " + name, Answer: "192.0.2.25, 2001:db8:aaaa:bbbb:cccc:dddd:eeee:25", Authentic: true}, {Asked: "TLSA _25._tcp." + name, Answer: "there is none", Authentic: true}},
		}
	}
	rogue := host("rogue."+longName, 90)
	second := host("mx2.bank.example.com", 20)
	second.TLSA, second.Observed = []string{"3 1 1 " + strings.Repeat("5f0a", 16)}, "the TLSA records of mx2.bank.example.com could not be looked up, so it must not be used: SERVFAIL"
	rogue.Addrs, rogue.Unreachable = nil, "rogue."+longName+" is not in the MTA-STS policy of bank.example.com (RFC 8461 §4.1)"
	o := busyOutcomes(3)
	return DestinationPage{
		Override: &Override{Domain: "bank.example.com", Text: "observe until 2026-12-01T00:00:00Z: a first look (root)", Weakens: "the MTA-STS policy, which is in mode enforce"},
		Observed: "Nothing is enforced here: what a policy forbids is recorded, and the mail goes.",
		Domain:   "bank.example.com", Summary: "The MTA-STS policy 20261101T120000 of bank.example.com is in mode enforce and holds until 2026-11-30T12:00:00Z; none of its MX hosts has DANE.",
		Postfix: "secure match=mx1.bank.example.com:mx2.bank.example.com\nMTA-STS policy 20261101T120000, mode enforce", Policy: []string{"version: STSv1", "mode: enforce", "mx: mx1.bank.example.com", "mx: mx2.bank.example.com", "max_age: 604800"},
		Steps: steps, Hosts: []Host{host("mx1.bank.example.com", 10), second, rogue}, Outcomes: o, Events: busyEvents()[:2], Held: held,
	}
}

func heldMessage(h Held) MessagePage {
	m := MessagePage{
		Held: h, State: "queued", Size: 1843227, Received: h.Since, Expires: h.Since.Add(5 * 24 * time.Hour),
		Recipients: []Recipient{{Addr: "a.customer@bank.example.com", State: "pending", Reply: ""}, {Addr: "gone@bank.example.com", State: "failed", Reply: "550 5.1.1 <gone@bank.example.com>: Recipient address rejected: User unknown in virtual mailbox table"}},
	}
	for i := range 15 {
		m.Recipients = append(m.Recipients, Recipient{Addr: fmt.Sprintf("customer-%d@bank.example.com", i), State: "pending"})
	}
	for i := range 3 {
		m.Attempts = append(m.Attempts, Attempt{
			At: noon.Add(-time.Duration(i+1) * 17 * time.Minute), Took: time.Duration(i*i+1) * 412 * time.Millisecond, MX: "mx1.bank.example.com", Addr: "192.0.2.25", Transport: "none",
			Why: h.Why, Do: h.Do, Section: "RFC 8461 §4.2", Cell: "2/absent/enforce", Steps: bankPage(nil).Steps,
			Demand: "TLS with an identity that was proven", TLS: "TLS 1.3 TLS_AES_128_GCM_SHA256", Cert: "subject CN=mx1.bank.example.com, names mx1.bank.example.com, issuer CN=mx1.bank.example.com, valid until 2027-02-23T20:12:37Z",
			Judged: []Judged{{Policy: "the MTA-STS policy of bank.example.com", Failed: "certificate-not-trusted self-signed"}},
			Lines:  []string{"S: 220 mx1.bank.example.com ESMTP", "C: EHLO relay-3.mail.example.com", "S: 250-STARTTLS", "C: STARTTLS", "S: 220 2.0.0 ready"},
		})
	}
	return m
}

func doneMessage(h Held) MessagePage {
	return MessagePage{
		Held: Held{ID: "done", Domain: h.Domain, From: "orders@example.net"}, State: "delivered", Size: 512, Received: noon.Add(-time.Hour),
		Recipients: []Recipient{{Addr: "shop@shop.example.org", State: "delivered", Reply: "250 2.0.0 Ok: queued as 4XyZ"}},
		Attempts: []Attempt{{
			At: noon.Add(-59 * time.Minute), Took: 231 * time.Millisecond, MX: "mx.shop.example.org", Addr: "192.0.2.80", Transport: "verified", OK: true, Section: "RFC 7672 §2.2", Cell: "2/usable/none",
			Demand: "TLS with an identity that was proven", Judged: []Judged{{Policy: "the TLSA records of mx.shop.example.org"}}, TLS: "TLS 1.3 TLS_AES_128_GCM_SHA256", Cert: "CN=mx.shop.example.org", Reused: true,
			WouldHold: "mx.shop.example.org does not offer STARTTLS",
			Why:       `mx.shop.example.org was authenticated by its TLSA record "3 1 1 5f0a…c1" (TLS 1.3, certificate CN=mx.shop.example.org); it took the mail: 250 2.0.0 Ok: queued as 4XyZ`,
		}},
	}
}
