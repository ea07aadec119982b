package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/ledger"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/web"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// reportLifetime is how long the relay tries a report's mail (RFC 8460 §5.5).
const reportLifetime = 24 * time.Hour

// reportTimeout caps one submission over HTTPS.
const reportTimeout = 30 * time.Second

// makeReporter makes what builds and sends the day's TLS reports.
func (n *Node) makeReporter(context.Context) error {
	t := n.config.TLSRPT
	o := ledger.ReporterOptions{
		DB: n.db, Identity: identity(t), Window: t.Window.Std(), Keep: t.Keep.Std(),
		Caps:     ledger.Caps{Reports: int64(t.MaxReports), Bytes: int64(t.MaxBytes)},
		Resolver: n.resolver, Mailer: reportMail{n}, OwnMTA: t.SmartHost != "",
		Poster: &tlsrpt.Poster{
			Dial: byName(n.resolver, publicOnly(n.w.Dial)), Roots: n.roots, Now: n.w.Now, Timeout: reportTimeout, UserAgent: "pawl/" + Version,
		},
		Now: n.w.Now, After: n.w.After, Log: n.log,
	}
	if n.signer != nil {
		o.Signer = reportSigner{n.signer}
	}
	if t.SmartHost != "" {
		var d net.Dialer
		o.Mailer = &ledger.SmartHost{Addr: t.SmartHost, Hello: n.config.Hostname, Dial: d.DialContext}
	}
	n.reporter = ledger.NewReporter(o)
	return nil
}

func identity(t config.TLSRPT) ledger.Identity {
	return ledger.Identity{Organization: t.Organization, Contact: t.Contact, Domain: t.Domain}
}

// publicOnly dials public addresses: who publishes a record must not make us
// speak to our own network.
func publicOnly(dial Dial) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, fmt.Errorf("connecting to %q: %w", addr, err)
		}
		if a := to.Addr().Unmap(); !a.IsGlobalUnicast() || a.IsPrivate() {
			return nil, fmt.Errorf("connecting to %s: a report is not posted to an address that is not public", addr)
		}
		return dial(ctx, network, addr)
	}
}

// reportSigner is dkim.Signer as [ledger.Signer].
type reportSigner struct{ *dkim.Signer }

// Sign implements [ledger.Signer].
func (s reportSigner) Sign(domain, service string, message []byte) ([]byte, error) {
	fields, err := s.Signer.Sign(domain, dkim.Service(service), bytes.NewReader(message))
	switch {
	case err != nil:
		return nil, err
	case len(fields) == 0:
		return nil, fmt.Errorf("the configuration names no DKIM key for %s", domain)
	}
	return append(fields, message...), nil
}

// reportMail is the relay's queue as [ledger.Mailer].
type reportMail struct{ n *Node }

// Send implements [ledger.Mailer]. The queue has a message of an id once.
func (m reportMail) Send(ctx context.Context, mail ledger.Mail) (ledger.Handed, error) {
	if h, err := m.Fate(ctx, mail.Org, mail.ID); !errors.Is(err, ledger.ErrNotHanded) {
		return h, err
	}
	body := m.n.queue.Body()
	if _, err := body.Write(mail.Data); err != nil {
		body.Discard()
		return ledger.Handed{}, err
	}
	_, err := m.n.queue.Enqueue(ctx, queue.Submission{
		Message: queue.Message{Org: mail.Org, ID: mail.ID, From: mail.From, TLSOptional: true, Uncounted: true},
		// Whether it came is asked here; nobody is to get a bounce (RFC 3461 §4.1).
		Recipients: []queue.Destined{{Recipient: queue.Recipient{Addr: mail.To, Notify: "NEVER"}, Domain: queue.Domain(mail.To)}},
		Body:       body, Lifetime: reportLifetime,
	})
	return ledger.Handed{Answer: "it is in the relay's queue as " + mail.ID}, err
}

// Fate implements [ledger.Mailer].
func (m reportMail) Fate(ctx context.Context, org, id string) (ledger.Handed, error) {
	found, err := m.n.queue.OfMessage(ctx, org, id)
	if err != nil {
		return ledger.Handed{}, err
	}
	if len(found) == 0 {
		return ledger.Handed{}, ledger.ErrNotHanded
	}
	d := found[0]
	h := ledger.Handed{Done: !d.Waiting(), OK: d.State == queue.AllDelivered, Answer: d.Why}
	if r := d.Recipients[0]; r.Reply != "" {
		h.Answer = r.Reply
	}
	return h, nil
}

// checkReports says whether the day's reports can go out.
func checkReports(t config.TLSRPT, err error) web.Check {
	ck := web.Check{Name: "TLS reports"}
	switch {
	case err != nil:
		ck.Text = err.Error()
		ck.Do = fmt.Sprintf("Make a key with `pawl dkim key new %s --service tlsrpt`, publish its record, and name it under dkim in the configuration.", t.Domain)
	default:
		ck.OK, ck.Text = true, "go out in the name of "+t.Organization+", signed by "+t.Domain
	}
	return ck
}

