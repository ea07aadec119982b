package host

import (
	"net/netip"
	"strconv"
	"testing"
	"time"
)

var (
	began  = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	sender = netip.MustParseAddr("203.0.113.9")
)

// tried is a run whose mail went to all tests.
func tried(arrivals ...Arrival) Run {
	r := Run{Token: "abc", From: sender, Began: began}
	for _, t := range Tests() {
		r.Addressed = append(r.Addressed, t.Name)
	}
	for _, a := range arrivals {
		a.At, a.Client = began.Add(time.Minute), sender
		r.arrived([]Arrival{a}, nil, site().leaks)
	}
	return r
}

// overTLS is an arrival at a test's first host.
func overTLS(test string) Arrival {
	return Arrival{Test: test, Host: "mx." + test + ".lab.test", Version: "TLS 1.3"}
}

func TestWhatBecameOfMailIsJudged(t *testing.T) {
	at := func(change func(*visits)) *visits {
		v := &visits{}
		v.watch(Run{From: sender, Also: []netip.Addr{netip.MustParseAddr("198.51.100.9")}})
		change(v)
		return v
	}
	nobody := &visits{}
	for name, c := range map[string]struct {
		run    Run
		visits *visits
		test   string
		state  State
		was    string
	}{
		"mail that must arrive did":                     {tried(overTLS("good")), nobody, "good", Right, "arrived"},
		"mail that must arrive did not":                 {tried(), nobody, "good", Wrong, "did not arrive"},
		"under an enforced policy it came in clear":     {tried(Arrival{Test: "good"}), nobody, "good", Wrong, "arrived in clear"},
		"where there is no policy it may come in clear": {tried(Arrival{Test: "testing"}), nobody, "testing", Right, "arrived in clear"},
		"unusable TLSA records still ask for TLS":       {tried(Arrival{Test: "dane-unusable"}), nobody, "dane-unusable", Wrong, "arrived in clear"},
		"mail that must wait arrived":                   {tried(overTLS("self-signed")), nobody, "self-signed", Wrong, "arrived"},
		"it waits, and its sender was there": {
			tried(), at(func(v *visits) {
				v.note(sender, "self-signed", endedTLS, began.Add(1))
				v.note(sender, "self-signed", beganTLS, began.Add(2))
			}),
			"self-signed", Right, "held",
		},
		"a neighbour of the sender was there": {
			tried(), at(func(v *visits) { v.note(netip.MustParseAddr("203.0.113.77"), "self-signed", beganTLS, began.Add(1)) }), "self-signed", Right, "held",
		},
		"the sender was there before it was asked to": {
			tried(), at(func(v *visits) { v.note(sender, "self-signed", beganTLS, began.Add(-1)) }), "self-signed", Unseen, "did not arrive, nor was your server seen there",
		},
		"somebody else was there": {
			tried(), at(func(v *visits) { v.note(netip.MustParseAddr("198.51.100.9"), "self-signed", beganTLS, began.Add(1)) }),
			"self-signed", Unseen, "did not arrive, nor was your server seen there",
		},
		"it waits without a visit, as it may where no host is listed": {tried(), nobody, "unlisted-mx", Right, "held"},
		"it was never sent": {Run{From: sender, Began: began}, nobody, "unlisted-mx", Unseen, "is not known to have been sent"},
		"somebody was there, and it was never sent": {
			Run{From: sender, Began: began}, at(func(v *visits) { v.note(sender, "self-signed", beganTLS, began.Add(1)) }), "self-signed", Unseen, "is not known to have been sent",
		},
		"the good one of two hosts got it":               {tried(Arrival{Test: "next-host", Host: "mx2.next-host.lab.test", Version: "TLS 1.3"}), nobody, "next-host", Right, "arrived"},
		"the bad one of two hosts got it":                {tried(Arrival{Test: "next-host", Host: "mx1.next-host.lab.test", Version: "TLS 1.3"}), nobody, "next-host", Wrong, "arrived at the host whose certificate is bad"},
		"one of two hosts got it from who did not look":  {tried(Arrival{Test: "next-host", Version: "TLS 1.3"}), nobody, "next-host", Wrong, "arrived without asking for a host's certificate"},
		"one message arrived well, another of it leaked": {tried(overTLS("good"), Arrival{Test: "good"}), nobody, "good", Wrong, "arrived in clear"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range site().results(c.run, c.visits) {
				if r.Test.Name == c.test && (r.State != c.state || r.Was != c.was) {
					t.Errorf("got %s, %q; want %s, %q", r.State, r.Was, c.state, c.was)
				}
			}
		})
	}
}

// all is a run in which everything arrived, but at the tests that are skipped.
func all(skip func(Test) bool) Run {
	var arrivals []Arrival
	for _, t := range Tests() {
		if skip(t) {
			continue
		}
		a := overTLS(t.Name)
		if t.Name == "next-host" {
			a.Host = "mx2.next-host.lab.test"
		}
		arrivals = append(arrivals, a)
	}
	return tried(arrivals...)
}

func no(Test) bool     { return false }
func held(t Test) bool { return t.Fate == Hold }

