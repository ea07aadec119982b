package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"syscall"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

// session is one client's mail.
type session struct {
	relay  *Relay
	conn   *server.Conn
	client netip.Addr
	inside bool // a transaction has passed the door

	// Of the message that is under way:
	mail      smtp.Mail
	submitter Submitter // zero: the client relays without one
	parties   parties
	rcpts     []queue.Destined
}

// NewSession implements [server.Backend].
func (r *Relay) NewSession(_ context.Context, c *server.Conn) (server.Session, error) {
	if r.door.closed() {
		return nil, errDraining
	}
	return &session{relay: r, conn: c, client: c.Client().Addr().Unmap()}, nil
}

// Mail begins a message. Who may not relay is told so before anything else.
func (s *session) Mail(ctx context.Context, m smtp.Mail) error {
	sub, err := s.mayRelay(ctx)
	if err != nil {
		return s.refuse(NotAllowed, m, err)
	}
	if err := maySend(sub, m.From); err != nil {
		return s.refuse(WrongSender, m, err)
	}
	if s.inside = s.relay.door.enter(); !s.inside {
		return errDraining
	}
	if err := s.admit(m, sub); err != nil {
		s.leave()
		return err
	}
	return nil
}

// admit takes the message into account, if there is room for it and its parties
// have not sent too much.
func (s *session) admit(m smtp.Mail, sub Submitter) error {
	if err := s.relay.room.admit(m.Size); err != nil {
		return s.refuse(NoRoom, m, err)
	}
	p := partiesOf(s.client, m.From, sub.Name)
	if err := s.relay.counters.message(p); err != nil {
		return s.refuse(OverLimit, m, err)
	}
	s.mail, s.submitter, s.parties, s.rcpts = m, sub, p, s.rcpts[:0]
	return nil
}

// mayRelay returns the submitter of a client that has logged in, the zero one
// for a client whose network or certificate may relay, and a refusal for the
// rest of the world.
func (s *session) mayRelay(ctx context.Context) (Submitter, error) {
	if user := s.conn.User(); user != "" {
		sub, err := s.relay.opts.Submitters.Submitter(ctx, user)
		if errors.Is(err, ErrNoLogin) {
			return sub, smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "%s may not relay here any longer", printable(user))
		}
		return sub, err
	}
	if s.relay.ours(s.relay.live.Load().Networks, s.client) || s.relay.identity.Load().trusts(s.conn.TLS(), s.relay.opts.Now()) {
		return Submitter{}, nil
	}
	return Submitter{}, smtp.Errorf(550, smtp.Enhanced{5, 7, 1},
		"%s may not relay here; log in, or have its network named in relay.networks or its certificate in relay.clients", s.client)
}

// maySend refuses what is not the submitter's to send as. The null sender is
// everybody's, for notifications.
func maySend(sub Submitter, from smtp.Path) error {
	if sub.Name == "" || from.IsNull() {
		return nil
	}
	domain, err := resolve.Name(from.Domain)
	if err == nil && sub.MaySend(from.Local, domain) {
		return nil
	}
	return smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "%s may not send as %s", sub.Name, printable(from.String()))
}

// refuse counts and logs a refusal.
func (s *session) refuse(why Reason, m smtp.Mail, err error) error {
	s.relay.refused[why].Add(1)
	s.relay.opts.Log.Info("refused", slog.String("reason", string(why)), slog.String("client", s.conn.Client().String()),
		slog.String("submitter", s.conn.User()), slog.String("from", m.From.String()), slog.Any("reply", err))
	return err
}

// Rcpt adds a recipient, by the domain that decides how its mail goes.
func (s *session) Rcpt(_ context.Context, r smtp.Rcpt) error {
	domain, err := destination(r.To)
	if err != nil {
		return s.refuse(BadRecipient, s.mail, err)
	}
	if most := s.relay.opts.Limits.NullRecipients; s.mail.From.IsNull() && len(s.rcpts) >= most {
		// RFC 5321 §4.5.3.1.10
		return s.refuse(OverLimit, s.mail, smtp.Errorf(452, smtp.Enhanced{4, 5, 3},
			"a message from the null sender goes to %d recipients at most", most))
	}
	if err := s.relay.counters.recipient(s.parties); err != nil {
		return s.refuse(OverLimit, s.mail, err)
	}
	d := queue.Destined{Domain: domain, Recipient: queue.Recipient{Addr: r.To.String(), Notify: r.Notify.String()}}
	if r.ORcpt.Addr != "" {
		d.ORcpt = r.ORcpt.String()
	}
	s.rcpts = append(s.rcpts, d)
	return nil
}

// destination is the domain that a recipient's mail goes to, in A-labels.
func destination(to smtp.Path) (string, error) {
	if to.Domain == "" {
		return "", smtp.Errorf(550, smtp.Enhanced{5, 1, 3}, "a recipient needs a domain; this relay has no mailboxes of its own")
	}
	if _, literal := to.Literal(); literal || to.Domain[0] == '[' {
		// RFC 8461 §3.4: an address literal has no policy to protect it.
		return "", smtp.Errorf(550, smtp.Enhanced{5, 1, 2}, "mail to address literals is not relayed; write the recipient's domain")
	}
	domain, err := resolve.Name(to.Domain)
	if err != nil {
		return "", smtp.Errorf(553, smtp.Enhanced{5, 1, 2}, "%q is not a domain name", to.Domain)
	}
	return domain, nil
}

