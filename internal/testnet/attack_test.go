package testnet

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// naive sends a message as an ordinary MTA does: by MX preference, over TLS if
// it can be had, whatever the certificate, in clear if not. It returns what
// became of it: the delivery in words, or why there was none.
func naive(t *testing.T, n *Net, domain string) string {
	t.Helper()
	m, err := ask(t, n, "udp", domain, "MX", true, false)
	if err != nil {
		return "MX lookup: timeout"
	}
	if m.Rcode != dns.RcodeSuccess {
		return "MX lookup: " + dns.RcodeToString[m.Rcode]
	}
	slices.SortFunc(m.Answer, func(a, b dns.RR) int { return cmp.Compare(a.(*dns.MX).Preference, b.(*dns.MX).Preference) })
	said := "no MX"
	for _, rr := range m.Answer {
		host := canonical(rr.(*dns.MX).Mx)
		for _, useTLS := range []bool{true, false} {
			reply, err := attempt(t, n, host, domain, useTLS)
			switch {
			case err == nil && reply[0] == '2':
				got := n.Delivered("to@" + domain)
				return outcomeOf(got[len(got)-1])
			case err == nil && reply[0] == '5':
				return "bounced: " + reply
			case err == nil:
				said = "later: " + reply
			case useTLS:
				continue // once more, in clear
			default:
				said = err.Error()
			}
			break
		}
	}
	return said
}

func attempt(t *testing.T, n *Net, host, domain string, useTLS bool) (string, error) {
	t.Helper()
	ctx := limit(t)
	conn, err := n.Dial(ctx, "tcp", net.JoinHostPort(host, "25"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c, reply, err := NewCaller(conn)
	if err != nil || reply[0] != '2' {
		return reply, err
	}
	if reply, err = c.Say("EHLO sender.test"); err != nil || reply[0] != '2' {
		return reply, err
	}
	if useTLS && strings.Contains(reply, "STARTTLS") {
		if reply, err = c.Say("STARTTLS"); err != nil {
			return "", err
		}
		if reply[0] != '2' {
			return "", errors.New(reply)
		}
		if _, err = c.Handshake(ctx, &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}); err != nil {
			return "", err
		}
		if reply, err = c.Say("EHLO sender.test"); err != nil || reply[0] != '2' {
			return reply, err
		}
	}
	reply, err = c.Send("from@b.test", "to@"+domain, "Subject: x\r\n\r\nhello\r\n")
	_, _ = c.Say("QUIT")
	return reply, err
}

// outcomeOf is a delivery in few words.
func outcomeOf(d Delivery) string {
	words := []string{d.Host}
	if d.ByAttacker {
		words[0] = "ATTACKER as " + d.Host
	}
	if d.Clear() {
		words = append(words, "in clear")
	} else {
		words = append(words, tls.VersionName(d.TLS.Version))
		if d.Trusted {
			words = append(words, "trusted")
		}
		if d.TrueKey {
			words = append(words, "true key")
		}
	}
	for _, v := range d.Via {
		words = append(words, "via "+string(v))
	}
	return strings.Join(words, ", ")
}

func TestEachAttackOnTheSession(t *testing.T) {
	const honest = "mx.a.test, TLS 1.3, trusted, true key"
	for attack, want := range map[Attack]string{
		StripSTARTTLS:    "mx.a.test, in clear, via strip-starttls",
		STARTTLSTempFail: "mx.a.test, in clear, via starttls-454",
		STARTTLSPermFail: "mx.a.test, in clear, via starttls-502",
		KillHandshake:    "mx.a.test, in clear, via kill-handshake",
		DowngradeVersion: "mx.a.test, TLS 1.1, trusted, true key, via downgrade-version",
		DowngradeCipher:  "mx.a.test, in clear, via downgrade-cipher",
		MITMSelfSigned:   "ATTACKER as mx.a.test, TLS 1.3, via mitm-self-signed",
		MITMOtherName:    "ATTACKER as mx.a.test, TLS 1.3, via mitm-other-name",
		MITMFalseCA:      "ATTACKER as mx.a.test, TLS 1.3, via mitm-false-ca",
		MITMMisissued:    "ATTACKER as mx.a.test, TLS 1.3, trusted, via mitm-misissued",
		MITMExpired:      "ATTACKER as mx.a.test, TLS 1.3, via mitm-expired",
		MITMOldTLS:       "ATTACKER as mx.a.test, TLS 1.0, trusted, via mitm-old-tls",
		ShowExpired:      "mx.a.test, TLS 1.3, true key, via show-expired",
		ShowWrongName:    "mx.a.test, TLS 1.3, true key, via show-wrong-name",
		ShowCNOnly:       "mx.a.test, TLS 1.3, true key, via show-cn-only",
		FakeCapabilities: honest + ", via fake-capabilities",
		InjectReplies:    honest + ", via inject-replies",
		ForgeGreeting:    "bounced: 554 5.7.1 You are not welcome here",
		ForgeEHLO:        "bounced: 550 5.7.1 You are not welcome here",
		ForgeRCPT:        "bounced: 550 5.1.1 No such mailbox",
		ForgeBusy:        "later: 421 4.3.2 Too busy",
		HijackRoute:      "ATTACKER as mx.a.test, TLS 1.3, via hijack-route",
		PlainTextTap:     honest + ", via plain-text-tap",
		DeadMX:           "dial tcp 192.0.2.1:25: connect: connection refused",
	} {
		t.Run(string(attack), func(t *testing.T) {
			n := Start(t, Options{})
			d := n.Domain("a.test", DomainOptions{})
			if got := naive(t, n, "a.test"); got != honest {
				t.Fatalf("before: %s", got)
			}
			d.On(attack)
			if got := naive(t, n, "a.test"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
				for _, s := range n.Sessions() {
					t.Log(s)
				}
			}
			d.Off(attack)
			if got := naive(t, n, "a.test"); got != honest {
				t.Errorf("after: %s", got)
			}
		})
	}
}

func TestInjectedRepliesArriveWithThe220(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{}).On(InjectReplies)
	c := call(t, n, "mx.a.test:25")
	say(t, c, "EHLO sender.test", "250")
	say(t, c, "STARTTLS", "220")
	if c.r.Buffered() == 0 {
		t.Error("nothing follows the 220")
	}
	if reply, err := c.Reply(); err != nil || reply != "250-injected\n250-SIZE 10\n250 AUTH PLAIN" {
		t.Errorf("injected %q, %v", reply, err)
	}
}

