package postfix_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/postfix/postfixtest"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/verify"
)

// trixieScript makes the folder with Postfix 3.10.
const trixieScript = "../../scripts/trixie.sh"

// mail is one message to a domain of the lab, and what must become of it.
type mail struct {
	name   string
	domain string
	setup  func(l *lab, domain string) // makes the domain
	result string                      // "sent", "deferred"
	text   string                      // part of what Postfix says about it
	by     string                      // the host that took it; "": the domain's "mx."
	clear  bool                        // it came without TLS
	logged string                      // part of some line of the mail log
	report string                      // what Postfix 3.10 hands to libtlsrpt, see datagrams.of
}

// enforced makes a domain with an enforced policy that is under attack.
func enforced(attacks ...testnet.Attack) func(l *lab, domain string) {
	return with(testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}, attacks...)
}

// with makes a domain that is under attack.
func with(o testnet.DomainOptions, attacks ...testnet.Attack) func(l *lab, domain string) {
	return func(l *lab, domain string) {
		o.TLSRPT = "mailto:tls@" + domain
		l.domain(domain, o).On(attacks...)
	}
}

// twoHosts makes a signed domain with the hosts mx1 (preferred) and mx2, of which
// only mx2 has TLSA records.
func twoHosts(sts testnet.STS, more func(l *lab, d *testnet.Domain)) func(l *lab, domain string) {
	return func(l *lab, domain string) {
		d := l.domain(domain, testnet.DomainOptions{
			MX:     []testnet.MX{{Preference: 10, Host: "mx1." + domain}, {Preference: 20, Host: "mx2." + domain}},
			Signed: true, STS: sts, TLSRPT: "mailto:tls@" + domain,
		})
		more(l, d)
	}
}

func giveTLSA(l *lab, d *testnet.Domain) {
	h := d.Hosts()[1]
	l.DNS.SetTLSA(h.TLSABase(), h.EE())
}

// patterns is a policy's list of many names that no host has, and at its end
// the domain's own host.
func patterns(n int, domain string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("mx-%05d.more.%s", i, domain)
	}
	return append(list, "mx."+domain)
}

