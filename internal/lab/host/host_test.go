package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/mtasts"
)

func TestTheAnswerHasAnAddressAtEachTest(t *testing.T) {
	w := open(t, nil)
	r, m := w.begin()
	if got := m.Header.Get("To"); got != "<"+somebody+">" {
		t.Errorf("it is to %s", got)
	}
	if got := m.Header.Get("Auto-Submitted"); got != "auto-replied" {
		t.Errorf("Auto-Submitted (RFC 3834 §5) is %q", got)
	}
	list, err := m.Header.AddressList("Reply-To")
	if err != nil {
		t.Fatal(err)
	}
	body := text(t, m)
	for i, test := range Tests() {
		want := r.Token + "@" + test.Name + ".lab.test"
		if i >= len(list) || list[i].Address != want {
			t.Errorf("address %d of Reply-To is not %s", i, want)
		}
		if !strings.Contains(body, "  "+want+"\n") {
			t.Errorf("the text does not have %s", want)
		}
	}
	for _, d := range w.net.Deliveries() {
		if d.From != "" {
			t.Errorf("an answer has the return path %s (RFC 3834 §3.3)", d.From)
		}
	}
}

func TestOnlyAProvenReturnPathIsAnswered(t *testing.T) {
	w := open(t, nil)
	to := "To: <start@lab.test>\r\n"
	for name, c := range map[string]struct{ from, header, reply string }{
		"SPF fails":              {"victim@other.test", "From: <victim@other.test>\r\n" + to, "550 5.7.23"},
		"no return path":         {"", "From: <" + somebody + ">\r\n" + to, "550 5.7.1"},
		"its own domain":         {"a@good.lab.test", "From: <a@good.lab.test>\r\n" + to, "550 5.7.1"},
		"a program sent it":      {somebody, "From: <" + somebody + ">\r\n" + to + "Auto-Submitted: auto-replied\r\n", "550 5.7.1"},
		"a list sent it":         {somebody, "From: <" + somebody + ">\r\n" + to + "List-Id: <l.sender.test>\r\n", "550 5.7.1"},
		"a field others read":    {somebody, "From: <" + somebody + ">\r\n" + to + "Auto-Submitted : auto-replied\r\n", "550 5.6.0"},
		"what is no header":      {somebody, "no header\r\n", "550 5.6.0"},
		"a person says it is no": {somebody, "From: <" + somebody + ">\r\n" + to + "Auto-Submitted: no\r\n", "250 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := w.call(false).send(c.from, []string{"start@lab.test"}, c.header); !strings.HasPrefix(got, c.reply) {
				t.Errorf("got %q, want %s", got, c.reply)
			}
		})
	}
}

func TestASenderWhoseDNSDoesNotAnswerIsToldToComeAgain(t *testing.T) {
	w := open(t, func(o *Options) {
		o.Resolver = answers{err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}
	})
	if got := w.call(false).send(somebody, []string{"start@lab.test"}, "From: <"+somebody+">\r\n"); !strings.HasPrefix(got, "451 4.7.24") {
		t.Errorf("got %q", got)
	}
}

func TestHowManyRunsAnAddressMayBeginIsLimited(t *testing.T) {
	w := open(t, nil)
	header := "From: <" + somebody + ">\r\n"
	for i := range perAddress().Burst {
		if got := w.call(false).send(somebody, []string{"start@lab.test"}, header); !strings.HasPrefix(got, "250") {
			t.Fatalf("run %d: %s", i, got)
		}
	}
	if got := w.call(false).send(somebody, []string{"start@lab.test"}, header); !strings.HasPrefix(got, "451 4.7.1") {
		t.Errorf("beyond the limit: %s", got)
	}
}

