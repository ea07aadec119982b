package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pawl-mail/pawl/internal/db"
)

// The errors for which a submission is refused.
var (
	ErrNoRecipients = errors.New("the message has no recipients")
	ErrNoBody       = errors.New("the message has no body")
	ErrText         = errors.New("an address or parameter of the message is not UTF-8 text")
	ErrID           = errors.New("the id given to the message is not a UUID in lower case")
	ErrDomains      = errors.New("the message goes to more than 65535 domains")
)

// Submission is a message to be taken into the queue.
type Submission struct {
	Message                  // ID, one of db.NewID, and Received are set by the queue where they are empty
	Recipients []Destined    // at least one
	Body       *Body         // from [Queue.Body]; the queue's from then on
	Lifetime   time.Duration // how long it is tried; 0: as the queue's Options say
}

// Destined is a recipient with the domain that its mail goes to.
type Destined struct {
	Recipient
	Domain string // A-labels
}

// Enqueue takes a message in and returns its id. When it returns without error
// the message is durable: committed, and its spool file synced before. After an
// error nothing of it is kept, unless the error wraps db.ErrUnknownOutcome.
func (q *Queue) Enqueue(ctx context.Context, s Submission) (string, error) {
	if s.Body == nil {
		return "", ErrNoBody
	}
	defer s.Body.Discard()
	rows, err := q.prepare(ctx, &s)
	if err != nil {
		return "", err
	}
	q.offer(rows)
	if err := q.opts.DB.Write(ctx, rows.insert); err != nil {
		q.refuse(rows)
		// Of an unknown outcome the body is kept: the message may be in.
		if !errors.Is(err, db.ErrUnknownOutcome) {
			q.discard(ctx, rows)
		}
		return "", fmt.Errorf("taking message %s into the queue: %w", s.ID, err)
	}
	q.arrived(rows)
	return s.ID, nil
}

// newRows are the rows of one submission.
type newRows struct {
	message    Message
	body       []byte // nil where it is spooled or already in the database
	spooled    bool
	incoming   bool // the message's row and its body are in the database
	expires    time.Time
	deliveries []newDelivery
}

type newDelivery struct {
	id, domain string
	recipients []Recipient
	text       string // of recipients, in JSON
	lease      string // owner, where the delivery is handed over without being read back
	job        *Job   // where it is handed over without being read back
}

// prepare fills in what the submission leaves open, splits it by destination
// and makes a large body durable.
func (q *Queue) prepare(ctx context.Context, s *Submission) (*newRows, error) {
	if s.Body.err != nil {
		return nil, s.Body.err
	}
	if len(s.Recipients) == 0 {
		return nil, ErrNoRecipients
	}
	if s.ID == "" {
		s.ID = db.NewID()
	}
	if s.Org == "" {
		s.Org = db.DefaultOrg
	}
	if s.Received.IsZero() {
		s.Received = q.opts.Now()
	}
	s.Size = s.Body.Size()
	if !isID(s.ID) {
		return nil, ErrID
	}
	if !text(s.From) || !text(s.EnvID) || !text(s.Ret) {
		return nil, ErrText
	}
	if s.Lifetime <= 0 {
		s.Lifetime = q.tuning().Lifetime
	}
	rows := &newRows{message: s.Message, expires: s.Received.Add(s.Lifetime)}
	if err := rows.split(s.Recipients); err != nil {
		return nil, err
	}
	if s.Body.file == nil {
		rows.body = s.Body.inline()
		return rows, nil
	}
	if err := q.keep(ctx, rows, s.Body); err != nil {
		q.discard(ctx, rows)
		return nil, fmt.Errorf("keeping the body of message %s: %w", s.ID, err)
	}
	return rows, nil
}

// keep makes a large body durable ahead of the commit that accepts its message.
func (q *Queue) keep(ctx context.Context, r *newRows, body *Body) error {
	if q.shared() {
		return q.storeParts(ctx, r, body)
	}
	if err := body.settle(q.spoolPath(r.message.ID)); err != nil {
		return err
	}
	r.spooled = true
	return nil
}

