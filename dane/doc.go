// Package dane authenticates SMTP servers by the TLSA records of their domains:
// DANE, as RFC 6698, RFC 7671 and RFC 7672 have it for mail between servers.
//
// It does so in three steps:
//
//  1. [Find] asks a [Resolver] for a host's addresses, and then for its TLSA
//     records where RFC 7672 §2.2 says they are, and returns a [Set]. Its [State]
//     says what is due: TLS with authentication, TLS without it, opportunistic
//     TLS, or no connection at all.
//  2. [Set.Reference] gives the names that the server's certificate may carry,
//     and the first of them is the name to send as SNI.
//  3. [Verify] holds the certificates that the server showed against the records.
//     An [*Error] tells why they do not match, in the words of RFC 8460.
//
// The package opens no connection and has no DNS of its own. All of DANE rests
// on [Resolver] telling authentic answers from others: it must take them from a
// validating resolver that is trusted, over a path that nobody else can write to
// (RFC 7672 §2.1.1).
//
// Certificate usages DANE-TA(2) and DANE-EE(3) are supported, with both selectors
// and the three matching types. PKIX-TA(0) and PKIX-EE(1) are unusable for SMTP
// (RFC 7672 §3.1.3). Raw public keys in TLS (RFC 7250) are not supported, as
// crypto/tls has none.
//
// Records and certificates come from strangers. What they may make this package
// do is bounded by [MaxRecords], [MaxDataSize] and [MaxChainLength].
package dane
