package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// maxRcpts is how many recipients one transaction has: what every server takes
// (RFC 5321 §4.5.3.1.8).
const maxRcpts = 100

// answer is what came of offering mail over a session.
type answer int

const (
	decisive   answer = iota // the host decided about the message: no other is asked
	indecisive               // another address or host may do better
	stale                    // a kept connection had died: nothing was said
)

// send offers what is left of the mail over a session, in as many transactions
// as it takes.
func (a *attempt) send(ctx context.Context, s *session, t *queue.Try) answer {
	if s.c.TLSState() == nil && !s.demand.PlaintextAllowed() {
		// Nothing leads here. Should it ever, the mail waits.
		a.soft, a.ours = true, true
		t.Why, t.Do = "a connection without TLS was about to be used where TLS is demanded", "Report a defect of pawl."
		a.note(t, ofTheHost)
		a.d.pool.retire(s)
		return decisive
	}
	if t.Reused {
		s.lines.reset()
		s.lines.full = a.full
	}
	sum := tally{mute: !s.c.Extensions().Has(smtp.DSN)}
	for rest := a.open; len(rest) > 0; {
		batch := rest[:min(len(rest), maxRcpts)]
		result, err := a.offer(ctx, s, batch)
		if t.Reused && sum.offered == 0 && s.gone(result, err) && !over(ctx) {
			a.d.pool.retire(s)
			return stale
		}
		again := a.takeIn(&sum, batch, result, err)
		if err != nil || s.c.Err() != nil || sum.busy {
			break
		}
		rest = slices.Concat(again, rest[len(batch):])
	}
	a.open = slices.DeleteFunc(slices.Clone(a.open), func(i int) bool {
		state := a.result.Recipients[i].State
		return state == queue.Delivered || state == queue.Failed
	})
	a.conclude(ctx, s, t, &sum)
	return sum.answer()
}

// offer makes one transaction.
func (a *attempt) offer(ctx context.Context, s *session, batch []int) (client.Result, error) {
	env, err := a.envelope(batch)
	if err != nil {
		return client.Result{}, fmt.Errorf("%w: %w", client.ErrEnvelope, err)
	}
	return s.c.Send(ctx, env, a.content)
}

// envelope is a part of the delivery, as it is sent.
func (a *attempt) envelope(batch []int) (client.Envelope, error) {
	m := &a.Message
	from, err := smtp.ParseMailbox(m.From, true)
	if err != nil {
		return client.Envelope{}, fmt.Errorf("the sender %q: %w", m.From, err)
	}
	env := client.Envelope{
		Mail: smtp.Mail{
			From: from, Size: m.Size, UTF8: m.SMTPUTF8, Ret: smtp.Ret(m.Ret), EnvID: m.EnvID, RequireTLS: m.RequireTLS,
		},
		Rcpts: make([]smtp.Rcpt, len(batch)),
	}
	if m.EightBit {
		env.Body = smtp.Body8Bit
	}
	for n, i := range batch {
		r, rcpt := &a.Recipients[i], &env.Rcpts[n]
		if rcpt.To, err = smtp.ParseMailbox(r.Addr, true); err != nil {
			return client.Envelope{}, fmt.Errorf("the recipient %q: %w", r.Addr, err)
		}
		// What does not parse was not taken in as such; without it mail still goes.
		if r.Notify != "" {
			rcpt.Notify, _ = smtp.ParseNotify(r.Notify)
		}
		if r.ORcpt != "" {
			rcpt.ORcpt, _ = smtp.ParseORcpt(r.ORcpt)
		}
	}
	return env, nil
}

