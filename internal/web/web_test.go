package web

import (
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	markup "golang.org/x/net/html"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/verify"
)

// answer is what a reader got.
type answer struct {
	*testing.T
	status int
	header http.Header
	body   string
}

// get asks a page that serves f for a path.
func get(t *testing.T, f *fake, path string) answer {
	t.Helper()
	return ask(t, New(f.options()), httptest.NewRequest(http.MethodGet, path, nil))
}

func ask(t *testing.T, h http.Handler, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{t, w.Code, w.Header(), w.Body.String()}
}

// press is the request that the switch's form makes.
func press(attack string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/lab", strings.NewReader(url.Values{"attack": {attack}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

var (
	inline = regexp.MustCompile(`</?(?:a|b|code|small|span|time|wbr)(?: [^>]*)?>`)
	blocks = regexp.MustCompile(`<[^>]*>`)
)

// text is what a person reads of a page, blanks between words made one.
func (a answer) text() string {
	words := blocks.ReplaceAllString(inline.ReplaceAllString(a.body, ""), " ")
	return strings.Join(strings.Fields(html.UnescapeString(words)), " ")
}

func (a answer) is(status int) answer {
	a.Helper()
	if a.status != status {
		a.Fatalf("status %d, want %d: %s", a.status, status, a.text())
	}
	return a
}

func (a answer) says(phrases ...string) answer {
	a.Helper()
	text := a.text()
	for _, p := range phrases {
		if !strings.Contains(text, p) {
			a.Errorf("the page does not say %q; it says: %s", p, text)
		}
	}
	return a
}

func (a answer) doesNotSay(phrases ...string) answer {
	a.Helper()
	text := a.text()
	for _, p := range phrases {
		if strings.Contains(text, p) {
			a.Errorf("the page says %q", p)
		}
	}
	return a
}

func (a answer) holds(markup ...string) answer {
	a.Helper()
	for _, m := range markup {
		if !strings.Contains(a.body, m) {
			a.Errorf("the page has no %s", m)
		}
	}
	return a
}

func TestTheFrontPageOfAServerThatNothingHappenedTo(t *testing.T) {
	o := quiet().options()
	o.Lab = nil
	ask(t, New(o), httptest.NewRequest(http.MethodGet, "/", nil)).is(http.StatusOK).
		says("relay.example.com enforcing", "Ready for mail", "There were no sessions in the last 24 hours.",
			"Nothing waits.", "No mail has been sent yet.", "Nothing has happened that needs your eye.",
			"ok data folder /var/lib/pawl can be written", "pawl 0.1.0 · up 1 min").
		doesNotSay("The attacker on the wire", "not ok", "What to do")
}

func TestTheFrontPageOfABusyServer(t *testing.T) {
	page := get(t, busy(), "/").is(http.StatusOK)
	for _, tt := range []struct{ name, says string }{
		{"how things stand", "17 messages are held back"},
		{"mail held by policy, and why", "held by policy mx1.bank.example.com showed a certificate that expired on 2026-11-23"},
		{"mail held by hand", "held by hand Held by root: waits for the all-clear."},
		{"mail that the destination put off", "put off mx.slow.example.org asks to try again later: 451 4.7.1 Greylisted"},
		{"a bounce has no sender", "from <> (a bounce)"},
		{"that the list is not all", "1,204 are in the queue; pawl queue list shows them all."},
		{"an override, with who, why and until when", "override: encrypt until 2026-12-01, by root: their certificate is being renewed"},
		{"a destination that is only observed", "MTA-STS enforce observed"},
		{"a policy that cannot be renewed", "renewal failed 5 times sts-policy-fetch-error the policy host refused the connection"},
		{"each override in force, and what it weakens", "customer-07.example.com encrypt until 2026-12-01T00:00:00Z: their certificate is being renewed (root) weakens The MTA-STS policy, which is in mode enforce."},
		{"what only observing let through", "4,555 verified would have been held 12×"},
		{"a record that is gone while its policy holds", "record gone the cached policy holds"},
		{"when a policy ends", "ends in 19 h unless renewed"},
		{"a destination under DANE", "DANE MTA-STS enforce"},
		{"sessions of a domain without a known policy", "only-outcomes.example.com no policy 1 encrypted"},
		{"failures by result type", "certificate-not-trusted 31× mx1.bank.example.com self-signed"},
		{"that a list of failures goes on", "and 1 other kind of failure"},
		{"a policy that weakened", "problem 3 s ago bank.example.com The MTA-STS policy of bank.example.com went from mode enforce to mode testing."},
		{"refreshes that fail again and again", "could not be renewed 5 times in a row"},
		{"what to do about an event", "Ask its operator by another way whether that was meant"},
		{"the demo's attacker", "The attacker on the wire idle"},
		{"where the demo's mail ended", "plain.test no policy 1,399 1,021"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page.T = t
			page.says(tt.says)
		})
	}
}

