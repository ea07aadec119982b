package policy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/mtasts"
)

const (
	// repeatedFailures in a row are worth a louder event (RFC 8461 §10.2), and
	// so is each further dayOfFailures: about a day at an hour apiece.
	repeatedFailures = 3
	dayOfFailures    = 24
)

// announce raises the events of a look: each once, when the domain comes into it.
func (l *look) announce(ctx context.Context, d stsDecision) {
	prev, next := l.prev, l.next
	switch {
	case l.facts.HTTPS == httpsPolicy:
		next.said &^= saidVanished
		l.tellAdopted(ctx)
	case l.facts.Cache == cacheExpired && prev.policy.Mode != mtasts.None:
		l.raise(ctx, event.PolicyExpired, event.Error,
			"The cached MTA-STS policy of "+l.domain+" ended and there is no other: mail goes as without one.",
			"Look at why it could not be refreshed; whoever keeps it from being fetched can now read mail to this domain.",
			map[string]string{"policy": describe(prev.policy), "expired": fromMicro(prev.expires).Format(time.RFC3339), "record": next.recordAnswer()})
	}
	if l.facts.Record == recordSameID || l.facts.Record == recordNewID {
		next.said &^= saidVanished
	}
	if next.since == 0 {
		next.said &^= saidHeld | saidReleased
	}
	switch d.Event {
	case event.PolicyRecordVanished:
		l.tellVanished(ctx)
	case event.PolicyRefreshFailing:
		l.tellFailing(ctx)
	case event.DiscoveryHeld:
		l.tellHeld(ctx)
	case event.DiscoveryReleased:
		l.tellReleased(ctx)
	}
	if d.Event == event.PolicyRecordVanished && l.facts.HTTPS == httpsFailure {
		l.tellFailing(ctx)
	}
}

// tellAdopted says how a policy differs from the one before it.
func (l *look) tellAdopted(ctx context.Context) {
	prev, next := l.prev, l.next
	evidence := map[string]string{"policy": describe(next.policy), "id": next.id}
	if prev.policy == nil || l.facts.Cache == cacheExpired {
		// At first contact there is nothing new about a policy.
		if next.policy.Mode != mtasts.None && prev.refresh != 0 && !l.errand.quiet {
			l.raise(ctx, event.PolicyNew, event.Info,
				l.domain+" has an MTA-STS policy now: "+describe(next.policy)+".", "", evidence)
		}
		return
	}
	evidence["before"], evidence["id_before"] = describe(prev.policy), prev.id
	if ways := weaker(*prev.policy, *next.policy); len(ways) > 0 {
		severity := event.Warning
		if prev.policy.Mode != mtasts.Enforce {
			severity = event.Info
		}
		evidence["weaker"] = strings.Join(ways, "; ")
		l.raise(ctx, event.PolicyWeakened, severity,
			"The MTA-STS policy of "+l.domain+" asks less than before: "+strings.Join(ways, "; ")+".",
			"If this destination matters to you, ask its operator whether the change is theirs; an override can demand more.", evidence)
		return
	}
	if !prev.policy.Equal(*next.policy) {
		l.raise(ctx, event.PolicyChanged, event.Info,
			"The MTA-STS policy of "+l.domain+" changed to "+describe(next.policy)+".", "", evidence)
	}
}

func (l *look) tellVanished(ctx context.Context) {
	if l.next.said&saidVanished != 0 || l.prev.policy.Mode == mtasts.None {
		return // RFC 8461 §10.2: no alert where the policy said that it would go
	}
	l.next.said |= saidVanished
	l.raise(ctx, event.PolicyRecordVanished, event.Warning,
		"The record _mta-sts."+l.domain+" vanished; the cached policy holds until "+fromMicro(l.next.expires).Format(time.RFC3339)+".",
		"Nothing is to be done if the domain gave MTA-STS up without saying so; otherwise someone answers in its place.",
		map[string]string{"policy": describe(l.next.policy), "record": l.next.text, "authentic": strconv.FormatBool(l.next.secure)})
}

func (l *look) tellFailing(ctx context.Context) {
	f := l.next.fail
	if l.prev.policy.Mode == mtasts.None { // RFC 8461 §3.3
		return
	}
	if f.count != 1 && f.count != repeatedFailures && f.count%dayOfFailures != 0 {
		return
	}
	severity, times := event.Warning, ""
	if f.count > 1 {
		severity, times = event.Error, fmt.Sprintf(", %d times in a row", f.count)
	}
	l.raise(ctx, event.PolicyRefreshFailing, severity,
		"The MTA-STS policy of "+l.domain+" could not be refreshed"+times+": "+f.outcome.Info,
		"The cached policy holds until "+fromMicro(l.next.expires).Format(time.RFC3339)+"; look at "+policyURL(l.domain)+" from here and from elsewhere.",
		map[string]string{"result": string(f.outcome.Result), "reason": f.outcome.Reason, "failures": strconv.Itoa(f.count), "policy": describe(l.next.policy)})
}

func (l *look) tellHeld(ctx context.Context) {
	if l.next.said&saidHeld != 0 {
		return
	}
	l.next.said |= saidHeld
	until := fromMicro(l.next.since).Add(l.engine.o.DiscoveryHold).Format(time.RFC3339)
	l.raise(ctx, event.DiscoveryHeld, event.Warning,
		"Mail to "+l.domain+" waits: it could not be found out whether it has an MTA-STS policy.",
		"Look at its name servers and at pawl's resolver; if nothing changes, mail goes as without a policy at "+until+".",
		map[string]string{"error": l.next.text, "until": until})
}

func (l *look) tellReleased(ctx context.Context) {
	if l.next.said&saidReleased != 0 {
		return
	}
	l.next.said |= saidReleased
	l.raise(ctx, event.DiscoveryReleased, event.Error,
		"Mail to "+l.domain+" goes as without a policy: for "+l.engine.o.DiscoveryHold.String()+" it could not be found out whether there is one.",
		"Set an override for this destination if its mail must not go unprotected.",
		map[string]string{"error": l.next.text, "since": fromMicro(l.next.since).Format(time.RFC3339)})
}

func (l *look) raise(ctx context.Context, kind event.Kind, severity event.Severity, text, do string, evidence map[string]string) {
	l.engine.raise(ctx, event.Event{Kind: kind, Severity: severity, Domain: l.domain, Text: text, Do: do, Evidence: evidence})
}

// raise gives an event to the sink.
func (e *Engine) raise(ctx context.Context, ev event.Event) {
	if e.o.Events == nil {
		return
	}
	ev.Org, ev.At = e.o.Org, e.now()
	e.o.Events.Record(context.WithoutCancel(ctx), ev)
}
