// Package server is the receiving end of SMTP (RFC 5321): the protocol and
// nothing else. What is to become of a message, a [Session] of the caller
// decides.
//
// A connection goes through PROXY header, implicit TLS, greeting and commands,
// STARTTLS (RFC 3207) beginning it anew. It is strict where attackers are: only
// CR LF ends a line, only CR LF dot CR LF a message, nothing that came before a
// TLS handshake survives it, commands that run ahead of a reply which they must
// wait for end the connection, and every size, count and time has a limit.
//
// Offered are PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING,
// ENHANCEDSTATUSCODES and DSN, in clear STARTTLS, and under TLS REQUIRETLS and
// AUTH with PLAIN and LOGIN.
package server