func mails() []mail {
	return []mail{
		{
			name: "a good host of an enforced policy gets it", domain: "enforce.test",
			setup: enforced(), result: "sent", logged: "Verified TLS connection established to mx.enforce.test", report: "sts success",
		},
		{
			name: "a self-signed certificate defers it", domain: "selfsigned.test",
			setup: enforced(testnet.MITMSelfSigned), result: "deferred", text: "Server certificate not", report: "sts 205 self-signed_certificate",
		},
		{
			name: "a certificate of a CA that nobody trusts defers it", domain: "falseca.test",
			setup: enforced(testnet.MITMFalseCA), result: "deferred", text: "Server certificate not", report: "sts 205 unable_to_get_local_issuer_certificate",
		},
		{
			name: "a certificate for another name defers it", domain: "wrongname.test",
			setup: enforced(testnet.ShowWrongName), result: "deferred", text: "Server certificate not verified", report: "sts 202",
		},
		{
			name: "an expired certificate defers it", domain: "expired.test",
			setup: enforced(testnet.ShowExpired), result: "deferred", text: "Server certificate not", report: "sts 204",
		},
		{
			name: "STARTTLS stripped defers it", domain: "stripped.test",
			setup: enforced(testnet.StripSTARTTLS), result: "deferred", text: "TLS is required, but was not offered by host mx.stripped.test", report: "sts 201",
		},
		{
			name: "STARTTLS refused defers it", domain: "refused.test",
			setup: enforced(testnet.STARTTLSTempFail), result: "deferred", text: "TLS is required, but host mx.refused.test", report: "sts 201",
		},
		{
			name: "an MX host that is not in the policy defers it", domain: "spoofed.test",
			setup: func(l *lab, domain string) {
				enforced(testnet.SpoofMX)(l, domain)
				l.listenFor(testnet.AttackerMX)
			},
			result: "deferred",
		},
		{
			name: "a testing policy stops nothing", domain: "testing.test",
			setup:  with(testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}}, testnet.MITMSelfSigned),
			result: "sent", by: "mx.testing.test", report: "none success",
		},
		{
			name: "a testing policy stops not even clear text", domain: "testingclear.test",
			setup:  with(testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}}, testnet.StripSTARTTLS),
			result: "sent", clear: true,
		},
		{
			name: "without a policy it goes", domain: "nothing.test",
			setup: with(testnet.DomainOptions{}, testnet.ShowWrongName), result: "sent", report: "none success",
		},
		{
			name: "without a policy it goes in clear where there is no TLS", domain: "nothingclear.test",
			setup: with(testnet.DomainOptions{Host: testnet.HostOptions{NoSTARTTLS: true}}), result: "sent", clear: true,
		},
		{
			name: "a host that its TLSA record vouches for gets it", domain: "dane.test",
			setup:  with(testnet.DomainOptions{DANE: testnet.DANEEE}),
			result: "sent", logged: "Verified TLS connection established to mx.dane.test", report: "tlsa success",
		},
		{
			name: "an expired certificate is good where DANE-EE vouches for the key", domain: "daneexpired.test",
			setup: with(testnet.DomainOptions{DANE: testnet.DANEEE}, testnet.ShowExpired), result: "sent", report: "tlsa success",
		},
		{
			name: "DANE-TA holds the name", domain: "daneta.test",
			setup: with(testnet.DomainOptions{DANE: testnet.DANETA}, testnet.ShowWrongName), result: "deferred", text: "Server certificate not", report: "tlsa 202",
		},
		{
			name: "a TLSA record that does not match defers it", domain: "danestale.test",
			setup: with(testnet.DomainOptions{DANE: testnet.DANEEE}, testnet.StaleTLSA), result: "deferred", text: "Server certificate not", report: "tlsa 203",
		},
		{
			name: "STARTTLS stripped before a host with TLSA records defers it", domain: "danestripped.test",
			setup: with(testnet.DomainOptions{DANE: testnet.DANEEE}, testnet.StripSTARTTLS), result: "deferred", text: "TLS is required", report: "tlsa 201",
		},
		{
			name: "TLSA records that cannot be looked up defer it", domain: "danefailed.test",
			setup:  with(testnet.DomainOptions{DANE: testnet.DANEEE}, testnet.ServFailTLSA),
			result: "deferred", logged: "the TLSA records of mx.danefailed.test could not be looked up",
		},
		{
			name: "DANE passes and STS does not: DANE decides", domain: "both.test",
			setup:  with(testnet.DomainOptions{DANE: testnet.DANEEE, STS: testnet.STS{Mode: "enforce", Patterns: []string{"other.both.test"}}}),
			result: "sent", report: "tlsa success",
		},
		{
			name: "with some DANE and no policy the preferred host gets it", domain: "mixed.test",
			setup: twoHosts(testnet.STS{}, giveTLSA), result: "sent", by: "mx1.mixed.test", report: "none success",
		},
		{
			name: "with some DANE and an enforced policy only a host with DANE is used", domain: "mixedenforce.test",
			setup: twoHosts(testnet.STS{Mode: "enforce"}, giveTLSA), result: "sent", by: "mx2.mixedenforce.test", report: "tlsa success",
		},
		{
			name: "a host whose TLSA records cannot be looked up is passed over", domain: "onefailed.test",
			setup: twoHosts(testnet.STS{Mode: "enforce"}, func(l *lab, d *testnet.Domain) {
				l.DNS.Break(d.Hosts()[0].TLSABase(), "TLSA", testnet.ServFail())
			}),
			result: "sent", by: "mx2.onefailed.test", report: "sts success",
		},
		{
			name: "a wildcard fits a host one label deeper", domain: "wild.test",
			setup:  with(testnet.DomainOptions{MX: []testnet.MX{{Host: "mx.in.wild.test"}}, STS: testnet.STS{Mode: "enforce", Patterns: []string{"*.in.wild.test"}}}),
			result: "sent", by: "mx.in.wild.test", report: "sts success",
		},
		{
			name: "a wildcard does not fit a host two labels deeper", domain: "deep.test",
			setup:  with(testnet.DomainOptions{MX: []testnet.MX{{Host: "a.b.deep.test"}}, STS: testnet.STS{Mode: "enforce", Patterns: []string{"*.deep.test"}}}),
			result: "deferred", logged: "no MX host of deep.test may be used",
		},
		{
			name: "of a wildcard's hosts the one that it fits is used, and not a deeper one before it", domain: "deeper.test",
			setup: with(testnet.DomainOptions{
				MX:  []testnet.MX{{Preference: 1, Host: "a.b.deeper.test"}, {Preference: 2, Host: "mx.deeper.test"}},
				STS: testnet.STS{Mode: "enforce", Patterns: []string{"*.deeper.test"}},
			}),
			result: "sent", by: "mx.deeper.test", report: "sts success",
		},
		{
			name: "a discovery that could not be done defers it and says why", domain: "unknown.test",
			setup:  enforced(testnet.ServFailTXT),
			result: "deferred", logged: "_mta-sts.unknown.test",
		},
		{
			name: "a policy that cannot be fetched for the first time stops nothing", domain: "unfetched.test",
			setup:  enforced(testnet.BlockPolicyHost, testnet.StripSTARTTLS),
			result: "sent", clear: true,
		},
		{
			name: "a policy of hundreds of names is enforced", domain: "long.test",
			setup: func(l *lab, domain string) {
				with(testnet.DomainOptions{STS: testnet.STS{Mode: "enforce", Patterns: patterns(700, domain)}})(l, domain)
			},
			result: "sent", report: "sts success",
		},
		{
			name: "a policy too long for its attributes is enforced", domain: "verylong.test",
			setup: func(l *lab, domain string) {
				with(testnet.DomainOptions{STS: testnet.STS{Mode: "enforce", Patterns: patterns(1600, domain)}}, testnet.MITMSelfSigned)(l, domain)
			},
			result: "deferred", text: "Server certificate not", report: "none 205 self-signed_certificate",
		},
		{
			name: "a policy holds for the domain and not for one below it", domain: "sub.dept.enforce.test",
			setup:  with(testnet.DomainOptions{}, testnet.StripSTARTTLS),
			result: "sent", clear: true,
		},
	}
}

