package node_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/postfix/postfixtest"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// mapAddr is where the node's TLS policy map listens in the network that the test
// has for itself.
const mapAddr = "127.0.0.1:8461"

// leaping is the real time, which a test sets forward.
type leaping struct{ by atomic.Int64 }

func (l *leaping) now() time.Time       { return time.Now().Add(time.Duration(l.by.Load())) }
func (l *leaping) leap(d time.Duration) { l.by.Add(int64(d)) }

// postfixSessions are the destinations that Postfix delivers to, and what the
// report about each must say.
func postfixSessions() []postfixSession {
	enforce := testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}
	dane := testnet.DomainOptions{DANE: testnet.DANEEE}
	return []postfixSession{
		{domain: "good.test", options: enforce, mails: 2, report: "sts good.test 2 0"},
		{domain: "selfsigned.test", options: enforce, attack: testnet.MITMSelfSigned, mails: 1, report: "sts selfsigned.test 0 1 certificate-not-trusted mx.selfsigned.test self-signed_certificate 1"},
		{domain: "wrongname.test", options: enforce, attack: testnet.ShowWrongName, mails: 1, report: "sts wrongname.test 0 1 certificate-host-mismatch mx.wrongname.test  1"},
		{domain: "expired.test", options: enforce, attack: testnet.ShowExpired, mails: 1, report: "sts expired.test 0 1 certificate-expired mx.expired.test  1"},
		{domain: "stripped.test", options: enforce, attack: testnet.StripSTARTTLS, mails: 1, report: "sts stripped.test 0 1 starttls-not-supported mx.stripped.test  1"},
		{domain: "dane.test", options: dane, mails: 1, report: "tlsa mx.dane.test 1 0"},
		{domain: "danestale.test", options: dane, attack: testnet.StaleTLSA, mails: 1, report: "tlsa mx.danestale.test 0 1 certificate-not-trusted mx.danestale.test  1"},
		{domain: "nothing.test", attack: testnet.ShowWrongName, mails: 1, report: "no-policy-found nothing.test 1 0"},
		// At level may Postfix calls it a success, and has verified nothing.
		{domain: "testing.test", options: testnet.DomainOptions{STS: testnet.STS{Mode: "testing"}}, attack: testnet.MITMSelfSigned, mails: 1},
	}
}

type postfixSession struct {
	domain  string
	options testnet.DomainOptions
	attack  testnet.Attack
	mails   int    // each is one session
	report  string // as said gives it; "": there is none
}

// said is a report in few words: for each policy its type, domain, successes and
// failures, and for each detail the result type, host, reason and sessions.
func said(r *tlsrpt.Report) string {
	var words []string
	for _, p := range r.Policies {
		words = append(words, fmt.Sprintf("%s %s %d %d", p.Type, p.Domain, p.Successes, p.Failures))
		for _, d := range p.Details {
			words = append(words, fmt.Sprintf("%s %s %s %d", d.Result, d.MXHost, d.Reason, d.Sessions))
		}
	}
	return strings.Join(words, " ")
}

func TestWhatPostfix3_10DeliveredIsReportedExactly(t *testing.T) {
	system := postfixtest.Trixie(t, "../../scripts/trixie.sh") // inside there is no way to a mirror
	netns.Run(t, netns.Options{Resolver: netip.MustParseAddr("127.0.0.1")}, func() { reportOfPostfix(t, system) })
}

