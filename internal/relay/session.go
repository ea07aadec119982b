package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/server"
)

// session is one client's mail.
type session struct {
	relay *Relay
	conn  *server.Conn
	mail  smtp.Mail
	rcpts []queue.Destined

	inside bool // a transaction has passed the door
}

// NewSession implements [server.Backend].
func (r *Relay) NewSession(_ context.Context, c *server.Conn) (server.Session, error) {
	if r.door.closed() {
		return nil, errDraining
	}
	return &session{relay: r, conn: c}, nil
}

// Mail begins a message. Who may not relay is told so before anything else.
func (s *session) Mail(_ context.Context, m smtp.Mail) error {
	client := s.conn.Client().Addr()
	if !s.relay.mayRelay(client) {
		s.relay.refused.Add(1)
		return smtp.Errorf(550, smtp.Enhanced{5, 7, 1}, "%s may not relay here; its network is to be named in relay.networks", client.Unmap())
	}
	if s.inside = s.relay.door.enter(); !s.inside {
		return errDraining
	}
	s.mail, s.rcpts = m, s.rcpts[:0]
	return nil
}

// Rcpt adds a recipient, by the domain that decides how its mail goes.
func (s *session) Rcpt(_ context.Context, r smtp.Rcpt) error {
	domain, err := destination(r.To)
	if err != nil {
		s.relay.refused.Add(1)
		return err
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
	now := s.relay.opts.Now()
	b := s.relay.opts.Queue.Body()
	if _, err := b.Write(s.trace(id).line()); err != nil {
		b.Discard()
		return smtp.Reply{}, s.failed(id, err)
	}
	head := &headWatch{to: b}
	signing := s.relay.opts.Signer.Begin()
	if signing != nil {
		head.to = io.MultiWriter(b, signing)
	}
	if _, err := io.Copy(head, body); err != nil {
		b.Discard()
		return smtp.Reply{}, s.failed(id, err)
	}
	if n := countReceived(head.head); n >= maxReceived {
		b.Discard()
		s.relay.refused.Add(1)
		return smtp.Reply{}, smtp.Errorf(554, smtp.Enhanced{5, 4, 6}, "the message has passed %d hosts; it goes in circles", n)
	}
	if err := s.sign(id, signing, b); err != nil {
		b.Discard()
		return smtp.Reply{}, s.failed(id, err)
	}
	_, err := s.relay.opts.Queue.Enqueue(ctx, queue.Submission{
		Message: queue.Message{
			ID: id, From: s.mail.From.String(), Received: now, EightBit: s.mail.Body == smtp.Body8Bit, SMTPUTF8: s.mail.UTF8,
			RequireTLS: s.mail.RequireTLS, EnvID: s.mail.EnvID, Ret: string(s.mail.Ret), Client: s.conn.Client().Addr().Unmap(),
		},
		Recipients: s.rcpts, Body: b,
	})
	if err != nil {
		return smtp.Reply{}, s.failed(id, err)
	}
	s.relay.accepted.Add(1)
	return smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{"queued as " + id}}, nil
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
		Helo: s.conn.Hello(), Client: s.conn.Client().Addr().Unmap(), Hostname: s.relay.opts.Hostname,
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
		return err // the body itself was refused
	}
	s.relay.failed.Add(1)
	s.relay.opts.Log.Error("a message could not be taken; its sender was asked to try again",
		slog.String("message", id), slog.String("client", s.conn.Client().String()), slog.Any("err", err))
	if errors.Is(err, db.ErrFull) {
		return smtp.Errorf(452, smtp.Enhanced{4, 3, 1}, "there is no room for the message now")
	}
	return smtp.Errorf(451, smtp.Enhanced{4, 3, 0}, "the message could not be stored; try again later")
}

// Reset implements [server.Session].
func (s *session) Reset() {
	s.mail, s.rcpts = smtp.Mail{}, s.rcpts[:0]
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
