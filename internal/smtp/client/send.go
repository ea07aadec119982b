package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

const (
	// maxPipelined is how many commands go out before their replies are read.
	// More could leave both ends waiting for the other to read (RFC 2920 §3.1).
	maxPipelined = 100
	// maxChunk is the most that one BDAT carries.
	maxChunk = 1 << 20
	// smallMessage goes out along with its envelope where PIPELINING and
	// CHUNKING are offered: one round trip, at the price of having sent it in
	// vain if no recipient is taken.
	smallMessage = 64 << 10
)

// Result is what became of a message, for each recipient of its envelope.
type Result struct {
	Rcpts []RcptResult
}

// RcptResult is what became of a message for one recipient.
type RcptResult struct {
	Delivered bool // the server has taken the message for it
	// Reply is the last reply about it: to MAIL, RCPT, DATA or the message. The
	// zero Reply means that there was none; 2yz without Delivered that the
	// recipient was taken and the session ended before the message was: it may
	// have been, if the session ended in the phase [End].
	Reply smtp.Reply
	Phase Phase // of the reply
	// Err is a [*MissingError] where the recipient needs what the server does
	// not offer.
	Err error
}

// taken reports whether RCPT was accepted, and the message's fate is open.
func (r *RcptResult) taken() bool { return r.Phase == Rcpt && r.Reply.Class() == 2 }

// Send sends a message. It goes in one transaction, in as few round trips as the
// server's extensions allow: PIPELINING, CHUNKING.
//
// What the server does not offer is left out or refused, as its RFC says:
//   - the parameters of DSN, and SIZE, are left out;
//   - 8BITMIME and SMTPUTF8 are left out if the content has nothing beyond ASCII,
//     else the error is a [*MissingError]. A recipient whose address needs
//     SMTPUTF8 is left out with that error in its result;
//   - REQUIRETLS is a [*MissingError], unless the sender is null;
//   - a message beyond the server's SIZE is a [*TooLargeError].
//
// Without an error each recipient has its reply. With one that ends the session
// the results tell how far each had come; with any other nothing was sent.
// Env.Size is the exact size of the content, or 0 for unknown.
func (c *Client) Send(ctx context.Context, env Envelope, content Content) (Result, error) {
	leave, err := c.enter(ctx, Mail)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	if c.offered == nil {
		return Result{}, fmt.Errorf("%w: a message before EHLO", ErrEnvelope)
	}
	p, err := c.fit(env, content)
	if err != nil {
		return Result{}, err
	}
	t := &transaction{
		Client: c, plan: p, ctx: ctx, content: content,
		pipelined: c.offered.Has(smtp.Pipelining),
		chunked:   c.offered.Has(smtp.Chunking) && env.Size > 0 && !c.o.NoChunking,
		rcpts:     make([]RcptResult, len(env.Rcpts)),
	}
	err = t.run()
	return Result{Rcpts: t.rcpts}, err
}

// transaction is one [Client.Send].
type transaction struct {
	*Client
	*plan
	ctx                context.Context
	content            Content
	pipelined, chunked bool

	waiting []command // sent, or about to be, and not answered
	mailed  bool      // MAIL was accepted
	refused bool      // MAIL was refused
	goAhead bool      // DATA was
	ended   bool      // the message was refused or taken
	rcpts   []RcptResult
}

// command is one that awaits its reply.
type command struct {
	phase Phase
	rcpt  int
}

func (t *transaction) run() error {
	err := t.envelope()
	if err == nil && !t.ended {
		err = t.message()
	}
	var reply *ReplyError
	if errors.As(err, &reply) && (reply.Phase != Reset || errors.Is(err, ErrClosing)) {
		t.settleOpen(reply.Reply, reply.Phase) // 421 speaks for all that is open
	}
	return err
}

// envelope sends RSET where needed, MAIL, RCPT, and DATA where that is used. The
// replies may be left waiting if the message is to go out along with them.
func (t *transaction) envelope() error {
	defer t.took(Mail, time.Now())
	asked := false
	for i, err := range t.unfit {
		t.rcpts[i].Err = err
		asked = asked || err == nil
	}
	if !asked {
		t.ended = true
		return nil
	}
	if t.dirty {
		if err := t.put(command{phase: Reset}, []byte("RSET")); err != nil {
			return err
		}
	}
	t.dirty = true
	if err := t.put(command{phase: Mail}, t.command(0)); err != nil {
		return err
	}
	for i := range t.rcpts {
		if t.unfit[i] != nil || t.refused {
			continue
		}
		if err := t.put(command{Rcpt, i}, t.command(i+1)); err != nil {
			return err
		}
	}
	if t.inOneGo() {
		return nil
	}
	if !t.chunked && t.pipelined && !t.refused {
		if err := t.put(command{phase: Data}, []byte("DATA")); err != nil {
			return err
		}
	}
	if err := t.collect(); err != nil {
		return err
	}
	return t.permission()
}

// inOneGo reports whether the message goes out along with the envelope.
func (t *transaction) inOneGo() bool {
	return t.chunked && t.pipelined && t.mail.Size <= smallMessage && !t.refused
}

