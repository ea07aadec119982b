package ledger

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/smtp/client"
)

// SmartHost hands reports to the operator's own MTA by SMTP. That MTA must send
// them on despite TLS failures, which TLS-Required: No asks it for, and without
// counting the session.
type SmartHost struct {
	Addr  string // HOST:PORT
	Hello string // this node's name
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error)
}

// smartHostTimeout caps one handover.
const smartHostTimeout = 2 * time.Minute

// Send implements [Mailer]. With a 250 the MTA has it, and the last word.
func (s *SmartHost) Send(ctx context.Context, m Mail) (Handed, error) {
	ctx, cancel := context.WithTimeout(ctx, smartHostTimeout)
	defer cancel()
	from, err := smtp.ParseMailbox(m.From, false)
	if err != nil {
		return Handed{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	to, err := smtp.ParseMailbox(m.To, false)
	if err != nil {
		return Handed{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	c, err := s.connect(ctx)
	if err != nil {
		return Handed{}, fmt.Errorf("connecting to %s: %w", s.Addr, err)
	}
	defer c.Quit(ctx)
	env := client.Envelope{
		Mail: smtp.Mail{From: from, Size: int64(len(m.Data))},
		// Nobody is told if it fails (RFC 3461 §4.1).
		Rcpts: []smtp.Rcpt{{To: to, Notify: smtp.NotifyNever}},
	}
	res, err := c.Send(ctx, env, client.Bytes(m.Data))
	if err != nil {
		return Handed{}, fmt.Errorf("handing a report to %s: %w", s.Addr, err)
	}
	reply := res.Rcpts[0].Reply
	switch {
	case res.Rcpts[0].Delivered:
		return Handed{Done: true, OK: true, Answer: s.Addr + ": " + reply.String()}, nil
	case reply.Class() == 5:
		return Handed{Done: true, Answer: s.Addr + ": " + reply.String()}, nil
	}
	return Handed{}, fmt.Errorf("%s answered %s", s.Addr, reply)
}

// connect opens a session, under TLS where that works: it is the operator's own
// MTA, and a report goes despite TLS failures (RFC 8460 §3).
func (s *SmartHost) connect(ctx context.Context) (*client.Client, error) {
	c, err := s.open(ctx)
	if err != nil || !c.Extensions().Has(smtp.StartTLS) {
		return c, err
	}
	host, _, _ := net.SplitHostPort(s.Addr)                                        // it was dialled
	err = c.StartTLS(ctx, &tls.Config{ServerName: host, InsecureSkipVerify: true}) //nolint:gosec // see above
	if err == nil {
		err = c.Hello(ctx)
	}
	if err == nil {
		return c, nil
	}
	_ = c.Close() // it is given up
	if ctx.Err() != nil {
		return nil, err
	}
	return s.open(ctx)
}

func (s *SmartHost) open(ctx context.Context) (*client.Client, error) {
	conn, err := s.Dial(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	c := client.New(conn, client.Options{Hello: s.Hello})
	if err := c.Hello(ctx); err != nil {
		_ = c.Close() // it is given up
		return nil, err
	}
	return c, nil
}

// Fate implements [Mailer]: whether a handover that was interrupted came to pass,
// only the MTA knows.
func (s *SmartHost) Fate(context.Context, string, string) (Handed, error) {
	return Handed{}, ErrForgotten
}
