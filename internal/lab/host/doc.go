// Package host puts the lab on a real domain: receivers that are as they should
// be, receivers that are broken in one way each, and an answer by mail that says
// what became of it. So any sender on the Internet can be tested by mailing it,
// also one that is hosted elsewhere.
//
// Things go in this order:
//
//  1. The domain's owner publishes the records of [Site.ZoneText], and runs the host.
//  2. Somebody mails start@DOMAIN. The mail is taken only if SPF (RFC 7208) or a
//     DKIM signature (RFC 6376) proves its return path, and then answered, with
//     an address at each test, made for this run.
//  3. Their reply goes to all of these. What arrives is seen, and so is who came
//     to a broken receiver and left.
//  4. After [Options.Wait] the verdict goes to the return path; again, if more
//     arrives later.
//
// Each test is a domain below DOMAIN with a policy, MX hosts and a fault of its
// own ([Tests]). Most faults hang on the name by which a client asks for a
// certificate (SNI), so that one address serves them all; a host without STARTTLS
// needs a second one.
//
// A run is a file in the data folder, written before its mail is answered for
// (250). Of a message only the header is looked at, and nothing of it is kept.
package host