// discard frees the body of a message that was not accepted.
func (q *Queue) discard(ctx context.Context, r *newRows) {
	switch {
	case r.spooled:
		q.removeSpooled(r.message.ID)
	case r.incoming:
		q.dropParts(ctx, r.message)
	}
}

// text reports whether a string can be stored as it is: PostgreSQL takes
// neither NUL nor broken UTF-8.
func text(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// split makes a delivery for each destination domain, in order of appearance.
func (r *newRows) split(recipients []Destined) error {
	byDomain := make(map[string]int, 1)
	for _, d := range recipients {
		if !text(d.Addr) || !text(d.ORcpt) || !text(d.Notify) || !text(d.Domain) {
			return ErrText
		}
		i, seen := byDomain[d.Domain]
		if !seen {
			i = len(r.deliveries)
			byDomain[d.Domain] = i
			r.deliveries = append(r.deliveries, newDelivery{id: deliveryID(r.message.ID, i), domain: d.Domain})
		}
		d.State, d.Reply = Pending, ""
		r.deliveries[i].recipients = append(r.deliveries[i].recipients, d.Recipient)
	}
	if len(r.deliveries) > maxDeliveries {
		return ErrDomains
	}
	for i := range r.deliveries {
		d := &r.deliveries[i]
		text, err := json.Marshal(d.recipients)
		if err != nil {
			return fmt.Errorf("writing the recipients at %s: %w", d.domain, err)
		}
		d.text = string(text)
	}
	return nil
}

const insertMessage = `INSERT INTO message (org, id, sender, received, size, body_type, smtputf8, requiretls,
	tls_optional, envid, ret, client, spooled, incoming, uncounted)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`

const insertDelivery = `INSERT INTO delivery (org, id, message, domain, recipients, state, version, attempts, next, expires,
	lease, by_policy, why, advice, updated, ended, bulk)
	VALUES ($1, $2, $3, $4, $5, 'queued', 1, 0, $6, $7, $8, 0, '', '', $6, 0, $9)`

// insert writes the rows that make the message accepted. It may run more than
// once, as the database retries.
func (r *newRows) insert(ctx context.Context, tx db.Tx) error {
	m := r.message
	if r.incoming {
		done, err := tx.ExecContext(ctx, `UPDATE message SET incoming = 0 WHERE org = $1 AND id = $2 AND incoming = 1`, m.Org, m.ID)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoBody) // it took so long that it was swept
		}
	} else {
		if err := r.insertMessage(ctx, tx); err != nil {
			return err
		}
		if !r.spooled {
			if err := insertPart(ctx, tx, m, 0, r.body); err != nil {
				return err
			}
		}
	}
	for _, d := range r.deliveries {
		if _, err := tx.ExecContext(ctx, insertDelivery, m.Org, d.id, m.ID, d.domain, d.text,
			db.Micros(m.Received), db.Micros(r.expires), d.lease, db.Flag(m.Bulk)); err != nil {
			return err
		}
	}
	return nil
}

func (r *newRows) insertMessage(ctx context.Context, tx db.Tx) error {
	m := r.message
	bodyType := "7BIT"
	if m.EightBit {
		bodyType = "8BITMIME"
	}
	client := ""
	if m.Client.IsValid() {
		client = m.Client.String()
	}
	_, err := tx.ExecContext(ctx, insertMessage, m.Org, m.ID, m.From, db.Micros(m.Received), m.Size, bodyType, db.Flag(m.SMTPUTF8),
		db.Flag(m.RequireTLS), db.Flag(m.TLSOptional), m.EnvID, m.Ret, client, db.Flag(r.spooled), db.Flag(r.incoming), db.Flag(m.Uncounted))
	return err
}

// Domain returns the domain of an address as it stands in RCPT TO, in lower
// case; empty for a bare local part.
func Domain(addr string) string {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return ""
	}
	return strings.ToLower(addr[at+1:])
}
