// Package smtp holds the words that both ends of an SMTP connection share:
// replies and errors with their enhanced codes (RFC 3463, RFC 2034), paths and
// parameters of MAIL and RCPT (RFC 5321 §4.1.2, RFC 3461, RFC 6531, RFC 8689),
// the extensions of an EHLO reply, lines, and the content of DATA.
//
// Everything here takes hostile input: only CR LF ends a line, only CR LF dot
// CR LF ends a message, every length has a named limit, and nothing that comes
// in can put a control character into what goes out.
package smtp

// Limits of what comes in. The RFC's figures are minimums that must be taken;
// where these are larger, real mail is.
const (
	// MaxCommandLine is the longest command line in octets, with its CR LF:
	// 512 (RFC 5321 §4.5.3.1.4) and what the extensions of MAIL and RCPT add.
	MaxCommandLine = 2048
	// MaxAuthLine is the longest line of an AUTH exchange (RFC 4954 §4).
	MaxAuthLine = 12288
	// MaxReplyLine is the longest reply line read, with its CR LF; 512 by
	// RFC 5321 §4.5.3.1.5, more in the wild.
	MaxReplyLine = 2048
	// MaxReplyLines is the highest number of lines of one reply.
	MaxReplyLines = 128
	// MaxLocalPart is the longest local part in octets. RFC 5321 §4.5.3.1.1
	// says 64; addresses made by VERP and SRS are longer.
	MaxLocalPart = 256
	// MaxDomain is the longest domain in octets (RFC 5321 §4.5.3.1.2).
	MaxDomain = 255
	maxLabel  = 63 // RFC 1035 §2.3.4
	// MaxEnvID is the longest ENVID before encoding (RFC 3461 §4.4).
	MaxEnvID = 100
	// MaxORcpt is the longest ORCPT value as sent (RFC 3461 §4.2).
	MaxORcpt = 500

	// writtenReplyLine is the longest reply line written, with its CR LF
	// (RFC 5321 §4.5.3.1.5).
	writtenReplyLine = 512
)
