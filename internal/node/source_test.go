package node_test

import (
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/policy"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

var markup = regexp.MustCompile(`<[^>]*>`)

// read is a page as a person reads it, blanks left out: how they fall is layout.
func read(page string) string {
	return strings.Join(strings.Fields(html.UnescapeString(markup.ReplaceAllString(page, ""))), "")
}

func says(t *testing.T, page, name string, phrases ...string) {
	t.Helper()
	text := read(page)
	for _, p := range phrases {
		if !strings.Contains(text, read(p)) {
			t.Errorf("%s does not say %q: %s", name, p, text)
		}
	}
}

// An attack that only observing lets through, under an override, with a resolver
// that does not validate: none of it is silent.
func TestThePagesShowWhatIsNotAsItShouldBe(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}).On(testnet.MITMSelfSigned)
	c := settings(t, tn.DNSAddr())
	c.DNS.Bogus = testnet.SignedName // it is answered: whoever does that does not validate
	n, _ := start(t, c, w)
	call[policy.Override](t, n, "override.add", policy.Override{
		Domain: "good.test", Kind: policy.OverrideObserve, Reason: "a first look", Author: "postmaster", Expires: tn.Clock.Now().Add(48 * time.Hour),
	})
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "one@good.test", "watched"); err != nil {
		t.Fatal(err)
	}
	var done []queue.Delivery
	eventually(t, "the message goes, as it is only observed", func() bool {
		done = call[[]queue.Delivery](t, n, "queue.list", queue.Filter{States: []queue.State{queue.AllDelivered}})
		return len(done) == 1
	})

	_, page := get(t, n, "/message/"+done[0].ID)
	says(t, page, "the message's page", "would have been held", "Held against the MTA-STS policy of good.test certificate-not-trusted",
		"Certificate subject CN=mx.good.test", "TLS TLS 1.3", "TXT _mta-sts.good.test")
	_, page = get(t, n, "/destination/good.test")
	says(t, page, "the destination's page", "override observe until", "a first look (postmaster)", "Nothing is enforced here", "Its MTA-STS policy (mode enforce) stops nothing")

	eventually(t, "the session is counted", func() bool {
		_, page = get(t, n, "/")
		return strings.Contains(page, "would have been held")
	})
	says(t, page, "the front page", "Overrides in force", "a first look (postmaster)", "MTA-STS enforce observed",
		"would have been held 1×", "not ok DNSSEC")
	if n := strings.Count(read(page), read("DANE is off")); n != 1 {
		t.Errorf("the front page says %d times that DANE is off, want once", n)
	}
}
