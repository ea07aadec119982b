package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Explanation is everything that decides about mail to a domain, with what was
// asked and what came back.
type Explanation struct {
	Domain      string             `json:"domain"`
	At          time.Time          `json:"at"`
	Summary     string             `json:"summary"` // one sentence: what holds and why
	Trust       trustDecision      `json:"trust"`   // of the resolver: whether there is DANE
	Destination verify.Destination `json:"destination"`
	Hosts       []HostExplanation  `json:"hosts"`
	Postfix     *verify.Answer     `json:"postfix"`
	Override    *Override          `json:"override,omitempty"`
	Error       string             `json:"error,omitempty"` // there is no such domain, in words
}

// HostExplanation is one MX host with what it must show.
type HostExplanation struct {
	verify.Host
	Preference uint16     `json:"preference"`
	DANE       dane.State `json:"dane"`
	BaseDomain string     `json:"base_domain,omitempty"`
	TLSA       []string   `json:"tlsa,omitempty"`
	Level      string     `json:"level"`
	EnforceSTS bool       `json:"enforce_sts"`
	MXMatched  bool       `json:"mx_matched"`
	Cell       string     `json:"cell"`
}

// Explain works out how mail to a domain would go now, and why.
func (e *Engine) Explain(ctx context.Context, name string) (Explanation, error) {
	domain, err := domainOf(name)
	if err != nil {
		return Explanation{}, err
	}
	x, err := e.explain(ctx, domain, func() (verify.Destination, error) { return e.Destination(ctx, domain) })
	if err != nil {
		return Explanation{}, err
	}
	x.Postfix = e.Postfix(ctx, domain)
	return x, nil
}

// ExplainVia works out what holds for mail that goes by way of a smart host; see
// [Engine.Via]. It says nothing of Postfix, which has routes of its own.
func (e *Engine) ExplainVia(ctx context.Context, host string, port uint16, viaMX bool) (Explanation, error) {
	domain, err := domainOf(host)
	if err != nil {
		return Explanation{}, err
	}
	x, err := e.explain(ctx, domain, func() (verify.Destination, error) { return e.Via(ctx, domain, port, viaMX, false) })
	if x.Error != "" {
		x.Summary = "There is no smart host " + domain + ": mail by this route waits."
	}
	return x, err
}

func (e *Engine) explain(ctx context.Context, domain string, destination func() (verify.Destination, error)) (Explanation, error) {
	x := Explanation{Domain: domain, At: e.now(), Trust: e.trust(ctx)}
	if _, err := e.STS(ctx, domain); err != nil { // known even where an override decides
		return Explanation{}, err
	}
	var err error
	x.Destination, err = destination()
	if errors.Is(err, ErrClosed) || ctx.Err() != nil {
		return Explanation{}, err
	}
	if err != nil {
		x.Error = err.Error()
	}
	x.Hosts = e.explainHosts(ctx, x.Destination)
	if x.Destination.Source == verify.FromNowhere && x.daneHosts() > 0 {
		x.Destination.Source = verify.FromDANE
	}
	if o, err := e.overrides.of(ctx, domain); err == nil && o != nil {
		shown := *o
		shown.Weakens = e.lifted(ctx, o)
		if n := x.daneHosts(); n > 0 && o.decides() {
			shown.Weakens = strings.TrimPrefix(fmt.Sprintf("%s; %d of its MX hosts have usable TLSA records", shown.Weakens, n), "; ")
		}
		x.Override = &shown
	}
	x.Summary = x.summary()
	return x, nil
}

func (e *Engine) explainHosts(ctx context.Context, d verify.Destination) []HostExplanation {
	hosts := make([]HostExplanation, len(d.MX))
	places := make(chan struct{}, maxHostLooks)
	var wait sync.WaitGroup
	for i, mx := range d.MX {
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			h := e.Host(ctx, d, mx.Host)
			set, _ := e.tlsaAt(ctx, mx.Host, cmp.Or(d.Port, e.o.Port))
			hosts[i] = HostExplanation{
				Host: h, Preference: mx.Preference, DANE: set.State, BaseDomain: set.BaseDomain, TLSA: set.Strings(),
				Level: h.Demand.Level.String(), EnforceSTS: h.Demand.EnforceSTS, Cell: h.Demand.Cell,
				MXMatched: h.Demand.STS != nil && h.Demand.STS.Matched,
			}
		})
	}
	wait.Wait()
	return hosts
}

// daneHosts is how many MX hosts have usable TLSA records.
func (x *Explanation) daneHosts() int {
	n := 0
	for _, h := range x.Hosts {
		if h.DANE == dane.Usable {
			n++
		}
	}
	return n
}

func (x *Explanation) summary() string {
	d := x.Destination
	switch {
	case x.Error != "":
		return "There is no domain " + x.Domain + ": mail to it is returned."
	case d.Hold != nil:
		return "Mail waits: " + d.Hold.Why + "."
	case d.NullMX:
		return x.Domain + " takes no mail (null MX)."
	case d.Source == verify.FromOverride:
		return "An override decides, whatever " + x.Domain + " asks for."
	}
	held := x.daneHosts()
	var text string
	if d.STS.Found {
		text = fmt.Sprintf("The MTA-STS policy %s of %s is in mode %s and holds until %s", d.STS.ID, x.Domain, d.STS.Policy.Mode, d.STS.Expires.Format(time.RFC3339))
	} else {
		text = x.Domain + " has no MTA-STS policy"
	}
	switch {
	case !x.Trust.DANE:
		text += "; " + x.Trust.Why
	case held == 0:
		text += "; none of its MX hosts has DANE"
	case held == len(x.Hosts):
		text += "; all its MX hosts are held to DANE"
	default:
		text += fmt.Sprintf("; of its %d MX hosts DANE holds %d", len(x.Hosts), held)
	}
	return text + "."
}