func TestCapabilitiesFromBeforeTLSAreFake(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{}).On(FakeCapabilities)
	c := call(t, n, "mx.a.test:25")
	reply, err := c.Say("EHLO sender.test")
	if err != nil || !strings.Contains(reply, "250-SIZE 10\n") || !strings.HasSuffix(reply, "250 REQUIRETLS") {
		t.Errorf("got %q, %v", reply, err)
	}
}

func TestAnAttackerWhoSaysNothingAfterThe220(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{}).On(Smother)
	c := call(t, n, "mx.a.test:25")
	say(t, c, "EHLO sender.test", "250")
	say(t, c, "STARTTLS", "220")
	ctx, cancel := context.WithCancel(limit(t))
	failed := make(chan error)
	go func() {
		_, err := c.Handshake(ctx, &tls.Config{InsecureSkipVerify: true})
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestEachAttackOnTheDNS(t *testing.T) {
	const honest = "mx.a.test, TLS 1.3, trusted, true key"
	const taken = "ATTACKER as mx.attacker.test, TLS 1.3, trusted"
	for _, tt := range []struct {
		attack         Attack
		plain, signed  string // what becomes of mail
		lookup, rrType string // another answer it changes
		says, saysDANE string
	}{
		{SpoofMX, taken, "MX lookup: SERVFAIL", "a.test", "MX", "NOERROR MX 10 mx.attacker.test.", "SERVFAIL"},
		{RogueMX, taken, "MX lookup: SERVFAIL", "a.test", "MX", "NOERROR MX 0 mx.attacker.test. MX 10 mx.a.test.", "SERVFAIL"},
		{SpoofAddrs, "ATTACKER as mx.a.test, TLS 1.3", "lookup mx.a.test on DNS: server misbehaving", "mx.a.test", "A", "NOERROR A 203.0.113.66", "SERVFAIL"},
		{WildcardAbuse, "ATTACKER as rogue.a.test, TLS 1.3, trusted", "MX lookup: SERVFAIL", "a.test", "MX", "NOERROR MX 10 rogue.a.test.", "SERVFAIL"},
		{WildcardDepth, "ATTACKER as rogue.deep.a.test, TLS 1.3, trusted", "MX lookup: SERVFAIL", "a.test", "MX", "NOERROR MX 10 rogue.deep.a.test.", "SERVFAIL"},
		{HideTXT, honest, honest, "_mta-sts.a.test", "TXT", "NXDOMAIN SOA a.test.", "SERVFAIL"},
		{DropTXT, honest, honest, "_mta-sts.a.test", "TXT", "timeout", "timeout"},
		{ServFailTXT, honest, honest, "_mta-sts.a.test", "TXT", "SERVFAIL", "SERVFAIL"},
		{ReplayTXT, honest, honest, "_mta-sts.a.test", "TXT", `NOERROR TXT "v=STSv1; id=id1"`, `NOERROR AD TXT "v=STSv1; id=id1"`},
		{HideTLSRPT, honest, honest, "_smtp._tls.a.test", "TXT", "NXDOMAIN SOA a.test.", "SERVFAIL"},
		{ServFailTLSA, honest, honest, "_25._tcp.mx.a.test", "TLSA", "SERVFAIL", "SERVFAIL"},
		{BogusTLSA, honest, honest, "_25._tcp.mx.a.test", "TLSA", "NXDOMAIN SOA a.test.", "SERVFAIL"},
		{DropTLSA, honest, honest, "_25._tcp.mx.a.test", "TLSA", "timeout", "timeout"},
		{ServFailMX, "MX lookup: SERVFAIL", "MX lookup: SERVFAIL", "a.test", "MX", "SERVFAIL", "SERVFAIL"},
		{DropAll, "MX lookup: timeout", "MX lookup: timeout", "mx.a.test", "A", "timeout", "timeout"},
		{HidePolicyHost, honest, honest, "mta-sts.a.test", "A", "NXDOMAIN SOA a.test.", "SERVFAIL"},
		{PoisonPolicy, honest, honest, "_mta-sts.a.test", "TXT", `NOERROR TXT "v=STSv1; id=poisoned"`, "SERVFAIL"},
		{TakeOverPolicyHost, honest, honest, "mta-sts.a.test", "A", "NOERROR CNAME pages.attacker.test. A 203.0.113.67", "NOERROR CNAME pages.attacker.test. A 203.0.113.67"},
	} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/signed=%v", tt.attack, signed), func(t *testing.T) {
				n := Start(t, Options{})
				o := DomainOptions{STS: STS{Mode: "enforce"}, TLSRPT: "mailto:tls@a.test"}
				mail, says := tt.plain, tt.says
				if signed {
					o.DANE, mail, says = DANEEE, tt.signed, tt.saysDANE
				}
				d := n.Domain("a.test", o)
				answer := func() string {
					m, err := ask(t, n, "udp", tt.lookup, tt.rrType, true, false)
					if err != nil {
						return "timeout"
					}
					return brief(m)
				}
				before := answer()
				d.On(tt.attack)
				if tt.attack == ReplayTXT {
					d.BumpID()
				}
				if got := answer(); got != says {
					t.Errorf("%s %s: got %s, want %s", tt.lookup, tt.rrType, got, says)
				}
				got := strings.ReplaceAll(naive(t, n, "a.test"), n.DNSAddr(), "DNS")
				if !strings.HasSuffix(got, mail) {
					t.Errorf("mail: got %s, want %s", got, mail)
				}
				d.Off()
				if tt.attack == ReplayTXT {
					before = strings.Replace(before, "id1", "id2", 1)
				}
				if got := answer(); got != before {
					t.Errorf("after it: got %s, want %s", got, before)
				}
			})
		}
	}
}

