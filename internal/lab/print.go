package lab

import (
	"fmt"
	"image/color"
	"io"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// maxName is how much of an attack's name the table shows.
const maxName = 46

// styles of the table; where the output is no terminal, colours are left out.
type styles struct {
	bold, faint, good, bad, warn, differs lipgloss.Style
}

func newStyles() styles {
	s := lipgloss.NewStyle
	return styles{
		bold: s().Bold(true), faint: s().Faint(true),
		good: s().Foreground(color.RGBA{0x2e, 0xa0, 0x57, 0xff}), bad: s().Foreground(color.RGBA{0xe0, 0x4b, 0x4b, 0xff}),
		warn: s().Foreground(color.RGBA{0xd0, 0x8a, 0x1d, 0xff}), differs: s().Bold(true).Reverse(true),
	}
}

// Print writes the table, below it each difference with what shows it, where
// mail leaks even though there is a policy, and what was not run.
func (r Report) Print(w io.Writer) error {
	s := newStyles()
	var b strings.Builder
	if r.Sender != PawlsRelay {
		b.WriteString(s.bold.Render(r.Sender) + "\n\n")
	}
	b.WriteString(r.table(s) + "\n\n")
	b.WriteString(s.faint.Render("✓ delivered safely   ▪ held in the queue   ↩ bounced   ⊘ refused   ✗ leaked   → in the end   – not affected") + "\n")
	r.printWrong(&b, s)
	r.printLimits(&b, s)
	r.printNotRun(&b, s)
	b.WriteString("\n" + r.summary(s) + "\n")
	_, err := lipgloss.Fprint(w, b.String())
	return err
}

// table draws a line for each variant.
func (r Report) table(s styles) string {
	columns := r.columns()
	t := table.New().Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderColumn(false).BorderStyle(s.faint).Headers(append([]string{"#", "attack"}, titles(columns)...)...).
		StyleFunc(func(int, int) lipgloss.Style { return lipgloss.NewStyle().PaddingRight(2) })
	for _, l := range r.lines() {
		if l.variant != "" && l.first {
			t.Row(append([]string{s.bold.Render(l.number), cut(l.name)}, make([]string, len(columns))...)...)
		}
		row := []string{s.bold.Render(l.number), cut(l.name)}
		if l.variant != "" {
			row = []string{"", "· " + cut(l.variant)}
		}
		for _, c := range columns {
			row = append(row, l.cell(s, c))
		}
		t.Row(row...)
	}
	return t.String()
}

// title is what a column is called in a table for people.
func (c Column) title() string {
	switch c {
	case None:
		return "no policy"
	case EnforceFirst:
		return "enforce, 1st"
	case EnforceCached:
		return "enforce, cache"
	case DANE:
		return "DANE"
	case RequireTLS:
		return "REQUIRETLS"
	default:
		return string(c)
	}
}

func titles(columns []Column) []string {
	var list []string
	for _, c := range columns {
		list = append(list, c.title())
	}
	return list
}

// columns are those that the run had.
func (r Report) columns() []Column {
	return slices.DeleteFunc(Columns(), func(c Column) bool {
		return !slices.ContainsFunc(r.Cells, func(x Cell) bool { return x.Column == c })
	})
}

// line is one line of the table: a variant of a row, or a row that was not run.
type line struct {
	number, name, variant string
	first                 bool // of its row
	cells                 map[Column]Cell
	notRun                bool
}

// lines puts the cells into lines, in their order.
func (r Report) lines() []line {
	var lines []line
	find := func(attack, variant, name string) *line {
		i := slices.IndexFunc(lines, func(l line) bool { return l.number == attack && l.variant == variant })
		if i < 0 {
			first := !slices.ContainsFunc(lines, func(l line) bool { return l.number == attack })
			lines = append(lines, line{number: attack, name: name, variant: variant, first: first, cells: map[Column]Cell{}})
			i = len(lines) - 1
		}
		return &lines[i]
	}
	for _, c := range r.Cells {
		if c.Observed != NotAffected {
			find(c.Attack, c.Variant, c.Name).cells[c.Column] = c
		}
	}
	for _, o := range r.NotRun {
		if o.Column == "" {
			find(o.Attack, o.Variant, o.Name).notRun = true
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return r.order(a.number) - r.order(b.number) })
	return lines
}

// order is the place of a row in the table of attacks.
func (r Report) order(attack string) int {
	if i := slices.Index(r.numbers, attack); i >= 0 {
		return i
	}
	return len(r.numbers)
}

func cut(text string) string {
	if r := []rune(text); len(r) > maxName {
		return string(r[:maxName-1]) + "…"
	}
	return text
}

func (l line) cell(s styles, col Column) string {
	c, ok := l.cells[col]
	switch {
	case !ok && l.notRun:
		return s.faint.Render("not run")
	case !ok:
		return s.faint.Render("–")
	case !c.OK:
		return s.differs.Render("! " + c.became())
	}
	word := mark(c.last()) + " " + string(c.last())
	if c.Became != "" {
		word = mark(c.Observed) + "→" + word
	}
	switch c.last() {
	case Delivered, Refused:
		return s.good.Render(word)
	case Leaked:
		return s.bad.Render(word)
	default:
		return s.warn.Render(word)
	}
}

func mark(o Outcome) string {
	switch o {
	case Delivered:
		return "✓"
	case Held:
		return "▪"
	case Bounced:
		return "↩"
	case Refused:
		return "⊘"
	default:
		return "✗"
	}
}

// last is what became of the message in the end.
func (c Cell) last() Outcome {
	if c.Became != "" {
		return c.Became
	}
	return c.Observed
}

// became is that in words.
func (c Cell) became() string {
	if c.Became != "" {
		return string(c.Observed) + ", then " + string(c.Became)
	}
	return string(c.Observed)
}

// expected is what had to become of the message, in words.
func (c Cell) expected() string {
	if c.Then != "" {
		return string(c.Expected) + ", then " + string(c.Then)
	}
	return string(c.Expected)
}

// Label names a cell for people.
func (c Cell) Label() string {
	label := c.Attack + " " + c.Name
	if c.Variant != "" {
		label += ", " + c.Variant
	}
	return label + " · " + c.Column.title()
}

func (r Report) printWrong(b *strings.Builder, s styles) {
	for _, c := range r.Wrong() {
		fmt.Fprintf(b, "\n%s\n", s.bad.Bold(true).Render(c.Label()))
		fmt.Fprintf(b, "  expected  %s\n  happened  %s\n  evidence  %s\n", c.expected(), c.became(), c.Evidence)
		for _, w := range c.Wrong {
			fmt.Fprintf(b, "  %s\n", w)
		}
		for _, d := range c.Decision {
			fmt.Fprintf(b, "  %s\n", s.faint.Render(strings.Join(strings.Fields(d.MX+" "+d.Cell+" "+d.Section+" "+d.Why), " ")))
		}
	}
}

// printLimits says where mail leaks under a policy that is enforced, and what
// closes it: the honest limits.
func (r Report) printLimits(b *strings.Builder, s styles) {
	said := map[string]bool{}
	for _, c := range r.Cells {
		if !c.OK || c.last() != Leaked || c.Column == None || c.Column == Testing {
			continue
		}
		key := c.Attack + string(c.Column)
		if said[key] {
			continue
		}
		if len(said) == 0 {
			fmt.Fprintf(b, "\n%s\n", s.bold.Render("Where mail leaks by the standards' own limits, and what closes it"))
		}
		said[key] = true
		fmt.Fprintf(b, "  %-4s %-16s %s\n", c.Attack, c.Column.title(), c.Closes)
	}
}

func (r Report) printNotRun(b *strings.Builder, s styles) {
	for i, o := range r.NotRun {
		if i == 0 {
			fmt.Fprintf(b, "\n%s\n", s.bold.Render("Not run"))
		}
		fmt.Fprintf(b, "  %-4s %s\n       %s\n", o.Attack, o.label(), s.faint.Render(o.Reason))
	}
}

// label names what was not run.
func (o Omission) label() string {
	label := strings.TrimSuffix(o.Name+", "+o.Variant, ", ")
	if o.Column != "" {
		label += " · " + o.Column.title()
	}
	return label
}

func (r Report) summary(s styles) string {
	run := 0
	for _, c := range r.Cells {
		if c.Observed != NotAffected {
			run++
		}
	}
	took := s.faint.Render(r.effort())
	if wrong := len(r.Wrong()); wrong > 0 {
		return s.bad.Render(fmt.Sprintf("%d of %d cells ended otherwise than they must", wrong, run)) + "  " + took
	}
	return s.good.Render(fmt.Sprintf("%d cells, all as expected", run)) + "  " + took
}

// effort is how long the run took and, where it can be repeated, its seed.
func (r Report) effort() string {
	took := r.Took.Round(10 * time.Millisecond).String()
	if r.Seed == 0 {
		return took
	}
	return fmt.Sprintf("%s, seed %d", took, r.Seed)
}
