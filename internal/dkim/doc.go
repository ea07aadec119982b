// Package dkim signs mail (RFC 6376) with the keys of the operator's own
// domains: rsa-sha256 with 2048 bits or more (RFC 8301) and ed25519-sha256
// (RFC 8463). A domain may have several keys, and a message gets a signature by
// each, so that verifiers that know one algorithm only are served, and keys are
// changed without a gap.
//
// A key is a file in the data folder, dkim/DOMAIN/SELECTOR.pem, and not a row of
// the database: private keys stay out of dumps and backups of the database and
// out of sight of those who run it, `pawl dkim key new` needs no running
// server, and whatever distributes secrets to several nodes can place the file.
// A key signs once the configuration names it, which is after its DNS record has
// been published.
//
// A message is signed as it is taken in, once, while it streams past: [Signer.Begin]
// gives a writer that hashes and keeps nothing but the header section. So a retry
// sends the signature that the first attempt sent, a key that is withdrawn
// meanwhile does not leave mail in the queue unsigned, and a message of 50 MiB
// costs no memory.
package dkim