// gone reports whether a session that was kept had ended before the message:
// nothing was said of it, or goodbye to its first command. A server that will
// take no more for now may only mean this connection. One that takes too long
// may have the message.
func (s *session) gone(r client.Result, err error) bool {
	if s.c.Err() == nil {
		return len(r.Rcpts) > 0 && r.Rcpts[0].Phase == client.Mail && r.Rcpts[0].Reply.Class() == 4
	}
	var closing *client.ReplyError
	var lost *client.ConnError
	switch {
	case errors.As(err, &closing):
		return errors.Is(err, client.ErrClosing) && (closing.Phase == client.Mail || closing.Phase == client.Reset)
	case errors.As(err, &lost):
		return !lost.Timeout() && !slices.ContainsFunc(r.Rcpts, func(o client.RcptResult) bool { return o.Reply.Code != 0 })
	}
	return false
}

// tally is what became of the recipients at one host.
type tally struct {
	offered, delivered, failed, deferred int

	said    string // the reply that matters most
	weight  int    // of that reply
	err     error  // what ended it
	busy    bool   // the host takes nothing now: another may
	lacking bool   // the host cannot take the message, or a part of it
	doubt   bool   // the message went out, and no reply came
	fault   string // of the message itself

	mute bool // the host does not do DSN: notifications of success are ours (RFC 3461 §5.2.2)
}

func (s *tally) answer() answer {
	switch {
	case s.doubt || s.fault != "":
		// Whatever another host says, this one may have taken it: to wait costs
		// less than a second copy.
		return decisive
	case s.err != nil || s.busy || s.lacking:
		return indecisive
	default:
		return decisive
	}
}

// says keeps the reply that matters most: the worst.
func (s *tally) says(reply string, weight int) {
	if weight > s.weight {
		s.said, s.weight = reply, weight
	}
}

// takeIn puts what one transaction came to into the result. It returns the
// recipients that were too many for it, and are to be offered again.
func (a *attempt) takeIn(sum *tally, batch []int, result client.Result, err error) (again []int) {
	sum.err = err
	if err != nil {
		a.takeInError(sum, err)
	}
	if len(result.Rcpts) == 0 || len(a.open) == 0 {
		return nil
	}
	progress := slices.ContainsFunc(result.Rcpts, func(o client.RcptResult) bool { return o.Delivered })
	for n, i := range batch {
		o := result.Rcpts[n]
		if progress && tooMany(o) {
			again = append(again, i)
			continue
		}
		sum.offered++
		a.met = a.met || o.Reply.Code != 0
		a.heed(o.Reply)
		r := a.Recipients[i]
		r.State, r.Reply = a.fate(sum, o)
		r.Relayed = sum.mute && r.State == queue.Delivered
		a.result.Recipients[i] = r
	}
	return again
}

// tooMany reports whether a recipient was refused because the transaction had
// enough of them. RFC 5321 §4.5.3.1.10 has 552 taken for 452.
func tooMany(o client.RcptResult) bool {
	if o.Phase != client.Rcpt || o.Reply.Code != 452 && o.Reply.Code != 552 {
		return false
	}
	return o.Reply.Enhanced == smtp.Enhanced{} || o.Reply.Enhanced[1] == 5 && o.Reply.Enhanced[2] == 3
}

// fate is the state and reply of one recipient.
func (a *attempt) fate(sum *tally, o client.RcptResult) (queue.RecipientState, string) {
	reply := o.Reply.String()
	if o.Delivered {
		sum.delivered++
		sum.says(reply, 1)
		return queue.Delivered, reply
	}
	var missing *client.MissingError
	switch {
	case errors.As(o.Err, &missing):
		sum.lacking = true
		sum.says(missing.Error(), 2)
		a.cannotTake(missing.Reply())
		return queue.Pending, missing.Reply().String()
	case o.Reply.Class() == 5:
		sum.failed++
		sum.says(reply, 4)
		return queue.Failed, reply
	}
	sum.deferred++
	a.soft = true
	if o.Reply.Class() == 4 {
		sum.busy = sum.busy || o.Reply.Code == 421 || o.Phase == client.Mail
		sum.says(reply, 3)
		return queue.Pending, reply
	}
	// RFC 5321 §6.1: a message that may have been taken is sent again.
	if o.Reply.Class() == 2 {
		var lost *client.ConnError
		sum.doubt = sum.doubt || errors.As(sum.err, &lost) && lost.Phase == client.End
	}
	if sum.err != nil {
		reply = oneLine(sum.err.Error())
	}
	sum.says(reply, 2)
	return queue.Pending, reply
}