func TestAResolverThatIsNotTrustedIsSaidAtTheTop(t *testing.T) {
	page := get(t, busy(), "/").text()
	said := strings.Index(page, "No resolver on this machine validates DNSSEC, and the word of one elsewhere can be forged: DANE is off")
	if said < 0 || said > strings.Index(page, "TLS sessions") {
		t.Errorf("the top of the page does not say that DANE is off: %.600s", page)
	}
	if n := strings.Count(page, "DANE is off"); n != 1 {
		t.Errorf("it is said %d times, want once", n)
	}
	if !strings.Contains(page, "not ok DNSSEC Run a validating resolver on this machine, as unbound, and name it with dns.upstreams.") {
		t.Error("the page does not say what to do about it")
	}
}

func TestAServerThatObservesSaysSo(t *testing.T) {
	f := busy()
	f.overview.Mode = "observe"
	get(t, f, "/").is(http.StatusOK).says("relay-3.mail.example.com observing, not enforcing")
}

func TestTheDestinationPageShowsTheReasoning(t *testing.T) {
	get(t, busy(), "/destination/bank.example.com").is(http.StatusOK).says(
		"The MTA-STS policy 20261101T120000 of bank.example.com is in mode enforce",
		"TXT _mta-sts.bank.example.com DNSSEC \"v=STSv1; id=20261101T120000;\"",
		"asked again five minutes after a failure at the earliest (RFC 8461 §3.3)",
		"1/valid-same-id/policy",
		"secure match=mx1.bank.example.com:mx2.bank.example.com",
		"max_age: 604800",
		"override observe until 2026-12-01T00:00:00Z: a first look (root) weakens The MTA-STS policy, which is in mode enforce.",
		"observed Nothing is enforced here: what a policy forbids is recorded, and the mail goes.",
		"Would not be used The TLSA records of mx2.bank.example.com could not be looked up",
		"TLSA records 3 1 1 5f0a5f0a",
		"mx1.bank.example.com preference 10",
		"TLS with an identity that was proven 2/absent/enforce",
		"not to be used Why not rogue."+longName+" is not in the MTA-STS policy",
		"812 verified, 46 refused",
		"went from mode enforce to mode testing",
		"held by policy",
	)
}

