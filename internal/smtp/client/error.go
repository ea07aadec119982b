package client

import (
	"errors"
	"fmt"
	"net"

	"github.com/pawl-mail/pawl/internal/smtp"
)

var (
	// ErrClosing matches a reply of 421, which a server may give to anything:
	// it closes the connection (RFC 5321 §3.8).
	ErrClosing = errors.New("the server closes the connection")
	// ErrClosed is what a client has for an error after [Client.Quit] or
	// [Client.Close].
	ErrClosed = errors.New("the session was ended")
	// ErrTLSActive is returned by a second [Client.StartTLS] (RFC 3207 §4.2).
	ErrTLSActive = errors.New("the session is under TLS already")
	// ErrEnvelope is wrapped by errors about an envelope that cannot be put
	// into commands: no recipients, a control character in an address.
	ErrEnvelope = errors.New("unusable envelope")
)

// ReplyError is a reply that refuses what the session cannot go on without.
type ReplyError struct {
	Phase Phase
	Reply smtp.Reply
	// BeforeTLS: anybody on the way may have written the reply. Under a policy
	// that demands TLS it is no word of the destination's.
	BeforeTLS bool
}

func (e *ReplyError) Error() string {
	return fmt.Sprintf("the server answered %s with %q", e.Phase, e.Reply)
}

// Temporary reports whether the same may succeed later (4yz).
func (e *ReplyError) Temporary() bool { return e.Reply.Class() == 4 }

// Is makes a reply of 421 [ErrClosing].
func (e *ReplyError) Is(target error) bool { return target == ErrClosing && e.Reply.Code == 421 }

// Unwrap returns the reply as an [*smtp.Error].
func (e *ReplyError) Unwrap() error { return e.Reply.Err() }

// StartTLSRefused is a refusal of a STARTTLS command that EHLO offered. The
// session goes on without TLS, if the caller wants that.
type StartTLSRefused struct{ Reply smtp.Reply }

func (e *StartTLSRefused) Error() string {
	return fmt.Sprintf("the server offered STARTTLS and answered it with %q", e.Reply)
}

// Temporary reports whether the reply was 4yz.
func (e *StartTLSRefused) Temporary() bool { return e.Reply.Class() == 4 }

// ResultType returns the result type of RFC 8460 §4.3.1.
func (e *StartTLSRefused) ResultType() string { return "starttls-not-supported" }

// FailureReason returns the failure-reason-code for TLS-RPT.
func (e *StartTLSRefused) FailureReason() string { return "starttls-refused" }

// HandshakeError is a TLS handshake that failed. It wraps what crypto/tls or the
// network said, or the context's error if that ended it.
type HandshakeError struct{ Err error }

func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }

// Unwrap returns Err.
func (e *HandshakeError) Unwrap() error { return e.Err }

// InjectionError says that octets in clear followed the reply to STARTTLS, before
// the handshake: somebody wants them to be taken for replies under TLS
// (CVE-2011-0411 and its like). The connection is ended.
type InjectionError struct {
	Octets int // how many were there
}

func (e *InjectionError) Error() string {
	return fmt.Sprintf("%d octets in clear came behind the reply to STARTTLS", e.Octets)
}

// ResultType returns the result type of RFC 8460 §4.3.1.
func (e *InjectionError) ResultType() string { return "validation-failure" }

// FailureReason returns the failure-reason-code for TLS-RPT.
func (e *InjectionError) FailureReason() string { return "replies-injected" }

// ConnError says that the connection failed or that time ran out. It wraps the
// network's error, or the context's where that ended it.
type ConnError struct {
	Phase Phase
	Err   error
}

func (e *ConnError) Error() string { return fmt.Sprintf("connection lost at %s: %v", e.Phase, e.Err) }

// Unwrap returns Err.
func (e *ConnError) Unwrap() error { return e.Err }

// Timeout reports whether the server took too long.
func (e *ConnError) Timeout() bool {
	var timeout net.Error
	return errors.As(e.Err, &timeout) && timeout.Timeout()
}

// ProtocolError says that the server does not speak SMTP: a malformed reply, or
// one that cannot follow on what was sent. It wraps an [*smtp.ReplyError] in the
// former case.
type ProtocolError struct {
	Phase Phase
	Err   error
}

func (e *ProtocolError) Error() string { return fmt.Sprintf("no SMTP at %s: %v", e.Phase, e.Err) }

// Unwrap returns Err.
func (e *ProtocolError) Unwrap() error { return e.Err }

// MissingError says that a message, or a recipient, needs an extension that the
// server does not offer. Nothing was sent.
type MissingError struct {
	Extension string // as smtp.SMTPUTF8
	Why       string // what needs it
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the server does not offer %s, and %s", e.Extension, e.Why)
}

// Reply returns the reply with which a message is refused for it, by RFC 6152 §3,
// RFC 6531 §3.5 and RFC 8689 §4.2.1.
func (e *MissingError) Reply() smtp.Reply {
	enhanced := smtp.Enhanced{5, 3, 3}
	switch e.Extension {
	case smtp.EightBitMIME:
		enhanced = smtp.Enhanced{5, 6, 3}
	case smtp.SMTPUTF8:
		enhanced = smtp.Enhanced{5, 6, 7}
	case smtp.RequireTLS:
		enhanced = smtp.Enhanced{5, 7, 30}
	}
	return smtp.Errorf(550, enhanced, "%s", e.Error()).Reply()
}

// TooLargeError says that a message is larger than the server takes by its SIZE
// extension (RFC 1870 §6.1). Nothing was sent.
type TooLargeError struct{ Size, Max int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the message has %d octets, and the server takes %d", e.Size, e.Max)
}

// Reply returns the reply with which a message is refused for it.
func (e *TooLargeError) Reply() smtp.Reply {
	return smtp.Errorf(552, smtp.Enhanced{5, 3, 4}, "%s", e.Error()).Reply()
}

// BodyError says that a message's content cannot be sent: a bare CR or LF
// ([*smtp.Error]), another size than said, or an error of the reader. What was
// sent of it was not ended, and the connection was: no server may take the part
// for the whole.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return "the message's content: " + e.Err.Error() }

// Unwrap returns Err.
func (e *BodyError) Unwrap() error { return e.Err }
