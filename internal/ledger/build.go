package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// reasonClear is the failure-reason-code of a session without TLS with a host
// of which no policy demands it.
const reasonClear = "no-tls"

// dayFacts is what was counted of a domain in a day.
type dayFacts struct {
	domain    string
	policies  []tlsrpt.Policy
	relay     int64 // sessions of the relay
	postfix   int64 // sessions of Postfix
	left      int64 // sessions left out, because nobody verified them
	successes int64
	failures  int64
}

// sessions is how many sessions the day had with mail.
func (f *dayFacts) sessions() int64 { return f.relay + f.postfix }

// factsOf reads what was counted of a domain in a day. Other rows than these are
// not in memory at the time.
func (r *Reporter) factsOf(ctx context.Context, org, day, domain string) (*dayFacts, error) {
	rows, err := r.o.DB.Read().QueryContext(ctx,
		`SELECT source, policy_type, policy_domain, policy, result, reason, info, mx, helo, ip, source_ip, transport, unverified, sessions
		 FROM outcome WHERE org = $1 AND day = $2 AND domain = $3
		 ORDER BY policy_type, policy_domain, policy, result, reason, mx, ip, source_ip, helo, digest`, org, day, domain)
	if err != nil {
		return nil, fmt.Errorf("reading the outcomes of %s: %w", domain, err)
	}
	defer rows.Close()
	a := assembly{facts: &dayFacts{domain: domain}}
	for rows.Next() {
		var c counted
		var unverified int64
		if err := rows.Scan(&c.source, &c.policyType, &c.policyDomain, &c.policy, &c.result, &c.reason, &c.info,
			&c.mx, &c.helo, &c.ip, &c.sourceIP, &c.to, &unverified, &c.sessions); err != nil {
			return nil, fmt.Errorf("reading the outcomes of %s: %w", domain, err)
		}
		c.unverified = unverified == 1
		a.add(&c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the outcomes of %s: %w", domain, err)
	}
	a.facts.policies = slices.DeleteFunc(a.facts.policies, func(p tlsrpt.Policy) bool {
		return p.Successes == 0 && p.Failures == 0 && len(p.Details) == 0
	})
	return a.facts, nil
}

// counted is a row with its count.
type counted struct {
	row
	sessions int64
}

// assembly makes a report's policies of counts in the order of their policies.
type assembly struct {
	facts *dayFacts
	last  row // the policy that is open
}

func (a *assembly) add(c *counted) {
	switch {
	case c.unverified:
		// A witness that looked at no certificate has nothing to say of the policy.
		a.facts.left += c.sessions
		return
	case c.source == fromPolicy:
	case c.source == fromPostfix:
		a.facts.postfix += c.sessions
	default:
		a.facts.relay += c.sessions
	}
	p := a.policy(c)
	failure, session := c.failure(), c.source != fromPolicy
	switch {
	case failure == "" && c.to == string(outcome.NotSent) && c.policyType == string(outcome.NoPolicy):
		// It came to nothing for another reason than TLS.
	case failure == "":
		p.Successes += c.sessions
		a.facts.successes += c.sessions
	default:
		// total-failure-session-count tells of connections with the receiving site
		// (RFC 8460 §4.2.2, §4.4). A policy that could not be fetched is told of in
		// failure-details only: there was no session yet.
		if session {
			p.Failures += c.sessions
			a.facts.failures += c.sessions
		}
		addDetail(p, c, failure)
	}
}

// failure is the result type of what failed, "" for a success.
func (c *counted) failure() tlsrpt.ResultType {
	if c.result == "" && c.policyType == string(outcome.NoPolicy) && c.to == string(outcome.Clear) {
		c.reason = reasonClear
		return tlsrpt.ValidationFailure
	}
	return tlsrpt.ResultType(c.result)
}

// policy returns the policy that a count belongs to.
func (a *assembly) policy(c *counted) *tlsrpt.Policy {
	list := &a.facts.policies
	if len(*list) == 0 || c.policyType != a.last.policyType || c.policyDomain != a.last.policyDomain || c.policy != a.last.policy {
		a.last = c.row
		var text policyJSON
		// It was written by policyText.
		_ = json.Unmarshal([]byte(c.policy), &text)
		*list = append(*list, tlsrpt.Policy{
			Type: tlsrpt.PolicyType(c.policyType), Domain: asciiDomain(c.policyDomain, a.facts.domain), Strings: valid(text.Strings), MXHosts: patterns(text.MX),
		})
	}
	return &(*list)[len(*list)-1]
}

func addDetail(p *tlsrpt.Policy, c *counted, failure tlsrpt.ResultType) {
	d := tlsrpt.Detail{Result: failure, MXHost: c.mx, MXHelo: c.helo, Sessions: c.sessions, Reason: c.reason}
	// They were written by netip.Addr.String; without one there is none.
	d.ReceivingIP, _ = netip.ParseAddr(c.ip)
	d.SendingIP, _ = netip.ParseAddr(c.sourceIP)
	// additional-information is a URI (RFC 8460 §4.4); what we note for people is not.
	if u, err := url.Parse(c.info); err == nil && u.Scheme == tlsrpt.HTTPS {
		d.Info = c.info
	}
	for i := range p.Details {
		same := p.Details[i]
		if same.Sessions = d.Sessions; same == d {
			p.Details[i].Sessions += d.Sessions // nodes and notes for people are not told apart
			return
		}
	}
	p.Details = append(p.Details, d)
}

// valid leaves out what is not I-JSON text.
func valid(lines []string) []string {
	for i, line := range lines {
		lines[i] = strings.Map(func(c rune) rune {
			if c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef {
				return -1
			}
			return c
		}, strings.ToValidUTF8(line, "?"))
	}
	return lines
}

func patterns(mx []string) []string {
	return slices.DeleteFunc(mx, func(m string) bool { return !tlsrpt.IsDomain(strings.TrimPrefix(m, "*.")) })
}

// asciiDomain is the policy's domain, or where that is no domain name in A-labels
// the report's.
func asciiDomain(domain, otherwise string) string {
	if domain = strings.TrimSuffix(domain, "."); tlsrpt.IsDomain(domain) {
		return domain
	}
	return otherwise
}

// report makes the day's report of a domain.
func (r *Reporter) report(day, id string, f *dayFacts) (*tlsrpt.Report, error) {
	start, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return nil, fmt.Errorf("%q is not a day; write it as 2026-01-31", day)
	}
	policies := slices.Clone(f.policies)
	slices.SortStableFunc(policies, func(a, b tlsrpt.Policy) int {
		return cmp.Or(cmp.Compare(order(a.Type), order(b.Type)), strings.Compare(a.Domain, b.Domain))
	})
	return &tlsrpt.Report{
		Organization: r.o.Identity.Organization, Contact: r.o.Identity.Contact, ID: id + "@" + r.o.Identity.Domain,
		Start: start, End: start.Add(24*time.Hour - time.Second), Policies: policies,
	}, nil
}

// order puts the policies of MTA-STS first, which are the domain's own.
func order(t tlsrpt.PolicyType) int {
	return slices.Index([]tlsrpt.PolicyType{tlsrpt.STS, tlsrpt.TLSA, tlsrpt.NoPolicy}, t)
}