func TestEachAttackOnThePolicyHost(t *testing.T) {
	const policy = "version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmax_age: 604800\r\n"
	const theirs = "version: STSv1\r\nmode: enforce\r\nmx: mx.attacker.test\r\nmax_age: 604800\r\n"
	for attack, want := range map[Attack]string{
		BlockPolicyHost:    "connection refused",
		HidePolicyHost:     "no such host",
		PolicySelfSigned:   "unknown authority",
		PolicyUntrusted:    "unknown authority",
		PolicyExpired:      "expired",
		PolicyWrongName:    "valid for other.test",
		PolicyCNOnly:       "Common Name",
		PolicyOldTLS:       "protocol version",
		PolicyRedirect:     "302 Found text/plain",
		PolicyNotFound:     "404 Not Found text/html",
		PolicyHTML:         "200 OK text/html",
		PolicyMediaType:    "200 OK application/octet-stream: " + policy,
		PolicyHuge:         "200 OK text/plain: " + policy + "\n\n\n",
		PoisonPolicy:       "200 OK text/plain: " + theirs,
		TakeOverPolicyHost: "200 OK text/plain: " + theirs,
	} {
		t.Run(string(attack), func(t *testing.T) {
			n := Start(t, Options{})
			d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}})
			look := func() string {
				head, body, err := fetch(limit(t), browser(t, n), "a.test")
				if err != nil {
					return err.Error()
				}
				return head + ": " + body
			}
			d.On(attack)
			if got := look(); !strings.Contains(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			d.Off(attack)
			if got := look(); got != "200 OK text/plain: "+policy {
				t.Errorf("after it: %q", got)
			}
		})
	}
}

