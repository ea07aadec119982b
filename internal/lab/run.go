package lab

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// Options say what is run, and on what. The zero value is the whole table on
// pawl's relay as it comes.
type Options struct {
	Only    []string // numbers of rows; none: all
	Columns []Column // none: all
	Seed    uint64   // of all that is random; 0: chosen, see Report.Seed
	Workers int      // rows at once; 0: one for each processor
	Log     *slog.Logger

	// Configure changes the relay's configuration, to see what another one does
	// to the outcomes; nil: the default.
	Configure func(*config.Config)
	// Roots are what the relay trusts; nil: the small Internet's.
	Roots func(*testnet.Net) *x509.CertPool
	// Progress is called after each row with the cells done and all there are.
	Progress func(done, all int)
}

// Report is what a run came to.
type Report struct {
	Sender string        `json:"sender"` // whose mail it was
	At     time.Time     `json:"at"`
	Seed   uint64        `json:"seed"`
	Took   time.Duration `json:"took"`
	Cells  []Cell        `json:"cells"`
	NotRun []Omission    `json:"not_run,omitempty"`

	numbers []string // of all rows, in the table's order
}

// PawlsRelay is the sender of [Run].
const PawlsRelay = "pawl's relay"

// NewReport is a report on a run of a table that began at a time.
func NewReport(t *Table, sender string, began time.Time, cells []Cell, notRun []Omission) Report {
	return Report{Sender: sender, At: began.UTC(), Took: time.Since(began), Cells: cells, NotRun: notRun, numbers: t.numbers()}
}

// Omission is something in the table that is not run yet, and why.
type Omission struct {
	Attack  string `json:"attack"`
	Variant string `json:"variant,omitempty"`
	Column  Column `json:"column,omitempty"` // one column only
	Name    string `json:"name"`
	Reason  string `json:"reason"`
}

// Wrong returns the cells that ended otherwise than they must.
func (r Report) Wrong() []Cell {
	return slices.DeleteFunc(slices.Clone(r.Cells), func(c Cell) bool { return c.OK })
}

// Run runs the cells of the table, each for real. An error is one of the lab
// itself; a cell that ended otherwise than it must is in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	began := time.Now()
	table, err := Load()
	if err != nil {
		return Report{}, err
	}
	rows, columns, err := table.Choose(o.Only, o.Columns)
	if err != nil {
		return Report{}, err
	}
	o.Columns = columns
	for o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	r := &runner{Options: o, table: table, all: table.count(rows, o.Columns)}
	cells, err := r.rows(ctx, rows)
	report := NewReport(table, PawlsRelay, began, cells, omissions(rows))
	report.Seed = o.Seed
	return report, err
}

// Choose returns the rows of the numbers, in the table's order, and the columns;
// without any, all.
func (t *Table) Choose(only []string, columns []Column) ([]Attack, []Column, error) {
	for _, c := range columns {
		if !slices.Contains(Columns(), c) {
			return nil, nil, &control.Error{Text: "there is no column " + string(c), Do: "The columns are " + words(Columns()) + "."}
		}
	}
	for _, number := range only {
		if _, ok := t.Named(number); !ok {
			return nil, nil, &control.Error{Text: "there is no attack " + number, Do: "The rows are " + strings.Join(t.numbers(), ", ") + "."}
		}
	}
	if len(columns) == 0 {
		columns = Columns()
	}
	rows := slices.DeleteFunc(slices.Clone(t.Attacks), func(a Attack) bool {
		return len(only) > 0 && !slices.ContainsFunc(only, func(n string) bool { return strings.EqualFold(n, a.Attack) })
	})
	return rows, columns, nil
}

func (t *Table) numbers() []string {
	var all []string
	for _, a := range t.Attacks {
		all = append(all, a.Attack)
	}
	return all
}

func omissions(rows []Attack) []Omission {
	var list []Omission
	for _, a := range rows {
		for _, v := range a.Variants {
			if v.Reason != "" {
				list = append(list, Omission{Attack: a.Attack, Variant: v.Variant, Name: a.Name, Reason: v.Reason})
			}
		}
	}
	return list
}

// count is how many cells a run has.
func (t *Table) count(rows []Attack, columns []Column) int {
	n := 0
	for _, a := range rows {
		for _, v := range a.Variants {
			n += len(v.columns(columns))
		}
	}
	return n
}

