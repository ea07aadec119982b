package lab

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/pawl-mail/pawl/internal/event"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/testnet"
)

//go:embed attacks.yaml
var attacksFile []byte

// Column is what the destination has, and for the last one the message.
type Column string

// The columns, in the order in which they are shown.
const (
	None          Column = "none"           // no policy
	Testing       Column = "testing"        // MTA-STS in mode testing, at first contact
	EnforceFirst  Column = "enforce-first"  // MTA-STS in mode enforce, at first contact
	EnforceCached Column = "enforce-cached" // the same, with the policy cached
	DANE          Column = "dane"           // TLSA records in a signed zone
	RequireTLS    Column = "requiretls"     // as EnforceCached, and the message asks for REQUIRETLS
)

// Columns returns all columns in order.
func Columns() []Column {
	return []Column{None, Testing, EnforceFirst, EnforceCached, DANE, RequireTLS}
}

// Outcome is what became of a message.
type Outcome string

// The outcomes. Only the receiving end can tell the first two apart.
const (
	Delivered   Outcome = "delivered" // to the destination's own host, over TLS that proves it is that host
	Leaked      Outcome = "leaked"    // in clear, to the attacker, or over TLS that proves nothing
	Held        Outcome = "held"      // it waits in the queue
	Bounced     Outcome = "bounced"   // back to its sender
	Refused     Outcome = "refused"   // our server did not take it
	NotAffected Outcome = "-"         // the attack does not apply
	NotRun      Outcome = "not run"   // observed only: the data says why
)

// What a destination has in place of the column's own, [Want].Base.
const (
	BaseNone        = "none"         // no policy
	BaseDANEEnforce = "dane-enforce" // TLSA records and a cached policy in mode enforce
)

// TLSOptional in [Variant].Message: it has TLS-Required: No, and may.
const TLSOptional = "tls-optional"

// Table is the data file.
type Table struct {
	Limits  map[Column]string `yaml:"closes"` // what closes a leak, where a cell does not say it
	Senders map[string]MTA    `yaml:"senders"`
	Attacks []Attack          `yaml:"attacks"`
}

// MTA is another mail server, of whose design some cells are another's.
type MTA struct {
	Says    string            `yaml:"says"`
	Like    string            `yaml:"like"`    // the MTA whose cells count where it has none of its own
	As      map[Column]Column `yaml:"as"`      // a column in which it acts as in another
	Because string            `yaml:"because"` // the reason of As and Without, a sentence
	Closes  string            `yaml:"closes"`  // what would keep mail safe in the columns of As
	Without []Column          `yaml:"without"` // columns that it has no means for, and says so in its EHLO
}

// Attack is one row.
type Attack struct {
	Attack   string    `yaml:"attack"` // "1", "11a"
	Name     string    `yaml:"name"`
	Says     string    `yaml:"says"`    // one sentence
	Section  string    `yaml:"section"` // of the RFC that names the attack or forbids the fall
	Variants []Variant `yaml:"variants"`
}

// Variant is one way to do it.
type Variant struct {
	Variant  string              `yaml:"variant"`
	Stage    []testnet.Attack    `yaml:"stage"`    // switched on together
	Run      string              `yaml:"run"`      // in place of mail to a domain: what a hostile client or message does
	Operator string              `yaml:"operator"` // what the domain's owner does once the attack is on
	Remedy   string              `yaml:"remedy"`   // what ends it, in place of the attack's end
	To       string              `yaml:"to"`       // "subdomain": of the domain that has the policy
	Message  string              `yaml:"message"`  // [TLSOptional]
	DANE     string              `yaml:"dane"`     // "ta": 2 1 1 in place of 3 1 1
	Patterns []string            `yaml:"patterns"` // of the policy; {domain} is the domain's name
	MaxAge   Duration            `yaml:"max_age"`
	Fetch    Duration            `yaml:"fetch"` // cap of a policy fetch by the machine's clock
	Host     Host                `yaml:"host"`
	Reason   string              `yaml:"reason"` // why it is not run; empty: it is
	Cells    map[Column]Want     `yaml:"cells"`
	Senders  map[string]MTACells `yaml:"senders"`
}

// MTACells are another MTA's cells where they differ.
type MTACells map[Column]Want

// Host is what the MX host lacks.
type Host struct {
	NoRequireTLS bool `yaml:"no-requiretls"`
}

// Want is what must become of the mail in one cell.
type Want struct {
	Expect     Outcome              `yaml:"expect"`
	Until      Duration             `yaml:"until"` // Expect holds for at least so long…
	Then       Outcome              `yaml:"then"`  // …and then becomes this
	Results    []outcome.ResultType `yaml:"results"`
	Status     string               `yaml:"status"`
	Events     []event.Kind         `yaml:"events"`
	Closes     string               `yaml:"closes"`
	Base       string               `yaml:"base"`  // what the destination has, in place of the column's own
	Prime      string               `yaml:"prime"` // "attacked": the mail that filled the cache went under the attack, which is over
	AskedAgain bool                 `yaml:"asked-again"`
}

