package policy

import (
	"testing"

	"github.com/pawl-mail/pawl/internal/resolve"
)

// table4 is decision table 4, cell by cell.
var table4 = []struct {
	cell   string
	wanted bool
	seen   resolve.Validation
	dane   bool
}{
	{"4/off", false, resolve.Validation{Trusted: true}, false},
	{"4/trusted", true, resolve.Validation{Trusted: true}, true}, // by configuration, or by a check: the resolver tells in Why
	{"4/unchecked", true, resolve.Validation{}, false},
	{"4/unchecked", true, resolve.Validation{Upstreams: []resolve.UpstreamValidation{{Verdict: resolve.Unknown}}}, false},
	{"4/not-validating", true, resolve.Validation{Upstreams: []resolve.UpstreamValidation{{Verdict: resolve.Forgeable}, {Verdict: resolve.NotValidating}}}, false},
	{"4/forgeable", true, resolve.Validation{Upstreams: []resolve.UpstreamValidation{{Verdict: resolve.Forgeable}, {Verdict: resolve.Unknown}}}, false},
	// That it validates counts only once the resolver trusts it.
	{"4/unchecked", true, resolve.Validation{Upstreams: []resolve.UpstreamValidation{{Verdict: resolve.Validates}}}, false},
}

func TestEachCellOfTable4(t *testing.T) {
	for _, c := range table4 {
		got := decideTrust(c.wanted, c.seen)
		if got.Cell != c.cell || got.DANE != c.dane {
			t.Errorf("%s: got %s, DANE %v, want DANE %v", c.cell, got.Cell, got.DANE, c.dane)
		}
	}
}
