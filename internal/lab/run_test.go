package lab

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seed is that of the environment, as in package testnet, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, _ := strconv.ParseUint(os.Getenv(testnet.SeedVariable), 10, 64)
	return n
}

// run runs cells and logs the seed.
func run(t *testing.T, o Options) Report {
	t.Helper()
	o.Seed = seed(t)
	r, err := Run(t.Context(), o)
	t.Logf("%d cells in %s; %s=%d repeats this run", len(r.Cells), r.Took, testnet.SeedVariable, r.Seed)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryCellEndsAsTheTableSays(t *testing.T) {
	r := run(t, Options{})
	for _, c := range r.Cells {
		t.Run(strings.TrimSuffix(c.Attack+"/"+c.Variant, "/")+"/"+string(c.Column), func(t *testing.T) {
			if c.OK {
				return
			}
			t.Errorf("%s\nevidence: %s", strings.Join(c.Wrong, "\n"), c.Evidence)
			for _, x := range c.Transcript {
				t.Log(x)
			}
		})
	}
	for _, o := range r.NotRun {
		t.Logf("not run: %s %s: %s", o.Attack, o.Variant, o.Reason)
	}
}

// What is loosened in the relay shows in the table: in these cells at the least.
func TestALooserRelayShows(t *testing.T) {
	for _, tt := range []struct {
		name      string
		only      []string
		configure func(*config.Config)
		roots     func(*testnet.Net) *x509.CertPool
		wrong     []string // attack/variant/column
	}{
		{
			name: "it only observes", only: []string{"1", "5", "8", "38"},
			configure: func(c *config.Config) { c.Policy.Mode = "observe" },
			wrong:     []string{"1//enforce-first", "1//enforce-cached", "1//dane", "5//enforce-cached", "8//enforce-cached", "38/SERVFAIL/dane"},
		},
		{
			name: "it trusts a false CA", only: []string{"5"},
			roots: func(n *testnet.Net) *x509.CertPool {
				pool := n.Roots()
				pool.AddCert(n.FalseCA.Root)
				return pool
			},
			wrong: []string{"5/false CA/enforce-first", "5/false CA/enforce-cached", "5/false CA/requiretls"},
		},
		{
			name: "it does not look at TLSA records", only: []string{"19", "38", "41"},
			configure: func(c *config.Config) { c.Policy.DANE = false },
			wrong:     []string{"19//dane", "38/SERVFAIL/dane", "38/dropped/requiretls", "41//dane", "41//requiretls"},
		},
		{
			name: "its resolver is not trusted", only: []string{"19"},
			configure: func(c *config.Config) {
				c.DNS.Validating, c.DNS.Signed = false, "unsigned.test"
			},
			wrong: []string{"19//dane"},
		},
		{
			name: "it does not wait for discovery", only: []string{"11b"},
			configure: func(c *config.Config) { c.Policy.DiscoveryHold = 0 },
			wrong:     []string{"11b/dropped/none", "11b/SERVFAIL/enforce-first"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, Options{Only: tt.only, Configure: tt.configure, Roots: tt.roots})
			var wrong []string
			for _, c := range r.Wrong() {
				wrong = append(wrong, c.Attack+"/"+c.Variant+"/"+string(c.Column))
			}
			for _, w := range tt.wrong {
				if !slices.Contains(wrong, w) {
					t.Errorf("%s ends as if nothing was loosened; those that do not: %v", w, wrong)
				}
			}
		})
	}
}

func TestOnlyWhatIsAskedForIsRun(t *testing.T) {
	r := run(t, Options{Only: []string{"11A", "2"}, Columns: []Column{EnforceCached, None}})
	var got []string
	for _, c := range r.Cells {
		got = append(got, c.Attack+"/"+c.Variant+"/"+string(c.Column))
	}
	want := []string{"2/454/none", "2/454/enforce-cached", "2/502/none", "2/502/enforce-cached", "11a//none", "11a//enforce-cached"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestARowOrColumnThatThereIsNotIsNamed(t *testing.T) {
	for _, tt := range []struct {
		o        Options
		text, do string
	}{
		{Options{Only: []string{"1", "99"}}, "there is no attack 99", "11a, 11b"},
		{Options{Columns: []Column{None, "sometimes"}}, "there is no column sometimes", "enforce-first, enforce-cached"},
	} {
		_, err := Run(t.Context(), tt.o)
		var e *control.Error
		if !errors.As(err, &e) || e.Text != tt.text || !strings.Contains(e.Do, tt.do) {
			t.Errorf("got %v, want %s", err, tt.text)
		}
	}
}

func TestTheReportAsAPageNeedsNothingBesideItself(t *testing.T) {
	r := run(t, Options{Only: []string{"5", "21", "32"}, Columns: []Column{None, EnforceCached}})
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{
		`id="c-5-false-ca-enforce-cached"`, "the attacker took it as mx.none-1.test, over TLS 1.3", "MAIL FROM:&lt;evil@attacker.test&gt;",
		"RFC 8461 §4.2", ">STARTTLS<", "not run",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for _, foreign := range []string{"<script", "src=", "@import", "url(http", `href="http`} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page has %q", foreign)
		}
	}
}

func TestTheReportTellsADifference(t *testing.T) {
	r := run(t, Options{
		Only: []string{"1", "32"}, Columns: []Column{EnforceCached},
		Configure: func(c *config.Config) { c.Policy.Mode = "observe" },
	})
	var b bytes.Buffer
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1 of 1 cells ended otherwise than they must", "expected  held", "happened  leaked", "mx.enforce-cached.test got it in clear",
		"This version of pawl takes in no reports yet.", "! leaked",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\x1b[") {
		t.Error("there are colours, and it is no terminal")
	}
}

func TestTheReportAsJSON(t *testing.T) {
	r := run(t, Options{Only: []string{"8"}, Columns: []Column{EnforceFirst}})
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Cells []map[string]any }
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"attack": "8", "column": "enforce-first", "expected": "held", "observed": "held", "ok": true, "released": "delivered"} {
		if got.Cells[0][key] != want {
			t.Errorf("%s is %v, want %v", key, got.Cells[0][key], want)
		}
	}
	if e, _ := got.Cells[0]["evidence"].(string); !strings.Contains(e, "mx.attacker.test is not among the MX hosts") {
		t.Errorf("evidence is %q", e)
	}
}