func TestPostfix3_7(t *testing.T) {
	t.Parallel()
	inLab(t, func(l *lab) {
		l.start(postfixtest.Installed(t), map[string]string{"transport_maps": smartHosts})
		runMails(l, mails())
		t.Run("its configuration passes pawl's own check", func(t *testing.T) { checked(t, l) })
		t.Run("parents are asked for with a leading dot and have no policy", func(t *testing.T) { parents(t, l) })
		t.Run("the cached policy holds while its host is down", func(t *testing.T) { cached(t, l) })
		t.Run("a smart host has its own policy", func(t *testing.T) { smartHost(t, l) })
		t.Run("Postfix closes what is idle", func(t *testing.T) { idle(t, l) })
		t.Run("nothing is lost or bounced when pawl restarts", func(t *testing.T) { restart(t, l) })
	})
}

func TestPostfix3_10(t *testing.T) {
	t.Parallel()
	system := postfixtest.Trixie(t, trixieScript) // inside there is no way to a mirror
	inLab(t, func(l *lab) {
		l.start(system, map[string]string{
			"transport_maps":     smartHosts,
			"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": "tlsrpt.sock",
		})
		reports := listen(t, l.postfix.Dir+"/queue/tlsrpt.sock")
		list := mails()
		runMails(l, list)
		reports.settle()
		for _, m := range list {
			t.Run("TLS-RPT/"+m.name, func(t *testing.T) {
				if got := reports.of(m.domain); got != m.report {
					t.Errorf("libtlsrpt was given %q, want %q", got, m.report)
				}
			})
		}
		t.Run("its configuration passes pawl's own check", func(t *testing.T) { checked(t, l) })
		t.Run("the cached policy holds while its host is down", func(t *testing.T) {
			cached(t, l)
			reports.settle()
			if got, want := reports.of("cached.test"), "sts 205 self-signed_certificate, sts success"; got != want {
				t.Errorf("libtlsrpt was given %q, want %q", got, want)
			}
		})
		t.Run("parents are asked for with a leading dot and have no policy", func(t *testing.T) { parents(t, l) })
		t.Run("a smart host has its own policy", func(t *testing.T) { smartHost(t, l) })
		t.Run("policy_failure would stop mail that a cached policy lets go", func(t *testing.T) { policyFailure(t, l, reports) })
	})
}

// TestSoakPostfixWithConnectionsOfTheirLongest sends mail for longer than Postfix
// keeps a connection to the TLS policy map (100 s).
func TestSoakPostfixWithConnectionsOfTheirLongest(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("it takes more than two minutes; `make soak` runs it")
	}
	inLab(t, func(l *lab) {
		l.start(postfixtest.Installed(t), nil)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for i := range 26 {
			domain := fmt.Sprintf("slow%d.test", i)
			enforced()(l, domain)
			if s := l.postfix.Status(l.postfix.Send("a@" + domain)); s.Result != "sent" {
				t.Errorf("message %d: %+v", i, s)
			}
			<-tick.C
		}
		if got := l.server.Stats(); got.Malformed != 0 || got.Answers[verify.AnswerSecure] != 26 {
			t.Errorf("the counters are %+v", got)
		}
	})
}

