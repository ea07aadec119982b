package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/pawl-mail/pawl/internal/outcome"
)

// The failure-reason-codes of this package (RFC 8460 §4.3). They are stable.
// Those of DANE are package dane's.
const (
	ReasonMXMismatch       = "mx-mismatch"                  // validation-failure: no pattern of the policy matches the host
	ReasonNotOffered       = "starttls-not-offered"         // starttls-not-supported
	ReasonRefused          = "starttls-refused"             // starttls-not-supported: offered, and then refused
	ReasonTimeout          = "handshake-timeout"            // validation-failure
	ReasonClosed           = "handshake-closed"             // validation-failure: the connection ended
	ReasonNotTLS           = "not-tls"                      // validation-failure
	ReasonAlert            = "tls-alert"                    // validation-failure; the alert's name follows: tls-alert-handshake-failure
	ReasonMalformed        = "certificate-malformed"        // validation-failure
	ReasonHandshake        = "handshake-failed"             // validation-failure: in any other way
	ReasonVersion          = "tls-version"                  // validation-failure: older than TLS 1.2
	ReasonCipher           = "tls-cipher"                   // validation-failure: a weak cipher suite
	ReasonNoCertificate    = "no-certificate"               // validation-failure
	ReasonSelfSigned       = "certificate-self-signed"      // certificate-not-trusted
	ReasonIncomplete       = "certificate-chain-incomplete" // certificate-not-trusted: an issuer was not sent along
	ReasonNotTrusted       = "certificate-not-trusted"      // certificate-not-trusted: the chain ends at an unknown root
	ReasonInvalid          = "certificate-invalid"          // certificate-not-trusted: constraints, key usage, signature
	ReasonNoRoots          = "no-trusted-roots"             // certificate-not-trusted: this machine has none
	ReasonNotYetValid      = "certificate-not-yet-valid"    // certificate-not-trusted
	ReasonExpired          = "certificate-expired"          // certificate-expired
	ReasonCommonNameAlone  = "certificate-cn-only"          // certificate-host-mismatch: the name is in the common name only
	ReasonHostMismatch     = "certificate-host-mismatch"    // certificate-host-mismatch
	ReasonPolicyMissing    = "policy-not-at-hand"           // validation-failure: a demand names no policy to check
	ReasonMXNotSecure      = "mx-not-secure"                // REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the host's name
	ReasonNotAuthenticated = "not-authenticated"            // a demand that nothing fulfils
)

// flaw is one thing that a connection lacks.
type flaw struct {
	result  outcome.ResultType
	reason  string
	text    string // what the host did, as "offered no STARTTLS"
	section string // where it is asked for; empty: where the policy is defined
	do      string // one sentence
}

func (f *flaw) failure() *outcome.Failure {
	if f == nil {
		return nil
	}
	return &outcome.Failure{Result: f.result, Reason: f.reason, Info: f.text}
}

// noTLS says why there is no TLS session, nil if there is one.
func noTLS(s Seen) *flaw {
	switch {
	case s.HandshakeErr != nil:
		return handshakeFlaw(s.HandshakeErr)
	case s.State != nil && s.State.HandshakeComplete:
		return nil
	case s.STARTTLSOffered:
		return &flaw{
			result: outcome.StartTLSNotSupported, reason: ReasonRefused,
			text: fmt.Sprintf("offered STARTTLS and answered it with %q", clean(s.Reply)),
			do:   "Ask the host's operator why TLS is not to be had, unless somebody on the way answers in the host's place.",
		}
	default:
		return &flaw{
			result: outcome.StartTLSNotSupported, reason: ReasonNotOffered, text: "offered no STARTTLS",
			do: "Ask the host's operator to offer STARTTLS; if the host does offer it to others, somebody on the way takes it out.",
		}
	}
}

// classified is an error that knows what TLS-RPT calls it: those of the SMTP
// client are.
type classified interface {
	error
	ResultType() string
	FailureReason() string
}

// handshakeFlaw classifies an error of the STARTTLS command or of the handshake.
func handshakeFlaw(err error) *flaw {
	f := &flaw{
		result: outcome.ValidationFailure, reason: ReasonHandshake,
		text: "did not complete the TLS handshake: " + clean(err.Error()),
		do:   "Ask the host's operator to check its TLS set-up; if others reach it over TLS, somebody on the way breaks the handshake.",
	}
	var known classified
	var remote *net.OpError
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &known):
		f.result, f.reason = outcome.ResultType(known.ResultType()), known.FailureReason()
		f.text = "did not come to a TLS session: " + clean(known.Error())
	case errors.As(err, &record):
		f.reason, f.text = ReasonNotTLS, "answered the TLS handshake with something that is not TLS"
	case errors.As(err, &remote) && remote.Op == "remote error":
		alert := strings.TrimPrefix(remote.Err.Error(), "tls: ")
		f.reason = ReasonAlert + "-" + strings.ReplaceAll(strings.ToLower(alert), " ", "-")
		f.text = fmt.Sprintf("broke the TLS handshake off with the alert %q", clean(alert))
		if strings.Contains(alert, "protocol version") {
			f.reason, f.do = ReasonVersion, adviceVersion
		}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		f.reason, f.text = ReasonTimeout, "did not finish the TLS handshake in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f.reason, f.text = ReasonClosed, "closed the connection in the middle of the TLS handshake"
	// crypto/tls has no types for these.
	case strings.Contains(err.Error(), "unsupported protocol version"):
		f.reason, f.do = ReasonVersion, adviceVersion
		f.text = "has nothing newer than TLS 1.1"
	case strings.Contains(err.Error(), "failed to parse certificate"):
		f.reason, f.text = ReasonMalformed, "showed a certificate that cannot be read: "+clean(err.Error())
		f.do = "Ask the host's operator to replace the certificate."
	}
	return f
}

const (
	adviceVersion = "Ask the host's operator to allow TLS 1.2 or 1.3; if it does allow them, somebody on the way tampers with the handshake."
	adviceCipher  = "Ask the host's operator to allow ECDHE cipher suites with AES-GCM or ChaCha20-Poly1305."
)

// weakTLS says what is too weak about a session for authentication to mean
// anything. A handshake that was strict from the start has neither.
func weakTLS(s *tls.ConnectionState) *flaw {
	switch {
	case s.Version < tls.VersionTLS12:
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonVersion,
			text:    "agreed to nothing newer than " + tls.VersionName(s.Version),
			section: "RFC 8461 §7.2", do: adviceVersion,
		}
	case weakSuite(s.CipherSuite):
		return &flaw{
			result: outcome.ValidationFailure, reason: ReasonCipher,
			text:    "chose the weak cipher suite " + tls.CipherSuiteName(s.CipherSuite),
			section: "RFC 9325 §4.1", do: adviceCipher,
		}
	}
	return nil
}