func TestMailIsTakenForRunsAndPeopleOnly(t *testing.T) {
	w := open(t, nil)
	r, _ := w.begin()
	for to, reply := range map[string]string{
		r.Token + "@good.lab.test":                        "250",
		strings.ToUpper(r.Token) + "@GOOD.lab.test":       "250",
		"another@good.lab.test":                           "550 5.1.1",
		r.Token + "@nowhere.lab.test":                     "550 5.1.1",
		"someone@lab.test":                                "550 5.1.1",
		"someone@elsewhere.test":                          "550 5.7.1",
		"postmaster@lab.test":                             "250",
		"abuse@good.lab.test":                             "250",
		"postmaster":                                      "250",
		"../" + r.Token + "@good.lab.test":                "501 5.1.3",
		`"` + r.Token + `"@good.lab.test`:                 "550 5.1.1",
		r.Token + "@good.lab.test.elsewhere.test":         "550 5.7.1",
		strings.Repeat("x", 60) + "@wildcard.lab.test":    "550 5.1.1",
		r.Token + "@" + strings.Repeat("a.", 50) + "test": "550 5.7.1",
	} {
		c := w.call(false)
		c.say("MAIL FROM:<" + somebody + ">")
		if got := c.say("RCPT TO:<" + to + ">"); !strings.HasPrefix(got, reply) {
			t.Errorf("%s: got %q, want %s", to, got, reply)
		}
	}
	c := w.call(false)
	c.say("MAIL FROM:<" + somebody + ">")
	c.say("RCPT TO:<start@lab.test>")
	if got := c.say("RCPT TO:<" + r.Token + "@good.lab.test>"); !strings.HasPrefix(got, "452") {
		t.Errorf("two kinds of recipients in one transaction: %s", got)
	}
}

func TestMailForThePostmasterIsHandedOn(t *testing.T) {
	w := open(t, nil)
	if got := w.call(true).send(somebody, []string{"postmaster@lab.test"}, "Subject: your host\r\n"); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	w.letter("your host")
	if d := w.net.Delivered("me@elsewhere.test"); len(d) != 1 {
		t.Errorf("the postmaster has %d mails", len(d))
	}
}

func TestMailForThePostmasterThatGoesRoundIsRefused(t *testing.T) {
	w := open(t, nil)
	header := strings.Repeat("Received: from a by b; Thu, 26 Nov 2026 12:00:00 +0000\r\n", maxHops+1)
	if got := w.call(false).send(somebody, []string{"postmaster@lab.test"}, header); !strings.HasPrefix(got, "554 5.4.6") {
		t.Errorf("got %q", got)
	}
	defer w.relay.Script(testnet.AtRCPT, testnet.Action{Reply: "550 5.1.1 nobody"})()
	if got := w.call(false).send(somebody, []string{"postmaster@lab.test"}, "Subject: x\r\n"); !strings.HasPrefix(got, "550") {
		t.Errorf("the relay refuses it for good: got %q", got)
	}
}

func TestATicketOfOneHostDoesNotOpenAnother(t *testing.T) {
	w := open(t, nil)
	cache := tls.NewLRUClientSessionCache(10)
	dial := func(name string) (tls.ConnectionState, error) {
		c := w.call(false)
		return c.Caller.StartTLS(t.Context(), &tls.Config{ServerName: name, InsecureSkipVerify: true, ClientSessionCache: cacheFor{cache}, MaxVersion: tls.VersionTLS12})
	}
	for _, name := range []string{"mx.good.lab.test", "mx.self-signed.lab.test"} {
		if state, err := dial(name); err != nil || state.DidResume {
			t.Errorf("%s: resumed %v, %v", name, state.DidResume, err)
		}
	}
}

// cacheFor keeps sessions under one key, as a client does that goes by address.
type cacheFor struct{ tls.ClientSessionCache }

func (c cacheFor) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("all") }

func (c cacheFor) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("all", s) }

