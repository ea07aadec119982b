package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/tlsrpt"
)

// DeliveryState is how far a report has come at one destination.
type DeliveryState string

// The states of a delivery. The first three are not final.
const (
	toWait     DeliveryState = "waiting"    // for its next try
	toSend     DeliveryState = "sending"    // written down before it is sent
	toHand     DeliveryState = "handed"     // to the relay's queue, which goes on with it
	toAccept   DeliveryState = "accepted"   // the other side took it
	toFail     DeliveryState = "failed"     // refused, or not taken in 24 hours
	toSuppress DeliveryState = "suppressed" // not tried: it refused too many
	toCap      DeliveryState = "capped"     // not tried: enough for that host today
	toUnknown  DeliveryState = "unknown"    // the process ended while it was sent; not repeated, so that nothing comes twice
)

const interrupted = "pawl ended while it was sent; it is not repeated, so that it does not come twice"

// delivery is a report at one destination.
type delivery struct {
	rua      string
	host     string
	state    DeliveryState
	attempts int64
	next     int64
	answer   string
}

func (d *delivery) open() bool { return d.state == toWait || d.state == toSend || d.state == toHand }

// send tries a report at each destination that is due. Each is tried
// (RFC 8460 §3), and the report counts as sent once one has taken it.
func (r *Reporter) send(ctx context.Context, j *job) error {
	list, err := db.All(ctx, r.o.DB.Read(), func(rows *sql.Rows) (d delivery, err error) {
		err = rows.Scan(&d.rua, &d.host, &d.state, &d.attempts, &d.next, &d.answer)
		return d, err
	}, `SELECT rua, host, state, attempts, next, answer FROM report_delivery WHERE org = $1 AND day = $2 AND domain = $3 ORDER BY rua`, j.org, j.day, j.domain)
	if err != nil {
		return fmt.Errorf("reading where the report about %s goes: %w", j.domain, err)
	}
	next, accepted, last := int64(0), false, ""
	for i := range list {
		d := &list[i]
		if d.open() && d.next <= r.o.Now().UnixMicro() {
			if err := r.try(ctx, j, d); err != nil {
				return err
			}
		}
		if d.open() && (next == 0 || d.next < next) {
			next = d.next
		}
		accepted = accepted || d.state == toAccept
		last = string(d.state) + ": " + d.answer
	}
	switch {
	case next != 0:
		return r.set(ctx, j, `next = $4, lease = ''`, next)
	case accepted:
		return r.end(ctx, j, Sent, "")
	}
	return r.end(ctx, j, Failed, "no destination took it; the last was "+clip(last))
}

// try tries one destination and writes down what came of it.
func (r *Reporter) try(ctx context.Context, j *job, d *delivery) error {
	to, err := tlsrpt.ParseDestination(d.rua)
	switch {
	case err != nil: // it was stored by us
		return r.note(ctx, j, d, toFail, err.Error(), 0)
	case d.state == toHand, d.state == toSend && to.Scheme == tlsrpt.Mailto:
		return r.ask(ctx, j, d)
	case d.state == toSend:
		return r.note(ctx, j, d, toUnknown, interrupted, 0)
	}
	ok, err := r.begin(ctx, j, d)
	if err != nil || !ok {
		return err
	}
	if to.Scheme == tlsrpt.HTTPS {
		return r.post(ctx, j, d, to)
	}
	return r.mail(ctx, j, d, to)
}

// begin writes down that a destination is tried now, before it is: after a crash
// it is known that it may have been. It says no where the destination gets none.
func (r *Reporter) begin(ctx context.Context, j *job, d *delivery) (ok bool, err error) {
	now := r.o.Now()
	size := int64(len(j.body))
	var refusal DeliveryState
	var taken bool
	var why string
	err = r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
		refusal, why = "", ""
		until, reason, err := suppressedUntil(ctx, tx, j.org, kindRUA, d.rua)
		if err != nil {
			return err
		}
		var reports, bytes int64
		err = tx.QueryRowContext(ctx, `SELECT reports, bytes FROM report_flow WHERE org = $1 AND day = $2 AND host = $3`, j.org, dayOf(now), d.host).Scan(&reports, &bytes)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		switch {
		case until > now.UnixMicro():
			refusal, why = toSuppress, reason
		case reports+1 > r.o.Caps.Reports || bytes+size > r.o.Caps.Bytes:
			refusal, why = toCap, fmt.Sprintf("%s got %d reports and %d bytes today, which is enough", d.host, reports, bytes)
		}
		state := toSend
		if refusal != "" {
			state = refusal
		}
		res, err := tx.ExecContext(ctx,
			`UPDATE report_delivery SET state = $5, tried = $6, attempts = attempts + 1, answer = $7
			 WHERE org = $1 AND day = $2 AND domain = $3 AND rua = $4 AND state = 'waiting'`,
			j.org, j.day, j.domain, d.rua, state, now.UnixMicro(), clip(why))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil || n == 0 {
			taken = err == nil // by a node that took this one for dead
			return err
		}
		taken = false
		if refusal != "" {
			return nil
		}
		return addFlow(ctx, tx, j.org, dayOf(now), d.host, size)
	})
	if err != nil {
		return false, fmt.Errorf("noting that a report about %s is sent: %w", j.domain, err)
	}
	if taken {
		d.next = now.Add(askAgain).UnixMicro()
		return false, nil
	}
	d.attempts++
	if refusal != "" {
		d.state, d.answer = refusal, why
		return false, nil
	}
	d.state = toSend
	return true, nil
}