// Data takes the message into the queue. The reply is given after the commit.
func (s *session) Data(ctx context.Context, body *server.Body) (smtp.Reply, error) {
	id := db.NewID()
	b := s.relay.opts.Queue.Body()
	defer b.Discard() // of what the queue did not take
	if _, err := b.Write(s.trace(id).line()); err != nil {
		return smtp.Reply{}, s.failed(id, err)
	}
	signing := s.relay.opts.Signer.Begin()
	var to io.Writer = b
	if signing != nil {
		to = io.MultiWriter(b, signing)
	}
	h, err := copyBody(to, body)
	if err != nil {
		return smtp.Reply{}, s.failed(id, err)
	}
	if n := h.received(); n >= maxReceived {
		return smtp.Reply{}, s.refuse(Loop, s.mail, smtp.Errorf(554, smtp.Enhanced{5, 4, 6}, "the message has passed %d hosts; it goes in circles", n))
	}
	if err := s.sign(id, signing, b); err != nil {
		return smtp.Reply{}, s.failed(id, err)
	}
	size := b.Size()
	if err := s.relay.room.admit(size); err != nil {
		return smtp.Reply{}, s.refuse(NoRoom, s.mail, err)
	}
	m := s.message(id, h)
	if _, err := s.relay.opts.Queue.Enqueue(ctx, queue.Submission{Message: m, Recipients: s.rcpts, Body: b}); err != nil {
		return smtp.Reply{}, s.failed(id, err)
	}
	s.relay.room.took(size, len(s.rcpts))
	s.relay.accepted.Add(1)
	s.relay.opts.Log.LogAttrs(ctx, slog.LevelInfo, "accepted", slog.String("message", id), slog.String("from", m.From),
		slog.Int("recipients", len(s.rcpts)), slog.Int64("size", size), slog.String("client", m.Client.String()), slog.String("submitter", s.submitter.Name))
	return smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{"queued as " + id}}, nil
}

// message is what the queue is told of it.
func (s *session) message(id string, h header) queue.Message {
	return queue.Message{
		Org: s.submitter.Org, ID: id, From: s.mail.From.String(), Received: s.relay.opts.Now(), EightBit: s.mail.Body == smtp.Body8Bit,
		SMTPUTF8: s.mail.UTF8, RequireTLS: s.mail.RequireTLS, TLSOptional: s.waives(h), Bulk: h.bulk(), EnvID: s.mail.EnvID, Ret: string(s.mail.Ret), Client: s.client,
	}
}

// waives reports whether the message waives TLS by its header (RFC 8689 §3) and
// its sender may do that. The parameter REQUIRETLS beats the header (§4.1).
func (s *session) waives(h header) bool {
	if s.mail.RequireTLS || !h.tlsRequiredNo() {
		return false
	}
	if s.submitter.TLSOptional || s.relay.ours(s.relay.opts.TLSOptional, s.client) {
		s.relay.waived.Add(1)
		return true
	}
	s.relay.notWaived.Add(1)
	return false
}

// sign puts the message's signatures in front of it. What cannot be signed for
// what it is goes as it is; a key that does not work makes the client wait.
func (s *session) sign(id string, m *dkim.Message, b *queue.Body) error {
	if m == nil {
		return nil
	}
	fields, err := m.Close()
	if errors.Is(err, dkim.ErrUnsigned) {
		s.relay.opts.Log.Warn("relay: taken without a DKIM signature", slog.String("message", id), slog.Any("err", err))
		return nil
	}
	if err != nil || len(fields) == 0 {
		return err
	}
	return b.Prepend(fields)
}

// trace is the Received line of this message.
func (s *session) trace(id string) trace {
	t := trace{
		Helo: s.conn.Hello(), Client: s.client, Hostname: s.relay.opts.Hostname,
		Protocol: s.conn.Protocol(s.mail.UTF8), ID: id, At: s.relay.opts.Now(),
	}
	if len(s.rcpts) == 1 {
		t.For = s.rcpts[0].Addr
	}
	if state := s.conn.TLS(); state != nil {
		t.TLS = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	}
	return t
}

// failed says why a message could not be taken now. The client keeps it.
func (s *session) failed(id string, err error) error {
	var reply *smtp.Error
	if errors.As(err, &reply) {
		return err // the body itself was refused, which the server counts
	}
	s.relay.refused[NotStored].Add(1)
	s.relay.opts.Log.Error("a message could not be taken; its sender was asked to try again",
		slog.String("message", id), slog.String("client", s.conn.Client().String()), slog.Any("err", err))
	if errors.Is(err, db.ErrFull) || errors.Is(err, syscall.ENOSPC) {
		return smtp.Errorf(452, smtp.Enhanced{4, 3, 1}, "there is no room for the message now")
	}
	return smtp.Errorf(451, smtp.Enhanced{4, 3, 0}, "the message could not be stored; try again later")
}

// Reset implements [server.Session].
func (s *session) Reset() {
	s.mail, s.submitter, s.parties, s.rcpts = smtp.Mail{}, Submitter{}, parties{}, s.rcpts[:0]
	s.leave()
}

// Close implements [server.Session].
func (s *session) Close() { s.leave() }

func (s *session) leave() {
	if s.inside {
		s.inside = false
		s.relay.door.leave()
	}
}

// copyBody writes the message to the queue's body and returns its header section.
func copyBody(to io.Writer, from *server.Body) (header, error) {
	if all, ok := from.Bytes(); ok {
		_, err := to.Write(all)
		return cutHeader(all), err
	}
	w := &headWatch{to: to}
	_, err := io.Copy(w, from)
	return cutHeader(w.head), err
}

// headWatch writes on and keeps the beginning, for the header section.
type headWatch struct {
	to   io.Writer
	head []byte
	done bool // the header section has ended
}

func (w *headWatch) Write(p []byte) (int, error) {
	if !w.done {
		w.head = append(w.head, p[:min(len(p), maxHeader-len(w.head))]...)
		w.done = len(w.head) == maxHeader || bytes.Contains(w.head, []byte("\r\n\r\n"))
	}
	return w.to.Write(p)
}