// smartHosts routes some domains over a host that is named as the next hop.
const smartHosts = "inline:{ { to-smart.test = smtp:[smart.test]:25 } { to-badsmart.test = smtp:[badsmart.test] } }"

// runMails sends all messages, so that Postfix works on them side by side, and
// then looks what became of each.
func runMails(l *lab, list []mail) {
	ids := make([]string, len(list))
	for i, m := range list {
		m.setup(l, m.domain)
		ids[i] = l.postfix.Send("a@" + m.domain)
	}
	for i, m := range list {
		l.Run(m.name, func(t *testing.T) { m.check(t, l, l.postfix.Status(ids[i])) })
	}
}

func (m mail) check(t *testing.T, l *lab, s postfixtest.Status) {
	if s.Result != m.result || !strings.Contains(s.Text, m.text) {
		t.Errorf("Postfix says %s (%s), want %s (%s)", s.Result, s.Text, m.result, m.text)
	}
	if m.logged != "" && !slices.ContainsFunc(l.postfix.Log(), func(line string) bool { return strings.Contains(line, m.logged) }) {
		t.Errorf("the mail log does not say %q", m.logged)
	}
	got := l.Delivered("a@" + m.domain)
	if m.result != "sent" {
		if len(got) > 0 {
			t.Errorf("it was delivered: %v", got[0])
		}
		return
	}
	if len(got) != 1 {
		t.Fatalf("delivered %d times, want once", len(got))
	}
	by := m.by
	if by == "" {
		by = "mx." + m.domain
	}
	if got[0].Host != by || got[0].Clear() != m.clear {
		t.Errorf("%v, want it at %s, in clear: %v", got[0], by, m.clear)
	}
}

// parents looks at what Postfix asked for about a domain without a policy.
func parents(t *testing.T, l *lab) {
	for _, key := range []string{"sub.dept.enforce.test", ".dept.enforce.test", ".enforce.test", ".test"} {
		if !l.heard.asked(l.version.Map() + " " + key) {
			t.Errorf("Postfix did not ask for %s", key)
		}
	}
}

// checked has pawl check the configuration that the mail was sent with.
func checked(t *testing.T, l *lab) {
	conf := func(arg string) map[string]string {
		read, err := postfix.ReadPostconf(strings.NewReader(l.postfix.Postconf(arg)))
		if err != nil {
			t.Fatal(err)
		}
		return read
	}
	main, master := conf("-x"), conf("-Px")
	if v, err := postfix.ParseVersion(main["mail_version"]); err != nil || v != l.version {
		t.Errorf("the version is %v, %v, want %v", v, err, l.version)
	}
	for _, f := range postfix.Check(l.version, main, master, mapAddr) {
		if !f.OK() {
			t.Errorf("%+v", f)
		}
	}
}

// cached has a policy in the cache, then its host goes down while the record says
// that there is a new one. RFC 8461 §3.3: the cached policy must be applied.
func cached(t *testing.T, l *lab) {
	const domain = "cached.test"
	enforced()(l, domain)
	if s := l.postfix.Status(l.postfix.Send("a@" + domain)); s.Result != "sent" {
		t.Fatalf("before: %+v", s)
	}
	d := l.Domain(domain, testnet.DomainOptions{})
	d.On(testnet.BlockPolicyHost)
	d.BumpID()
	l.Clock.Advance(time.Hour) // the record is looked at again
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); l.engine.Postfix(t.Context(), domain).Failure == nil; {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("policy has not noticed that the refresh fails")
		}
	}
	if s := l.postfix.Status(l.postfix.Send("b@" + domain)); s.Result != "sent" {
		t.Errorf("with the policy host down: %+v", s)
	}
	d.On(testnet.MITMSelfSigned)
	if s := l.postfix.Status(l.postfix.Send("c@" + domain)); s.Result != "deferred" {
		t.Errorf("with the policy host down and an attacker: %+v", s)
	}
	if got := l.Delivered("b@" + domain); len(got) != 1 || !got[0].Trusted {
		t.Errorf("with the policy host down: %v", got)
	}
}

