// Package resolve asks the DNS. It is a stub resolver: it asks recursive
// resolvers, the upstreams, by UDP, and by TCP where an answer does not fit, and
// says of each answer whether DNSSEC proved it.
//
// A lookup goes through these in order: the name is brought into its one form
// ([Name]); the cache answers if it can; callers who ask the same share one
// question; the upstreams are tried in turn; the answer is walked from alias to
// alias, with more questions where the chain goes on; and what came out is
// cached by its TTL.
//
// Three things can come out. An [Answer] has records. A [*NotFound] is the
// knowledge that there are none. A [*Failure] is the lack of knowledge, and must
// never be taken for the other (RFC 7672 §2.1.2): whoever can drop a packet can
// cause one.
//
// The upstream's word that an answer is authentic, the AD bit, counts only if
// the upstream is trusted: see [Resolver.CheckValidation].
package resolve