// columns returns those of the columns in which the variant is run.
func (v Variant) columns(of []Column) []Column {
	if v.Reason != "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(of), func(c Column) bool { return v.Want(c).Expect == NotAffected })
}

// runner runs rows.
type runner struct {
	Options
	table *Table
	all   int

	mu   sync.Mutex
	done int
}

// rows runs rows beside one another and returns their cells in order.
func (r *runner) rows(ctx context.Context, rows []Attack) ([]Cell, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	of := make([][]Cell, len(rows))
	next := make(chan int)
	var workers sync.WaitGroup
	for range r.Workers {
		workers.Go(func() {
			for i := range next {
				cells, err := r.row(ctx, rows[i])
				if err != nil {
					cancel(fmt.Errorf("row %s: %w", rows[i].Attack, err))
				}
				of[i] = cells
				r.progress(len(cells))
			}
		})
	}
	for _, i := range slowFirst(rows) {
		next <- i
	}
	close(next)
	workers.Wait()
	var cells []Cell
	for i, a := range rows {
		cells = append(cells, of[i]...)
		cells = append(cells, r.notAffected(a)...)
	}
	return cells, context.Cause(ctx)
}

// slowFirst orders rows by what they cost, so that no worker is left alone with
// a long one at the end.
func slowFirst(rows []Attack) []int {
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return rows[b].cost() - rows[a].cost() })
	return order
}

// cost is about how many attempts a row takes.
func (a Attack) cost() int {
	n := 0
	for _, v := range a.Variants {
		for _, w := range v.Cells {
			n += 1 + int(w.Until.Std()/retry)
		}
	}
	return n
}

func (r *runner) progress(cells int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += cells
	if r.Progress != nil {
		r.Progress(r.done, r.all)
	}
}

// notAffected are the cells of columns to which a row does not apply.
func (r *runner) notAffected(a Attack) []Cell {
	var cells []Cell
	for _, c := range r.Columns {
		if slices.ContainsFunc(a.Variants, func(v Variant) bool { return v.Want(c).Expect != NotAffected }) {
			continue
		}
		cells = append(cells, Cell{
			Attack: a.Attack, Column: c, Name: a.Name, Section: a.Section, Expected: NotAffected, Observed: NotAffected,
			OK: true, Evidence: "the attack does not apply",
		})
	}
	return cells
}

// row runs the cells of one row in worlds of their own: one for what goes by
// the relay's own times, and one for each variant that needs others.
func (r *runner) row(ctx context.Context, a Attack) ([]Cell, error) {
	groups := make(map[time.Duration][]int)
	var caps []time.Duration
	for i, v := range a.Variants {
		if len(v.columns(r.Columns)) == 0 {
			continue
		}
		limit := v.Fetch.Std()
		if groups[limit] == nil {
			caps = append(caps, limit)
		}
		groups[limit] = append(groups[limit], i)
	}
	of := make([][]Cell, len(a.Variants))
	for _, limit := range caps {
		if err := r.group(ctx, a, groups[limit], limit, of); err != nil {
			return nil, err
		}
	}
	return slices.Concat(of...), nil
}

// group runs variants of a row in one world.
func (r *runner) group(ctx context.Context, a Attack, variants []int, fetch time.Duration, of [][]Cell) (err error) {
	w, err := newWorld(ctx, worldOptions{Seed: r.Seed, Fetch: fetch, Log: r.Log, Configure: r.Configure, Roots: r.Roots})
	if err != nil {
		return err
	}
	defer func() {
		if closed := w.close(); err == nil {
			err = closed
		}
	}()
	var trials []*trial
	for _, i := range variants {
		v := a.Variants[i]
		for _, c := range v.columns(r.Columns) {
			if v.Run != "" {
				cell, err := w.special(ctx, a, v, c)
				if err != nil {
					return err
				}
				of[i] = append(of[i], cell)
				continue
			}
			trials = append(trials, w.newTrial(a, i, c))
		}
	}
	if err := w.try(ctx, trials); err != nil {
		return err
	}
	for _, t := range trials {
		t.judge(r.table)
		i := slices.IndexFunc(a.Variants, func(v Variant) bool { return v.Variant == t.Variant.Variant })
		of[i] = append(of[i], t.cell)
	}
	return nil
}