func TestTheMessagePageIsATimelineOfItsAttempts(t *testing.T) {
	f := busy()
	get(t, f, "/message/"+f.overview.Held[0].ID).is(http.StatusOK).says(
		"Mail to bank.example.com", "Waiting held by policy", "From statements@example.net",
		"gone@bank.example.com failed 550 5.1.1", "7 more", "1,843,227 bytes",
		"not sent no session 2026-11-24 11:43:00 UTC took 412 ms mx1.bank.example.com showed a certificate that no trusted authority signed",
		"MX host mx1.bank.example.com 192.0.2.25",
		"Had to show TLS with an identity that was proven 2/absent/enforce",
		"Held against the MTA-STS policy of bank.example.com certificate-not-trusted self-signed",
		"TLS TLS 1.3 TLS_AES_128_GCM_SHA256",
		"Certificate subject CN=mx1.bank.example.com",
		"RFC 8461 §4.2", "The whole story", "S: 220 mx1.bank.example.com ESMTP",
	)
	get(t, f, "/message/done").is(http.StatusOK).says(
		"Delivered", "sent verified TLS 2026-11-24 11:01:00 UTC took 231 ms", "MX host mx.shop.example.org 192.0.2.80 open connection reused",
		"Held against the TLSA records of mx.shop.example.org satisfied", "queued as 4XyZ", "would have been held mx.shop.example.org does not offer STARTTLS.",
	).doesNotSay("Next try", "Given up")
}

// Everything that others wrote is text on these pages: names, replies, policies,
// certificates.
func TestHostileTextStaysText(t *testing.T) {
	const evil = `"><script src=//evil.example/x.js></script><img src=x onerror=alert(1)>` + "`" + `'`
	f := busy()
	o := &f.overview
	o.Hostname = evil
	o.Checks = []Check{{Name: evil, Text: evil, Do: evil}}
	o.Held = []Held{{ID: evil, From: evil, Domain: evil, Why: evil, Do: evil}}
	o.Destinations = []Destination{{Domain: evil, Source: evil, Mode: evil, ID: evil, MX: []string{evil}, Failing: evil, Override: evil}}
	o.Overrides = []Override{{Domain: evil, Text: evil, Weakens: evil}}
	o.Outcomes = []Outcomes{{Domain: evil, Refused: 1, Failures: []Failure{{Result: evil, Reason: evil, MX: evil}}}}
	o.Events = []event.Event{{ID: evil, Domain: evil, Text: evil, Do: evil}}
	f.lab = LabState{On: true, Attack: evil, Domain: evil, Domains: []LabDomain{{Domain: evil, Kind: evil}}}
	steps := []verify.Step{{Asked: evil, Answer: evil, Note: evil, Cell: evil}}
	f.destinations["evil"] = DestinationPage{
		Domain: evil, Summary: evil, Postfix: evil, Policy: []string{evil}, Steps: steps, Outcomes: o.Outcomes[0], Events: o.Events, Held: o.Held,
		Hosts:    []Host{{Name: evil, Addrs: []string{evil}, Demand: evil, TLSA: []string{evil}, Unreachable: evil, Observed: evil, Cell: evil, Steps: steps}},
		Override: &o.Overrides[0], Observed: evil,
	}
	f.messages["evil"] = MessagePage{
		Held: o.Held[0], State: evil, Recipients: []Recipient{{Addr: evil, State: evil, Reply: evil}},
		Attempts: []Attempt{{MX: evil, Addr: evil, Transport: evil, Why: evil, Do: evil, Section: evil, Cell: evil, Demand: evil, Judged: []Judged{{Policy: evil, Failed: evil}}, TLS: evil, Cert: evil, WouldHold: evil, Steps: steps, Lines: []string{evil}}},
	}
	for _, path := range []string{"/", "/live", "/destination/evil", "/message/evil", "/live/message/evil"} {
		page := get(t, f, path).is(http.StatusOK)
		if !strings.Contains(page.body, "&lt;script") {
			t.Errorf("%s does not show the text at all", path)
		}
		onlyOwnMarkup(t, path, page.body)
	}
}

// onlyOwnMarkup reports what a browser would make of someone else's text.
func onlyOwnMarkup(t *testing.T, path, body string) {
	t.Helper()
	z := markup.NewTokenizer(strings.NewReader(body))
	for z.Next() != markup.ErrorToken {
		tag := z.Token()
		if tag.Data == "img" && tag.Type == markup.StartTagToken {
			t.Errorf("%s has an element of someone else's: %s", path, tag)
		}
		for _, a := range tag.Attr {
			link := a.Key == "src" || a.Key == "href"
			if strings.HasPrefix(a.Key, "on") || link && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") || link && strings.HasPrefix(a.Val, "//") {
				t.Errorf("%s has an attribute of someone else's: %s", path, tag)
			}
		}
	}
}

