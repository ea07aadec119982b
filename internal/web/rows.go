package web

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// What the page shows before the reader asks for more.
const (
	shownFirst        = 8  // mail that waits, events
	shownDestinations = 25 // rows of the table
	shownFailures     = 3  // kinds of failure of one destination
	shownNames        = 2  // MX names of one destination
	shownRecipients   = 10 // of one delivery
	maxRows           = 500
)

// destinationRow is a destination with what became of its sessions. Either may
// be all that is known.
type destinationRow struct {
	Destination
	Outcomes
	Domain string
}

// destinationRows joins the two lists by domain: what fails first, and then by
// name, so that a row stays where the reader saw it.
func destinationRows(o Overview) []destinationRow {
	byDomain := make(map[string]*destinationRow, len(o.Destinations))
	row := func(domain string) *destinationRow {
		r := byDomain[domain]
		if r == nil {
			r = &destinationRow{Domain: domain}
			byDomain[domain] = r
		}
		return r
	}
	for _, d := range o.Destinations {
		row(d.Domain).Destination = d
	}
	for _, s := range o.Outcomes {
		row(s.Domain).Outcomes = s
	}
	rows := make([]destinationRow, 0, len(byDomain))
	for _, r := range byDomain {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b destinationRow) int {
		return cmp.Or(a.rank()-b.rank(), strings.Compare(a.Domain, b.Domain))
	})
	return rows[:min(len(rows), maxRows)]
}

func (r destinationRow) rank() int {
	if r.Refused > 0 || r.Failing != "" || len(r.Failures) > 0 {
		return 0
	}
	return 1
}

// heldGroup are deliveries to one destination that wait for the same reason.
type heldGroup struct {
	Held          // the one that has waited longest of those listed
	others []Held // the rest
}

// behind is how the queue says that a delivery waits for the reason of another.
const behind = "waits behind other mail for "

// heldGroups puts what waits for the same reason into one row, in the order of
// the first of each.
func heldGroups(held []Held) []heldGroup {
	type reason struct {
		domain, why      string
		byPolicy, byHand bool
	}
	var groups []heldGroup
	at := map[reason]int{}
	for _, h := range held {
		why := strings.TrimPrefix(h.Why, behind+h.Domain+": ")
		key := reason{h.Domain, why, h.ByPolicy, h.ByHand}
		i, ok := at[key]
		if !ok {
			at[key] = len(groups)
			h.Why = why
			groups = append(groups, heldGroup{Held: h})
			continue
		}
		groups[i].others = append(groups[i].others, h)
	}
	return groups
}

// share is one of the things that sessions come to.
type share struct {
	class, word string
	n           int64
}

func (o Outcomes) shares() [4]share {
	return [...]share{
		{"verified", "verified", o.Verified},
		{"encrypted", "encrypted", o.Encrypted},
		{"clear", "in clear", o.Clear},
		{"refused", "refused", o.Refused},
	}
}

// sessions are all sessions of the last 24 hours.
func (t Totals) sessions() Outcomes {
	return Outcomes{Verified: t.Verified, Encrypted: t.Encrypted, Clear: t.Clear, Refused: t.Refused}
}

// segment is a part of a bar that is 100 wide.
type segment struct{ class, x, width string }

// minSegment is how narrow a part may be: one refused session in a million is
// to be seen.
const minSegment = 1.0

func segments(o Outcomes) []segment {
	total := 0.0
	widths := [4]float64{}
	for i, s := range o.shares() {
		if s.n > 0 {
			widths[i] = max(100*float64(s.n)/float64(o.Total()), minSegment)
			total += widths[i]
		}
	}
	var out []segment
	x := 0.0
	for i, s := range o.shares() {
		if widths[i] > 0 {
			w := widths[i] * 100 / total
			out = append(out, segment{s.class, decimal(x), decimal(w)})
			x += w
		}
	}
	return out
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

// waits reports whether the delivery has not ended.
func (m MessagePage) waits() bool { return m.State == "queued" || m.State == "held" }
