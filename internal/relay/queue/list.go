package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/internal/db"
)

const (
	// shortList is how long a page of a list is if nothing is said.
	shortList = 100
	// maxList caps one page of a list.
	maxList = 1000
)

// ErrState is returned for a state that a delivery cannot be in.
var ErrState = errors.New("there is no such state of a delivery")

// Filter chooses deliveries. Empty fields choose all.
type Filter struct {
	Org      string  `json:"-"` // empty: the default organisation
	ID       string  `json:"id,omitempty"`
	Domain   string  `json:"domain,omitempty"`
	States   []State `json:"states,omitempty"`    // empty: those that wait
	ByPolicy bool    `json:"by_policy,omitempty"` // those that wait because of a policy, or behind one that does
	Sender   string  `json:"sender,omitempty"`    // an address, or @ and a domain; in any case
	Why      string  `json:"why,omitempty"`       // what the reason contains, in any case
	After    string  `json:"after,omitempty"`     // id to continue behind
	Limit    int     `json:"limit,omitempty"`     // 0: 100; at most 1000
}

func orDefault(org string) string {
	if org == "" {
		return db.DefaultOrg
	}
	return org
}

// query makes the statement that finds the ids of a page. Each state is asked
// for by itself and in words of its own, so that the partial index of that state
// gives the first ids in order, whatever else there is.
func (f Filter) query() (string, []any, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = shortList
	}
	args := []any{orDefault(f.Org), f.After, min(limit, maxList)}
	cond := `org = $1`
	for _, c := range []struct{ column, value string }{{"id", f.ID}, {"domain", f.Domain}} {
		if c.value != "" {
			args = append(args, c.value)
			cond += fmt.Sprintf(` AND %s = $%d`, c.column, len(args))
		}
	}
	cond += f.words(&args)
	states := f.States
	switch {
	case f.ByPolicy:
		states = []State{Queued}
	case len(states) == 0 && f.ID == "":
		states = []State{Queued, Held}
	case len(states) == 0:
		states = []State{""} // any
	}
	var pages []string
	page := func(cond, order string) {
		pages = append(pages, fmt.Sprintf(`SELECT id FROM (SELECT id FROM delivery WHERE %s AND %s > $2 ORDER BY %s LIMIT $3) AS page%d`,
			cond, order, order, len(pages)))
	}
	for _, s := range states {
		in := cond + ` AND state = '` + string(s) + `'`
		switch {
		case s == "":
			page(cond, `id`)
		case !s.known():
			return "", nil, fmt.Errorf("%w: %q", ErrState, string(s))
		case f.ByPolicy:
			page(in+` AND by_policy = 1`, `id`)
			page(in+` AND domain IN (SELECT domain FROM destination WHERE org = $1 AND by_policy = 1)`, sorted)
		case s == Queued && f.Domain != "":
			page(in, sorted)
		default:
			page(in, `id`)
		}
	}
	return strings.Join(pages, ` UNION `) + ` ORDER BY id LIMIT $3`, args, nil
}

// The conditions look at the delivery's row anew, so that the walk through the
// ids keeps to the small index of the state.
const (
	bySender = ` AND EXISTS (SELECT 1 FROM delivery x JOIN message m ON m.org = x.org AND m.id = x.message
		WHERE x.org = delivery.org AND x.id = delivery.id AND LOWER(m.sender) = LOWER($%d))`
	bySenderDomain = ` AND EXISTS (SELECT 1 FROM delivery x JOIN message m ON m.org = x.org AND m.id = x.message
		WHERE x.org = delivery.org AND x.id = delivery.id AND LOWER(m.sender) LIKE LOWER($%d) ESCAPE '!')`
	// What waits behind other mail for its destination has that one's reason.
	byWhy = ` AND EXISTS (SELECT 1 FROM delivery x WHERE x.org = delivery.org AND x.id = delivery.id
		AND (LOWER(x.why) LIKE LOWER($%[1]d) ESCAPE '!' OR x.why = '' AND x.domain IN (SELECT domain FROM destination
			WHERE org = $1 AND down > 0 AND LOWER(why) LIKE LOWER($%[1]d) ESCAPE '!')))`
)