// takeInError notes what ended a transaction, or kept it from beginning.
func (a *attempt) takeInError(sum *tally, err error) {
	var missing *client.MissingError
	var large *client.TooLargeError
	var body *client.BodyError
	var malformed *smtp.Error
	switch {
	case errors.As(err, &missing):
		sum.lacking = true
		a.cannotTake(missing.Reply())
	case errors.As(err, &large):
		sum.lacking = true
		a.cannotTake(large.Reply())
	case errors.Is(err, client.ErrEnvelope), errors.As(err, &body) && errors.As(err, &malformed):
		// No host would take it.
		sum.fault = "the message cannot be sent as it is: " + oneLine(err.Error())
		a.word = &word{status: "5.6.0", why: sum.fault, do: "Have the program that made the message repaired."}
		a.fail()
	case errors.As(err, &body):
		sum.fault = "the message could not be read: " + oneLine(err.Error())
		a.ours, a.soft = true, true
	default:
		a.soft = true
	}
	sum.says(oneLine(err.Error()), 2)
}

// cannotTake notes that a host cannot take the message. It fails if none can.
func (a *attempt) cannotTake(r smtp.Reply) {
	a.alone = true
	if a.word == nil {
		a.word = wordOf(r, "Send it in a form that the destination's servers take: the reply says what they lack.")
		a.word.settled = true
	}
}

// conclude writes down how it went, and keeps the connection if it is good for
// another message.
func (a *attempt) conclude(ctx context.Context, s *session, t *queue.Try, sum *tally) {
	s.uses++
	a.tellOf(ctx, s, sum.delivered > 0)
	t.OK = sum.delivered > 0
	a.said = sum.said
	w := ofSuccess
	if len(a.open) == 0 && sum.failed == 0 && sum.fault == "" {
		t.Why = s.verdict.Why + "; it took the mail: " + sum.said
	} else {
		w = a.explain(t, sum)
	}
	if a.full || w != ofSuccess {
		t.Lines = append(t.Lines, s.lines.take()...)
	}
	s.lines.reset()
	a.note(t, w)
	if s.c.Err() != nil || sum.busy || sum.lacking {
		a.d.pool.retire(s)
		return
	}
	a.d.pool.give(s)
}

// explain says why something is left, or failed.
func (a *attempt) explain(t *queue.Try, sum *tally) weight {
	switch who := fmt.Sprintf("%s [%s]", t.MX, t.Addr); {
	case sum.doubt:
		t.Why = who + " was sent the whole message and did not reply, so it may have taken it: " + oneLine(sum.err.Error())
		t.Do = "It is tried again by itself, and may come twice (RFC 5321 §6.1)."
	case sum.fault != "":
		t.Why, t.Do = sum.fault, a.do
		if a.ours {
			t.Do = "Look at pawl's data folder and its log; the message is tried again by itself."
		}
	case sum.failed > 0:
		t.Why = who + " refused it for good: " + sum.said + sum.counts()
		t.Do = "Read the reply: what the destination refused is not tried again."
	case sum.deferred > 0 && sum.err == nil:
		t.Why = who + " asks to try again later: " + sum.said + sum.counts()
		t.Do = "It is tried again by itself; the reply says what the destination waits for."
	default:
		t.Why = who + ": " + sum.said + sum.counts()
		t.Do = "It is tried again by itself."
		return ofTheNet
	}
	return ofTheMessage
}

// counts says how it went for several recipients.
func (s *tally) counts() string {
	if s.offered < 2 {
		return ""
	}
	return fmt.Sprintf(" (%d delivered, %d refused, %d put off)", s.delivered, s.failed, s.deferred)
}
