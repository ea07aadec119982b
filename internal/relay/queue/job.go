package queue

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
)

// Job is a delivery whose turn it is.
type Job struct {
	Delivery
	// Last says that the delivery's lifetime has ended: if this attempt fails it
	// is given up. DNS must be asked afresh (RFC 8461 §5.1).
	Last bool

	version int64
	lease   string    // owner of the lease it is under; empty on SQLite
	spooled bool      // the body is a file
	body    []byte    // where it is in memory; nil elsewhere
	charge  int       // bytes of memory that the queue counts for it
	read    time.Time // when it was as the database has it
	doubt   bool      // it was changed since; guarded by the queue's lock
	look    bool      // it is to be looked at again before the attempt
	began   time.Time // the attempt
	open    func() (io.ReadCloser, error)
}

// Open returns the body in wire form. It is valid during the attempt only. A
// Read that ends with io.EOF has given the whole body.
func (j *Job) Open() (io.ReadCloser, error) { return j.open() }

// bodyOf makes a job's Open, for the time that ctx lasts.
func (q *Queue) bodyOf(ctx context.Context, j *Job) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		switch {
		case j.body != nil:
			return io.NopCloser(bytes.NewReader(j.body)), nil
		case j.spooled:
			return q.openSpooled(j.Message)
		default:
			return q.openStored(ctx, j.Message)
		}
	}
}

// all reads the whole body.
func (j *Job) all() ([]byte, error) {
	r, err := j.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading the body of message %s: %w", j.Message.ID, err)
	}
	return b, nil
}

const deliveryColumns = `d.org, d.id, d.message, d.domain, d.recipients, d.state, d.attempts, d.next, d.expires, d.by_policy,
	d.why, d.advice, d.updated, m.sender, m.received, m.size, m.body_type, m.smtputf8, m.requiretls, m.tls_optional,
	m.envid, m.ret, m.client, m.uncounted, d.bulk`

const deliveryTables = ` FROM delivery d JOIN message m ON m.org = d.org AND m.id = d.message`

// scanDelivery reads deliveryColumns, and further columns into more.
func scanDelivery(rows *sql.Rows, more ...any) (Delivery, error) {
	var d Delivery
	var recipients, bodyType, client string
	var next, expires, updated, received, byPolicy, utf8, requireTLS, tlsOptional, uncounted, bulk int64
	err := rows.Scan(append([]any{
		&d.Org, &d.ID, &d.Message.ID, &d.Domain, &recipients, &d.State, &d.Attempts, &next, &expires, &byPolicy,
		&d.Why, &d.Do, &updated, &d.From, &received, &d.Size, &bodyType, &utf8, &requireTLS, &tlsOptional,
		&d.EnvID, &d.Ret, &client, &uncounted, &bulk,
	}, more...)...)
	if err != nil {
		return d, err
	}
	d.Next, d.Expires, d.Updated, d.Received = db.Time(next), db.Time(expires), db.Time(updated), db.Time(received)
	d.ByPolicy, d.SMTPUTF8, d.RequireTLS, d.TLSOptional = byPolicy == 1, utf8 == 1, requireTLS == 1, tlsOptional == 1
	d.Uncounted, d.Bulk = uncounted == 1, bulk == 1
	d.EightBit = bodyType == "8BITMIME"
	if client != "" {
		if d.Client, err = netip.ParseAddr(client); err != nil {
			return d, fmt.Errorf("the client of message %s: %w", d.Message.ID, err)
		}
	}
	if err := json.Unmarshal([]byte(recipients), &d.Recipients); err != nil {
		return d, fmt.Errorf("the recipients of delivery %s: %w", d.ID, err)
	}
	return d, nil
}

// What is due of a destination, or over, by lane: first the mail that is not bulk.
const (
	dueIDs = `SELECT id FROM delivery WHERE org = $1 AND domain = $2 AND state = 'queued' AND bulk = $5 AND next <= $3
		ORDER BY next LIMIT $4`
	expiredIDs = `SELECT id FROM delivery WHERE org = $1 AND domain = $2 AND state = 'queued' AND bulk = $5 AND expires <= $3
		ORDER BY next LIMIT $4`
	leaseDue = `UPDATE delivery SET lease = $6 WHERE (org, id) IN (SELECT org, id FROM delivery
		WHERE org = $1 AND domain = $2 AND state = 'queued' AND bulk = $5 AND next <= $3 AND lease = ''
		ORDER BY next LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING id`
	leaseExpired = `UPDATE delivery SET lease = $6 WHERE (org, id) IN (SELECT org, id FROM delivery
		WHERE org = $1 AND domain = $2 AND state = 'queued' AND bulk = $5 AND expires <= $3 AND lease = ''
		ORDER BY next LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING id`
	// firstDue is when the next delivery of either lane is due.
	firstDue = `SELECT MIN(next) FROM (
		SELECT MIN(next) AS next FROM delivery WHERE org = $1 AND domain = $2 AND state = 'queued' AND bulk = 0 AND next > $3 UNION ALL
		SELECT MIN(next) AS next FROM delivery WHERE org = $1 AND domain = $2 AND state = 'queued' AND bulk = 1 AND next > $3) AS lanes`
)