func addFlow(ctx context.Context, tx db.Tx, org, day, host string, size int64) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO report_flow (org, day, host, reports, bytes) VALUES ($1, $2, $3, 1, $4)
		 ON CONFLICT (org, day, host) DO UPDATE SET reports = report_flow.reports + 1, bytes = report_flow.bytes + excluded.bytes`,
		org, day, host, size)
	return err
}

// post submits a report over HTTPS.
func (r *Reporter) post(ctx context.Context, j *job, d *delivery, to tlsrpt.Destination) error {
	answer, err := r.o.Poster.Post(ctx, to, j.body)
	if ctx.Err() != nil && err != nil {
		return ctx.Err() // as after a crash, nobody knows whether it came
	}
	if err != nil {
		return r.again(ctx, j, d, err.Error())
	}
	said := answer.String()
	if answer.Certificate != "" {
		said += " (its certificate: " + answer.Certificate + ")"
	}
	switch {
	case answer.OK():
		return r.note(ctx, j, d, toAccept, said, 0)
	case answer.Final():
		return r.note(ctx, j, d, toFail, said, 0)
	}
	return r.again(ctx, j, d, said)
}

// mail signs a report and hands it over.
func (r *Reporter) mail(ctx context.Context, j *job, d *delivery, to tlsrpt.Destination) error {
	raw, err := r.message(j, d, to)
	if err != nil {
		return r.note(ctx, j, d, toFail, err.Error(), 0)
	}
	// Without a key nothing is sent: it MUST be signed (RFC 8460 §3).
	signed, err := r.o.Signer.Sign(r.o.Identity.Domain, service, raw)
	if err != nil {
		return r.again(ctx, j, d, "it could not be signed: "+err.Error())
	}
	handed, err := r.o.Mailer.Send(ctx, Mail{Org: j.org, ID: mailID(j, d), From: r.o.Identity.Contact, To: to.Mailbox, Data: signed})
	switch {
	case errors.Is(err, ErrRefused):
		return r.note(ctx, j, d, toFail, err.Error(), 0)
	case err != nil:
		return r.again(ctx, j, d, err.Error())
	}
	return r.handed(ctx, j, d, handed)
}

// message makes the mail of a report.
func (r *Reporter) message(j *job, d *delivery, to tlsrpt.Destination) ([]byte, error) {
	start, err := time.Parse(time.DateOnly, j.day)
	if err != nil {
		return nil, err
	}
	id := r.o.Identity
	return tlsrpt.Mail{
		From: id.Contact, To: to.Mailbox, Domain: j.domain, Submitter: id.Domain, ReportID: j.id + "@" + id.Domain,
		MessageID: mailID(j, d) + "@" + id.Domain, Date: r.o.Now(), Content: j.body,
		Filename: tlsrpt.Filename(id.Domain, j.domain, start, start.Add(24*time.Hour-time.Second), j.id, true),
		Text:     "This is an aggregate TLS report (RFC 8460) of " + id.Domain + " about" + "\r\n" + j.domain + " for " + j.day + ".",
	}.Message()
}

// mailID is the same for the same report to the same destination.
func mailID(j *job, d *delivery) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(j.id+"\x00"+d.rua)).String()
}

// ask finds out what became of a mail in the relay's queue.
func (r *Reporter) ask(ctx context.Context, j *job, d *delivery) error {
	handed, err := r.o.Mailer.Fate(ctx, j.org, mailID(j, d))
	switch {
	case errors.Is(err, ErrNotHanded) && d.state == toSend:
		return r.note(ctx, j, d, toWait, "", r.o.Now().UnixMicro())
	case errors.Is(err, ErrNotHanded):
		return r.note(ctx, j, d, toUnknown, "the relay's queue does not have it any more", 0)
	case errors.Is(err, ErrForgotten):
		return r.note(ctx, j, d, toUnknown, interrupted, 0)
	case err != nil: // it is asked again
		return fmt.Errorf("asking what became of the report about %s: %w", j.domain, err)
	}
	return r.handed(ctx, j, d, handed)
}

func (r *Reporter) handed(ctx context.Context, j *job, d *delivery, h Handed) error {
	switch {
	case h.Done && h.OK:
		return r.note(ctx, j, d, toAccept, h.Answer, 0)
	case h.Done:
		return r.note(ctx, j, d, toFail, h.Answer, 0)
	}
	return r.note(ctx, j, d, toHand, h.Answer, r.o.Now().Add(askAgain).UnixMicro())
}

// again puts a destination back for its next try, or gives it up where there is
// none within 24 hours of the first (RFC 8460 §5.5).
func (r *Reporter) again(ctx context.Context, j *job, d *delivery, why string) error {
	next := r.o.Now().Add(backoff(d.attempts - 1)).UnixMicro()
	if next > j.deadline {
		return r.note(ctx, j, d, toFail, "for 24 hours: "+why, 0)
	}
	return r.note(ctx, j, d, toWait, why, next)
}

// note writes down how far a destination has come. One that has failed for good
// is a step nearer to be suppressed; one that took a report is far from it again.
func (r *Reporter) note(ctx context.Context, j *job, d *delivery, state DeliveryState, answer string, next int64) error {
	d.state, d.answer, d.next = state, clip(answer), next
	now := r.o.Now()
	err := r.o.DB.Write(context.WithoutCancel(ctx), func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx,
			`UPDATE report_delivery SET state = $5, answer = $6, next = $7 WHERE org = $1 AND day = $2 AND domain = $3 AND rua = $4`,
			j.org, j.day, j.domain, d.rua, d.state, d.answer, d.next)
		if err != nil {
			return err
		}
		switch state {
		case toAccept:
			return forgive(ctx, tx, j.org, d.rua)
		case toFail:
			return blame(ctx, tx, j.org, d.rua, d.answer, now)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting what became of a report about %s: %w", j.domain, err)
	}
	return nil
}
