package deliver

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp/client"
	"github.com/pawl-mail/pawl/internal/verify"
)

const (
	// maxLines and maxTranscript cap what is kept of what was said for one
	// message, in lines and octets.
	maxLines      = 60
	maxTranscript = 16 << 10
	// maxHelo caps the name that a host calls itself by.
	maxHelo = 255
)

// session is a connection with what it was judged by and to be.
type session struct {
	c       *client.Client
	demand  verify.Demand
	verdict verify.Verdict
	route   *Route // and, where that has them, with its credentials given
	addr    netip.Addr
	source  netip.Addr
	helo    string // what the host calls itself
	opened  time.Time
	used    time.Time
	uses    int
	told    []teller
	lines   transcript

	tls, certificate string // of the verdict, for the story
}

// teller is for whom a session was reported.
type teller struct{ org, domain string }

// resumedInVain reports whether a resumed session failed a policy.
func (s *session) resumedInVain() bool {
	if s.verdict.Session == nil || !s.verdict.Session.Resumed {
		return false
	}
	for _, p := range s.verdict.Policies {
		if p.Failure != nil {
			return true
		}
	}
	return !s.verdict.Pass
}

// describe puts into the story what the connection is.
func (s *session) describe(t *queue.Try) {
	v := &s.verdict
	t.Addr, t.Transport, t.Policies, t.Section, t.Do = s.addr, v.Transport, v.Policies, v.Section, v.Do
	if v.WouldHold {
		t.WouldHold = v.Why
	}
	if v.Session == nil {
		return
	}
	if s.tls == "" {
		s.tls = v.Session.Version + " " + v.Session.Cipher
		if v.Session.Certificate != nil {
			s.certificate = v.Session.Certificate.String()
		}
	}
	t.TLS, t.Certificate = s.tls, s.certificate
}

// tellOf reports a session for the day's TLS-RPT, once for each domain that it
// served: a session counts for it by what the domain's policy made of it.
func (a *attempt) tellOf(ctx context.Context, s *session, delivered bool) {
	if a.Uncounted {
		return // the next message over this session may count it
	}
	for _, t := range s.told {
		if t.org == a.Org && t.domain == a.dest.Domain {
			return
		}
	}
	s.told = append(s.told, teller{a.Org, a.dest.Domain})
	policies := s.verdict.Policies
	if s.demand.Domain != a.dest.Domain { // nothing is demanded, and the domains share it
		policies = []outcome.Policy{{Type: outcome.NoPolicy, Domain: a.dest.Domain}}
	}
	helo, _, _ := strings.Cut(s.helo, " ")
	a.tell(ctx, outcome.Attempt{
		MX: s.demand.Host, IP: s.addr, SourceIP: s.source, Helo: helo[:min(len(helo), maxHelo)],
		Policies: policies, Transport: s.verdict.Transport, Delivered: delivered,
	})
}

// tell reports a TLS attempt: by way of a smart host, for the smart host's
// domain. Not one of a report (RFC 8460 §3: SHOULD NOT include this SMTP
// session), or each would cause the next.
func (a *attempt) tell(ctx context.Context, o outcome.Attempt) {
	if a.Uncounted {
		return
	}
	o.At, o.Org, o.Source, o.Domain = a.d.opts.Now(), a.Org, "relay", a.dest.Domain
	a.d.opts.Outcomes(ctx, o)
}

// transcript is what both sides said, end to end. It costs no memory of its own
// for each line: most are never looked at.
type transcript struct {
	text []byte
	ends []int
	full bool // the destination is in transcript mode
}

func (l *transcript) add(d client.Direction, line string) {
	lines, size := maxLines, maxTranscript
	if l.full {
		lines, size = maxFullLines, maxFullTranscript
	}
	if len(l.ends) >= lines || len(l.text)+len(line) > size {
		return
	}
	l.text = append(append(append(l.text, d...), ": "...), line...)
	l.ends = append(l.ends, len(l.text))
}

func (l *transcript) reset() { l.text, l.ends = l.text[:0], l.ends[:0] }

// take returns the lines and forgets them.
func (l *transcript) take() []string {
	lines := make([]string, len(l.ends))
	start := 0
	for i, end := range l.ends {
		lines[i], start = string(l.text[start:end]), end
	}
	l.reset()
	return lines
}
