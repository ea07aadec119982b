package lab

import (
	"github.com/pawl-mail/pawl/internal/outcome"
)

// Cell is what became of the mail in one cell, beside what had to.
type Cell struct {
	Attack  string `json:"attack"` // "1", "11a"
	Variant string `json:"variant,omitempty"`
	Column  Column `json:"column"`
	Name    string `json:"name"`    // of the attack
	Section string `json:"section"` // "RFC 8461 §4.2"

	Expected Outcome `json:"expected"`
	Then     Outcome `json:"then,omitempty"`   // what it had to become in the end
	Observed Outcome `json:"observed"`         // after the first attempt
	Became   Outcome `json:"became,omitempty"` // in the end, if that is another
	OK       bool    `json:"ok"`
	Evidence string  `json:"evidence"` // one sentence: who got it and how, or why not

	Wrong       []string             `json:"wrong,omitempty"` // each difference, a sentence
	Results     []outcome.ResultType `json:"results"`         // what TLS-RPT was told
	WantResults []outcome.ResultType `json:"expected_results,omitempty"`
	Status      string               `json:"status,omitempty"`   // with which it bounced
	Events      []Said               `json:"events,omitempty"`   // what the operator was told
	Released    Outcome              `json:"released,omitempty"` // what became of held mail once the attack was over
	Closes      string               `json:"closes,omitempty"`   // what would have kept it safe
	Decision    []Decision           `json:"decision,omitempty"`
	Transcript  []Exchange           `json:"transcript,omitempty"`

	evidence []string
}

// Decision is what the relay decided about one MX host.
type Decision struct {
	MX          string `json:"mx,omitempty"`
	Cell        string `json:"cell,omitempty"`   // of the decision tables
	Demand      string `json:"demand,omitempty"` // opportunistic, encrypted, authenticated
	Section     string `json:"section,omitempty"`
	Why         string `json:"why"`
	Certificate string `json:"certificate,omitempty"`
}

// Exchange is one connection as the wire saw it.
type Exchange struct {
	Host  string   `json:"host"`
	Addr  string   `json:"addr"`
	Via   []string `json:"via,omitempty"` // attacks in its path
	Lines []Line   `json:"lines"`
}

// Line is one thing that was said.
type Line struct {
	From string `json:"from"`
	To   string `json:"to"`
	TLS  bool   `json:"tls,omitempty"`
	Text string `json:"text"`
}