// policyFailure shows what Postfix makes of policy_failure=: it fails every host,
// be its certificate good. Under a cached policy that would break RFC 8461 §3.3
// (it MUST be applied), so pawl never sends it and reports such failures itself.
func policyFailure(t *testing.T, l *lab, reports *datagrams) {
	const domain = "policyfailure.test"
	enforced()(l, domain)
	l.stop()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", mapAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		reply := frame("OK secure match=mx." + domain + " servername=hostname policy_type=sts policy_domain=" + domain +
			" mx_host_pattern=mx." + domain + " { policy_string = version: STSv1 } policy_failure=sts-policy-fetch-error")
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			go func() {
				for b := make([]byte, 512); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					fmt.Fprint(c, reply)
				}
			}()
		}
	}()
	if s := l.postfix.Status(l.postfix.Send("a@" + domain)); s.Result != "deferred" {
		t.Errorf("Postfix says %s (%s), want deferred", s.Result, s.Text)
	}
	reports.settle()
	if got, want := reports.of(domain), "sts 301"; got != want {
		t.Errorf("libtlsrpt was given %q, want %q", got, want)
	}
}

// smartHost sends over hosts that are named as the next hop.
func smartHost(t *testing.T, l *lab) {
	sts := testnet.STS{Mode: "enforce"}
	l.domain("smart.test", testnet.DomainOptions{MX: []testnet.MX{{Host: "smart.test"}}, STS: sts})
	l.domain("badsmart.test", testnet.DomainOptions{MX: []testnet.MX{{Host: "badsmart.test"}}, STS: sts}).On(testnet.MITMSelfSigned)
	good, bad := l.postfix.Send("a@to-smart.test"), l.postfix.Send("a@to-badsmart.test")
	if s := l.postfix.Status(good); s.Result != "sent" {
		t.Errorf("the good one: %+v", s)
	}
	if s := l.postfix.Status(bad); s.Result != "deferred" || !strings.Contains(s.Text, "Server certificate not") {
		t.Errorf("the bad one: %+v", s)
	}
	if got := l.Delivered("a@to-smart.test"); len(got) != 1 || got[0].Host != "smart.test" || !got[0].Trusted {
		t.Errorf("delivered: %v", got)
	}
	if !l.heard.asked(l.version.Map()+" [smart.test]:25") || !l.heard.asked(l.version.Map()+" [badsmart.test]") {
		t.Error("Postfix did not ask for [smart.test]:25 and [badsmart.test]")
	}
}

// restart ends the TLS policy map and starts it again, several times in the
// middle of mail to many domains.
func restart(t *testing.T, l *lab) {
	const domains, each, restarts = 20, 5, 5
	l.postfix.Main(map[string]string{"max_use": "2"}) // so that Postfix asks again and again
	for i := range domains {
		enforced()(l, fmt.Sprintf("busy%d.test", i))
	}
	var rcpts []string
	var wait sync.WaitGroup
	for i := range domains * each {
		rcpt := fmt.Sprintf("u%d@busy%d.test", i/domains, i%domains)
		rcpts = append(rcpts, rcpt)
		if i%(domains*each/restarts) == 0 {
			l.stop()
			l.serve(l.engine)
		}
		wait.Go(func() {
			if _, err := l.postfix.TrySend(rcpt); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, rcpt := range rcpts {
		if _, err := l.WaitDelivered(ctx, rcpt); err != nil {
			t.Fatalf("%s: %v", rcpt, err)
		}
	}
	for _, s := range l.postfix.Statuses() {
		if s.Result == "bounced" {
			t.Errorf("bounced: %+v", s)
		}
	}
	for _, d := range l.Deliveries() {
		if strings.Contains(d.Host, "busy") && !d.Trusted {
			t.Errorf("not over verified TLS: %v", d)
		}
	}
}

// idle waits until Postfix, with nothing to do, has closed its connections to the
// TLS policy map. Of idle smtp(8) processes only one at a time looks at its
// timers, so it is the end of a process that closes most of them.
func idle(t *testing.T, l *lab) {
	l.postfix.Empty()
	l.postfix.Main(map[string]string{"max_idle": "1s"})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); l.server.Stats().Connections > 0; {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the connections are still open")
		}
	}
	if got := l.server.Stats(); got.Malformed != 0 || got.Unknown != 0 || got.Refused != 0 || got.Answers[verify.AnswerSecure] == 0 {
		t.Errorf("the counters are %+v", got)
	}
}