// reportsReady is checkReports for a node that does not run.
func reportsReady(c config.Config, now func() time.Time) web.Check {
	s, err := signer(c, now)
	if err == nil {
		o := ledger.ReporterOptions{Identity: identity(c.TLSRPT)}
		if s != nil {
			o.Signer = reportSigner{s}
		}
		err = ledger.NewReporter(o).Ready()
	}
	return checkReports(c.TLSRPT, err)
}

// TLSRPTStatus is the answer to "tlsrpt.status".
type TLSRPTStatus struct {
	Identity     ledger.Identity       `json:"identity"`
	Trouble      string                `json:"trouble,omitempty"` // why nothing is sent
	Lost         int64                 `json:"lost,omitempty"`    // outcomes that were not counted
	Days         []ledger.DaySummary   `json:"days"`
	Reports      []ledger.ReportStatus `json:"reports"`
	Suppressions []ledger.Suppression  `json:"suppressions"`
}

// TLSRPTParams are the parameters of "tlsrpt.preview" and "tlsrpt.send".
type TLSRPTParams struct {
	Domain string `json:"domain,omitempty"`
	Day    string `json:"day,omitempty"` // 2026-01-31; empty: today for a preview, every day that waits for sending
}

// SuppressParams are the parameters of "tlsrpt.suppress".
type SuppressParams struct {
	Subject string        `json:"subject"`
	For     time.Duration `json:"for,omitempty"` // 0: until it is taken back
	Why     string        `json:"why,omitempty"`
	Resume  bool          `json:"resume,omitempty"` // take it back
}

// tlsrptControls adds what the command line does to reports.
func (n *Node) tlsrptControls(s *control.Server) {
	control.Handle(s, "tlsrpt.status", n.tlsrptStatus)
	control.Handle(s, "tlsrpt.preview", n.preview)
	control.Handle(s, "tlsrpt.send", n.sendReports)
	control.Handle(s, "tlsrpt.suppress", n.suppress)
}

func (n *Node) tlsrptStatus(ctx context.Context, q ledger.ReportQuery) (st TLSRPTStatus, err error) {
	st = TLSRPTStatus{Identity: identity(n.config.TLSRPT), Trouble: n.reporter.Trouble(), Lost: n.ledger.Lost()}
	if st.Days, err = n.reporter.Days(ctx, db.DefaultOrg); err != nil {
		return st, err
	}
	if st.Suppressions, err = n.reporter.Suppressions(ctx, db.DefaultOrg); err != nil {
		return st, err
	}
	st.Reports, err = n.reporter.Reports(ctx, db.DefaultOrg, q)
	return st, err
}

func (n *Node) preview(ctx context.Context, p TLSRPTParams) (ledger.Preview, error) {
	if err := n.ledger.Flush(ctx); err != nil {
		return ledger.Preview{}, err
	}
	day := p.Day
	if day == "" {
		day = n.w.Now().UTC().Format(time.DateOnly)
	}
	if _, err := time.Parse(time.DateOnly, day); err != nil || !tlsrpt.IsDomain(p.Domain) {
		return ledger.Preview{}, &control.Error{Text: fmt.Sprintf("%q is not a domain, or %q is not a day", p.Domain, day), Do: "Write a domain as example.com and a day as 2026-01-31."}
	}
	return n.reporter.Preview(ctx, db.DefaultOrg, day, p.Domain)
}

func (n *Node) sendReports(ctx context.Context, p TLSRPTParams) (int64, error) {
	due, err := n.reporter.SendNow(ctx, db.DefaultOrg, p.Day, p.Domain)
	if errors.Is(err, ledger.ErrNotReady) {
		return 0, &control.Error{Text: err.Error(), Do: "`pawl config check` says what is missing."}
	}
	return due, err
}

// suppress keeps reports from a destination or about a domain, or lets them go
// again. It reports whether something changed.
func (n *Node) suppress(ctx context.Context, p SuppressParams) (changed bool, err error) {
	if p.Resume {
		changed, err = n.reporter.Resume(ctx, db.DefaultOrg, p.Subject)
	} else {
		s := ledger.Suppression{Subject: p.Subject, Why: p.Why, Who: control.Caller(ctx)}
		if p.For > 0 {
			s.Until = n.w.Now().Add(p.For)
		}
		changed, err = true, n.reporter.Suppress(ctx, db.DefaultOrg, s)
	}
	if errors.Is(err, ledger.ErrSubject) {
		return false, &control.Error{Text: err.Error(), Do: "Write a destination as it stands in the record, as mailto:reports@example.com, or a domain as example.com."}
	}
	return changed, err
}

// reports are those that the page shows.
func (s source) reports(ctx context.Context) ([]web.Report, error) {
	list, err := s.n.reporter.Reports(ctx, db.DefaultOrg, ledger.ReportQuery{Limit: shownReports})
	if err != nil {
		return nil, err
	}
	var reports []web.Report
	for _, r := range list {
		w := web.Report{Day: r.Day, Domain: r.Domain, State: string(r.State), Why: r.Why}
		for _, d := range r.Deliveries {
			w.To = append(w.To, web.ReportTo{RUA: d.RUA, State: string(d.State), Answer: d.Answer, Tried: d.Tried})
		}
		reports = append(reports, w)
	}
	return reports, nil
}
