package testnet_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/testnet"
	"github.com/pawl-mail/pawl/mtasts"
)

// The house's own resolver, fetcher and DANE live on the small Internet with
// nothing but its address, dialler, roots and clock.

func start(t *testing.T) (*testnet.Net, *resolve.Resolver, context.Context) {
	t.Helper()
	n := testnet.Start(t, testnet.Options{})
	r := resolve.New(resolve.Options{Upstreams: []string{n.DNSAddr()}, Dial: n.Dial, Now: n.Clock.Now})
	t.Cleanup(r.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	if v := r.CheckValidation(ctx, testnet.SignedName, testnet.BogusName); !v.Trusted {
		t.Fatalf("the resolver is not trusted: %+v", v)
	}
	return n, r, ctx
}

func TestTheResolverTellsSecureFromInsecureFromUnknown(t *testing.T) {
	n, r, ctx := start(t)
	n.Domain("plain.test", testnet.DomainOptions{})
	signed := n.Domain("signed.test", testnet.DomainOptions{DANE: testnet.DANEEE})

	plain, err := r.MX(ctx, "plain.test")
	if err != nil || plain.Authentic || plain.Records[0].Host != "mx.plain.test" {
		t.Errorf("plain: %+v, %v", plain, err)
	}
	secure, err := r.MX(ctx, "signed.test")
	if err != nil || !secure.Authentic || secure.Records[0].Host != "mx.signed.test" {
		t.Errorf("signed: %+v, %v", secure, err)
	}
	if _, err := r.TXT(ctx, "_mta-sts.plain.test"); !resolve.IsNotFound(err) {
		t.Errorf("no record: %v", err)
	}
	signed.On(testnet.SpoofMX, testnet.DropTLSA)
	_, err = r.MX(resolve.Fresh(ctx), "signed.test")
	if f, ok := errors.AsType[*resolve.Failure](err); !ok || f.Kind != resolve.ServFail {
		t.Errorf("spoofed in a signed zone: %v", err)
	}
	began := time.Now()
	_, err = r.TLSA(resolve.Fresh(ctx), signed.MX().TLSABase())
	if f, ok := errors.AsType[*resolve.Failure](err); !ok || f.Kind != resolve.Timeout {
		t.Errorf("dropped: %v", err)
	}
	if took := time.Since(began); took > resolve.DefaultTimeout/2 {
		t.Errorf("a dropped query took %v: it was waited for", took)
	}
}

func TestTheFetcherGetsThePolicyAndTellsTheAttacks(t *testing.T) {
	n, _, ctx := start(t)
	d := n.Domain("a.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	f := &mtasts.Fetcher{Dial: n.Dial, Roots: n.Roots(), Now: n.Clock.Now}
	got, err := f.Fetch(ctx, "a.test")
	if err != nil || got.Policy.Mode != mtasts.Enforce || !got.Policy.Match("mx.a.test") || got.Policy.MaxAge != testnet.DefaultMaxAge {
		t.Fatalf("got %+v, %v", got, err)
	}
	for attack, want := range map[testnet.Attack]string{
		testnet.BlockPolicyHost:  "sts-policy-fetch-error",
		testnet.HidePolicyHost:   "sts-policy-fetch-error",
		testnet.PolicySelfSigned: "sts-webpki-invalid",
		testnet.PolicyExpired:    "sts-webpki-invalid",
		testnet.PolicyWrongName:  "sts-webpki-invalid",
		testnet.PolicyCNOnly:     "sts-webpki-invalid",
		testnet.PolicyRedirect:   "sts-policy-fetch-error",
		testnet.PolicyNotFound:   "sts-policy-fetch-error",
		testnet.PolicyHuge:       "sts-policy-fetch-error",
	} {
		d.On(attack)
		_, err := f.Fetch(ctx, "a.test")
		if typed, ok := errors.AsType[interface {
			error
			ResultType() string
		}](err); !ok || typed.ResultType() != want {
			t.Errorf("%s: %v, want %s", attack, err, want)
		}
		d.Off()
	}
}

func TestTLSARecordsMatchTheHostsAndNotTheAttacker(t *testing.T) {
	n, r, ctx := start(t)
	for name, o := range map[string]testnet.DANE{"ee.test": testnet.DANEEE, "ta.test": testnet.DANETA} {
		d := n.Domain(name, testnet.DomainOptions{DANE: o})
		answer, err := r.TLSA(ctx, d.MX().TLSABase())
		if err != nil || !answer.Authentic {
			t.Fatalf("%s: %+v, %v", name, answer, err)
		}
		verify := func() error {
			_, err := dane.Verify(shown(ctx, t, n, d.MX().Name), answer.Records, dane.Reference{BaseDomain: d.MX().Name}, n.Clock.Now())
			return err
		}
		if err := verify(); err != nil {
			t.Errorf("%s: the honest host: %v", name, err)
		}
		n.Clock.Advance(80 * 24 * time.Hour)
		if err := verify(); err != nil {
			t.Errorf("%s: after a renewal: %v", name, err)
		}
		for attack, want := range map[testnet.Attack]map[testnet.DANE]bool{
			testnet.MITMMisissued: {},
			testnet.ShowExpired:   {testnet.DANEEE: true},
			testnet.ShowWrongName: {testnet.DANEEE: true},
			testnet.ShowCNOnly:    {testnet.DANEEE: true},
			testnet.StaleTLSA:     {testnet.DANETA: true},
		} {
			d.On(attack)
			if err := verify(); (err == nil) != want[o] {
				t.Errorf("%s under %s: %v, want to pass: %v", name, attack, err, want[o])
			}
			d.Off()
		}
	}
}

// session opens an SMTP session with a host by the house's own client, up to
// the EHLO under TLS.
func session(ctx context.Context, t *testing.T, n *testnet.Net, host string) (*client.Client, error) {
	t.Helper()
	conn, err := n.Dial(ctx, "tcp", host+":25")
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(conn, client.Options{Hello: "sender.test"})
	t.Cleanup(func() { c.Close() })
	if err := c.Hello(ctx); err != nil {
		return c, err
	}
	if err := c.StartTLS(ctx, &tls.Config{ServerName: host, RootCAs: n.Roots(), Time: n.Clock.Now}); err != nil {
		return c, err
	}
	return c, c.Hello(ctx)
}

func TestTheClientDeliversToTheHostAndKeepsItsManners(t *testing.T) {
	n, _, ctx := start(t)
	n.Domain("a.test", testnet.DomainOptions{}).On(testnet.FakeCapabilities)
	c, err := session(ctx, t, n, "mx.a.test")
	if err != nil {
		t.Fatal(err)
	}
	env := client.Envelope{
		Mail:  smtp.Mail{From: smtp.Path{Local: "x", Domain: "b.test"}, EnvID: "Id", RequireTLS: true},
		Rcpts: []smtp.Rcpt{{To: smtp.Path{Local: "y", Domain: "a.test"}, Notify: smtp.NotifyNever}},
	}
	result, err := c.Send(ctx, env, client.Bytes("Subject: x\r\n\r\n.hello\r\n"))
	if err != nil || !result.Rcpts[0].Delivered {
		t.Fatalf("%+v, %v", result, err)
	}
	c.Quit(ctx)
	got := n.Delivered("y@a.test")
	if len(got) != 1 || !got[0].Trusted || !got[0].RequireTLS || string(got[0].Data) != "Subject: x\r\n\r\n.hello\r\n" {
		t.Fatalf("%+v", got)
	}
	if !slices.Contains(got[0].MailParams, "ENVID=Id") || !slices.Equal(got[0].RcptParams[0], []string{"NOTIFY=NEVER"}) {
		t.Errorf("parameters %q and %q", got[0].MailParams, got[0].RcptParams)
	}
	if notes := got[0].Session.Notes(); len(notes) != 0 {
		t.Errorf("noted %q", notes)
	}
}

func TestTheClientTellsTheAttacksOnTheHandshakeApart(t *testing.T) {
	n, _, ctx := start(t)
	d := n.Domain("a.test", testnet.DomainOptions{})
	for attack, want := range map[testnet.Attack]any{
		testnet.StripSTARTTLS:    new(*client.MissingError),
		testnet.STARTTLSTempFail: new(*client.StartTLSRefused),
		testnet.STARTTLSPermFail: new(*client.StartTLSRefused),
		testnet.KillHandshake:    new(*client.HandshakeError),
		testnet.DowngradeVersion: new(*client.HandshakeError),
		testnet.DowngradeCipher:  new(*client.HandshakeError),
		testnet.MITMSelfSigned:   new(*client.HandshakeError),
		testnet.InjectReplies:    new(*client.InjectionError),
		testnet.ForgeGreeting:    new(*client.ReplyError),
		testnet.ForgeEHLO:        new(*client.ReplyError),
		testnet.ForgeBusy:        new(*client.ReplyError),
	} {
		d.On(attack)
		if _, err := session(ctx, t, n, "mx.a.test"); !errors.As(err, want) {
			t.Errorf("%s: %v, want %T", attack, err, want)
		}
		d.Off()
	}
}

// shown returns the chain that a host shows after STARTTLS.
func shown(ctx context.Context, t *testing.T, n *testnet.Net, host string) []*x509.Certificate {
	t.Helper()
	conn, err := n.Dial(ctx, "tcp", host+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, _, err := testnet.NewCaller(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Say("EHLO sender.test"); err != nil {
		t.Fatal(err)
	}
	state, err := c.StartTLS(ctx, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates
}