func TestWhatIsNotThereIs404(t *testing.T) {
	f := busy()
	for path, says := range map[string]string{
		"/nowhere":                     "There is no such page",
		"/live/nothing":                "There is no such page",
		"/destination/unknown.example": "Not known here",
		"/message/unknown":             "Not known here",
		"/live/message/unknown":        "Not known here",
		"/assets/unknown.js":           "404",
	} {
		get(t, f, path).is(http.StatusNotFound).says(says)
	}
	o := f.options()
	o.Lab = nil
	ask(t, New(o), press("on")).is(http.StatusMethodNotAllowed) // only the demo has the switch
}

func TestASourceThatFailsIs503WithoutItsWords(t *testing.T) {
	f := busy()
	id := f.overview.Held[0].ID
	f.err = errors.New("dial tcp 10.0.0.5:5432: password of pawl is wrong")
	for _, path := range []string{"/", "/live", "/destination/bank.example.com", "/message/" + id, "/live/message/" + id} {
		get(t, f, path).is(http.StatusServiceUnavailable).
			says("This page could not be made", "The reason is in pawl's log. Mail is not affected.").
			doesNotSay("10.0.0.5", "password")
	}
	f = busy()
	f.labErr = errors.New("the small Internet has ended")
	get(t, f, "/").is(http.StatusServiceUnavailable)
	ask(t, New(f.options()), press("on")).is(http.StatusServiceUnavailable)
}

func TestHealthReadinessAndMetrics(t *testing.T) {
	f := quiet()
	f.err = errors.New("the database is gone") // none of these asks the Source
	get(t, f, "/healthz").is(http.StatusOK).says("ok")
	get(t, f, "/readyz").is(http.StatusOK).says("ready")
	get(t, f, "/metrics").is(http.StatusOK).says("pawl_up 1")
	o := f.options()
	o.Ready = func() error { return errors.New("the queue is draining") }
	ask(t, New(o), httptest.NewRequest(http.MethodGet, "/readyz", nil)).is(http.StatusServiceUnavailable).says("the queue is draining")
	if n := f.questions(); n != 0 {
		t.Errorf("the Source was asked %d times", n)
	}
}

func TestTheLookUpLeadsToTheDestination(t *testing.T) {
	for in, want := range map[string]string{
		"Example.COM":            "/destination/example.com",
		" someone@example.com ":  "/destination/example.com",
		"//evil.example/x?y#z":   "/destination/%2F%2Fevil.example%2Fx%3Fy%23z",
		"":                       "/",
		"a b\r\nSet-Cookie: x=y": "/destination/a%20b%0D%0Aset-cookie:%20x=y",
	} {
		got := get(t, quiet(), "/destination?domain="+url.QueryEscape(in)).is(http.StatusSeeOther).header.Get("Location")
		if got != want {
			t.Errorf("%q leads to %s, want %s", in, got, want)
		}
	}
}

func TestTheSwitchTurnsTheAttackOnAndOff(t *testing.T) {
	f := busy()
	h := New(f.options())
	back := ask(t, h, press("on")).is(http.StatusSeeOther)
	if at := back.header.Get("Location"); at != "/" {
		t.Errorf("the reader is sent to %s", at)
	}
	ask(t, h, httptest.NewRequest(http.MethodGet, "/", nil)).says("attacking four domains", "Stop the attack")
	r := press("off")
	r.Header.Set("HX-Request", "true")
	part := ask(t, h, r).is(http.StatusOK).says("idle", "Attack four domains").holds(`<div id="live"`)
	if strings.Contains(part.body, "<html") {
		t.Error("htmx got a whole page")
	}
	if f.lab.On {
		t.Error("the attack is still on")
	}
}

