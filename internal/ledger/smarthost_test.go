package ledger_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestAReportIsHandedToTheOperatorsMTA(t *testing.T) {
	for name, c := range map[string]struct {
		options testnet.HostOptions
		at      testnet.Stage
		reply   string // in place of the honest one
		want    ledger.Handed
		fails   bool // and is tried again
		clear   bool
	}{
		"over TLS, whoever vouches for the certificate": {options: testnet.HostOptions{Flaw: testnet.SelfSigned}, want: ledger.Handed{Done: true, OK: true}},
		"in clear where there is no TLS":                {options: testnet.HostOptions{NoSTARTTLS: true}, want: ledger.Handed{Done: true, OK: true}, clear: true},
		"in clear where TLS does not work":              {at: testnet.AtSTARTTLS, reply: "454 4.7.0 not now", want: ledger.Handed{Done: true, OK: true}, clear: true},
		"refused for good":                              {at: testnet.AtRCPT, reply: "550 5.1.1 nobody", want: ledger.Handed{Done: true}},
		"refused for now":                               {at: testnet.AtRCPT, reply: "451 4.3.0 later", fails: true},
		"refused at the greeting":                       {at: testnet.AtConnect, reply: "421 4.3.2 busy", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			tn := testnet.Start(t, testnet.Options{})
			h := tn.Host("mta.test", c.options)
			if c.reply != "" {
				h.Script(c.at, testnet.Action{Reply: c.reply})
			}
			s := &ledger.SmartHost{Addr: netip.AddrPortFrom(h.Addrs[0], 25).String(), Hello: "pawl.test", Dial: tn.Dial}
			got, err := s.Send(t.Context(), ledger.Mail{Org: db.DefaultOrg, ID: "1", From: "tls@report.test", To: "box@in.test", Data: []byte("TLS-Required: No\r\nSubject: report\r\n\r\nx\r\n")})
			if c.fails != (err != nil) || errors.Is(err, ledger.ErrRefused) {
				t.Fatalf("%+v, %v", got, err)
			}
			if got.Done != c.want.Done || got.OK != c.want.OK || got.Done && !strings.Contains(got.Answer, "mta.test") && !strings.Contains(got.Answer, s.Addr) {
				t.Errorf("%+v", got)
			}
			mails := tn.Delivered("box@in.test")
			if want := got.OK; want != (len(mails) == 1) {
				t.Fatalf("%d mails arrived", len(mails))
			}
			if got.OK && (mails[0].Clear() != c.clear || mails[0].From != "tls@report.test" || !strings.Contains(string(mails[0].Data), "TLS-Required: No\r\n")) {
				t.Errorf("%+v", mails[0])
			}
		})
	}
}

func TestAReportForNoMailboxIsRefusedForGood(t *testing.T) {
	s := &ledger.SmartHost{Addr: "192.0.2.1:25", Hello: "pawl.test"}
	if _, err := s.Send(t.Context(), ledger.Mail{From: "tls@report.test", To: "nobody"}); !errors.Is(err, ledger.ErrRefused) {
		t.Errorf("%v", err)
	}
}

func TestWhatAnInterruptedHandoverCameToIsNotRepeated(t *testing.T) {
	each(t, func(k *desk) {
		k.records["a.test"] = []string{"v=TLSRPTv1; rua=mailto:box@in.test"}
		k.saw(noon, "a.test", nil, 1)
		k.pass(15 * time.Hour)
		k.unsay("a.test")
		k.o.Mailer = forgetful{k}
		k.start()
		k.pass(26 * time.Hour)
		k.want("2026-03-04 a.test failed [mailto:box@in.test unknown 1]")
		if len(k.mails) != 1 {
			k.Errorf("%d mails", len(k.mails))
		}
	})
}

// forgetful is a desk whose mail goes to an MTA that cannot be asked.
type forgetful struct{ *desk }

func (forgetful) Fate(ctx context.Context, org, id string) (ledger.Handed, error) {
	return (&ledger.SmartHost{}).Fate(ctx, org, id)
}