func TestALetterThatWasSentIsNotSentAgainWhenThatCannotBeNoted(t *testing.T) {
	w := open(t, func(o *Options) { o.Relay = nowhere(t) })
	w.stop()
	r := Run{Token: "abc", Sender: somebody, Began: time.Now()}
	if err := w.store.begin(r); err != nil {
		t.Fatal(err)
	}
	addr, err := w.net.Expose(netip.AddrPortFrom(w.relay.Addrs[0], smtpPort))
	if err != nil {
		t.Fatal(err)
	}
	w.o.Relay = addr
	folder := w.store.folder
	w.store.folder = filepath.Join(folder, "full") // nothing can be written
	p := &postman{h: w.Host, errands: make(map[string]*errand)}
	for range 3 {
		due, _ := p.due()
		for _, r := range due {
			p.send(t.Context(), r)
		}
		for _, e := range p.errands {
			e.again = time.Time{}
		}
	}
	w.store.folder = folder
	due, _ := p.due()
	for _, r := range due {
		p.send(t.Context(), r)
	}
	if got := len(w.net.Delivered(somebody)); got != 1 {
		t.Errorf("%d letters were sent", got)
	}
	if r, _ := w.store.get("abc"); r.Answered.IsZero() {
		t.Error("it was not noted in the end")
	}
}

func TestALetterIsASCII(t *testing.T) {
	w := open(t, nil)
	for _, run := range []Run{tried(), all(no), all(held)} {
		for _, l := range []letter{answer, verdict, amendment} {
			for i, b := range w.write(run, l) {
				if b > '~' {
					t.Fatalf("%s has the octet %#x at %d", l, b, i)
				}
			}
		}
	}
}

func TestMailForThePostmasterIsNotTakenWhileItCannotBeHandedOn(t *testing.T) {
	w := open(t, func(o *Options) { o.Relay = nowhere(t) })
	if got := w.call(false).send(somebody, []string{"postmaster@lab.test"}, "Subject: your host\r\n"); !strings.HasPrefix(got, "451") {
		t.Errorf("got %q", got)
	}
}

// nowhere is an address at which nothing listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestEachHostIsWhatItsTestSays(t *testing.T) {
	w := open(t, nil)
	dial := func(name string) (tls.ConnectionState, error) { return w.call(false).startTLS(name) }
	for _, name := range []string{"mx.good.lab.test", "mx2.next-host.lab.test", "mx.deep.wildcard-depth.lab.test", "mx.dane-stale.lab.test"} {
		if _, err := dial(name); err != nil {
			t.Errorf("%s, whose certificate is good: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"mx.self-signed.lab.test":      "unknown authority",
		"mx1.next-host.lab.test":       "unknown authority",
		"mx.broken-handshake.lab.test": "internal error",
		"mx.old-tls.lab.test":          "protocol version",
	} {
		if _, err := dial(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	if reply := w.call(true).say("EHLO mail.sender.test"); strings.Contains(reply, "STARTTLS") {
		t.Error("the host without STARTTLS offers it")
	}
	if _, err := dial(""); err != nil {
		t.Errorf("a client that names no host gets no certificate (RFC 8461 §7.1): %v", err)
	}
}

func TestTheWrongNameIsThatOfAnotherHost(t *testing.T) {
	w := open(t, nil)
	own := make(map[string]*tls.Certificate)
	certificates := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if own[hello.ServerName] == nil {
			pair, err := w.net.CA.Issue(testnet.CertOptions{Names: []string{hello.ServerName}})
			if err != nil {
				return nil, err
			}
			own[hello.ServerName] = &pair
		}
		return own[hello.ServerName], nil
	}
	f, err := newFaces(site(), w.key, certificates, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"mx.wrong-name.lab.test": "mx.good.lab.test", "mx.unlisted-mx.lab.test": "mx.unlisted-mx.lab.test"} {
		c, err := f.byName[name].GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || c.Leaf.VerifyHostname(want) != nil {
			t.Errorf("%s shows a certificate for %v, not for %s", name, c.Leaf.DNSNames, want)
		}
	}
}

// fetch gets a page of a policy host, without following redirects.
func (w *world) fetch(name, path string) (status int, body string, err error) {
	w.Helper()
	c := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: w.net.Roots(), MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", w.at[netip.AddrPortFrom(w.site.Addrs[0], httpsPort)])
			},
			DisableKeepAlives: true,
		},
	}
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "https://"+name+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func TestEachPolicyIsWhatItsTestSays(t *testing.T) {
	w := open(t, nil)
	for name, mode := range map[string]mtasts.Mode{
		"lab.test": mtasts.Enforce, "good.lab.test": mtasts.Enforce, "testing.lab.test": mtasts.Testing, "mode-none.lab.test": mtasts.None,
		"two-records.lab.test": mtasts.Enforce, "unlisted-mx.lab.test": mtasts.Enforce,
	} {
		status, body, err := w.fetch("mta-sts."+name, wellKnown)
		if err != nil || status != http.StatusOK {
			t.Errorf("%s: %d, %v", name, status, err)
			continue
		}
		p, err := mtasts.ParsePolicy([]byte(body))
		if err != nil || p.Mode != mode {
			t.Errorf("%s: mode %v, %v", name, p.Mode, err)
		}
		if host := "mx." + strings.TrimPrefix(name, "lab.test"); name != "lab.test" && p.Match(host) != (name == "good.lab.test" || name == "testing.lab.test" || name == "two-records.lab.test") {
			t.Errorf("%s: whether the policy lists %s is wrong", name, host)
		}
	}
	if status, _, err := w.fetch("mta-sts.no-policy.lab.test", wellKnown); err != nil || status != http.StatusNotFound {
		t.Errorf("no-policy: %d, %v", status, err)
	}
	if status, _, err := w.fetch("mta-sts.redirect.lab.test", wellKnown); err != nil || status != http.StatusFound {
		t.Errorf("redirect: %d, %v", status, err)
	}
	if _, _, err := w.fetch("mta-sts.policy-host.lab.test", wellKnown); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("policy-host: %v", err)
	}
	if status, body, err := w.fetch("mta-sts.good.lab.test", "/"); err != nil || status != http.StatusNotFound || !strings.Contains(body, "start@lab.test") {
		t.Errorf("another page: %d %q, %v", status, body, err)
	}
	if _, _, err := w.fetch("mta-sts.below.good.lab.test", wellKnown); err == nil {
		t.Error("below.good has a policy host")
	}
}