func TestALivePartComesOnlyWhenItChanged(t *testing.T) {
	f := busy()
	o := f.options()
	h := New(o)
	seen := regexp.MustCompile(`hx-get="([^"]+)"`)
	first := ask(t, h, httptest.NewRequest(http.MethodGet, "/live", nil)).is(http.StatusOK)
	again := html.UnescapeString(seen.FindStringSubmatch(first.body)[1])
	if a := ask(t, h, httptest.NewRequest(http.MethodGet, again, nil)).is(http.StatusNoContent); a.body != "" {
		t.Errorf("nothing changed and %d bytes came", len(a.body))
	}
	f.change(func(f *fake) { f.overview.Totals.Held = 18 })
	ask(t, h, httptest.NewRequest(http.MethodGet, again, nil)).is(http.StatusOK).says("18 messages are held back")
}

func TestAMessageThatHasEndedIsNotAskedAboutAgain(t *testing.T) {
	f := busy()
	get(t, f, "/message/done").holds(`hx-trigger="refresh"`)
	get(t, f, "/message/"+f.overview.Held[0].ID).holds(`hx-trigger="every 2s, refresh"`)
}

func TestManyReadersCostOneQuestionASecond(t *testing.T) {
	f := busy()
	o := f.options()
	now := noon
	o.Now = func() time.Time { return now }
	h := New(o)
	read := func() answer {
		return ask(t, h, httptest.NewRequest(http.MethodGet, "/", nil)).is(http.StatusOK)
	}
	for range 50 {
		read()
	}
	if n := f.questions(); n != 1 {
		t.Errorf("50 readers in a second asked %d questions, want 1", n)
	}
	now = now.Add(time.Second)
	f.change(func(f *fake) { f.overview.Totals.Held = 1 })
	read().says("1 message is held back")
	if n := f.questions(); n != 2 {
		t.Errorf("%d questions in the second after, want 2", n)
	}
	ask(t, h, press("on")).is(http.StatusSeeOther)
	read().says("attacking four domains") // whoever pressed sees it at once
	if n := f.questions(); n != 3 {
		t.Errorf("%d questions after the switch, want 3", n)
	}
	now = now.Add(-time.Hour) // the clock was set back: what was kept is not kept for an hour
	read()
	if n := f.questions(); n != 4 {
		t.Errorf("%d questions after the clock was set back, want 4", n)
	}
}

func TestAnErrorIsNotKept(t *testing.T) {
	f := busy()
	o := f.options()
	o.Now = func() time.Time { return noon }
	h := New(o)
	f.change(func(f *fake) { f.err = errors.New("the database is busy") })
	ask(t, h, httptest.NewRequest(http.MethodGet, "/", nil)).is(http.StatusServiceUnavailable)
	f.change(func(f *fake) { f.err = nil })
	ask(t, h, httptest.NewRequest(http.MethodGet, "/", nil)).is(http.StatusOK)
}

func TestAssetsAreKeptForGoodUnderTheHashOfWhatTheyAre(t *testing.T) {
	f := quiet()
	page := get(t, f, "/")
	links := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(page.body, -1)
	if len(links) != 5 {
		t.Fatalf("%d assets, want 5: %v", len(links), links)
	}
	for _, l := range links {
		a := get(t, f, html.UnescapeString(l[1])).is(http.StatusOK)
		if got := a.header.Get("Cache-Control"); got != "public, max-age=31536000, immutable" {
			t.Errorf("%s: Cache-Control %q", l[1], got)
		}
	}
	old := get(t, f, "/assets/pawl.css?v=000000000000").is(http.StatusOK)
	if got := old.header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("an address of another version: Cache-Control %q", got)
	}
	r := httptest.NewRequest(http.MethodGet, "/assets/pawl.css", nil)
	r.Header.Set("If-None-Match", old.header.Get("ETag"))
	ask(t, New(f.options()), r).is(http.StatusNotModified)
}
