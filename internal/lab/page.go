package lab

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

// Measures of a drawn exchange, in SVG units.
const (
	laneWidth  = 440
	laneMargin = 140
	lineHeight = 30
	headHeight = 40
	// maxDrawn caps a drawn line's text; the whole of it is in its title.
	maxDrawn = 56
)

// HTML writes a page that needs nothing beside itself: the table, and for each
// cell the decision and what each party said, drawn.
func (r Report) HTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"mark": mark, "title": Column.title, "draw": draw, "last": Cell.last, "became": Cell.became, "expected": Cell.expected,
		"anchor": anchor, "words": func(c Cell) string { return words(c.Results) },
		"label": Omission.label, "effort": Report.effort,
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("the lab's page: %w", err)
	}
	return t.Execute(w, struct {
		Report
		Columns []Column
		Lines   []pageLine
		Ran     []Cell
		Wrong   int
	}{r, r.columns(), r.pageLines(), r.ran(), len(r.Wrong())})
}

// ran are the cells that were run.
func (r Report) ran() []Cell {
	return slices.DeleteFunc(slices.Clone(r.Cells), func(c Cell) bool { return c.Observed == NotAffected })
}

// pageLine is a line of the page's table, with a cell for each column.
type pageLine struct {
	Number, Name, Variant string
	First, NotRun         bool
	Cells                 []*Cell // nil: not affected
}

func (r Report) pageLines() []pageLine {
	var lines []pageLine
	for _, l := range r.lines() {
		p := pageLine{Number: l.number, Name: l.name, Variant: l.variant, First: l.first, NotRun: l.notRun}
		for _, c := range r.columns() {
			if cell, ok := l.cells[c]; ok {
				p.Cells = append(p.Cells, &cell)
			} else {
				p.Cells = append(p.Cells, nil)
			}
		}
		lines = append(lines, p)
	}
	return lines
}

// anchor is a cell's place on the page.
func anchor(c Cell) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, c.Attack+" "+c.Variant+" "+string(c.Column))
	return "c-" + plain
}

// drawing is an exchange with the places of its parts.
type drawing struct {
	Exchange
	Width, Height int
	Lanes         []lane
	Arrows        []arrow
}

type lane struct {
	Name string
	X    int
}

type arrow struct {
	From, To, Middle, Y int
	Short, Full         string
	TLS, Hostile        bool
}

// draw places an exchange: a lane for each party, an arrow for each line. What an
// attacker in the path lets through goes past his lane.
func draw(x Exchange) drawing {
	d := drawing{Exchange: x}
	for i, name := range parties(x) {
		d.Lanes = append(d.Lanes, lane{name, laneMargin + i*laneWidth})
	}
	at := func(name string) int {
		for _, l := range d.Lanes {
			if l.Name == name {
				return l.X
			}
		}
		return laneMargin
	}
	for i, l := range x.Lines {
		from, to := l.From, l.To
		switch {
		case from == "attacker" && to != "sender" && to != "server":
			from = "sender" // he says nothing to a host but what he was told
		case to == "attacker" && from != "sender" && !changed(x.Lines[i:]):
			to = "sender"
		}
		a := arrow{From: at(from), To: at(to), Y: headHeight + (i+1)*lineHeight, Full: l.Text, Short: shorten(l.Text), TLS: l.TLS}
		a.Hostile = from == "attacker"
		a.Middle = (a.From + a.To) / 2
		d.Arrows = append(d.Arrows, a)
	}
	d.Width = 2*laneMargin + (len(d.Lanes)-1)*laneWidth
	d.Height = headHeight + (len(x.Lines)+1)*lineHeight
	return d
}

// changed reports whether the attacker told the sender otherwise than the host's
// reply that the first line is of.
func changed(lines []Line) bool {
	for _, l := range lines {
		if l.From != lines[0].From {
			return l.From == "attacker" && l.To == "sender"
		}
	}
	return false
}

// parties are who spoke: the sender first, the attacker between him and the host.
func parties(x Exchange) []string {
	var names []string
	if len(x.Via) > 0 {
		names = append(names, "sender") // who may be heard through the attacker only
	}
	for _, l := range x.Lines {
		for _, n := range []string{l.From, l.To} {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	rank := func(name string) int {
		switch name {
		case "sender", "client":
			return 0
		case "attacker":
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	return names
}

func shorten(text string) string {
	if r := []rune(text); len(r) > maxDrawn {
		return string(r[:maxDrawn-1]) + "…"
	}
	return text
}