func TestWithoutTheMeansATestIsLeftOutAndTheAnswerSaysWhy(t *testing.T) {
	w := open(t, func(o *Options) { o.DNSSEC, o.Clear = false, nil })
	_, m := w.begin()
	body := text(t, m)
	for _, not := range []string{"@no-starttls.", "@dane."} {
		if strings.Contains(body, not) {
			t.Errorf("it has %s", not)
		}
	}
	for _, words := range []string{"DANE, as the zone is not signed", "hosts without STARTTLS, as there is no second address"} {
		if !strings.Contains(body, words) {
			t.Errorf("it does not say %q", words)
		}
	}
}

func TestARunOutlivesTheHost(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Clock: testnet.NewRealClock()})
	relay := n.Host("relay.test", testnet.HostOptions{})
	o := Options{
		Site: site(), Data: t.TempDir(), Relay: nowhere(t), Postmaster: "me@elsewhere.test", Wait: time.Hour,
		Resolver: answers{txt: map[string]string{"sender.test": "v=spf1 ip4:127.0.0.1 -all"}},
	}
	w := openIn(t, n, relay, o)
	if reply := w.call(false).send(somebody, []string{"start@lab.test"}, "From: <"+somebody+">\r\n"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	w.stop() // while its relay is down

	addr, err := n.Expose(netip.AddrPortFrom(relay.Addrs[0], smtpPort))
	if err != nil {
		t.Fatal(err)
	}
	o.Relay = addr
	w = openIn(t, n, relay, o)
	w.letter("reply to this mail")
	runs := w.store.all()
	if len(runs) != 1 {
		t.Fatalf("there are %d runs", len(runs))
	}
	if got := w.call(false).send(somebody, []string{runs[0].Token + "@good.lab.test"}, "To: <x>\r\n"); !strings.HasPrefix(got, "250") {
		t.Errorf("its addresses are gone: %s", got)
	}
}

