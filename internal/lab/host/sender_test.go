package host_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pawl-mail/pawl/internal/lab"
	"github.com/pawl-mail/pawl/internal/lab/host"
	"github.com/pawl-mail/pawl/internal/lab/mta"
	"github.com/pawl-mail/pawl/internal/lab/recipes"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/internal/testnet/netns"
)

const (
	labDomain = "lab.example.test"
	someone   = "someone@" + lab.SenderZone
	// wait is for a verdict: each sender here has tried all tests by then, and again.
	wait = 20 * time.Second
)

// lanes is how many tests run at a time: those with a network of their own mostly
// wait.
const lanes = "5"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", lanes); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// tour lets somebody test a mail server with a host, as anyone would: a mail to
// start@, a reply to all of the answer's addresses. It returns the verdict.
func tour(t *testing.T, recipe string) (verdict string) {
	t.Helper()
	r, err := recipes.Named(recipe)
	if err != nil {
		t.Fatal(err)
	}
	field := mta.Start(t)
	site := host.Site{
		Domain: labDomain, DNSSEC: true,
		Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.200")}, Clear: []netip.Addr{netip.MustParseAddr("198.51.100.201")},
	}
	data := t.TempDir()
	publish(t, field.Net, site, data)
	// Within a namespace an address of the machine is reached from that address.
	field.Net.DNS.SetTXT(lab.SenderZone, "v=spf1 ip4:198.51.100.0/24 -all")

	running, err := r.Start(t.Context(), recipes.Site{CAFile: field.CAFile, Roots: field.Net.Roots(), Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer running.Stop()
	_, stop := serve(t, host.Options{
		Site: site, Data: data, Relay: running.Options.Addr, Postmaster: "postmaster@" + lab.SenderZone, Wait: wait,
		Certificates: fromFiles(t, field.Net, site), Resolver: net.DefaultResolver, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	defer stop()

	send(t, running.Options.Addr, []string{site.Start()}, "To: <"+site.Start()+">\r\nSubject: test me\r\n")
	answer := receive(t, field.Net, "reply to this mail")
	replyTo, err := answer.Header.AddressList("Reply-To")
	if err != nil {
		t.Fatal(err)
	}
	tests, _ := site.Tests()
	if len(replyTo) != len(tests) {
		t.Fatalf("the answer has %d addresses for %d tests", len(replyTo), len(tests))
	}
	var to []string
	for _, a := range replyTo {
		to = append(to, a.Address)
	}
	send(t, running.Options.Addr, to, "To: "+strings.Join(to, ",\r\n ")+"\r\nSubject: Re: test me\r\n")
	letter := receive(t, field.Net, "tests went")
	var text bytes.Buffer
	if _, err := text.ReadFrom(letter.Body); err != nil {
		t.Fatal(err)
	}
	t.Logf("Subject: %s\n%s", letter.Header.Get("Subject"), strings.ReplaceAll(text.String(), "\r\n", "\n"))
	return text.String()
}

// publish puts the records that are printed into the DNS.
func publish(t *testing.T, n *testnet.Net, site host.Site, data string) {
	t.Helper()
	text, err := site.ZoneText(data)
	if err != nil {
		t.Fatal(err)
	}
	n.DNS.SetZone(site.Domain, true)
	type rrset struct{ name, kind string }
	sets := make(map[rrset][]dns.RR)
	parser := dns.NewZoneParser(strings.NewReader(text), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		k := rrset{rr.Header().Name, dns.TypeToString[rr.Header().Rrtype]}
		sets[k] = append(sets[k], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	for k, rrs := range sets {
		n.DNS.Set(k.name, k.kind, func(string) []dns.RR { return rrs })
	}
}

// fromFiles are certificates as a CA's customer has them.
func fromFiles(t *testing.T, n *testnet.Net, site host.Site) host.Certificates {
	t.Helper()
	pair, err := n.CA.Issue(testnet.CertOptions{Names: site.Names()})
	if err != nil {
		t.Fatal(err)
	}
	files := host.Files{Certificate: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	if err := testnet.WriteFiles(pair, files.Certificate, files.Key); err != nil {
		t.Fatal(err)
	}
	c, err := host.FromFiles(site, []host.Files{files}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve runs a host until stop is called.
func serve(t *testing.T, o host.Options) (h *host.Host, stop func()) {
	t.Helper()
	h, err := host.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if missing, err := h.Unpublished(t.Context()); err != nil || len(missing) > 0 {
		t.Errorf("of the records, DNS does not have: %v\n%s", err, strings.Join(missing, "\n"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	return h, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// send gives a message of someone's to a server.
func send(t *testing.T, addr string, to []string, header string) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(conn, client.Options{Hello: "desk.sender.test"})
	defer c.Close()
	if err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	from, err := smtp.ParseMailbox(someone, false)
	if err != nil {
		t.Fatal(err)
	}
	env := client.Envelope{Mail: smtp.Mail{From: from}}
	for _, a := range to {
		p, err := smtp.ParseMailbox(a, false)
		if err != nil {
			t.Fatal(err)
		}
		env.Rcpts = append(env.Rcpts, smtp.Rcpt{To: p})
	}
	text := fmt.Sprintf("From: <%s>\r\n%sDate: %s\r\nMessage-ID: <%d@desk.sender.test>\r\n\r\nHello.\r\n",
		someone, header, time.Now().UTC().Format(time.RFC1123Z), time.Now().UnixNano())
	sent, err := c.Send(t.Context(), env, client.Bytes(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range sent.Rcpts {
		if !r.Delivered {
			t.Errorf("%s was refused: %s", to[i], r.Reply)
		}
	}
}

// receive waits for a mail to someone with words in its subject.
func receive(t *testing.T, n *testnet.Net, words string) *mail.Message {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 90*time.Second, errors.New("no mail with "+words))
	defer cancel()
	d, err := n.Wait(ctx, func(d testnet.Delivery) bool {
		m, err := mail.ReadMessage(bytes.NewReader(d.Data))
		return err == nil && d.For(someone) && strings.Contains(m.Header.Get("Subject"), words)
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := mail.ReadMessage(bytes.NewReader(d.Data))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// states reads what a verdict says of each test.
func states(t *testing.T, verdict string) map[string]string {
	t.Helper()
	_, table, ok := strings.Cut(verdict, "Mail that must arrive:")
	if !ok {
		t.Fatal("the verdict has no table")
	}
	found := make(map[string]string)
	for line := range strings.SplitSeq(table, "\r\n") {
		if row, ok := strings.CutPrefix(line, "  "); ok && !strings.HasPrefix(row, " ") {
			if f := strings.Fields(row); len(f) > 2 && found[f[0]] == "" {
				found[f[0]] = f[1]
			}
		}
	}
	return found
}

// toldAs runs a tour and checks what the verdict says: which tests are wrong, and
// words of its summary.
func toldAs(t *testing.T, recipe string, wrong func(host.Test) bool, words ...string) {
	t.Helper()
	t.Parallel() // it mostly waits
	netns.Run(t, mta.Network(), func() {
		verdict := tour(t, recipe)
		found := states(t, verdict)
		for _, test := range host.Tests() {
			want := host.Right
			if wrong(test) {
				want = host.Wrong
			}
			if got := found[test.Name]; got != string(want) {
				t.Errorf("%s (%s): %s, want %s", test.Name, test.Is, got, want)
			}
		}
		for _, w := range words {
			if !strings.Contains(verdict, w) {
				t.Errorf("the verdict does not say %q", w)
			}
		}
	})
}

func none(host.Test) bool { return false }

func TestPawlsRelayIsToldThatItDoesAllItMust(t *testing.T) {
	toldAs(t, "pawl", none, "MTA-STS is enforced.", "DANE is enforced.")
}

func TestPostfixWithPawlsMapIsToldThatItDoesAllItMust(t *testing.T) {
	toldAs(t, "postfix-pawl", none, "MTA-STS is enforced.", "DANE is enforced.")
}

func TestPostfixAloneIsToldThatItHasNoMTASTS(t *testing.T) {
	toldAs(t, "postfix", func(test host.Test) bool {
		return test.Of == host.MTASTS && test.Fate == host.Hold || test.Name == "next-host"
	}, "MTA-STS is not honoured", "DANE is enforced.")
}
