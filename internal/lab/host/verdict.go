package host

import (
	"fmt"
	"slices"
	"strings"
)

// State is how a test went.
type State string

// The states.
const (
	Right  State = "right"  // as the test's fate says
	Wrong  State = "WRONG"  // it leaked, or did not arrive though it must
	Unseen State = "unseen" // nothing came, and nothing shows that it was sent
)

// Result is what came of one test.
type Result struct {
	Test  Test
	State State
	Came  bool   // something arrived
	Was   string // what became of the mail, in a few words
	Seen  string // what shows it, or ""
}

// leak is what is wrong with a message that arrived, or "". Held mail must not
// arrive at all, and what a policy protects not in clear, nor at a host that the
// policy does not allow.
func (s Site) leak(t Test, a Arrival) string {
	if t.Fate == Hold || a.Version == "" && t.demandsTLS() {
		return a.how()
	}
	for _, r := range t.receivers {
		switch {
		case !r.rogue:
		case a.Host == s.hostOf(t, r):
			return "arrived at the host whose certificate is bad"
		case a.Host == "":
			// What a client gets that names no host (RFC 8461 §7.1) is good for none of
			// these: it did not look.
			return "arrived without asking for a host's certificate"
		}
	}
	return ""
}

// leaks reports whether a message that arrived is one that leaked.
func (s Site) leaks(a Arrival) bool {
	tests, _ := s.Tests()
	i := slices.IndexFunc(tests, func(t Test) bool { return t.Name == a.Test })
	return i >= 0 && s.leak(tests[i], a) != ""
}

// results judges a run.
func (s Site) results(r Run, visits *visits) []Result {
	tests, _ := s.Tests()
	results := make([]Result, 0, len(tests))
	for _, t := range tests {
		results = append(results, s.judge(r, t, visits.of(r, t.Name)))
	}
	return results
}

func (s Site) judge(r Run, t Test, v visit) Result {
	result := Result{Test: t, State: Right, Seen: v.text()}
	var arrivals []Arrival
	for _, a := range r.Arrivals {
		if a.Test == t.Name {
			arrivals = append(arrivals, a)
		}
	}
	result.Came = len(arrivals) > 0
	for _, a := range arrivals {
		if leak := s.leak(t, a); leak != "" {
			result.State, result.Was, result.Seen = Wrong, leak, a.text()
			return result
		}
	}
	switch sent := slices.Contains(r.Addressed, t.Name); {
	case result.Came:
		result.Was, result.Seen = arrivals[0].how(), arrivals[0].text()
	case !sent:
		// Somebody else who uses this server may have been there.
		result.State, result.Was = Unseen, "is not known to have been sent"
	case t.Fate == Arrive:
		result.State, result.Was = Wrong, "did not arrive"
	case v.count > 0 || t.far:
		result.Was = "held"
	default:
		// It may be that the sender has no way to the host, as without IPv6.
		result.State, result.Was = Unseen, "did not arrive, nor was your server seen there"
	}
	return result
}

// how is in what a message came.
func (a Arrival) how() string {
	if a.Version == "" {
		return "arrived in clear"
	}
	return "arrived"
}

// text is how and when a message came.
func (a Arrival) text() string {
	at := a.At.UTC().Format("15:04:05")
	switch {
	case a.Version == "":
		return at
	case a.Host == "":
		return a.Version + ", no SNI, " + at
	default:
		return a.Version + ", " + at
	}
}

// text is what was seen of a sender.
func (v visit) text() string {
	var parts []string
	if !v.policy.IsZero() {
		parts = append(parts, fmt.Sprintf("%s at %s", gotPolicy, v.policy.UTC().Format("15:04:05")))
	}
	if v.count > 0 {
		times := "once"
		if v.count > 1 {
			times = fmt.Sprintf("%d times", v.count)
		}
		parts = append(parts, fmt.Sprintf("came %s, %s, and left at %s", times, v.step, v.last.UTC().Format("15:04:05")))
	}
	return strings.Join(parts, "; ")
}

// summary says in a line what a sender does about one mechanism.
func summary(of Mechanism, results []Result) string {
	var held, leaks, late, unseen []string
	first := Result{State: Unseen}
	for _, r := range results {
		if r.Test.Of != of {
			continue
		}
		if first.Test.Name == "" {
			first = r
		}
		switch {
		case r.State == Unseen:
			unseen = append(unseen, r.Test.Name)
		case r.State == Wrong && !r.Came:
			late = append(late, r.Test.Name)
		case r.State == Wrong:
			leaks = append(leaks, r.Test.Name)
		case r.Test.Fate == Hold:
			held = append(held, r.Test.Name)
		}
	}
	switch {
	case first.Test.Name == "":
		return "was not tested here."
	case !first.Came:
		return fmt.Sprintf("cannot be judged: mail to %s, where all is well, did not arrive.", first.Test.Name)
	case len(held) == 0 && len(leaks) == 0:
		return "cannot be judged: of the tests that must not arrive, none is known to have been tried."
	case len(held) == 0:
		return "is not honoured: whatever is wrong with the receiving host, the mail goes there."
	}
	text := "is enforced"
	if len(leaks) > 0 {
		text += ", with gaps: " + list(leaks) + " leaked"
	}
	if len(late) > 0 {
		text += "; but mail that must arrive did not: " + list(late)
	}
	if len(unseen) > 0 {
		text += "; nothing was seen of " + list(unseen)
	}
	return text + "."
}

// list is words joined as people do.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