func TestTheVerdictComesAndIsAmendedWhenSomethingLeaks(t *testing.T) {
	w := open(t, func(o *Options) { o.Wait = time.Nanosecond })
	r, _ := w.begin()
	at := func(test string) string { return r.Token + "@" + test + ".lab.test" }
	to := "To: <" + at("good") + ">, <" + at("self-signed") + ">\r\n"
	c := w.call(false)
	if _, err := c.startTLS("mx.good.lab.test"); err != nil {
		t.Fatal(err)
	}
	if got := c.send(somebody, []string{at("good")}, to); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	verdict := text(t, w.letter("1 of 1 tests went as they must, 21 were not seen"))
	if !strings.Contains(verdict, "  good             right  arrived: TLS 1.3, ") {
		t.Errorf("it says:\n%s", verdict)
	}
	if got := w.call(false).send(somebody, []string{at("self-signed")}, to); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	amended := text(t, w.letter("more has arrived since the last verdict"))
	if !strings.Contains(amended, "  self-signed      WRONG  arrived in clear: ") {
		t.Errorf("it says:\n%s", amended)
	}
}

func TestARelayThatRefusesForGoodDoesNotHoldOthersUp(t *testing.T) {
	w := open(t, nil)
	undo := w.relay.Script(testnet.AtRCPT, testnet.Action{Reply: "550 5.7.1 no", Times: 1})
	defer undo()
	if reply := w.call(false).send(somebody, []string{"start@lab.test"}, "From: <"+somebody+">\r\n"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	w.begin()
}

func TestAFolderHasOneHostAtATime(t *testing.T) {
	w := open(t, nil)
	o := w.o
	if _, err := New(o); !errors.Is(err, db.ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	w.stop()
	h, err := New(o)
	if err != nil {
		t.Fatalf("when the first is gone: %v", err)
	}
	if err := h.unlock(); err != nil {
		t.Error(err)
	}
}

func TestTheZoneHasWhatEachTestNeeds(t *testing.T) {
	data := t.TempDir()
	zone, err := site().ZoneText(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := site().ZoneText(data)
	if err != nil || again != zone {
		t.Errorf("it is another the second time, whose TLSA records no host has: %v", err)
	}
	lines := make(map[string]bool)
	for line := range strings.SplitSeq(zone, "\n") {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"lab.test. 300 IN MX 10 mx.good.lab.test.",
		"good.lab.test. 300 IN MX 10 mx.good.lab.test.",
		"mx.good.lab.test. 300 IN A 192.0.2.25",
		"mx.no-starttls.lab.test. 300 IN A 192.0.2.26",
		"mta-sts.no-starttls.lab.test. 300 IN A 192.0.2.25",
		"wildcard-depth.lab.test. 300 IN MX 10 mx.deep.wildcard-depth.lab.test.",
		"next-host.lab.test. 300 IN MX 20 mx2.next-host.lab.test.",
		`lab.test. 300 IN TXT "v=spf1 mx ~all"`,
	} {
		if !lines[want] {
			t.Errorf("it does not have %s", want)
		}
	}
	for name, count := range map[string]int{"_mta-sts.good.lab.test.": 1, "_mta-sts.two-records.lab.test.": 2, "_mta-sts.below.good.lab.test.": 0, "_mta-sts.dane.lab.test.": 0} {
		if got := strings.Count(zone, "\n"+name); got != count {
			t.Errorf("%s is there %d times, want %d", name, got, count)
		}
	}
}

func TestTheTLSARecordIsThatOfTheHostsKey(t *testing.T) {
	key, err := OpenKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFaces(site(), key, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(f.byName["mx.dane.lab.test"].Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if leaf.NotAfter.After(time.Now()) || len(leaf.DNSNames) > 0 {
		t.Errorf("the certificate that only DANE can accept is for %q until %s", leaf.DNSNames, leaf.NotAfter)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
	text := zoneOf(t, key)
	if !strings.Contains(text, "_25._tcp.mx.dane.lab.test.\t300\tIN\tTLSA\t3 1 1 "+digest) {
		t.Errorf("no TLSA record has %s", digest)
	}
	if strings.Contains(text, "mx.dane-stale.lab.test.\t300\tIN\tTLSA\t3 1 1 "+digest) {
		t.Error("the stale TLSA record is not stale")
	}
}

func zoneOf(t *testing.T, key Key) string {
	t.Helper()
	var b strings.Builder
	for _, rr := range site().Records(key) {
		b.WriteString(rr.String() + "\n")
	}
	return b.String()
}

func TestFilesThatCannotBeReadOrAreNotForTheHostsAreNamed(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	dir := t.TempDir()
	f := Files{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if _, err := FromFiles(site(), []Files{f}, time.Now, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), f.Certificate) {
		t.Errorf("a file that is not there: %v", err)
	}
	issue := func(names ...string) {
		t.Helper()
		pair, err := n.CA.Issue(testnet.CertOptions{Names: names, NotAfter: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if err := testnet.WriteFiles(pair, f.Certificate, f.Key); err != nil {
			t.Fatal(err)
		}
	}
	issue(slices.DeleteFunc(site().Names(), func(n string) bool { return n == "mx.old-tls.lab.test" })...)
	if _, err := FromFiles(site(), []Files{f}, time.Now, slog.New(slog.DiscardHandler)); err == nil || err.Error() != "no certificate is for mx.old-tls.lab.test" {
		t.Errorf("a name that is missing: %v", err)
	}
	issue(site().Names()...)
	now := time.Now()
	var log bytes.Buffer
	certificates, err := FromFiles(site(), []Files{f}, func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	before, err := certificateFor(certificates, "mx.good.lab.test")
	if err != nil {
		t.Fatal(err)
	}
	issue(append([]string{"another.test"}, site().Names()...)...)
	if err := os.Chtimes(f.Certificate, now, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookEvery)
	after, err := certificateFor(certificates, "mx.good.lab.test")
	if err != nil || after.Leaf.Equal(before.Leaf) {
		t.Errorf("a renewed certificate is not read: %v", err)
	}
	if err := os.WriteFile(f.Certificate, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookEvery)
	if kept, err := certificateFor(certificates, "mx.good.lab.test"); err != nil || !kept.Leaf.Equal(after.Leaf) {
		t.Errorf("with a broken file the old certificate is gone: %v", err)
	}
	if !strings.Contains(log.String(), f.Certificate) {
		t.Errorf("that the file is broken is not said: %q", &log)
	}
}

func TestWhatIsMissingForAHostIsSaid(t *testing.T) {
	good := Options{Site: site(), Data: t.TempDir(), Postmaster: "me@elsewhere.test", Relay: "127.0.0.1:2525"}
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"no address":               {func(o *Options) { o.Addrs = nil }, "needs an address"},
		"one address for both":     {func(o *Options) { o.Clear = o.Addrs }, "cannot both offer STARTTLS"},
		"no domain":                {func(o *Options) { o.Domain = "lab" }, "no domain"},
		"a domain with a blank":    {func(o *Options) { o.Domain = "lab .test" }, "no domain"},
		"no address in particular": {func(o *Options) { o.Addrs = []netip.Addr{netip.IPv4Unspecified()} }, "not an address"},
		"an address in disguise":   {func(o *Options) { o.Clear = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.25")} }, "not an address"},
		"a relay without a port":   {func(o *Options) { o.Relay = "relay.test" }, "HOST:PORT"},
		"no postmaster":            {func(o *Options) { o.Postmaster = "" }, "postmaster's address"},
		"a postmaster on the host": {func(o *Options) { o.Postmaster = "me@lab.test" }, "must be elsewhere"},
		"a folder that is not":     {func(o *Options) { o.Data = filepath.Join(o.Data, "nowhere") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			c.change(&o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestTheDocumentNamesEachTest(t *testing.T) {
	text, err := os.ReadFile("../../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range Tests() {
		if !strings.Contains(string(text), "`"+test.Name+"`") {
			t.Errorf("docs/lab.md does not have `%s`", test.Name)
		}
	}
	if n := len(site().Names()); n < 15 || n > 25 {
		t.Errorf("%d certificates are needed, and the document says twenty or so", n)
	}
}