// permission sees to it that the message may be sent: that somebody is there to
// take it, and that DATA was answered with 354.
func (t *transaction) permission() error {
	taken := t.anyTaken()
	switch {
	case !taken && !t.goAhead:
		t.ended = true
		return nil
	case !taken && t.refused:
		return t.fail(&ProtocolError{Data, errors.New("the server refused MAIL and accepted DATA")})
	case !taken:
		return t.nothing()
	case t.chunked || t.goAhead || t.ended:
		return nil
	}
	if err := t.put(command{phase: Data}, []byte("DATA")); err != nil {
		return err
	}
	return t.collect()
}

// nothing ends a message for which no recipient was taken, though DATA was
// (RFC 2920 §3.1): the server is to refuse it.
func (t *transaction) nothing() error {
	t.ended = true
	_, err := t.ask(t.ctx, End, ".")
	return err
}

func (t *transaction) anyTaken() bool {
	for i := range t.rcpts {
		if t.rcpts[i].taken() {
			return true
		}
	}
	return false
}

// put adds a command, and collects the replies if it is time to.
func (t *transaction) put(cmd command, line []byte) error {
	t.line(line)
	t.waiting = append(t.waiting, cmd)
	if t.pipelined && len(t.waiting) < maxPipelined {
		return nil
	}
	return t.collect()
}

// collect sends what waits and takes in the replies.
func (t *transaction) collect() error {
	if len(t.waiting) == 0 {
		return nil
	}
	if err := t.flush(t.ctx, t.waiting[0].phase); err != nil {
		return err
	}
	for _, cmd := range t.waiting {
		r, err := t.reply(t.ctx, cmd.phase)
		if err == nil {
			err = t.settle(cmd, r)
		}
		if err != nil {
			return err
		}
	}
	t.waiting = t.waiting[:0]
	return nil
}

// settle takes in the reply to one command.
func (t *transaction) settle(cmd command, r smtp.Reply) error {
	class := r.Class()
	if (class == 3) != (cmd.phase == Data && class < 4) {
		return t.fail(&ProtocolError{cmd.phase, fmt.Errorf("the server answered with %q", r)})
	}
	switch cmd.phase {
	case Reset:
		if class != 2 {
			return t.fail(&ReplyError{Phase: Reset, Reply: r, BeforeTLS: t.state == nil})
		}
	case Mail:
		if t.mailed, t.refused = class == 2, class != 2; t.refused {
			t.settleOpen(r, Mail)
		}
	case Rcpt:
		if t.mailed {
			t.rcpts[cmd.rcpt] = RcptResult{Reply: r, Phase: Rcpt}
		}
	case Data:
		if t.goAhead = class == 3; !t.goAhead {
			t.settleTaken(r, Data)
		}
	case End:
		t.settleTaken(r, End)
		t.dirty = class != 2 || !t.mailed
	}
	return nil
}

// settleTaken is the reply that decides about the recipients that were taken.
func (t *transaction) settleTaken(r smtp.Reply, p Phase) {
	t.ended = true
	for i := range t.rcpts {
		if t.rcpts[i].taken() {
			t.rcpts[i] = RcptResult{Delivered: r.Class() == 2 && p == End, Reply: r, Phase: p}
		}
	}
}

// settleOpen is a refusal of all recipients about which nothing is decided.
func (t *transaction) settleOpen(r smtp.Reply, p Phase) {
	for i := range t.rcpts {
		if o := &t.rcpts[i]; o.Err == nil && (o.Reply.Code == 0 || o.taken()) {
			*o = RcptResult{Reply: r, Phase: p}
		}
	}
}

// message sends the content and takes in the reply to it.
func (t *transaction) message() error {
	defer t.took(End, time.Now())
	if t.o.Trace != nil {
		t.o.Trace(Remark, "the message follows, "+strconv.FormatInt(t.mail.Size, 10)+" octets")
	}
	if !t.chunked {
		if err := t.copyContent(t.content, smtp.NewDotWriter(blocks{t.Client, t.ctx})); err != nil {
			return err
		}
		t.waiting = append(t.waiting, command{phase: End})
		return t.collect()
	}
	k := newChunks(blocks{t.Client, t.ctx}, t.mail.Size)
	k.begin = func(size int64, last bool) error {
		line := strconv.AppendInt([]byte("BDAT "), size, 10)
		if last {
			line = append(line, " LAST"...)
			t.waiting = append(t.waiting, command{phase: End})
		}
		t.line(line)
		return nil
	}
	k.next = t.chunk
	if err := t.copyContent(t.content, k); err != nil {
		return err
	}
	return t.collect()
}

// chunk takes in the reply to a chunk that is not the last (RFC 3030 §2). It
// returns errRefused if nothing more of the message is wanted.
func (t *transaction) chunk() error {
	if err := t.flush(t.ctx, Body); err != nil {
		return err
	}
	r, err := t.reply(t.ctx, End)
	switch {
	case err != nil:
		return err
	case r.Class() == 2:
		return nil
	case r.Class() == 3:
		return t.fail(&ProtocolError{End, fmt.Errorf("the server answered BDAT with %q", r)})
	}
	t.settleTaken(r, End)
	return errRefused
}