// inLanes finds up to n ids in the order of the lanes.
func inLanes(n int, find func(bulk int64, n int) ([]string, error)) ([]string, error) {
	ids, err := find(0, n)
	if err != nil || len(ids) == n {
		return ids, err
	}
	more, err := find(1, n-len(ids))
	return append(ids, more...), err
}

// batch is what the database has for a destination.
type batch struct {
	jobs []*Job
	next time.Time // when there is more; zero: there is not
}

// ask reads up to n deliveries of a destination that are due, or whose lifetime
// is over. On SQLite this process has the queue to itself and remembers what it
// works on; where nodes share it, it leases them.
func (q *Queue) ask(ctx context.Context, t target, expired bool, n int, now time.Time) (batch, error) {
	var ids []string
	var lease string
	var full bool
	var err error
	if q.shared() {
		lease, ids, err = q.lease(ctx, t, expired, n, now)
		full = len(ids) == n
	} else {
		ids, full, err = q.free(ctx, t, expired, n, now)
	}
	if err != nil {
		return batch{}, fmt.Errorf("looking for deliveries to %s: %w", t.domain, err)
	}
	b := batch{next: now}
	if len(ids) > 0 {
		if b.jobs, err = q.readJobs(ctx, t.org, ids, lease, now); err != nil {
			q.surrender(t.org, ids, lease)
			return batch{}, fmt.Errorf("reading deliveries to %s: %w", t.domain, err)
		}
	}
	if !full && !expired {
		b.next, err = q.nextDue(ctx, t, now)
	}
	return b, err
}

// free finds deliveries that this process does not work on, and reports whether
// there may be more.
func (q *Queue) free(ctx context.Context, t target, expired bool, n int, now time.Time) ([]string, bool, error) {
	query := dueIDs
	if expired {
		query = expiredIDs
	}
	q.mu.Lock()
	limit := n + len(q.destination(t).running)
	q.mu.Unlock()
	found, err := inLanes(limit, func(bulk int64, n int) ([]string, error) {
		return db.All(ctx, q.opts.DB.Read(), scanText, query, t.org, t.domain, db.Micros(now), n, bulk)
	})
	if err != nil {
		return nil, false, err
	}
	full := len(found) == limit
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.destination(t)
	ids := found[:0]
	for _, id := range found {
		if d.running[id] == nil && !d.gone[id] && len(ids) < n {
			ids = append(ids, id)
		}
	}
	return ids, full, nil
}

// lease takes deliveries for this process, and says under which name.
func (q *Queue) lease(ctx context.Context, t target, expired bool, n int, now time.Time) (string, []string, error) {
	query := leaseDue
	if expired {
		query = leaseExpired
	}
	q.mu.Lock()
	owner := q.tenure.owner
	q.mu.Unlock()
	var ids []string
	err := q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) (err error) {
		ids, err = inLanes(n, func(bulk int64, n int) ([]string, error) {
			return db.All(ctx, tx, scanText, query, t.org, t.domain, db.Micros(now), n, bulk, owner)
		})
		return err
	})
	return owner, ids, err
}

func (q *Queue) readJobs(ctx context.Context, org string, ids []string, lease string, now time.Time) ([]*Job, error) {
	args := []any{org}
	var list strings.Builder
	// The number of ids is rounded up, so that there are few statements.
	for i := range nextPower(len(ids)) {
		args = append(args, ids[min(i, len(ids)-1)])
		if i > 0 {
			list.WriteString(", ")
		}
		fmt.Fprintf(&list, "$%d", len(args))
	}
	return db.All(ctx, q.opts.DB.Read(), func(rows *sql.Rows) (*Job, error) {
		j := &Job{lease: lease, read: now}
		var spooled int64
		var err error
		j.Delivery, err = scanDelivery(rows, &j.version, &spooled)
		j.spooled = spooled == 1
		return j, err
	}, `SELECT `+deliveryColumns+`, d.version, m.spooled`+deliveryTables+
		` WHERE d.org = $1 AND d.id IN (`+list.String()+`) AND d.state = 'queued' ORDER BY d.bulk, d.next, d.id`, args...)
}

func nextPower(n int) int { return 1 << bits.Len(uint(n-1)) }

// nextDue is when the destination's next delivery is due; zero: there is none.
func (q *Queue) nextDue(ctx context.Context, t target, now time.Time) (time.Time, error) {
	var next sql.NullInt64
	err := q.opts.DB.Read().QueryRowContext(ctx, firstDue, t.org, t.domain, db.Micros(now)).Scan(&next)
	return db.Time(next.Int64), err
}

// staleAfter is how long a delivery may lie in memory before the database is
// asked whether it still is to be tried: another node may have held it by hand.
const staleAfter = 30 * time.Second

// still reports whether a delivery is to be tried as it was read.
func (q *Queue) still(ctx context.Context, j *Job) (bool, error) {
	var version int64
	var state State
	var lease string
	err := q.opts.DB.Read().QueryRowContext(ctx, `SELECT version, state, lease FROM delivery WHERE org = $1 AND id = $2`,
		j.Org, j.ID).Scan(&version, &state, &lease)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at delivery %s: %w", j.ID, err)
	}
	return version == j.version && state == Queued && lease == j.lease, nil
}
