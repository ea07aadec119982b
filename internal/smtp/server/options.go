package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Defaults of [Limits].
const (
	MaxSize        = 50 << 20 // octets of a message
	MaxConnections = 10_000
	MaxPerClient   = 200
	MaxRecipients  = 1_000 // RFC 5321 §4.5.3.1.8 asks for 100 at least
	MaxIdling      = 200
	MaxErrors      = 20
	MaxAuthErrors  = 3
)

// Defaults of [Timeouts].
const (
	CommandTimeout   = 5 * time.Minute // RFC 5321 §4.5.3.2.7
	ContentTimeout   = 5 * time.Minute // §4.5.3.2.5 lets a client take 3 for a block
	MessageTimeout   = time.Hour
	WriteTimeout     = 2 * time.Minute
	HandshakeTimeout = time.Minute
	AnswerTimeout    = 4 * time.Minute // a client waits for 5 (§4.5.3.2.2 and .3)
	AcceptTimeout    = 9 * time.Minute // a client waits for 10 (§4.5.3.2.6)
)

// Options are what a server needs. Hostname and Backend must be given.
type Options struct {
	// Hostname is the name by which the server calls itself.
	Hostname string
	// Backend decides about mail.
	Backend Backend
	// TLS makes STARTTLS be offered, and [Server.ServeTLS] possible; nil not.
	// Certificates of clients are asked for and judged as it says.
	TLS *tls.Config
	// TLSOnly takes no mail in clear: 530 to all but EHLO, NOOP, STARTTLS and
	// QUIT. It is not for an MX host (RFC 3207 §4).
	TLSOnly bool
	// Auth checks what a client says it is, and returns the name to go by. AUTH
	// is offered if it is set, under TLS only. Its error is the reply as that of
	// a [Session] is; [ErrCredentials] is the common one.
	Auth func(ctx context.Context, c *Conn, cred Credentials) (user string, err error)
	// ProxyNetworks are the load balancers: a connection from there must begin
	// with a PROXY header, version 1 or 2, one from elsewhere may not.
	ProxyNetworks []netip.Prefix
	// Without names extensions that are not offered, as [smtp.Chunking].
	Without  []string
	Limits   Limits
	Timeouts Timeouts
	// Log gets what the operator may want to know; nil drops it.
	Log *slog.Logger
}

// Limits are what a client may use. A field that is 0 has its default.
type Limits struct {
	Size        int64 // octets of a message
	Connections int   // at a time, in all
	PerClient   int   // at a time, from one IPv4 address or IPv6 /64
	Recipients  int   // of a message: 452 beyond
	Idling      int   // commands that lead to no mail, since the last mail
	Errors      int   // replies of 5yz, since the last mail
	AuthErrors  int   // of a connection
}

// Timeouts are how long each step may take. A field that is 0 has its default.
type Timeouts struct {
	Command   time.Duration // for a whole command line to come
	Content   time.Duration // for the next octets of a message
	Message   time.Duration // for the whole content of a message
	Write     time.Duration // for replies to go out
	Handshake time.Duration // for PROXY header and TLS handshake, each
	Answer    time.Duration // for a callback other than Data
	Accept    time.Duration // for Data, from the end of the content
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// filled returns the options with defaults in place of zero values.
func (o Options) filled() (Options, error) {
	switch {
	case o.Hostname == "":
		return o, errors.New("smtp server: no hostname given")
	case o.Backend == nil:
		return o, errors.New("smtp server: no backend given")
	case o.TLS == nil && (o.TLSOnly || o.Auth != nil):
		return o, errors.New("smtp server: TLS only and AUTH need a TLS configuration")
	}
	o.Limits = o.Limits.filled()
	orDefault(&o.Timeouts.Command, CommandTimeout)
	orDefault(&o.Timeouts.Content, ContentTimeout)
	orDefault(&o.Timeouts.Message, MessageTimeout)
	orDefault(&o.Timeouts.Write, WriteTimeout)
	orDefault(&o.Timeouts.Handshake, HandshakeTimeout)
	orDefault(&o.Timeouts.Answer, AnswerTimeout)
	orDefault(&o.Timeouts.Accept, AcceptTimeout)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// filled returns the limits with defaults in place of zero values.
func (l Limits) filled() Limits {
	orDefault(&l.Size, MaxSize)
	orDefault(&l.Connections, MaxConnections)
	orDefault(&l.PerClient, MaxPerClient)
	orDefault(&l.Recipients, MaxRecipients)
	orDefault(&l.Idling, MaxIdling)
	orDefault(&l.Errors, MaxErrors)
	orDefault(&l.AuthErrors, MaxAuthErrors)
	return l
}

// offers reports whether the options leave an extension on.
func (o *Options) offers(keyword string) bool {
	return !slices.ContainsFunc(o.Without, func(w string) bool { return strings.EqualFold(w, keyword) })
}

// Backend takes connections.
type Backend interface {
	// NewSession is called before the greeting, and again after STARTTLS, when
	// the old session is closed. An [*smtp.Error] is told to the client and ends
	// the connection, as does any other error with 421.
	NewSession(ctx context.Context, c *Conn) (Session, error)
}

// Session decides about the mail of one connection, command by command. Its
// methods are called one at a time.
//
// An [*smtp.Error] is the reply to the client, word for word, and one of 421
// ends the connection. Any other error is logged and answered 451 4.3.0.
// A context ends when the client goes away, the server stops at once, or the
// answer would come too late for the client.
type Session interface {
	// Mail begins a transaction.
	Mail(ctx context.Context, m smtp.Mail) error
	// Rcpt adds a recipient.
	Rcpt(ctx context.Context, r smtp.Rcpt) error
	// Data takes the message. With a nil error the client is told the reply, or
	// 250 2.0.0 if that is zero, and the message is the session's to answer for.
	// If reading the body fails, the message must be discarded: the client is
	// told so whatever Data returns.
	Data(ctx context.Context, body *Body) (smtp.Reply, error)
	// Reset is called when a transaction that Mail let begin is over, whether
	// by Data or without.
	Reset()
	// Close is called once, at the end.
	Close()
}