// wantFields is Want without its method.
type wantFields Want

// UnmarshalYAML reads a cell: an outcome by itself, or a mapping.
func (w *Want) UnmarshalYAML(unmarshal func(any) error) error {
	var word string
	if unmarshal(&word) == nil {
		*w = Want{Expect: Outcome(word)}
		return nil
	}
	return unmarshal((*wantFields)(w))
}

// Duration is a time in the data: "4h".
type Duration time.Duration

// UnmarshalYAML reads a duration as time.ParseDuration does.
func (d *Duration) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// Std is the duration as package time has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Load reads the table that is built in.
func Load() (*Table, error) { return parseTable(attacksFile) }

func parseTable(text []byte) (*Table, error) {
	var t Table
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&t); err != nil {
		return nil, fmt.Errorf("reading the table of attacks: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("the table of attacks: %w", err)
	}
	return &t, nil
}

// check finds what could not be run, or would be run as something else.
func (t *Table) check() error {
	errs := t.checkSenders()
	known := testnet.Attacks()
	for _, a := range t.Attacks {
		for _, v := range a.Variants {
			bad := func(format string, args ...any) {
				errs = append(errs, fmt.Errorf("%s %s: %w", a.Attack, v.Variant, fmt.Errorf(format, args...)))
			}
			for _, s := range v.Stage {
				if !slices.Contains(known, s) {
					bad("there is no attack %q", s)
				}
			}
			if len(v.Stage) == 0 && v.Run == "" && v.To == "" && v.Reason == "" {
				bad("it does nothing")
			}
			for c, w := range v.Cells {
				if err := w.check(c); err != nil {
					bad("%s: %w", c, err)
				}
			}
			for mta, cells := range v.Senders {
				if _, ok := t.Senders[mta]; !ok {
					bad("there is no sender %q", mta)
				}
				for c, w := range cells {
					if err := w.check(c); err != nil {
						bad("%s, %s: %w", mta, c, err)
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (t *Table) checkSenders() []error {
	var errs []error
	for name, mta := range t.Senders {
		if _, ok := t.Senders[mta.Like]; mta.Like != "" && !ok {
			errs = append(errs, fmt.Errorf("%s: there is no sender %q to be like", name, mta.Like))
		}
		for from, to := range mta.As {
			if !slices.Contains(Columns(), from) || !slices.Contains(Columns(), to) {
				errs = append(errs, fmt.Errorf("%s: there is no column %q or %q", name, from, to))
			}
		}
	}
	return errs
}

func (w Want) check(c Column) error {
	outcomes := []Outcome{Delivered, Leaked, Held, Bounced, Refused, NotAffected}
	switch {
	case !slices.Contains(Columns(), c):
		return errors.New("there is no such column")
	case !slices.Contains(outcomes, w.Expect):
		return fmt.Errorf("there is no outcome %q", w.Expect)
	case w.Base != "" && w.Base != BaseNone && w.Base != BaseDANEEnforce:
		return fmt.Errorf("there is no base %q", w.Base)
	case w.Then != "" && (!slices.Contains(outcomes, w.Then) || w.Expect != Held):
		return fmt.Errorf("%q cannot become %q", w.Expect, w.Then)
	}
	return nil
}

// Want returns what must become of the mail in a cell of a variant; a cell that
// is not written is [NotAffected].
func (v Variant) Want(c Column) Want {
	if w, ok := v.Cells[c]; ok {
		return w
	}
	return Want{Expect: NotAffected}
}

// WantOf is [Variant.Want] for another MTA, by its key in Senders: its own cell
// where it has one, or that of the MTA it is like; else the one of the column in
// which it acts the same; else what every sender should do.
func (t *Table) WantOf(v Variant, mta string, c Column) Want {
	as, ok := t.Senders[mta].As[c]
	if !ok {
		as = c
	}
	for name, hops := mta, 0; name != "" && hops <= len(t.Senders); name, hops = t.Senders[name].Like, hops+1 {
		for _, column := range []Column{c, as} {
			if w, ok := v.Senders[name][column]; ok {
				return w
			}
		}
	}
	return v.Want(as)
}

// Named returns the row of a number, in any case, and whether there is one.
func (t *Table) Named(number string) (Attack, bool) {
	for _, a := range t.Attacks {
		if strings.EqualFold(a.Attack, number) {
			return a, true
		}
	}
	return Attack{}, false
}

// Closes says what would have kept the mail of a cell safe, for a sender by its
// key in Senders or, with an empty one, for pawl's relay.
func (t *Table) Closes(mta string, c Column, w Want) string {
	as, other := t.Senders[mta].As[c]
	switch {
	case other && as != c:
		return t.Senders[mta].Closes
	case w.Closes != "":
		return w.Closes
	default:
		return t.Limits[c]
	}
}

// SenderNames are the keys of Senders in order.
func (t *Table) SenderNames() []string { return slices.Sorted(maps.Keys(t.Senders)) }