// words is the condition on the sender and the reason.
func (f Filter) words(args *[]any) (cond string) {
	add := func(format, value string) {
		*args = append(*args, value)
		cond += fmt.Sprintf(format, len(*args))
	}
	switch {
	case strings.HasPrefix(f.Sender, "@"):
		add(bySenderDomain, "%"+literally.Replace(f.Sender))
	case f.Sender != "":
		add(bySender, strings.Trim(f.Sender, "<>"))
	}
	if f.Why != "" {
		add(byWhy, "%"+literally.Replace(f.Why)+"%")
	}
	return cond
}

// literally keeps a text from being a pattern.
var literally = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// sorted is the order of ids, in words that keep SQLite from walking through all
// ids in their order: the few deliveries of a destination are sorted instead.
const sorted = `id || ''`

// known reports whether there is such a state.
func (s State) known() bool {
	return slices.Contains([]State{Queued, Held, AllDelivered, SomeFailed, Dropped}, s)
}

// List returns the deliveries that the filter chooses, oldest first.
func (q *Queue) List(ctx context.Context, f Filter) ([]Delivery, error) {
	ids, args, err := f.query()
	if err != nil {
		return nil, err
	}
	list, err := q.read(ctx, `d.org = $1 AND d.id IN (`+ids+`)`, args...)
	if err != nil {
		return nil, fmt.Errorf("listing the queue: %w", err)
	}
	return list, nil
}

// read returns deliveries in the order of their ids.
func (q *Queue) read(ctx context.Context, cond string, args ...any) ([]Delivery, error) {
	list, err := db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (Delivery, error) { return scanDelivery(rows) },
		`SELECT `+deliveryColumns+deliveryTables+` WHERE `+cond+` ORDER BY d.id`, args...)
	for i := range list {
		q.shown(&list[i])
	}
	return list, err
}

// shown adds what holds for the destination as a whole: a delivery that waits
// behind a closed gate is tried when that opens, and for the same reason.
func (q *Queue) shown(d *Delivery) {
	if d.State != Queued {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	dest := q.dests[target{d.Org, d.Domain}]
	if dest == nil || dest.gate.down == 0 || !dest.gate.until.After(d.Next) {
		return
	}
	d.Next = dest.gate.until
	if d.Why == "" {
		d.Why = "waits behind other mail for " + d.Domain + ": " + dest.gate.why
		d.Do, d.ByPolicy = dest.gate.do, dest.gate.byPolicy
	}
}

// Show returns one delivery, or ErrNotFound.
func (q *Queue) Show(ctx context.Context, org, id string) (Delivery, error) {
	found, err := q.read(ctx, `d.org = $1 AND d.id = $2`, orDefault(org), id)
	if err != nil {
		return Delivery{}, fmt.Errorf("reading delivery %s: %w", id, err)
	}
	if len(found) == 0 {
		return Delivery{}, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return found[0], nil
}

const ofMessage = `d.org = $1 AND d.message = $2 AND d.id IN (SELECT id FROM delivery
	WHERE org = $1 AND id >= $3 AND id <= $4 ORDER BY id LIMIT $5)`

// OfMessage returns the deliveries of a message, by the id that its sender was given.
func (q *Queue) OfMessage(ctx context.Context, org, message string) ([]Delivery, error) {
	if !isID(message) {
		return nil, nil
	}
	first, last := deliveryIDs(message)
	found, err := q.read(ctx, ofMessage, orDefault(org), message, first, last, maxList)
	if err != nil {
		return nil, fmt.Errorf("reading the deliveries of message %s: %w", message, err)
	}
	return found, nil
}

// History returns the stories of a delivery's attempts, oldest first, and of
// what was done to it by hand.
func (q *Queue) History(ctx context.Context, org, id string) ([]Story, error) {
	stories, err := db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (s Story, err error) {
		var text string
		if err := rows.Scan(&text); err != nil {
			return s, err
		}
		err = json.Unmarshal([]byte(text), &s)
		return s, err
	}, `SELECT story FROM attempt WHERE org = $1 AND delivery = $2 ORDER BY id LIMIT $3`, orDefault(org), id, maxList)
	if err != nil {
		return nil, fmt.Errorf("reading the history of delivery %s: %w", id, err)
	}
	return stories, nil
}