func TestTheSummarySaysWhatASenderDoes(t *testing.T) {
	seen := &visits{}
	seen.watch(tried())
	for _, test := range Tests() {
		seen.note(sender, test.Name, beganTLS, began.Add(1))
	}
	for name, c := range map[string]struct {
		run       Run
		sts, dane string
	}{
		"it holds what it must": {all(held), "is enforced.", "is enforced."},
		"it knows neither":      {all(no), "is not honoured: whatever is wrong with the receiving host, the mail goes there.", "is not honoured: whatever is wrong with the receiving host, the mail goes there."},
		"it knows MTA-STS only": {all(func(t Test) bool { return held(t) && t.Of == MTASTS }), "is enforced.", "is not honoured: whatever is wrong with the receiving host, the mail goes there."},
		"it has a gap":          {all(func(t Test) bool { return held(t) && t.Name != "wildcard-depth" }), "is enforced, with gaps: wildcard-depth leaked.", "is enforced."},
		"it is too strict":      {all(func(t Test) bool { return held(t) || t.Name == "testing" || t.Name == "redirect" }), "is enforced; but mail that must arrive did not: testing and redirect.", "is enforced."},
		"nothing came":          {tried(), "cannot be judged: mail to good, where all is well, did not arrive.", "cannot be judged: mail to dane, where all is well, did not arrive."},
	} {
		t.Run(name, func(t *testing.T) {
			results := site().results(c.run, seen)
			if got := summary(MTASTS, results); got != c.sts {
				t.Errorf("MTA-STS %s", got)
			}
			if got := summary(DANE, results); got != c.dane {
				t.Errorf("DANE %s", got)
			}
		})
	}
}

func TestALetterIsDueWhenItsTimeHasCome(t *testing.T) {
	first, told := began.Add(time.Minute), began.Add(time.Hour)
	good, leak := overTLS("good"), overTLS("self-signed")
	good.At, leak.At = told.Add(time.Minute), told.Add(time.Minute)
	for name, c := range map[string]struct {
		run    Run
		letter letter
		at     time.Time
	}{
		"a run is answered at once":                {Run{Began: began}, answer, began},
		"no verdict before anything came":          {Run{Began: began, Answered: began}, "", time.Time{}},
		"the verdict waits for retries":            {Run{Began: began, Answered: began, First: first}, verdict, first.Add(30 * time.Minute)},
		"there is one verdict":                     {Run{Began: began, Answered: began, First: first, Told: told}, "", time.Time{}},
		"a leak after the verdict is told at once": {Run{Began: began, Answered: began, First: first, Told: told, Arrivals: []Arrival{leak}}, amendment, told},
		"and once": {Run{Began: began, Answered: began, First: first, Told: told, Arrivals: []Arrival{leak}, ToldOf: 1, Amended: 1}, "", time.Time{}},
		"what arrives late is told after a while": {Run{Began: began, Answered: began, First: first, Told: told, Arrivals: []Arrival{good}}, amendment, good.At.Add(30 * time.Minute)},
		"unless it had arrived before":            {Run{Began: began, Answered: began, First: first, Told: told, Arrivals: []Arrival{good, good}, ToldOf: 1}, "", time.Time{}},
		"a verdict is not amended for ever":       {Run{Began: began, Answered: began, First: first, Told: told, Arrivals: []Arrival{leak}, Amended: maxAmended}, "", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			if l, at := site().due(c.run, DefaultWait); l != c.letter || !at.Equal(c.at) {
				t.Errorf("got %q at %s", l, at)
			}
		})
	}
	r := tried()
	r.Answered = began
	for _, test := range Tests() {
		r.arrived([]Arrival{{Test: test.Name, At: first}}, nil, site().leaks)
	}
	if l, at := site().due(r, DefaultWait); l != verdict || !at.Equal(first) {
		t.Errorf("when all has arrived: %q at %s", l, at)
	}
}

func TestWhatIsKeptOfARunIsBounded(t *testing.T) {
	r := Run{From: sender}
	for i := range 1000 {
		a := overTLS("good")
		a.Client = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		r.arrived([]Arrival{a}, []string{"good"}, site().leaks)
	}
	r.arrived([]Arrival{{Test: "good", Client: sender}}, nil, site().leaks)
	if len(r.Arrivals) != maxArrivals+1 || len(r.Also) != maxClients || len(r.Addressed) != 1 {
		t.Errorf("%d arrivals, %d clients, %d tests", len(r.Arrivals), len(r.Also), len(r.Addressed))
	}
	if !site().leaks(r.Arrivals[maxArrivals]) {
		t.Error("a leak is not kept, as many have arrived well")
	}
}

func TestVisitsAreNotedOfThoseWhoAreTestedOnly(t *testing.T) {
	var v visits
	v.watch(Run{From: sender})
	v.note(sender, "good", beganTLS, began)
	for i := range 1000 {
		v.note(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), "good", beganTLS, began)
	}
	if len(v.m) != 1 {
		t.Errorf("%d visits are noted", len(v.m))
	}
	v.watched = make(map[string]bool)
	for i := range maxVisits + 10 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		v.watched[network(a)] = true
		v.note(a, strconv.Itoa(i), beganTLS, began)
	}
	if len(v.m) > maxVisits {
		t.Errorf("%d visits are noted", len(v.m))
	}
	v.forget(nil, began)
	if len(v.m) > 0 {
		t.Errorf("%d visits of nobody are not forgotten", len(v.m))
	}
}
