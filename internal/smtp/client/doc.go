// Package client is the sending end of SMTP (RFC 5321), for mail between servers:
// strict, with a limit on all that the other end can say and on how long it may
// take to say it, and with an error type for each thing that a sender under a
// policy has to tell apart.
//
// The caller dials. Then things go in this order:
//
//  1. [New] takes the connection, [Client.Hello] reads the greeting and sends EHLO.
//  2. [Client.StartTLS] runs the handshake, if the [Client.Extensions] offer it. The
//     caller judges what [Client.TLSState] shows before anything else is sent
//     (RFC 3207 §4.1), and says Hello again: all that was learned before the
//     handshake is forgotten (§4.2).
//  3. [Client.Send] sends a message, any number of times.
//  4. [Client.Quit], or [Client.Close] where politeness is wasted.
//
// An error is one of
//   - [*ReplyError]: the server refused what the session needs, or is about to
//     close it (421, [ErrClosing]);
//   - [*StartTLSRefused], [*HandshakeError], [*InjectionError]: there is no TLS;
//   - [*ConnError]: the connection failed, or time ran out;
//   - [*ProtocolError]: what the server said is not SMTP;
//   - [*MissingError], [*TooLargeError]: the server cannot take this message, and
//     was not asked to;
//   - [*BodyError], [ErrEnvelope]: the message cannot be sent to anybody as it is.
//
// After an error that ends the session the connection is closed, and every
// method returns that error, as [Client.Err] does.
package client