func TestABlackHoleEndsByTheClock(t *testing.T) {
	n := Start(t, Options{})
	n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}}).On(BlackHolePolicyHost)
	got := make(chan error)
	go func() {
		_, _, err := fetch(limit(t), browser(t, n), "a.test")
		got <- err
	}()
	if err := n.Clock.WaitTimers(limit(t), 1); err != nil {
		t.Fatal(err)
	}
	n.Clock.Advance(connectTimeout)
	err := <-got
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestWhatADomainDoesToItself(t *testing.T) {
	for _, tt := range []struct {
		attack            Attack
		mail, policy, txt string
	}{
		{MoveMX, "moved.a.test, TLS 1.3, trusted, true key", "mx: mx.a.test", `NOERROR AD TXT "v=STSv1; id=id1"`},
		{UncoveredBackup, "backup.a.test, TLS 1.3, trusted, true key", "mx: mx.a.test", `NOERROR AD TXT "v=STSv1; id=id1"`},
		{DeletePolicy, "moved.a.test, TLS 1.3, trusted, true key", "404 page not found", "NXDOMAIN AD SOA a.test."},
		{ULabelMX, "mx.xn--bcher-kva.a.test, TLS 1.3, trusted, true key", "mx: mx.bücher.a.test", `NOERROR AD TXT "v=STSv1; id=id2"`},
		{StaleTLSA, "mx.a.test, TLS 1.3, trusted, true key", "mx: mx.a.test", `NOERROR AD TXT "v=STSv1; id=id1"`},
	} {
		t.Run(string(tt.attack), func(t *testing.T) {
			n := Start(t, Options{})
			d := n.Domain("a.test", DomainOptions{STS: STS{Mode: "enforce"}, DANE: DANEEE})
			tlsa := d.MX().EE()
			d.On(tt.attack)
			if got := naive(t, n, "a.test"); got != tt.mail {
				t.Errorf("mail: got %s, want %s", got, tt.mail)
			}
			if _, body, err := fetch(limit(t), browser(t, n), "a.test"); err != nil || !strings.Contains(body, tt.policy) {
				t.Errorf("policy: got %q, %v; want %s", body, err, tt.policy)
			}
			if m, err := ask(t, n, "udp", "_mta-sts.a.test", "TXT", true, false); err != nil || brief(m) != tt.txt {
				t.Errorf("record: got %v, %v; want %s", m, err, tt.txt)
			}
			if stale := tt.attack == StaleTLSA; stale == slices.Equal(tlsa.Data, d.Hosts()[0].EE().Data) && d.MX().Name == "mx.a.test" {
				t.Error("the key and its TLSA record do not stand as they should")
			}
			d.Off()
			if got := naive(t, n, "a.test"); got != "mx.a.test, TLS 1.3, trusted, true key" {
				t.Errorf("mail after it: %s", got)
			}
			if _, body, err := fetch(limit(t), browser(t, n), "a.test"); err != nil || !strings.Contains(body, "mx: mx.a.test") {
				t.Errorf("policy after it: %q, %v", body, err)
			}
		})
	}
}

func TestAttacksAreSwitchedByName(t *testing.T) {
	n := Start(t, Options{})
	d := n.Domain("a.test", DomainOptions{})
	d.On(StripSTARTTLS, SpoofMX, StripSTARTTLS)
	d.Off(SpoofMX)
	d.On(HideTXT)
	if diff := gocmp.Diff([]Attack{StripSTARTTLS, HideTXT}, d.Active()); diff != "" {
		t.Error(diff)
	}
	d.Off()
	if got := d.Active(); got != nil {
		t.Errorf("still on: %v", got)
	}
}

func TestAnUnknownAttackIsAnErrorOfTheNet(t *testing.T) {
	n, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	n.Domain("a.test", DomainOptions{}).On("magic")
	if err := n.Err(); !errors.Is(err, ErrUnknownAttack) {
		t.Errorf("got %v", err)
	}
}

func TestEveryRowNamesAttacksThatExist(t *testing.T) {
	known := Attacks()
	for row, variants := range rows() {
		for _, v := range variants {
			for _, a := range v.Attacks {
				if !slices.Contains(known, a) {
					t.Errorf("row %s, %s: no attack %q", row, v.Name, a)
				}
			}
		}
	}
}

func TestEveryAttackCanBeSwitchedOnAndOffOnEveryDomain(t *testing.T) {
	n := Start(t, Options{})
	for i, o := range []DomainOptions{
		{},
		{STS: STS{Mode: "testing"}},
		{STS: STS{Mode: "enforce"}, MX: []MX{{10, "mx1.many.test"}, {20, "mx2.many.test"}}, Host: HostOptions{IPv6: true}},
		{DANE: DANETA, TLSRPT: "https://reports.a.test/v1"},
	} {
		name := fmt.Sprintf("d%d.test", i)
		d := n.Domain(name, o)
		before := naive(t, n, name)
		d.On(Attacks()...)
		d.Off()
		if got := naive(t, n, name); got != before {
			t.Errorf("%s: before %s, after %s", name, before, got)
		}
	}
}