func reportOfPostfix(t *testing.T, system postfixtest.System) {
	tn := testnet.Start(t, testnet.Options{
		Clock: testnet.NewRealClock(), DNSListen: "127.0.0.1:53",
		Listen: func(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr.String())
		},
	})
	in := &inbox{seen: map[string]bool{}}
	tn.Site("in.test", in)
	tn.Domain("rua.test", testnet.DomainOptions{})

	version, err := postfix.ParseVersion(system.Version)
	if err != nil {
		t.Fatal(err)
	}
	main := map[string]string{
		"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": "tlsrpt.sock", "smtp_tlsrpt_skip_reused_handshakes": "no",
		// A message that is deferred is not tried again: each is one session.
		"queue_run_delay": "1h", "minimal_backoff_time": "1h", "maximal_backoff_time": "1h",
	}
	for _, s := range postfix.MainCF(version, mapAddr) {
		main[s.Key] = s.Value
	}
	main["smtp_tls_CAfile"] = "$config_directory/ca.pem"
	mta := postfixtest.Start(t, system, postfixtest.Options{Main: main, Files: map[string][]byte{"ca.pem": tn.RootsPEM()}})

	clock := &leaping{}
	c := settings(t, tn.DNSAddr())
	c.Postfix.Listen, c.Postfix.TLSRPT = mapAddr, mta.Dir+"/queue/tlsrpt.sock"
	records := withKeysFor(t, &c, "report.test", dkim.TLSRPT)
	acceptEmail(t, records)
	c.TLSRPT.Organization, c.TLSRPT.Contact, c.TLSRPT.Domain = "Pawl Test", "tls@report.test", "report.test"
	n, _ := start(t, c, node.Wiring{Dial: tn.Dial, Roots: tn.Roots(), Now: clock.now})
	if _, err := os.Stat(c.Postfix.TLSRPT); err != nil {
		t.Fatal(err)
	}

	datagrams, want := 0, map[string]string{}
	for _, s := range postfixSessions() {
		s.options.TLSRPT = "mailto:tls@rua.test,https://in.test/v1"
		d := tn.Domain(s.domain, s.options)
		for _, h := range d.Hosts() {
			if _, err := h.Listen(); err != nil {
				t.Fatal(err)
			}
		}
		if s.attack != "" {
			d.On(s.attack)
		}
		for range s.mails {
			mta.Status(mta.Send("a@" + s.domain))
			datagrams++
		}
		if s.report != "" {
			want[s.domain] = s.report
		}
	}
	counted := fmt.Sprintf("pawl_tlsrpt_datagrams_counted_total %d\n", datagrams)
	eventually(t, "what Postfix told is counted", func() bool {
		_, page := get(t, n, "/metrics")
		return strings.Contains(page, counted)
	})
	if err := n.Ledger().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	// The day ends, and all that is due is done: the second try after a 500, and
	// the question what became of the mail.
	clock.leap(24 * time.Hour)
	state := func() map[string]ledger.State {
		states := map[string]ledger.State{}
		for _, r := range call[node.TLSRPTStatus](t, n, "tlsrpt.status", ledger.ReportQuery{}).Reports {
			states[r.Domain] = r.State
		}
		return states
	}
	states := map[string]ledger.State{"testing.test": ledger.Skipped}
	for domain := range maps.Keys(want) {
		states[domain] = ledger.Sent
	}
	eventually(t, "the reports are sent", func() bool {
		call[int64](t, n, "tlsrpt.send", node.TLSRPTParams{})
		return cmp.Equal(states, state())
	})
	posted := map[string]string{}
	for _, r := range in.reports() {
		posted[strings.TrimPrefix(r.Policies[0].Domain, "mx.")] = said(r)
	}
	if diff := cmp.Diff(want, posted); diff != "" {
		t.Errorf("by HTTPS: %s", diff)
	}
	byMail := map[string]string{}
	for _, d := range tn.Delivered("tls@rua.test") {
		r, head := mailed(t, d.Data)
		byMail[head.Get("TLS-Report-Domain")] = said(r)
		if got := signatures(t, string(d.Data), records); !cmp.Equal(got, []string{"report.test", "report.test"}) {
			t.Errorf("%s: signatures %v", head.Get("TLS-Report-Domain"), got)
		}
	}
	if diff := cmp.Diff(want, byMail); diff != "" {
		t.Errorf("by mail: %s", diff)
	}

	// The next day had no mail: nothing is sent, and nothing twice.
	clock.leap(24 * time.Hour)
	if due := call[int64](t, n, "tlsrpt.send", node.TLSRPTParams{}); due != 0 {
		t.Errorf("on the next day %d reports are due", due)
	}
	if got, mails := len(in.reports()), len(tn.Delivered("tls@rua.test")); got != len(want) || mails != len(want) {
		t.Errorf("%d posts and %d mails, want %d of each", got, mails, len(want))
	}
}
