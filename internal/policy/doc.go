// Package policy answers one question: what does a destination demand of a
// connection now, and why. The demand comes from DANE (RFC 7672), from MTA-STS
// (RFC 8461) or from an operator's override.
//
// Things happen in this order. [Engine.STS] finds the MTA-STS policy of a
// domain: from memory, else from the database, else by DNS and HTTPS; what is
// cached is answered at once and checked behind. [Engine.Destination] adds the
// MX hosts, [Engine.Host] the addresses and the DANE state of one of them and
// what it must show. [Engine.Postfix] puts the same into the one answer that
// Postfix takes for a whole domain. [Engine.Run] refreshes what is cached ahead
// of its expiry.
//
// What is decided is decided in the decide_ files, one function for each of
// the design's decision tables, and nowhere else: an error on the way to a
// policy is a row of a table. Every answer carries its reasoning as
// [verify.Step] values and the name of the cell that decided.
package policy
